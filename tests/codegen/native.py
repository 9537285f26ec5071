"""Kernels to machine code for the tests: many in one module, called on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from tilewright.codegen import llvm
from tilewright.codegen.cpu import TIERS, host_target
from tilewright.codegen.cpu.program import functions, module_text
from tilewright.codegen.cpu.tiers import NEEDS
from tilewright.codegen.emit import Emitted, emit_kernel
from tilewright.compiler.target import Target
from tilewright.ir.interp import run_kernel
from tilewright.ir.loops import Buffer, Call, Const, Expr, For, Kernel, Stmt, Store, Var
from tilewright.ir.types import DType

HOST_TIERS = [t for t in TIERS if NEEDS[t] <= llvm.host()[2]]
"""The tiers that this machine can run."""


class Natives:
    """Machine code of several kernels for one tier."""

    def __init__(self, kernels: Sequence[Kernel], target: Target) -> None:
        self.emitted = [emit_kernel(k, target, functions()) for k in kernels]
        self.kernels, self.target = list(kernels), target
        unique = {e.name: e for e in self.emitted}
        self.text = module_text(list(unique.values()), "", target, set())
        self.code = llvm.Code([llvm.object_code(self.text, target, verify=True)], unique)

    def run(self, number: int, arrays: Sequence[np.ndarray], threads: int = 1) -> int:
        """Run a kernel without barriers in place, thread by thread; the status that it leaves."""
        found: Emitted = self.emitted[number]
        words = [ctypes.c_void_p] * len(arrays)
        kind = ctypes.CFUNCTYPE(
            None, *words, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
        )
        function = kind(self.code.address(found.name))
        team = np.zeros(64, np.int64)
        memory = np.empty(found.scratch + 64, np.uint8)
        scratch = memory.ctypes.data + -memory.ctypes.data % 64
        for tid in range(threads):
            function(*(a.ctypes.data for a in arrays), tid, threads, scratch, team.ctypes.data)
        return int(team[16])


def native(kernel: Kernel, tier: str) -> Natives:
    """One kernel at a tier."""
    return Natives([kernel], host_target(tier))


def check(
    kernel: Kernel,
    arrays: Sequence[np.ndarray],
    tier: str,
    *,
    threads: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-30,
) -> Natives:
    """Run a kernel by machine code and by the interpreter, on copies; compare all buffers."""
    compiled = native(kernel, tier)
    got, expected = [guarded(a) for a in arrays], [a.copy() for a in arrays]
    status = compiled.run(0, [inner for _, inner in got], threads)
    assert status == run_kernel(kernel, expected, threads)
    for buffer, (whole, inner), want in zip(kernel.params, got, expected, strict=True):
        if buffer.access != "workspace":
            same(inner, want, rtol, f"{kernel.name} {tier} {buffer.name}", atol)
        assert untouched(whole, inner), f"{kernel.name} {tier} writes outside of {buffer.name}"
    return compiled


def guarded(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy with 256 bytes of 0xA5 on either side, and the copy itself."""
    whole = np.full(a.nbytes + 512, 0xA5, np.uint8)
    inner = whole[256 : 256 + a.nbytes].view(a.dtype).reshape(a.shape)
    inner[...] = a
    return whole, inner


def untouched(whole: np.ndarray, inner: np.ndarray) -> bool:
    """Whether the bytes around the copy are as they were."""
    return bool((whole[:256] == 0xA5).all() and (whole[256 + inner.nbytes :] == 0xA5).all())


def same(got: np.ndarray, want: np.ndarray, rtol: float, what: str, atol: float = 1e-30) -> None:
    """Equal, NaN with NaN, up to a relative error for floats."""
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    with np.errstate(all="ignore"):
        wide = [a.astype(np.float64) for a in (got, want)]
    if rtol == 0:
        np.testing.assert_array_equal(*wide, err_msg=what)
        return
    np.testing.assert_allclose(*wide, rtol=rtol, atol=atol, err_msg=what)


def loop(name: str, n: int, *body: Stmt, width: int = 4, interleave: int = 1) -> For:
    """A vector loop from 0."""
    return For(Var(name), Const(0), Const(n), tuple(body), "vector", 1, width, interleave)


def parallel(*body: Stmt, n: int = 1, name: str = "p") -> For:
    """A parallel loop from 0, of one iteration unless told otherwise."""
    return For(Var(name), Const(0), Const(n), tuple(body), "parallel")


def pointwise(
    name: str,
    n: int,
    op: str,
    types: Sequence[DType],
    result: DType,
    width: int,
    interleave: int = 1,
) -> Kernel:
    """result[i] = op(a[i], b[i], ...)."""
    sources = [Buffer(f"a{k}", t, n, access="in") for k, t in enumerate(types)]
    out = Buffer("out", result, n, access="out")
    value: Expr = Call(op, tuple(s[Var("i")] for s in sources), result)
    body = loop("i", n, Store(out, Var("i"), value), width=width, interleave=interleave)
    return Kernel(name, (*sources, out), (parallel(body),))
