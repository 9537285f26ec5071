"""A library that stands for NVIDIA's driver, so that the real cuda-bindings can be tested without.

It has one function of its own, by which cuda-bindings asks for all others; these are Python's, and
hand their arguments, as they are in C, to a pretended CUDA. Run as a script, it runs the tests that
want hardware with it: ``python fake_libcuda.py FOLDER [arguments of pytest]``.
"""

from __future__ import annotations

import ctypes as c
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SOURCE = """
typedef int (*finder)(const char*, void**, int, unsigned long long, int*);
static finder find;
void use(finder f) { find = f; }
int cuGetProcAddress_v2(const char* name, void** at, int version, unsigned long long flags, int* s)
{ return find(name, at, version, flags, s); }
int cuDriverGetVersion(int* version) { *version = 13010; return 0; }
"""

PTR, INT, UINT, SIZE, BYTE, LONG = (
    c.c_uint64, c.c_int, c.c_uint, c.c_size_t, c.c_ubyte, c.c_ulonglong)

FINDER = c.CFUNCTYPE(INT, c.c_char_p, c.c_uint64, INT, LONG, c.c_uint64)
UNKNOWN = 999

PLAIN: dict[str, tuple[Any, ...]] = {
    "cuInit": (UINT,), "cuCtxPushCurrent": (PTR,), "cuCtxSynchronize": (), "cuMemFree": (PTR,),
    "cuMemPoolTrimTo": (PTR, SIZE), "cuMemFreeAsync": (PTR, PTR),
    "cuMemcpyHtoDAsync": (PTR, PTR, SIZE, PTR), "cuMemcpyDtoHAsync": (PTR, PTR, SIZE, PTR),
    "cuMemcpyDtoDAsync": (PTR, PTR, SIZE, PTR), "cuMemsetD8Async": (PTR, BYTE, SIZE, PTR),
    "cuStreamDestroy": (PTR,), "cuStreamSynchronize": (PTR,), "cuEventDestroy": (PTR,),
    "cuEventRecord": (PTR, PTR), "cuStreamWaitEvent": (PTR, PTR, UINT), "cuEventQuery": (PTR,),
    "cuGraphDestroy": (PTR,), "cuGraphExecDestroy": (PTR,),
    "cuGraphLaunch": (PTR, PTR), "cuModuleUnload": (PTR,), "cuFuncSetAttribute": (PTR, INT, INT),
    "cuLaunchKernel": (PTR, *[UINT] * 7, PTR, PTR, PTR),
}
"""Functions that return a code alone, with the types of their parameters."""

FIRST: dict[str, tuple[Any, ...]] = {
    "cuDeviceGetCount": (INT,), "cuDriverGetVersion": (INT,), "cuDeviceGet": (INT, INT),
    "cuDevicePrimaryCtxRetain": (PTR, INT), "cuDeviceTotalMem": (SIZE, INT),
    "cuDeviceGetAttribute": (INT, INT, INT), "cuCtxPopCurrent": (PTR,), "cuMemAlloc": (PTR, SIZE),
    "cuMemAllocFromPoolAsync": (PTR, SIZE, PTR, PTR), "cuStreamCreate": (PTR, UINT),
    "cuEventCreate": (PTR, UINT), "cuEventElapsedTime": (c.c_float, PTR, PTR),
    "cuGraphInstantiate": (PTR, PTR, LONG), "cuGraphCreate": (PTR, UINT),
    "cuModuleGetFunction": (PTR, PTR, c.c_char_p),
}
"""Functions whose first parameter says where the result goes: its type, then the others'."""


def put(at: int, kind: Any, value: Any) -> None:
    """Write a number to memory."""
    kind.from_address(at).value = value


def numbers(at: int, kind: Any, count: int) -> list[int]:
    """Read numbers from memory."""
    return list((kind * count).from_address(at)) if count else []


def launch_at(at: int) -> SimpleNamespace:
    """CUDA_KERNEL_NODE_PARAMS: a kernel, seven numbers, the addresses of arguments, and more."""
    gx, gy, gz, bx, by, bz, shared = numbers(at + 8, UINT, 7)
    return SimpleNamespace(
        func=numbers(at, PTR, 1)[0], gridDimX=gx, gridDimY=gy, gridDimZ=gz, blockDimX=bx,
        blockDimY=by, blockDimZ=bz, sharedMemBytes=shared, kernelParams=numbers(at + 40, PTR, 1)[0])


class FakeLibrary:
    """The functions of the library, by name."""

    def __init__(self, cuda: Any) -> None:
        self.cuda, self.kept, self.table = cuda, [], {}
        self.devices: dict[int, Any] = {}
        for name, types in PLAIN.items():
            self.add(name, lambda *a, f=getattr(cuda, name): f(*a)[0], *types)
        for name, types in FIRST.items():
            self.add(name, self.first(name, types[0]), PTR, *types[1:])
        for name, types in (
            ("cuGetErrorString", (INT, PTR)), ("cuDeviceGetName", (PTR, INT, INT)),
            ("cuMemGetInfo", (PTR, PTR)), ("cuMemPoolCreate", (PTR, PTR)),
            ("cuMemPoolSetAttribute", (PTR, INT, PTR)),
            ("cuGraphAddKernelNode", (PTR, PTR, PTR, SIZE, PTR)),
            ("cuGraphAddMemcpyNode", (PTR, PTR, PTR, SIZE, PTR, PTR)),
            ("cuGraphAddMemsetNode", (PTR, PTR, PTR, SIZE, PTR, PTR)),
            ("cuGraphExecKernelNodeSetParams", (PTR, PTR, PTR)),
            ("cuModuleLoadDataEx", (PTR, PTR, UINT, PTR, PTR)),
            ("cuTensorMapEncodeTiled", (PTR, INT, UINT, *[PTR] * 5, *[INT] * 4)),
        ):
            self.add(name, getattr(self, name), *types)
        self.table["cuGraphInstantiateWithFlags"] = self.table["cuGraphInstantiate"]

    def add(self, name: str, function: Callable[..., Any], *types: Any) -> None:
        def call(*arguments: Any) -> int:
            try:
                return int(function(*arguments))
            except BaseException:
                traceback.print_exc()
                return UNKNOWN

        self.kept.append(c.CFUNCTYPE(INT, *types)(call))
        self.table[name] = c.cast(self.kept[-1], c.c_void_p).value

    def first(self, name: str, kind: Any) -> Callable[..., Any]:
        """A function whose result goes where its first argument says; devices are numbers in C."""
        of_a_device = name in (
            "cuDevicePrimaryCtxRetain", "cuDeviceTotalMem", "cuDeviceGetAttribute")

        def call(at: int, *arguments: Any) -> Any:
            if of_a_device:
                arguments = (*arguments[:-1], self.devices[arguments[-1]])
            code, *results = getattr(self.cuda, name)(*arguments)
            if name == "cuDeviceGet" and not code:
                self.devices[arguments[0]], results = results[0], list(arguments)
            if not code:
                put(at, kind, results[0] if kind is c.c_float else int(results[0]))
            return code

        return call

    def cuGetErrorString(self, code: int, at: int) -> int:
        self.kept.append(c.create_string_buffer(self.cuda.cuGetErrorString(code)[1]))
        put(at, PTR, c.addressof(self.kept[-1]))
        return 0

    def cuDeviceGetName(self, at: int, length: int, device: int) -> int:
        c.memmove(at, self.cuda.cuDeviceGetName(length, self.devices[device])[1], length)
        return 0

    def cuMemGetInfo(self, free: int, total: int) -> int:
        code, *found = self.cuda.cuMemGetInfo()
        for at, value in zip((free, total), found, strict=True):
            put(at, SIZE, value)
        return code

    def cuMemPoolCreate(self, at: int, wanted: int) -> int:
        kind, _, place, number = numbers(wanted, INT, 4)
        where = SimpleNamespace(type=place, id=number)
        code, pool = self.cuda.cuMemPoolCreate(SimpleNamespace(allocType=kind, location=where))
        put(at, PTR, int(pool))
        return code

    def cuMemPoolSetAttribute(self, pool: int, which: int, at: int) -> int:
        assert numbers(at, PTR, 1) == [(1 << 64) - 1]
        return self.cuda.cuMemPoolSetAttribute(pool, which, self.cuda.cuuint64_t(0))[0]

    def add_node(self, name: str, at: int, graph: int, after: int, count: int, *rest: Any) -> int:
        code, *node = getattr(self.cuda, name)(graph, numbers(after, PTR, count), count, *rest)
        if not code:
            put(at, PTR, int(node[0]))
        return code

    def cuGraphAddKernelNode(
        self, at: int, graph: int, after: int, count: int, wanted: int
    ) -> int:
        return self.add_node("cuGraphAddKernelNode", at, graph, after, count, launch_at(wanted))

    def cuGraphAddMemcpyNode(
        self, at: int, graph: int, after: int, count: int, wanted: int, context: int
    ) -> int:
        """Of 25 words of the structure, with what else is zero."""
        words = numbers(wanted, PTR, 25)
        used = {4: "srcMemoryType", 6: "srcDevice", 15: "dstMemoryType", 17: "dstDevice",
                22: "WidthInBytes", 23: "Height", 24: "Depth"}
        assert not any(word for i, word in enumerate(words) if i not in used)
        facts = SimpleNamespace(**{name: words[i] for i, name in used.items()})
        return self.add_node("cuGraphAddMemcpyNode", at, graph, after, count, facts, context)

    def cuGraphAddMemsetNode(
        self, at: int, graph: int, after: int, count: int, wanted: int, context: int
    ) -> int:
        to, _, _, width, height = numbers(wanted, PTR, 5)
        value, size = numbers(wanted + 16, UINT, 2)
        facts = SimpleNamespace(
            dst=to, value=value, elementSize=size, width=width, height=height)
        return self.add_node("cuGraphAddMemsetNode", at, graph, after, count, facts, context)

    def cuGraphExecKernelNodeSetParams(self, graph: int, node: int, wanted: int) -> int:
        return self.cuda.cuGraphExecKernelNodeSetParams(graph, node, launch_at(wanted))[0]

    def cuModuleLoadDataEx(self, at: int, image: int, count: int, keys: int, values: int) -> int:
        which, (log_at, size) = numbers(keys, INT, count), numbers(values, PTR, count)
        log = bytearray(size)
        code, module = self.cuda.cuModuleLoadDataEx(
            c.string_at(image) + b"\0", count, which, [log, size])
        c.memmove(log_at, bytes(log), size)
        put(at, PTR, int(module))
        return code

    def cuTensorMapEncodeTiled(
        self, at: int, kind: int, rank: int, address: int, dims: int, strides: int, box: int,
        steps: int, interleave: int, swizzle: int, promotion: int, fill: int,
    ) -> int:
        cuda = self.cuda
        code, record = cuda.cuTensorMapEncodeTiled(
            cuda.CUtensorMapDataType(kind), rank, address, numbers(dims, PTR, rank),
            numbers(strides, PTR, rank - 1), numbers(box, UINT, rank), numbers(steps, UINT, rank),
            cuda.CUtensorMapInterleave(interleave), cuda.CUtensorMapSwizzle(swizzle),
            cuda.CUtensorMapL2promotion(promotion), cuda.CUtensorMapFloatOOBfill(fill))
        for i, word in enumerate(record.opaque if not code else ()):
            put(at + 8 * i, PTR, int(word))
        return code

    def find(self, name: bytes, at: int, version: int, flags: int, status: int) -> int:
        """What cuGetProcAddress does; functions that nobody uses are found, too."""
        address = self.table.get(name.decode())
        put(at, PTR, address or self.table["cuCtxSynchronize"])
        return 0


def install(folder: Path, cuda: Any) -> FakeLibrary:
    """Load the library into this process, as the driver that others find."""
    source, library = folder / "libcuda.c", folder / "libcuda.so.1"
    source.write_text(SOURCE)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)],
        check=True)
    fake = FakeLibrary(cuda)
    loaded = c.CDLL(str(library), mode=c.RTLD_GLOBAL)
    fake.kept += [loaded, FINDER(fake.find)]
    loaded.use(fake.kept[-1])
    return fake


if __name__ == "__main__":
    import pytest
    from fake_cuda import FakeCuda

    kept = install(Path(sys.argv[1]), FakeCuda((9, 0), (8, 0)))
    sys.exit(pytest.main(sys.argv[2:]))
