"""Short spellings of kernels for the tests."""

from __future__ import annotations

import numpy as np
from native import parallel

from tilewright.ir.loops import Buffer, Call, Const, Expr, For, Kernel, Stmt, Var
from tilewright.ir.types import DType, bool_, f32

RANDOM = np.random.default_rng(3)
"""Set anew for every test (``conftest.py``)."""
I, J, K, P, S, U = map(Var, ("i", "j", "k", "p", "s", "u"))


def buffer(name: str, size: int, access: str = "in", dtype: DType = f32) -> Buffer:
    return Buffer(name, dtype, size, access=access)  # type: ignore[arg-type]


def numbers(n: int, dtype: DType = f32) -> np.ndarray:
    if dtype is bool_:
        return RANDOM.integers(0, 2, n).astype(bool)
    if dtype.is_int:
        return RANDOM.integers(0, 9, n).astype(dtype.numpy)
    return RANDOM.standard_normal(n).astype(dtype.numpy)


def rounding(terms: np.ndarray, axis: int | None = None) -> float:
    """By how much two orders of summing these terms (along an axis) may differ.

    Each of n - 1 additions rounds a partial sum, which is at most the sum of the magnitudes, and
    so does each product that is not fused with its addition: Higham, *Accuracy and Stability of
    Numerical Algorithms*, 4.2.
    """
    count = terms.size if axis is None else terms.shape[axis]
    magnitude = float(np.abs(terms.astype(np.float64)).sum(axis).max())
    return 2 * count * float(np.finfo(terms.dtype).eps) * magnitude


def plus(a: Expr, b: Expr, dtype: DType = f32) -> Expr:
    return Call("add", (a, b), dtype)


def times(a: Expr, b: Expr, dtype: DType = f32) -> Expr:
    return Call("mul", (a, b), dtype)


def serial(var: Var, n: int, *body: Stmt, kind: str = "serial", step: int = 1) -> For:
    return For(var, Const(0), Const(n), tuple(body), kind, step)  # type: ignore[arg-type]


def kernel(name: str, params: tuple[Buffer, ...], *body: Stmt) -> Kernel:
    return Kernel(name, params, (parallel(*body),))
