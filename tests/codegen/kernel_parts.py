"""Short spellings of kernels for the tests."""

from __future__ import annotations

import numpy as np
from native import parallel

from tilewright.ir.loops import Buffer, Call, Const, Expr, For, Kernel, Stmt, Var
from tilewright.ir.types import DType, bool_, f32

RANDOM = np.random.default_rng(3)
I, J, K, P, S, U = map(Var, ("i", "j", "k", "p", "s", "u"))


def buffer(name: str, size: int, access: str = "in", dtype: DType = f32) -> Buffer:
    return Buffer(name, dtype, size, access=access)  # type: ignore[arg-type]


def numbers(n: int, dtype: DType = f32) -> np.ndarray:
    if dtype is bool_:
        return RANDOM.integers(0, 2, n).astype(bool)
    if dtype.is_int:
        return RANDOM.integers(0, 9, n).astype(dtype.numpy)
    return RANDOM.standard_normal(n).astype(dtype.numpy)


def plus(a: Expr, b: Expr, dtype: DType = f32) -> Expr:
    return Call("add", (a, b), dtype)


def times(a: Expr, b: Expr, dtype: DType = f32) -> Expr:
    return Call("mul", (a, b), dtype)


def serial(var: Var, n: int, *body: Stmt, kind: str = "serial", step: int = 1) -> For:
    return For(var, Const(0), Const(n), tuple(body), kind, step)  # type: ignore[arg-type]


def kernel(name: str, params: tuple[Buffer, ...], *body: Stmt) -> Kernel:
    return Kernel(name, params, (parallel(*body),))
