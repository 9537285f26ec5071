"""NVIDIA's GPUs by way of the CUDA driver and cuda-bindings.

The driver works in the primary context of a device, which is the one of the CUDA runtime, so that
its memory is also PyTorch's and CuPy's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import numpy as np

from tilewright.errors import CompilerBug, DeviceError, OutOfMemory, Unsupported
from tilewright.ptxsim import tensormap
from tilewright.runtime.gpu import cuda_calls
from tilewright.runtime.gpu.cuda_calls import Calls, Refused, bindings
from tilewright.runtime.gpu.cuda_devices import cuda_device
from tilewright.runtime.gpu.cuda_graphs import Draft, Graph, Launch
from tilewright.runtime.gpu.cuda_objects import Function, Module, Owned, Turn
from tilewright.runtime.gpu.driver import (
    Argument,
    Bookkeeping,
    Grid,
    Named,
    out_of_memory,
    three,
)
from tilewright.runtime.gpu.launching import Arguments, Launched

LOG_BYTES = 8192
"""Room for what the assembler in the driver says of a PTX text that it does not accept."""

KEEP_ALL = (1 << 64) - 1
"""How many bytes of freed memory a pool may keep for the next allocation."""


class CudaDriver(Bookkeeping):
    """A GPU. Its own stream takes turns with CUDA's default stream.

    ordinal  its number, of those that CUDA sees
    cu       cuda-bindings' module of the driver API, initialised

    Raises ``DeviceError`` if there is no such device.
    """

    def __init__(self, ordinal: int, cu: Any) -> None:
        from tilewright.codegen.gpu.architectures import ptx_of_driver

        super().__init__()
        self.cu, self.name, self.exact = cu, f"cuda:{ordinal}", False
        self.call = Calls(cu, self.name)
        self.garbage: list[tuple[str, Any]] = []
        self._drawn: Draft | None = None
        found = cuda_device(self.call, ordinal)
        self.version, self.ptx = found.version, ptx_of_driver(found.version)
        self.capability, self.properties = found.capability, found.properties
        self.context = self.call("cuDevicePrimaryCtxRetain", found.handle)
        self.lock: AbstractContextManager[object] = Turn(self)
        with self.lock:
            flags = cu.CUstream_flags
            self.stream = int(self.call("cuStreamCreate", int(flags.CU_STREAM_DEFAULT)))
            self.pool = self._pool(ordinal) if found.pools else None

    def _pool(self, ordinal: int) -> Any:
        """A pool of memory of our own, which keeps what is freed."""
        cu, wanted = self.cu, self.cu.CUmemPoolProps()
        place = cu.CUmemLocation()
        place.type, place.id = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE, ordinal
        wanted.allocType = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        wanted.location = place
        pool = self.call("cuMemPoolCreate", wanted)
        self.call(
            "cuMemPoolSetAttribute", pool,
            cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, cu.cuuint64_t(KEEP_ALL))
        return pool

    # --- memory --------------------------------------------------------------------------
    def _sweep(self) -> None:
        """Destroy and free what nothing refers to any more."""
        if self._capturing or self.call.lost is not None:
            return
        if any(destroy == "cuModuleUnload" for destroy, _ in self.garbage):
            self.call("cuCtxSynchronize")
            self.call.launches.recent.clear()
        while self.garbage:
            self.call(*self.garbage.pop())
        while self._discarded:
            self.free(self._discarded.popleft())

    def allocate(self, nbytes: int) -> int:
        self._only_now("allocate memory")
        self._sweep()
        try:
            return self._allocate(nbytes)
        except OutOfMemory:
            self.synchronise()  # what is freed may be in use until now
            if self.pool is not None:
                self.call("cuMemPoolTrimTo", self.pool, 0)
        try:
            return self._allocate(nbytes)
        except OutOfMemory as error:
            free, total = self.call("cuMemGetInfo")
            raise out_of_memory(self.name, nbytes, free, total) from error.__cause__

    def _allocate(self, nbytes: int) -> int:
        size = max(nbytes, 1)
        if self.pool is None:
            return int(self.call("cuMemAlloc", size))
        return int(self.call("cuMemAllocFromPoolAsync", size, self.pool, self.stream))

    def free(self, address: int) -> None:
        self._only_now("free memory")
        if self.call.lost is not None:
            return
        if self.pool is None:
            self.synchronise()
            self.call("cuMemFree", address)
        else:
            self.call("cuMemFreeAsync", address, self.stream)

    def write(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        self._only_now("read arrays of the host")
        if array.nbytes:
            to = self.stream if stream is None else stream
            self.call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, to)
            self.synchronise(to)  # the array may change afterwards

    def read(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        self._only_now("write to arrays of the host")
        to = self.stream if stream is None else stream
        if array.nbytes:
            self.call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, to)
        self.synchronise(to)

    def copy(self, address: int, source: int, nbytes: int, stream: int | None = None) -> None:
        if nbytes and self._into_graph(stream):
            self._draft().copy(address, source, nbytes)
        elif nbytes:
            to = self.stream if stream is None else stream
            self.call("cuMemcpyDtoDAsync", address, source, nbytes, to)

    def fill(self, address: int, byte: int, nbytes: int, stream: int | None = None) -> None:
        if nbytes and self._into_graph(stream):
            self._draft().fill(address, byte, nbytes)
        elif nbytes:
            to = self.stream if stream is None else stream
            self.call("cuMemsetD8Async", address, byte, nbytes, to)

    # --- streams and events --------------------------------------------------------------
    def new_stream(self) -> int:
        flags = self.cu.CUstream_flags.CU_STREAM_NON_BLOCKING
        return int(self.call("cuStreamCreate", flags))

    def end_stream(self, stream: int) -> None:
        self.call("cuStreamDestroy", stream)

    def synchronise(self, stream: int | None = None) -> None:
        self._only_now("wait")
        which = self.stream if stream is None else stream
        self.call("cuStreamSynchronize", which)
        self.call.launches.take(which)

    def record(self, stream: int | None = None) -> Owned:
        self._only_now("record events")
        self._sweep()
        event = Owned(self, self.call("cuEventCreate", 0), "cuEventDestroy")
        self.call("cuEventRecord", event.handle, self.stream if stream is None else stream)
        return event

    def wait(self, event: Owned, stream: int | None = None) -> None:
        self._only_now("wait")
        to = self.stream if stream is None else stream
        self.call("cuStreamWaitEvent", to, event.handle, 0)

    def reached(self, event: Owned) -> bool:
        try:
            self.call.plain("cuEventQuery", event.handle)
        except Refused as refused:
            if refused.code == cuda_calls.NOT_READY:
                return False
            self.call.fail(refused)
        return True

    def elapsed(self, start: Owned, end: Owned) -> float:
        return float(self.call("cuEventElapsedTime", start.handle, end.handle))

    # --- kernels -------------------------------------------------------------------------
    def load(self, ptx: str) -> Module:
        cu, log = self.cu, bytearray(LOG_BYTES)
        options = [
            cu.CUjit_option.CU_JIT_ERROR_LOG_BUFFER,
            cu.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
        try:
            handle = self.call.plain(
                "cuModuleLoadDataEx", ptx.encode() + b"\0", len(options), options,
                [log, LOG_BYTES])
        except Refused as refused:
            said = log.split(b"\0")[0].decode(errors="replace").strip()
            if refused.code in cuda_calls.PTX_TOO_NEW:
                self._too_old(ptx, refused.text)
            if refused.code in cuda_calls.PTX_WRONG:
                raise CompilerBug(
                    f"{self.name} does not accept the PTX: {refused.text}\n{said}") from refused
            self.call.fail(refused)
        return Module(self, handle)

    def _too_old(self, ptx: str, text: str) -> NoReturn:
        from tilewright.codegen.gpu.architectures import cuda_text, version_text

        words = ptx.split()
        version = words[words.index(".version") + 1] if ".version" in words else "?"
        target = words[words.index(".target") + 1] if ".target" in words else "?"
        raise DeviceError(
            f"the driver of {self.name} is too old for the code: {text}",
            expected=f"one that reads PTX {version} for {target}",
            got=f"CUDA {cuda_text(self.version)}, which reads PTX {version_text(self.ptx)}",
            hint="install a newer NVIDIA driver")

    def launch(
        self, module: Module, kernel: str, blocks: Grid, threads: Grid,
        arguments: tuple[Argument, ...], shared: int = 0, stream: int | None = None,
        what: Named | None = None,
    ) -> None:
        function = module.functions.get(kernel) or self._function(module, kernel)
        if shared > function.shared:
            self._allow(function, shared)
        grid, block, to = three(blocks), three(threads), self.stream if stream is None else stream
        if self._into_graph(stream):
            launch = Launch(function, grid, block, shared, Launched(to, kernel, what))
            self._draft().launch(launch, arguments)
            return
        if function.arguments is None:
            function.arguments = Arguments(arguments)
        function.arguments.fill(arguments)
        self.call.launches.add(to, kernel, what)
        self.call(
            "cuLaunchKernel", function.handle, *grid, *block, shared, to,
            function.arguments.addresses, 0)

    def _function(self, module: Module, kernel: str) -> Function:
        try:
            handle = self.call.plain("cuModuleGetFunction", module.handle, kernel.encode())
        except Refused as refused:
            if refused.code == cuda_calls.NOT_FOUND:
                raise CompilerBug(f"there is no kernel {kernel} in its module") from refused
            self.call.fail(refused)
        module.functions[kernel] = Function(handle, self.properties.shared)
        return module.functions[kernel]

    def _allow(self, function: Function, shared: int) -> None:
        """Let a kernel use more shared memory than every block may."""
        attribute = self.cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self.call("cuFuncSetAttribute", function.handle, attribute, shared)
        function.shared = shared

    def tensor_map(self, tensor: tensormap.TensorMap) -> bytes:
        if self.capability < (9, 0):
            raise Unsupported(
                f"{self.name} has no tensor copies", expected="compute capability 9.0 or newer",
                got=".".join(map(str, self.capability)))
        tensormap.check(tensor)
        cu, wide, narrow = self.cu, self.cu.cuuint64_t, self.cu.cuuint32_t
        record = self.call(
            "cuTensorMapEncodeTiled", cu.CUtensorMapDataType(int(tensor.data_type)), tensor.rank,
            tensor.address, [wide(d) for d in tensor.dims], [wide(s) for s in tensor.strides],
            [narrow(b) for b in tensor.box], [narrow(s) for s in tensor.element_strides],
            cu.CUtensorMapInterleave(int(tensor.interleave)),
            cu.CUtensorMapSwizzle(int(tensor.swizzle)),
            cu.CUtensorMapL2promotion(int(tensor.l2_promotion)),
            cu.CUtensorMapFloatOOBfill(int(tensor.fill)))
        return b"".join(int(word).to_bytes(8, "little") for word in record.opaque)

    def capture(self, work: Callable[[], None]) -> Graph:
        self._only_now("capture another")
        self._drawn, self._capturing = Draft(self), True
        try:
            work()
            return self._drawn.finished()
        finally:
            self._drawn, self._capturing = None, False

    def _draft(self) -> Draft:
        assert self._drawn is not None, "a graph is being captured"
        return self._drawn

    def replay(self, graph: Graph, stream: int | None = None) -> None:
        self._only_now("replay another")
        to = self.stream if stream is None else stream
        self.call.launches.again(to, [launch.noted for launch in graph.launches])
        self.call("cuGraphLaunch", graph.handle, to)

    def update(self, graph: Graph, launch: int, arguments: tuple[Argument, ...]) -> None:
        self._only_now("change another")
        graph.update(launch, arguments)


@functools.cache
def cuda_driver(ordinal: int) -> CudaDriver:
    """The driver of a device. Raises ``DeviceError`` if it cannot be used."""
    return CudaDriver(ordinal, bindings())
