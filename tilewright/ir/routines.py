"""Serial algorithms on each item of a batch: their attributes, types and NumPy meaning.

An item is a matrix, the last two axes, or a number. What an algorithm gives besides a matrix stands
in rows of the same array, so that every op has one result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.errors import Unsupported
from tilewright.ir.graph import Attrs, Node
from tilewright.ir.infer import same_dtypes, same_shapes
from tilewright.ir.types import DType, TensorType, f32, f64

Array = np.ndarray

TYPES: tuple[DType, ...] = (f32, f64)


@dataclass(frozen=True)
class ReflectAttrs(Attrs):
    """reflect: whether the reflections are applied in the order of their columns."""

    forward: bool


@dataclass(frozen=True)
class ExchangeAttrs(Attrs):
    """exchange: whether rows are exchanged in the order of the pivots, or the other way round."""

    forward: bool


@dataclass(frozen=True)
class TriangleAttrs(Attrs):
    """triangular_solve: which triangle is read, and whether its diagonal counts as ones."""

    upper: bool
    unit: bool


@dataclass(frozen=True)
class PolynomialAttrs(Attrs):
    """polynomial: the family, in 2x - 1 instead of x if ``shifted``."""

    family: str
    shifted: bool = False


@dataclass(frozen=True)
class GammaAttrs(Attrs):
    """incomplete_gamma: the ``upper`` or the lower function."""

    upper: bool


def refused(node: Node, ct: Node) -> Any:
    """Who builds one of these ops differentiates by a formula of its own."""
    raise Unsupported(f"the derivative of {node.op.name}")


# --- types --------------------------------------------------------------------------------
def _matrix(name: str, x: TensorType) -> tuple[Any, Any]:
    same_dtypes(name, (x,), TYPES)
    if x.rank < 2:
        raise ValueError(f"{name}: {x} is no matrix")
    return x.shape[-2], x.shape[-1]


def _square(name: str, x: TensorType) -> Any:
    rows, columns = _matrix(name, x)
    if rows != columns:
        raise ValueError(f"{name}: the matrix of {x} is not square")
    return rows


def infer_factor(name: str, square: bool) -> Callable[..., TensorType]:
    """A matrix, and one more row."""
    def infer(attrs: Any, x: TensorType) -> TensorType:
        rows = _square(name, x) if square else _matrix(name, x)[0]
        return x.with_shape((*x.shape[:-2], rows + 1, x.shape[-1]))
    return infer


def infer_svd(attrs: Any, x: TensorType) -> TensorType:
    """Three parts in rows: the values, U and V."""
    rows, columns = _matrix("svd", x)
    if rows < columns:
        raise ValueError(f"svd: the matrix of {x} has fewer rows than columns")
    return x.with_shape((*x.shape[:-2], rows + 1 + columns, columns))


def infer_square(name: str) -> Callable[..., TensorType]:
    """The type of a square matrix."""
    def infer(attrs: Any, x: TensorType) -> TensorType:
        _square(name, x)
        return x
    return infer


def infer_reflect(attrs: Any, factor: TensorType, x: TensorType) -> TensorType:
    """The type of what is reflected."""
    same_dtypes("reflect", (factor, x), TYPES)
    rows, _ = _matrix("reflect", x)
    if factor.shape[:-2] != x.shape[:-2] or factor.shape[-2] != rows + 1:
        raise ValueError(f"reflect: {factor} does not fit {x}")
    return x


def infer_exchange(attrs: Any, x: TensorType, pivots: TensorType) -> TensorType:
    """The type of the matrix whose rows are exchanged."""
    same_dtypes("exchange", (x, pivots), TYPES)
    if x.shape[:-2] != pivots.shape[:-2] or _matrix("exchange", pivots)[0] != 1:
        raise ValueError(f"exchange: {pivots} does not fit {x}")
    return x


def infer_ldl_solve(
    attrs: Any, factors: TensorType, pivots: TensorType, b: TensorType
) -> TensorType:
    """The type of the right sides."""
    same_dtypes("ldl_solve", (factors, pivots, b), TYPES)
    if _square("ldl_solve", factors) != b.shape[-2] or factors.shape[:-2] != b.shape[:-2] or (
        pivots.shape != (*b.shape[:-2], 1, b.shape[-2])
    ):
        raise ValueError(f"ldl_solve: {factors} and {pivots} do not fit {b}")
    return b


def infer_triangular(attrs: Any, a: TensorType, b: TensorType) -> TensorType:
    """The type of the right sides."""
    same_dtypes("triangular_solve", (a, b), TYPES)
    if a.shape[:-2] != b.shape[:-2] or _square("triangular_solve", a) != b.shape[-2]:
        raise ValueError(f"triangular_solve: {a} does not fit {b}")
    return b


def infer_numbers(name: str) -> Callable[..., TensorType]:
    """Element by element, one float type."""
    def infer(attrs: Any, *types: TensorType) -> TensorType:
        same_shapes(name, types)
        same_dtypes(name, types, TYPES)
        return types[0]
    return infer


# --- meaning ------------------------------------------------------------------------------
def each(ranks: int, f: Callable[..., Any]) -> Callable[..., Array]:
    """Item by item, in f64; ``f`` gets the attributes and one item of each array."""
    def run(attrs: Any, type: TensorType, *arrays: Array) -> Array:
        result = np.zeros(type.shape, type.dtype.numpy)
        rank = result.ndim - ranks
        with np.errstate(all="ignore"):
            for at in np.ndindex(*result.shape[:rank]):
                items = [a[at].astype(np.float64) for a in arrays]
                result[at] = f(attrs, *items)
        return result
    return run


def cholesky(attrs: Any, x: Array) -> Array:
    """L with x = L L^T, of the lower triangle; in the last row the number of the first minor that
    is not positive, 0 if there is none.
    """
    n = len(x)
    result = np.zeros((n + 1, n))
    for j in range(n):
        left = x[j, j] - result[j, :j] @ result[j, :j]
        if not left > 0 and not result[n, 0]:
            result[n, :] = j + 1
        result[j, j] = math.sqrt(left) if left >= 0 else math.nan
        for i in range(j + 1, n):
            result[i, j] = (x[i, j] - result[i, :j] @ result[j, :j]) / result[j, j]
    return result


def lu(attrs: Any, x: Array) -> Array:
    """L below the diagonal and U, of x with rows exchanged; the last row holds the row, counted
    from 1, that each row was exchanged with.
    """
    a = x.copy()
    m, n = a.shape
    pivots = np.zeros(n)
    for i in range(min(m, n)):
        p = i + int(np.argmax(np.abs(a[i:, i])))
        a[[i, p]] = a[[p, i]]
        pivots[i] = p + 1
        if a[i, i]:
            a[i + 1:, i] /= a[i, i]
            a[i + 1:, i + 1:] -= np.outer(a[i + 1:, i], a[i, i + 1:])
    return np.vstack([a, pivots])


def qr(attrs: Any, x: Array) -> Array:
    """R, and below its diagonal the vectors of Householder's reflections; the last row holds their
    factors.
    """
    a = x.copy()
    m, n = a.shape
    factors = np.zeros(n)
    for i in range(min(m, n)):
        rest = np.linalg.norm(a[i + 1:, i])
        if rest == 0:
            continue
        beta = -math.copysign(math.hypot(a[i, i], rest), a[i, i])
        factors[i] = (beta - a[i, i]) / beta
        a[i + 1:, i] /= a[i, i] - beta
        a[i, i] = beta
        v = np.concatenate([[1], a[i + 1:, i]])
        a[i:, i + 1:] -= factors[i] * np.outer(v, v @ a[i:, i + 1:])
    return np.vstack([a, factors])


def reflect(attrs: ReflectAttrs, factor: Array, x: Array) -> Array:
    """x after the reflections that the columns of ``qr`` hold."""
    result = x.copy()
    m = len(x)
    order = range(min(m, factor.shape[1]))
    for i in order if attrs.forward else reversed(order):
        v = np.concatenate([[1], factor[i + 1:m, i]])
        result[i:] -= factor[m, i] * np.outer(v, v @ result[i:])
    return result


def exchange(attrs: ExchangeAttrs, x: Array, pivots: Array) -> Array:
    """Row i of x and row pivots[i], counted from 1, exchanged for every i; a row that is not there
    is exchanged with none.
    """
    result = x.copy()
    order = range(pivots.size)
    for i in order if attrs.forward else reversed(order):
        other = int(pivots[0, i]) - 1
        if 0 <= other < len(x) and i < len(x):
            result[[i, other]] = result[[other, i]]
    return result


def triangular_solve(attrs: TriangleAttrs, a: Array, b: Array) -> Array:
    """The solution of a x = b, by substitution."""
    x = b.copy()
    n = len(a)
    for i in reversed(range(n)) if attrs.upper else range(n):
        known = slice(i + 1, n) if attrs.upper else slice(0, i)
        x[i] -= a[i, known] @ x[known]
        if not attrs.unit:
            x[i] /= a[i, i]
    return x


def eigh(attrs: Any, x: Array) -> Array:
    """The eigenvalues of the lower triangle in rising order, and below them the eigenvectors."""
    if not np.isfinite(x).all():
        return np.full((len(x) + 1, len(x)), math.nan)
    values, vectors = np.linalg.eigh(x)
    return np.vstack([values, vectors])


def svd(attrs: Any, x: Array) -> Array:
    """The singular values in falling order, and below them U and V."""
    if not np.isfinite(x).all():
        return np.full((len(x) + 1 + x.shape[1], x.shape[1]), math.nan)
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return np.vstack([s, u, vh.T])


GROWTH = (1 + math.sqrt(17)) / 8
"""The share of the largest element from which on a pivot is taken (Bunch and Kaufman, 1977)."""


def ldl(attrs: Any, x: Array) -> Array:
    """L and D with x = P L D L^T P^T, of the lower triangle, D of blocks of one or two; the last
    row holds LAPACK's pivots: the row of an exchange, or for a block of two its negative, twice.
    """
    a, n = x.copy(), len(x)
    pivots, k = np.zeros(n), 0
    while k < n:
        pivot, step = _pivot(a, k)
        row = k + step - 1
        if pivot != row:
            _exchange_symmetric(a, k, row, pivot, step)
        _eliminate(a, k, step)
        pivots[k:k + step] = pivot + 1 if step == 1 else -(pivot + 1)
        k += step
    return np.vstack([a, pivots])


def _pivot(a: Array, k: int) -> tuple[int, int]:
    """The row to exchange, and the size of the block."""
    n, own = len(a), abs(a[k, k])
    if k == n - 1:
        return k, 1
    other = k + 1 + int(np.argmax(np.abs(a[k + 1:, k])))
    column = abs(a[other, k])
    if max(own, column) == 0 or math.isnan(own) or own >= GROWTH * column:
        return k, 1
    row = max(np.abs(a[other, k:other]).max(), np.abs(a[other + 1:, other]).max(initial=0))
    if own >= GROWTH * column * (column / row):
        return k, 1
    return (other, 1) if abs(a[other, other]) >= GROWTH * row else (other, 2)


def _exchange_symmetric(a: Array, k: int, row: int, pivot: int, step: int) -> None:
    a[pivot + 1:, [row, pivot]] = a[pivot + 1:, [pivot, row]]
    between = a[row + 1:pivot, row].copy()
    a[row + 1:pivot, row] = a[pivot, row + 1:pivot]
    a[pivot, row + 1:pivot] = between
    a[row, row], a[pivot, pivot] = a[pivot, pivot], a[row, row]
    if step == 2:
        a[row, k], a[pivot, k] = a[pivot, k], a[row, k]


def _eliminate(a: Array, k: int, step: int) -> None:
    rest = slice(k + step, None)
    if step == 1:
        if a[k, k]:
            column = a[rest, k] / a[k, k]
            a[rest, rest] -= np.tril(np.outer(a[rest, k], column))
            a[rest, k] = column
        return
    block = np.array([[a[k, k], a[k + 1, k]], [a[k + 1, k], a[k + 1, k + 1]]])
    both = a[rest, k:k + 2].copy()
    columns = both @ np.linalg.inv(block) if len(both) else both
    a[rest, rest] -= np.tril(columns @ both.T)
    a[rest, k:k + 2] = columns


def ldl_solve(attrs: Any, factors: Array, pivots: Array, b: Array) -> Array:
    """x with a x = b, of the factors of a and the pivots that ``ldl`` gives."""
    x, n, k = b.copy(), len(b), 0
    blocks = []
    while k < n:
        step = 1 if pivots[0, k] > 0 or k == n - 1 else 2
        blocks.append((k, step, int(abs(pivots[0, k])) - 1))
        k += step
    for k, step, pivot in blocks:
        x[[k + step - 1, pivot]] = x[[pivot, k + step - 1]]
        rest = slice(k + step, None)
        x[rest] -= factors[rest, k:k + step] @ x[k:k + step]
        block = factors[k:k + step, k:k + step]
        lower = np.tril(block)
        x[k:k + step] = np.linalg.solve(lower + np.tril(block, -1).T, x[k:k + step])
    for k, step, pivot in reversed(blocks):
        rest = slice(k + step, None)
        x[k:k + step] -= factors[rest, k:k + step].T @ x[rest]
        x[[k + step - 1, pivot]] = x[[pivot, k + step - 1]]
    return x


TAYLOR = 18
"""Terms of the exponential series of a matrix whose norm is at most 1."""


def matrix_exp(attrs: Any, x: Array) -> Array:
    """The exponential series of x / 2^s, squared s times."""
    n = len(x)
    norm = np.abs(x).sum(0).max(initial=0)
    if not math.isfinite(norm):
        return np.full((n, n), math.nan)
    squarings = max(0, math.ceil(math.log2(norm))) if norm > 1 else 0
    scaled, result = x / 2.0 ** squarings, np.eye(n)
    for i in reversed(range(1, TAYLOR + 1)):
        result = np.eye(n) + scaled @ result / i
    for _ in range(squarings):
        result = result @ result
    return result
