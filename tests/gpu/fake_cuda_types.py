"""Numbers and handles of the CUDA driver API, as cuda-bindings has them, with CUDA's values; and
what a pretended device is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from tilewright.runtime.gpu.sim import SimDriver, Work


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209
    CUDA_ERROR_INVALID_PTX = 218
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_TIMEOUT = 702
    CUDA_ERROR_MISALIGNED_ADDRESS = 716
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


WORDS = {
    1: "invalid argument", 2: "out of memory", 3: "initialization error",
    100: "no CUDA-capable device is detected", 101: "invalid device ordinal",
    201: "invalid device context",
    209: "no kernel image is available for execution on the device",
    218: "a PTX JIT compilation failed",
    222: "the provided PTX was compiled with an unsupported toolchain.",
    400: "invalid resource handle", 500: "named symbol not found", 600: "device not ready",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated", 716: "misaligned address",
    719: "unspecified launch failure",
    803: "system has unsupported display driver / cuda driver combination",
    900: "operation not permitted when stream is capturing",
}
"""What cuGetErrorString says of the codes."""


class CUdevice_attribute(IntEnum):
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK = 8
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16
    CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
    CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED = 115


class CUjit_option(IntEnum):
    CU_JIT_ERROR_LOG_BUFFER = 5
    CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6


class Handle:
    """A number with a type, as the package has them."""

    def __init__(self, value: Any = 0) -> None:
        self.value = int(value)

    def __int__(self) -> int:
        return self.value


class CUstream(Handle): ...
class CUdeviceptr(Handle): ...
class CUcontext(Handle): ...
class CUmemoryPool(Handle): ...
class CUmodule(Handle): ...
class CUfunction(Handle): ...
class CUevent(Handle): ...
class CUgraph(Handle): ...
class CUgraphExec(Handle): ...
class CUgraphNode(Handle): ...
class cuuint64_t(Handle): ...
class cuuint32_t(Handle): ...


@dataclass
class Chip:
    """A device: its numbers, its memory and what is in its streams.

    The default stream, 0, and the blocking streams take turns.
    """

    capability: tuple[int, int]
    sim: SimDriver
    title: bytes = b"Pretended GPU"
    pools: int = 1
    sticky: int = 0
    streams: dict[int, int] = field(default_factory=dict)
    blocking: set[int] = field(default_factory=set)

    def number(self, stream: Any) -> int:
        return self.streams[int(stream)]

    def __post_init__(self) -> None:
        self.streams[0] = self.sim.stream

    def order(self, handle: int) -> list[int]:
        """The streams whose work comes before new work of a stream."""
        if handle == 0:
            return sorted(self.blocking)
        return [0] if handle in self.blocking else []

    def ask(self, stream: Any, do: Callable[[], None], always: bool = False) -> None:
        work = Work(do, always)
        for earlier in self.order(int(stream)):
            self.sim.wait(self.sim.record(self.number(earlier)), self.number(stream))
        self.sim._queue(self.number(stream)).append(work)


class Refusal(Exception):
    def __init__(self, code: CUresult) -> None:
        self.code = code


def guarded(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """A function whose result is a tuple that begins with a code, as all of the package's."""

    def call(self: Any, *arguments: Any) -> tuple[Any, ...]:
        code = CUresult.CUDA_SUCCESS
        try:
            result = function(self, *arguments)
        except Refusal as refusal:
            code, result = refusal.code, self.nothing.get(function.__name__)
        if result is None:
            return (code,)
        return (code, *result) if isinstance(result, tuple) else (code, result)

    return call
