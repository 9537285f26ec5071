"""NumPy functions that are written with others: select, meshgrid, cross, append, allclose ..."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend.build import axis_of, common_dtype, describe_value
from tilewright.frontend.elementwise import check_keywords
from tilewright.frontend.joins import concatenate
from tilewright.frontend.location import here
from tilewright.frontend.statistics import norm
from tilewright.frontend.tracer import implements, refuse


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """``np.allclose``, as a traced truth value."""
    return np.all(np.isclose(a, b, rtol, atol, equal_nan))


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """``np.array_equal``, as a traced truth value (False for other shapes)."""
    if np.shape(a1) != np.shape(a2):
        return np.zeros_like(a1, dtype=np.bool_, shape=())
    same = np.equal(a1, a2)
    if equal_nan:
        same = np.logical_or(same, np.logical_and(np.isnan(a1), np.isnan(a2)))
    return np.all(same)


@implements(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """``np.select``: the choice of the first condition that holds."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ShapeError(
            "np.select: not as many choices as conditions",
            expected=f"{len(condlist)} choices",
            got=len(choicelist),
            loc=here(),
        )
    dtype = common_dtype("np.select", *choicelist, default)
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result.astype(dtype)


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    """``np.meshgrid``."""
    rank = len(xi)
    axes = list(range(rank))
    if indexing == "xy" and rank > 1:
        axes[:2] = 1, 0
    grids = []
    for axis, x in zip(axes, xi, strict=True):
        grids.append(np.reshape(x, [-1 if i == axis else 1 for i in range(rank)]))
    return tuple(grids) if sparse else np.broadcast_arrays(*grids)


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    """``np.append``."""
    if axis is None:
        arr, values, axis = np.ravel(arr), np.ravel(values), 0
    return concatenate([arr, values], axis)


def unstack(x: Any, /, *, axis: int = 0) -> Any:
    """``np.unstack``: the slices along an axis."""
    return tuple(np.moveaxis(x, axis_of(axis, np.ndim(x), "np.unstack"), 0))


if hasattr(np, "unstack"):  # from NumPy 2.1 on
    implements(np.unstack)(unstack)


@implements(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    """``np.rollaxis``."""
    rank = np.ndim(a)
    along = axis_of(axis, rank, "np.rollaxis")
    to = rank if start == rank else axis_of(start, rank, "np.rollaxis")
    return np.moveaxis(a, along, to - (along < to))


@implements(np.block)
def block(arrays: Any) -> Any:
    """``np.block``: nested lists of arrays, the innermost side by side along the last axis."""
    depth, rows = 0, [arrays]
    while any(isinstance(row, list) for row in rows):
        if not all(isinstance(row, list) and row for row in rows):
            raise ShapeError("np.block: the lists are not equally deep, or empty", loc=here())
        rows = [item for row in rows for item in row]
        depth += 1
    rank = max(depth, *map(np.ndim, rows))

    def joined(part: Any, level: int) -> Any:
        if level == depth:
            return np.reshape(part, (1,) * (rank - np.ndim(part)) + np.shape(part))
        return concatenate([joined(p, level + 1) for p in part], rank - depth + level)

    return joined(arrays, 0)


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """``np.linalg.multi_dot``: a product of matrices in the order that takes the least work."""
    check_keywords("np.linalg.multi_dot", {"out": out}, ())
    sizes = [np.shape(a)[0] if np.ndim(a) == 2 else 1 for a in arrays[:1]]
    sizes += [np.shape(a)[-1] for a in arrays[:-1]]
    sizes += [np.shape(a)[1] if np.ndim(a) == 2 else 1 for a in arrays[-1:]]

    @functools.cache
    def best(first: int, last: int) -> tuple[int, int]:
        if first == last:
            return 0, first
        size = sizes[first] * sizes[last + 1]
        return min(
            (best(first, k)[0] + best(k + 1, last)[0] + size * sizes[k + 1], k)
            for k in range(first, last)
        )

    def product(first: int, last: int) -> Any:
        if first == last:
            return arrays[first]
        middle = best(first, last)[1]
        return np.dot(product(first, middle), product(middle + 1, last))

    return product(0, len(arrays) - 1)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """``np.linalg.matrix_power`` for n >= 0, by squaring."""
    if n < 0:
        refuse("np.linalg.matrix_power with a negative n cannot be traced", "pass in the inverse")
    result, square = None, a
    while n:
        if n & 1:
            result = square if result is None else np.matmul(result, square)
        n >>= 1
        square = np.matmul(square, square) if n else square
    if result is not None:
        return result
    size = np.shape(a)[-1]
    return np.broadcast_to(np.identity(size, a.dtype), np.shape(a)) + np.zeros_like(a)


@implements(np.isreal)
def isreal(x: Any) -> Any:
    """``np.isreal``: true everywhere, for complex arrays do not exist here."""
    return np.ones_like(x, np.bool_)


@implements(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """``np.iscomplex``: false everywhere."""
    return np.zeros_like(x, np.bool_)


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """``np.polyval``: by Horner's rule, the highest power first."""
    result = np.zeros_like(x)
    for i in range(np.shape(p)[0]):
        result = result * x + p[i]
    return result


@implements(np.cross, np.linalg.cross)
def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None
) -> Any:
    """``np.cross`` of vectors with three components."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = np.moveaxis(a, axisa, -1), np.moveaxis(b, axisb, -1)
    if np.shape(a)[-1] != 3 or np.shape(b)[-1] != 3:
        raise ShapeError(
            "np.cross: the vectors do not have three components",
            got=f"{describe_value(a)} and {describe_value(b)}",
            loc=here(),
        )
    ahead, behind = [1, 2, 0], [2, 0, 1]
    result = np.subtract(
        np.multiply(a[..., ahead], b[..., behind]), np.multiply(a[..., behind], b[..., ahead])
    )
    return np.moveaxis(result, -1, axisc)


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """``np.trapezoid``: the integral by the trapezoidal rule."""
    along = axis_of(axis, np.ndim(y), "np.trapezoid")
    width = dx if x is None else np.diff(x, axis=-1 if np.ndim(x) == 1 else along)
    if x is not None and np.ndim(x) == 1:
        width = np.reshape(width, [-1 if i == along else 1 for i in range(np.ndim(y))])
    y = np.moveaxis(y, along, -1)
    width = np.moveaxis(width, along, -1) if np.ndim(width) else width
    return np.sum(width * (y[..., 1:] + y[..., :-1]) / 2.0, axis=-1)


@implements(np.linalg.trace)
def linalg_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """``np.linalg.trace``: of the last two axes."""
    return np.trace(x, offset, -2, -1, dtype)


@implements(np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """``np.linalg.vecdot``."""
    return np.sum(np.multiply(x1, x2), axis=axis)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """``np.linalg.vector_norm`` over one axis, or over all elements."""
    if axis is None:
        result = norm(np.ravel(x), ord)
        return np.reshape(result, (1,) * np.ndim(x)) if keepdims else result
    if isinstance(axis, tuple):
        refuse("np.linalg.vector_norm over several axes cannot be traced", "reshape them to one")
    return norm(x, ord, axis, keepdims)


@implements(np.nanvar)
def nanvar(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
) -> Any:
    """``np.nanvar``."""
    check_keywords("np.nanvar", {"out": out}, ())
    return np.var(a, axis, dtype, ddof=ddof, keepdims=keepdims, where=np.equal(a, a))


@implements(np.nanstd)
def nanstd(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
) -> Any:
    """``np.nanstd``."""
    check_keywords("np.nanstd", {"out": out}, ())
    return np.std(a, axis, dtype, ddof=ddof, keepdims=keepdims, where=np.equal(a, a))
