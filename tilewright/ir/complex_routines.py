"""Serial algorithms with complex numbers: types and NumPy meaning.

A complex matrix is one of twice as many rows: its real parts, and below them its imaginary ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.ir import routines
from tilewright.ir.infer import same_dtypes
from tilewright.ir.routines import TYPES, TriangleAttrs
from tilewright.ir.types import TensorType, as_number

Array = np.ndarray


def _size(name: str, x: TensorType) -> int:
    same_dtypes(name, (x,), TYPES)
    if x.rank < 2 or as_number(x.shape[-2]) != 2 * as_number(x.shape[-1]):
        raise ValueError(f"{name}: {x} does not hold the parts of a square matrix")
    return as_number(x.shape[-1])


def infer_eig(attrs: Any, x: TensorType) -> TensorType:
    """Two rows of eigenvalues, and the rows of two matrices."""
    same_dtypes("eig", (x,), TYPES)
    if x.rank < 2 or x.shape[-2] != x.shape[-1]:
        raise ValueError(f"eig: the matrix of {x} is not square")
    return x.with_shape((*x.shape[:-2], x.shape[-1] * 2 + 2, x.shape[-1]))


def infer_lu(attrs: Any, x: TensorType) -> TensorType:
    """A complex matrix, and one more row."""
    n = _size("complex_lu", x)
    return x.with_shape((*x.shape[:-2], 2 * n + 1, n))


def infer_triangular(attrs: Any, a: TensorType, b: TensorType) -> TensorType:
    """The type of the right sides."""
    same_dtypes("complex_triangular_solve", (a, b), TYPES)
    n = _size("complex_triangular_solve", a)
    if a.shape[:-2] != b.shape[:-2] or as_number(b.shape[-2]) != 2 * n:
        raise ValueError(f"complex_triangular_solve: {a} does not fit {b}")
    return b


def _whole(x: Array) -> Array:
    return x[:len(x) // 2] + 1j * x[len(x) // 2:]


def _parts(z: Array) -> Array:
    return np.vstack([z.real, z.imag])


def eig(attrs: Any, x: Array) -> Array:
    """The eigenvalues, in any order, and below them the eigenvectors, of any phase."""
    if not np.isfinite(x).all():
        return np.full((2 * len(x) + 2, len(x)), math.nan)
    values, vectors = np.linalg.eig(x)
    return np.vstack([values.real, values.imag, vectors.real, vectors.imag])


def lu(attrs: Any, x: Array) -> Array:
    """L below the diagonal and U, of x with rows exchanged; the last row holds the row, counted
    from 1, that each row was exchanged with: the one whose parts are largest.
    """
    a = _whole(x)
    n = len(a)
    pivots = np.zeros(n)
    for i in range(n):
        p = i + int(np.argmax(np.abs(a[i:, i].real) + np.abs(a[i:, i].imag)))
        a[[i, p]] = a[[p, i]]
        pivots[i] = p + 1
        if a[i, i]:
            a[i + 1:, i] /= a[i, i]
            a[i + 1:, i + 1:] -= np.outer(a[i + 1:, i], a[i, i + 1:])
    return np.vstack([_parts(a), pivots])


def triangular_solve(attrs: TriangleAttrs, a: Array, b: Array) -> Array:
    """The solution of a x = b, by substitution."""
    return _parts(routines.triangular_solve(attrs, _whole(a), _whole(b)))
