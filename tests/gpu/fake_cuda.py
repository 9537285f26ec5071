"""A CUDA driver without hardware: as much of ``cuda.bindings.driver`` as is used, on the simulator.

It is as strict as CUDA, and its codes are CUDA's: calls need a context, handles are checked, a
kernel's arguments are read from memory by their addresses, work waits in streams until someone
waits for it, an error of a kernel stays, and a PTX text that is too new is refused.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda_graphs import Graphs
from fake_cuda_kernels import Kernels
from fake_cuda_types import (
    WORDS,
    Chip,
    CUcontext,
    CUdevice_attribute,
    CUdeviceptr,
    CUevent,
    CUjit_option,
    CUmemoryPool,
    CUresult,
    CUstream,
    Handle,
    Refusal,
    cuuint32_t,
    cuuint64_t,
    guarded,
)

from tilewright.errors import CompilerBug, OutOfMemory
from tilewright.ptxsim import tensormap
from tilewright.ptxsim.faults import Fault
from tilewright.runtime.gpu.sim import Event, SimDriver


class FakeCuda(Kernels, Graphs):
    """What ``from cuda.bindings import driver`` gives.

    chips    compute capabilities of the devices
    version  of the driver
    memory   bytes of each device
    init     what cuInit says
    """

    nothing = dict.fromkeys((
        "cuModuleLoadDataEx", "cuModuleGetFunction", "cuMemAlloc", "cuMemAllocFromPoolAsync",
        "cuGraphCreate", "cuGraphAddKernelNode", "cuGraphAddMemcpyNode", "cuGraphAddMemsetNode",
        "cuGraphInstantiate", "cuTensorMapEncodeTiled", "cuStreamCreate",
        "cuDevicePrimaryCtxRetain"), Handle(0))

    def __init__(
        self, *chips: tuple[int, int], version: int = 13010, memory: int = 32 << 20,
        pools: int = 1, init: CUresult = CUresult.CUDA_SUCCESS,
    ) -> None:
        self.chips = [Chip(c, SimDriver(memory=memory), pools=pools) for c in chips or [(9, 0)]]
        self.version, self.init = version, init
        self.objects: dict[int, Any] = {}
        self.threads = threading.local()
        self.serial = 0
        self.allowed: dict[int, int] = {}
        self.calls: list[str] = []
        for kind in (CUresult, CUdevice_attribute, CUjit_option, CUstream, CUdeviceptr,
                     cuuint64_t, cuuint32_t):
            setattr(self, kind.__name__, kind)
        flags = {"CU_STREAM_DEFAULT": 0, "CU_STREAM_NON_BLOCKING": 1}
        self.CUstream_flags = IntEnum("CUstream_flags", flags)
        self.CUmemPoolProps = self.CUmemLocation = SimpleNamespace
        self.CUmemLocationType = SimpleNamespace(CU_MEM_LOCATION_TYPE_DEVICE=1)
        self.CUmemAllocationType = SimpleNamespace(CU_MEM_ALLOCATION_TYPE_PINNED=1)
        self.CUmemPool_attribute = SimpleNamespace(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD=4)
        self.CUfunction_attribute = SimpleNamespace(
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
        self.CUDA_KERNEL_NODE_PARAMS = SimpleNamespace
        self.CUDA_MEMCPY3D = self.CUDA_MEMSET_NODE_PARAMS = SimpleNamespace
        self.CUmemorytype = SimpleNamespace(CU_MEMORYTYPE_DEVICE=2)
        self.CUtensorMapDataType = tensormap.DataType
        self.CUtensorMapInterleave = tensormap.Interleave
        self.CUtensorMapSwizzle = tensormap.Swizzle
        self.CUtensorMapL2promotion = tensormap.L2Promotion
        self.CUtensorMapFloatOOBfill = tensormap.OutOfBoundsFill

    # --- what the calls have in common ---------------------------------------------------
    def new(self, kind: type[Handle], what: Any) -> Any:
        self.serial += 16
        self.objects[0x7F0000000000 + self.serial] = what
        return kind(0x7F0000000000 + self.serial)

    def known(self, handle: Any, kind: type) -> Any:
        found = self.objects.get(int(handle))
        if not isinstance(found, kind):
            raise Refusal(CUresult.CUDA_ERROR_INVALID_HANDLE)
        return found

    def must(self, result: tuple[Any, ...]) -> None:
        if result[0]:
            raise Refusal(result[0])

    @property
    def stack(self) -> list[Chip]:
        if not hasattr(self.threads, "stack"):
            self.threads.stack = []
        return self.threads.stack

    def chip(self) -> Chip:
        """The device of the context that the thread has, if it still works."""
        if not self.stack:
            raise Refusal(CUresult.CUDA_ERROR_INVALID_CONTEXT)
        chip = self.stack[-1]
        if chip.sticky:
            raise Refusal(CUresult(chip.sticky))
        return chip

    def stream(self, handle: Any) -> tuple[Chip, int]:
        chip = self.chip()
        if int(handle) not in chip.streams:
            raise Refusal(CUresult.CUDA_ERROR_INVALID_HANDLE)
        return chip, int(handle)

    def finish(self, chip: Chip, work: Callable[[], Any]) -> Any:
        """Do what waits in streams; what goes wrong stays the device's state."""
        try:
            return work()
        except (CompilerBug, Fault) as error:
            text = str(error)
            chip.sticky = 716 if "is not aligned" in text else 700 if "outside" in text else 719
            raise Refusal(CUresult(chip.sticky)) from error

    # --- devices and contexts ------------------------------------------------------------
    def cuGetErrorString(self, code: Any) -> tuple[Any, ...]:
        return CUresult.CUDA_SUCCESS, WORDS[int(code)].encode()

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        return (self.init,)

    @guarded
    def cuDriverGetVersion(self) -> int:
        return self.version

    @guarded
    def cuDeviceGetCount(self) -> int:
        return len(self.chips)

    @guarded
    def cuDeviceGet(self, ordinal: int) -> Any:
        return self.new(Handle, self.chips[ordinal])

    @guarded
    def cuDeviceGetName(self, length: int, device: Any) -> bytes:
        return self.known(device, Chip).title.ljust(length, b"\0")

    @guarded
    def cuDeviceTotalMem(self, device: Any) -> int:
        return self.known(device, Chip).sim.properties.memory

    @guarded
    def cuDeviceGetAttribute(self, which: CUdevice_attribute, device: Any) -> int:
        chip = self.known(device, Chip)
        return {
            8: 48 << 10, 16: 132, 38: 50 << 20, 75: chip.capability[0], 76: chip.capability[1],
            97: 227 << 10, 115: chip.pools,
        }[which]

    @guarded
    def cuDevicePrimaryCtxRetain(self, device: Any) -> Any:
        return self.new(CUcontext, self.known(device, Chip))

    @guarded
    def cuCtxPushCurrent(self, context: Any) -> None:
        self.stack.append(self.known(context, Chip))

    @guarded
    def cuCtxPopCurrent(self) -> Any:
        self.stack.pop()
        return CUcontext(0)

    @guarded
    def cuCtxSynchronize(self) -> None:
        chip = self.chip()
        for number in chip.streams.values():
            self.finish(chip, lambda number=number: chip.sim.synchronise(number))

    # --- memory --------------------------------------------------------------------------
    def place(self, chip: Chip, size: int) -> CUdeviceptr:
        try:
            return CUdeviceptr(chip.sim.allocate(size))
        except OutOfMemory:
            raise Refusal(CUresult.CUDA_ERROR_OUT_OF_MEMORY) from None

    @guarded
    def cuMemGetInfo(self) -> tuple[int, int]:
        sim = self.chip().sim
        return sim.properties.memory - sim._used, sim.properties.memory

    @guarded
    def cuMemAlloc(self, size: int) -> Any:
        if not size:
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        return self.place(self.chip(), size)

    @guarded
    def cuMemFree(self, address: Any) -> None:
        self.must(self.cuCtxSynchronize())
        self.chip().sim._free(int(address))

    @guarded
    def cuMemPoolCreate(self, wanted: Any) -> Any:
        chip = self.chip()
        assert (wanted.allocType, wanted.location.type) == (1, 1)
        assert self.chips[wanted.location.id] is chip
        return self.new(CUmemoryPool, chip)

    @guarded
    def cuMemPoolSetAttribute(self, pool: Any, which: int, value: cuuint64_t) -> None:
        assert which == 4 and isinstance(value, cuuint64_t)

    @guarded
    def cuMemPoolTrimTo(self, pool: Any, least: int) -> None:
        self.known(pool, Chip)

    @guarded
    def cuMemAllocFromPoolAsync(self, size: int, pool: Any, stream: Any) -> Any:
        self.stream(stream)
        return self.place(self.known(pool, Chip), size)

    @guarded
    def cuMemFreeAsync(self, address: Any, stream: Any) -> None:
        chip, handle = self.stream(stream)
        chip.ask(handle, lambda: chip.sim._free(int(address)), always=True)

    @guarded
    def cuMemcpyHtoDAsync(self, to: Any, source: int, size: int, stream: Any) -> None:
        """Memory of the host is read when the stream comes to it."""
        chip, handle = self.stream(stream)
        memory = chip.sim.simulator.memory

        def copy() -> None:
            memory.put(int(to), np.frombuffer(ctypes.string_at(source, size), np.uint8))

        chip.ask(handle, copy)

    @guarded
    def cuMemcpyHtoD(self, to: Any, source: int, size: int) -> None:
        self.must(self.cuMemcpyHtoDAsync(to, source, size, 0))
        self.must(self.cuStreamSynchronize(0))

    @guarded
    def cuMemcpyDtoH(self, to: int, source: Any, size: int) -> None:
        self.must(self.cuMemcpyDtoHAsync(to, source, size, 0))
        self.must(self.cuStreamSynchronize(0))

    @guarded
    def cuMemcpyDtoHAsync(self, to: int, source: Any, size: int, stream: Any) -> None:
        chip, handle = self.stream(stream)
        memory = chip.sim.simulator.memory
        chip.ask(handle, lambda: ctypes.memmove(to, memory.get(int(source), size).tobytes(), size))

    @guarded
    def cuMemcpyDtoDAsync(self, to: Any, source: Any, size: int, stream: Any) -> None:
        chip, handle = self.stream(stream)
        memory = chip.sim.simulator.memory
        chip.ask(handle, lambda: memory.put(int(to), memory.get(int(source), size)))

    @guarded
    def cuMemsetD8Async(self, to: Any, byte: int, count: int, stream: Any) -> None:
        chip, handle = self.stream(stream)
        memory = chip.sim.simulator.memory
        chip.ask(handle, lambda: memory.put(int(to), np.full(count, byte, np.uint8)))

    # --- streams and events ---------------------------------------------------------
    @guarded
    def cuStreamCreate(self, flags: int) -> Any:
        chip = self.chip()
        handle = self.new(CUstream, chip)
        chip.streams[int(handle)] = chip.sim.new_stream()
        if not flags:
            chip.blocking.add(int(handle))
        return handle

    @guarded
    def cuStreamDestroy(self, stream: Any) -> None:
        chip, handle = self.stream(stream)
        chip.blocking.discard(handle)
        self.finish(chip, lambda: chip.sim.end_stream(chip.streams.pop(handle)))

    @guarded
    def cuStreamSynchronize(self, stream: Any) -> None:
        chip, handle = self.stream(stream)
        self.finish(chip, lambda: chip.sim.synchronise(chip.number(handle)))

    @guarded
    def cuEventCreate(self, flags: int) -> Any:
        self.chip()
        return self.new(CUevent, [None])

    @guarded
    def cuEventDestroy(self, event: Any) -> None:
        self.known(event, list)
        del self.objects[int(event)]

    @guarded
    def cuEventRecord(self, event: Any, stream: Any) -> None:
        chip, handle = self.stream(stream)
        self.known(event, list)[0] = chip.sim.record(chip.number(handle))

    @guarded
    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        chip, handle = self.stream(stream)
        chip.sim.wait(self.known(event, list)[0], chip.number(handle))

    @guarded
    def cuEventQuery(self, event: Any) -> None:
        """The first question comes too early."""
        chip, found = self.chip(), self.known(event, list)[0]
        if found.seconds is None:
            self.finish(chip, lambda: chip.sim.reached(found))
            raise Refusal(CUresult.CUDA_ERROR_NOT_READY)

    @guarded
    def cuEventSynchronize(self, event: Any) -> None:
        chip, found = self.chip(), self.known(event, list)[0]
        self.finish(chip, lambda: chip.sim.reached(found))

    @guarded
    def cuEventElapsedTime(self, start: Any, end: Any) -> float:
        first, last = (self.known(e, list)[0] for e in (start, end))
        if not isinstance(first, Event) or first.seconds is None or last.seconds is None:
            raise Refusal(CUresult.CUDA_ERROR_NOT_READY)
        return (last.seconds - first.seconds) * 1e3
