"""PyCUDA without hardware: as much of ``pycuda.driver`` and ``pycuda.gpuarray`` as is used, on the
pretended CUDA; what functions are called and take is that of PyCUDA 2026.1.
"""

from __future__ import annotations

import builtins
import struct
import sys
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_cuda_types import CUdevice_attribute


class Error(Exception): ...
class MemoryError(Error, builtins.MemoryError): ...
class LogicError(Error): ...
class LaunchError(Error): ...


def called(cuda: FakeCuda, name: str, *arguments: Any) -> Any:
    """The result of a CUDA function; PyCUDA's exceptions know codes only by their text."""
    code, *results = getattr(cuda, name)(*arguments)
    if code:
        kind = MemoryError if code == 2 else LaunchError if code in (702, 719) else LogicError
        raise kind(f"{name} failed: {cuda.cuGetErrorString(code)[1].decode()}")
    return results[0] if len(results) == 1 else tuple(results)


def handle_of(stream: Any) -> int:
    assert stream is None or isinstance(stream, Stream)
    return 0 if stream is None else stream.handle


class Bound:
    """An object of the pretended CUDA that ``cuda`` of its class is."""

    cuda: FakeCuda

    def call(self, name: str, *arguments: Any) -> Any:
        return called(self.cuda, name, *arguments)


class Device(Bound):
    def __init__(self, number: int) -> None:
        self.device = self.call("cuDeviceGet", number)

    def name(self) -> str:
        return self.call("cuDeviceGetName", 99, self.device).split(b"\0")[0].decode()

    def compute_capability(self) -> tuple[int, int]:
        return self.get_attribute(75), self.get_attribute(76)

    def total_memory(self) -> int:
        return self.call("cuDeviceTotalMem", self.device)

    def get_attribute(self, which: int) -> int:
        return self.call("cuDeviceGetAttribute", which, self.device)

    def make_context(self) -> Context:
        context = Context(self.call("cuDevicePrimaryCtxRetain", self.device), self)
        context.push()
        return context


class Context(Bound):
    stack: list[Context] = []

    def __init__(self, context: Any, device: Device) -> None:
        self.context, self.device = context, device
        self.handle = int(context)

    def __eq__(self, other: Any) -> bool:
        return self.handle == other.handle

    def __hash__(self) -> int:
        return self.handle

    def push(self) -> None:
        self.call("cuCtxPushCurrent", self.context)
        self.cuda.threads.__dict__.setdefault("contexts", []).append(self)

    @staticmethod
    def pop() -> None:
        called(Context.cuda, "cuCtxPopCurrent")
        Context.cuda.threads.contexts.pop()

    @staticmethod
    def get_current() -> Context | None:
        stack = getattr(Context.cuda.threads, "contexts", None)
        return stack[-1] if stack else None

    @staticmethod
    def get_device() -> Device:
        return Context.get_current().device

    @staticmethod
    def synchronize() -> None:
        called(Context.cuda, "cuCtxSynchronize")


class Stream(Bound):
    def __init__(self, flags: int = 0) -> None:
        self.handle = int(self.call("cuStreamCreate", flags))

    def synchronize(self) -> None:
        self.call("cuStreamSynchronize", self.handle)

    def wait_for_event(self, event: Event) -> None:
        self.call("cuStreamWaitEvent", self.handle, event.event, 0)


class Event(Bound):
    def __init__(self, flags: int = 0) -> None:
        self.event = self.call("cuEventCreate", flags)

    def record(self, stream: Stream | None = None) -> Event:
        self.call("cuEventRecord", self.event, handle_of(stream))
        return self

    def query(self) -> bool:
        return self.cuda.cuEventQuery(self.event)[0] == 0

    def synchronize(self) -> Event:
        self.call("cuEventSynchronize", self.event)
        return self

    def time_since(self, start: Event) -> float:
        return self.call("cuEventElapsedTime", start.event, self.event)


class DeviceAllocation(Bound):
    def __init__(self, size: int) -> None:
        self.cuda = type(self).cuda  # objects of an earlier test may still be there
        self.address = int(self.call("cuMemAlloc", size))

    def __int__(self) -> int:
        return self.address

    __index__ = __int__

    def free(self) -> None:
        self.call("cuMemFree", self.address)
        self.address = None

    def __del__(self) -> None:
        if getattr(self, "address", None) is not None and self.cuda.stack:
            with suppress(Error):  # PyCUDA prints a warning
                self.free()


class PointerHolderBase:
    def __init__(self) -> None:
        self.initialised = True

    def __int__(self) -> int:
        assert self.initialised
        return self.get_pointer()

    __index__ = __int__


class Function(Bound):
    def __init__(self, function: Any) -> None:
        self.function = function

    def set_attribute(self, which: int, value: int) -> None:
        self.call("cuFuncSetAttribute", self.function, which, value)

    def prepare(self, kinds: str) -> Function:
        self.arg_format = kinds
        return self

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, int, int], stream: Stream | None,
        *arguments: Any, shared_size: int = 0,
    ) -> None:
        x, y, z = block
        packed = struct.pack(self.arg_format, *arguments)
        self.call("cuLaunchKernel", self.function, *(*grid, 1, 1)[:3], x, y, z, shared_size,
                  handle_of(stream), 0, packed)


class Module(Bound):
    def __init__(self, module: Any) -> None:
        self.module = module

    def get_function(self, name: str) -> Function:
        return Function(self.call("cuModuleGetFunction", self.module, name.encode()))


def address_of(pointer: Any) -> int:
    assert isinstance(pointer, int | DeviceAllocation | PointerHolderBase), pointer
    return int(pointer)


def bytes_of(array: Any) -> np.ndarray:
    """The memory behind a contiguous buffer; some element types of NumPy's have none."""
    return np.frombuffer(memoryview(array).cast("B"), np.uint8)


class GPUArray:
    def __init__(
        self, shape: Any, dtype: Any, allocator: Any = None, base: Any = None,
        gpudata: Any = None, strides: Any = None,
    ) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        like = np.lib.stride_tricks.as_strided(np.empty(0, dtype), self.shape, strides) if strides \
            else np.empty(self.shape, dtype)
        self.strides, self.size, self.nbytes = like.strides, like.size, like.nbytes
        self.flags = SimpleNamespace(c_contiguous=like.flags.c_contiguous)
        self.gpudata = gpudata
        if gpudata is None and self.size:
            self.gpudata = DeviceAllocation(self.nbytes)

    def get(self) -> np.ndarray:
        result = np.empty(self.shape, self.dtype)
        if self.size:
            raw = result.reshape(-1).view(np.uint8)
            called(DeviceAllocation.cuda, "cuMemcpyDtoH", raw.ctypes.data,
                   address_of(self.gpudata), raw.nbytes)
        return result


def to_gpu(array: np.ndarray) -> GPUArray:
    result = GPUArray(array.shape, array.dtype)
    if array.size:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        called(DeviceAllocation.cuda, "cuMemcpyHtoD", int(result.gpudata), raw.ctypes.data,
               raw.nbytes)
    return result


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> ModuleType:
    """Let ``import pycuda.driver`` and ``import pycuda.gpuarray`` give these; the former."""
    package, driver, arrays = (
        ModuleType(name) for name in ("pycuda", "pycuda.driver", "pycuda.gpuarray"))
    for kind in (Device, Context, Stream, Event, DeviceAllocation, Function, Module):
        kind.cuda = cuda
        setattr(driver, kind.__name__, kind)
    for kind in (Error, MemoryError, LogicError, LaunchError, PointerHolderBase):
        setattr(driver, kind.__name__, kind)
    driver.device_attribute = SimpleNamespace(
        **{a.name.removeprefix("CU_DEVICE_ATTRIBUTE_"): a for a in CUdevice_attribute})
    driver.function_attribute = SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    driver.get_driver_version = lambda: cuda.version
    driver.mem_alloc = DeviceAllocation
    driver.mem_get_info = lambda: called(cuda, "cuMemGetInfo")
    driver.memcpy_htod = lambda to, array: called(
        cuda, "cuMemcpyHtoD", address_of(to), bytes_of(array).ctypes.data, bytes_of(array).nbytes)
    driver.memcpy_dtoh = lambda array, source: called(
        cuda, "cuMemcpyDtoH", bytes_of(array).ctypes.data, address_of(source),
        bytes_of(array).nbytes)
    driver.memcpy_dtod_async = lambda to, source, size, stream=None: called(
        cuda, "cuMemcpyDtoDAsync", address_of(to), address_of(source), size, handle_of(stream))
    driver.memset_d8_async = lambda to, byte, count, stream=None: called(
        cuda, "cuMemsetD8Async", address_of(to), byte, count, handle_of(stream))

    def module_from_buffer(image: bytes, options: Any = (), message_handler: Any = None) -> Module:
        log = bytearray(999)
        try:
            return Module(called(cuda, "cuModuleLoadDataEx", image, 2, [5, 6], [log, 999]))
        except Error as error:
            said = log.split(b"\0")[0].decode()
            raise type(error)(f"{error} - {said}") from None

    driver.module_from_buffer = module_from_buffer
    arrays.GPUArray, arrays.to_gpu = GPUArray, to_gpu
    package.driver, package.gpuarray = driver, arrays
    for module in (package, driver, arrays):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return driver
