"""What the ops mean, in NumPy: (attributes, result type, *arrays) -> array. Slow and plain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

from tilewright.ir.graph import CONSTANTS
from tilewright.ir.types import (
    TensorType,
    accumulator,
    as_number,
    bf16,
    concrete,
    dtype_of,
    f16,
)

Array: TypeAlias = "np.ndarray[Any, Any]"

_erf = np.vectorize(math.erf, otypes=[np.float64])


def elementwise(f: Callable[..., Any]) -> Callable[..., Array]:
    """A NumPy function applied as it is; 16-bit floats are computed in f32 and rounded once."""
    def run(attrs: Any, type: TensorType, *arrays: Array) -> Array:
        wide = [a.astype(np.float32) if a.dtype in (f16.numpy, bf16.numpy) else a for a in arrays]
        with np.errstate(all="ignore"):
            return np.asarray(f(*wide)).astype(type.dtype.numpy, copy=False)
    return run


def erf(x: Array) -> Array:
    return _erf(x.astype(np.float64)) if x.size else x.astype(np.float64)


def as_it_is(f: Callable[..., Any]) -> Callable[..., Array]:
    """A NumPy function that looks at bits: 16-bit floats are not widened."""
    def run(attrs: Any, type: TensorType, *arrays: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(f(*arrays)).astype(type.dtype.numpy, copy=False)
    return run


def identity(x: Array) -> Array:
    return x


def reciprocal(x: Array) -> Array:
    """1 / x; for integers truncated, and 0 for 0, where NumPy's result depends on the machine."""
    if x.dtype.kind == "f":
        return np.reciprocal(x)
    return np.where(x == 0, 0, np.reciprocal(np.where(x == 0, 1, x)))


def rsqrt(x: Array) -> Array:
    return 1 / np.sqrt(x)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def sinc(x: Array) -> Array:
    """``np.sinc``, which turns an infinity into NaN as well, in the type of ``x``."""
    return np.sinc(x).astype(x.dtype)


def cast(attrs: Any, type: TensorType, x: Array) -> Array:
    with np.errstate(all="ignore"):
        return x.astype(type.dtype.numpy)


def bitcast(attrs: Any, type: TensorType, x: Array) -> Array:
    return np.ascontiguousarray(x).view(type.dtype.numpy).reshape(x.shape)


def iota(attrs: Any, type: TensorType) -> Array:
    shape = concrete(type.shape)
    counts = np.arange(shape[attrs.axis]).astype(type.dtype.numpy)
    column = counts.reshape([-1 if i == attrs.axis else 1 for i in range(len(shape))])
    return np.broadcast_to(column, shape).copy()


def size(attrs: Any, type: TensorType) -> Array:
    """What has a name has no meaning yet: see :func:`tilewright.ir.symbolic.specialise`."""
    return np.full(concrete(type.shape), as_number(attrs.size)).astype(type.dtype.numpy)


def full(attrs: Any, type: TensorType) -> Array:
    raw = attrs.bits.to_bytes(type.dtype.itemsize, "little")
    return np.full(concrete(type.shape), np.frombuffer(raw, type.dtype.numpy)[0])


def constant(attrs: Any, type: TensorType) -> Array:
    # Arrays of different types may have the same bytes, and so the same digest.
    data = CONSTANTS[attrs.digest].reshape(-1).view(type.dtype.numpy)
    return data.reshape(concrete(type.shape))


def reduce(f: Callable[..., Any]) -> Callable[..., Array]:
    """A NumPy reduction in the accumulator type."""
    def run(attrs: Any, type: TensorType, x: Array) -> Array:
        wide = x.astype(accumulator(type.dtype).numpy, copy=False)
        with np.errstate(all="ignore"):
            return np.asarray(f(wide, axis=attrs.axes)).astype(type.dtype.numpy)
    return run


def total(x: Array, axis: tuple[int, ...]) -> Array:
    return np.sum(x, axis=axis, dtype=x.dtype)


def product(x: Array, axis: tuple[int, ...]) -> Array:
    return np.asarray(np.prod(x, axis=axis, dtype=x.dtype))


def largest(x: Array, axis: tuple[int, ...]) -> Array:
    return np.asarray(np.max(x, axis=axis, initial=lowest(x.dtype)))


def smallest(x: Array, axis: tuple[int, ...]) -> Array:
    return np.asarray(np.min(x, axis=axis, initial=highest(x.dtype)))


def lowest(dtype: np.dtype) -> Any:
    """The identity of max."""
    if dtype.kind == "b":
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def highest(dtype: np.dtype) -> Any:
    """The identity of min."""
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def reshape(attrs: Any, type: TensorType, x: Array) -> Array:
    return x.reshape(concrete(attrs.shape))


def transpose(attrs: Any, type: TensorType, x: Array) -> Array:
    return np.transpose(x, attrs.perm)


def broadcast(attrs: Any, type: TensorType, x: Array) -> Array:
    shape = [1] * len(attrs.shape)
    for d, a in zip(x.shape, attrs.axes, strict=True):
        shape[a] = d
    return np.broadcast_to(x.reshape(shape), concrete(attrs.shape))


def slice_(attrs: Any, type: TensorType, x: Array) -> Array:
    return x[tuple(map(slice, attrs.starts, attrs.stops, attrs.steps))]


def flip(attrs: Any, type: TensorType, x: Array) -> Array:
    return np.flip(x, attrs.axes)


def pad(attrs: Any, type: TensorType, x: Array, value: Array) -> Array:
    result = np.full(concrete(type.shape), value[()])
    places = tuple(
        slice(low, low + d + max(0, d - 1) * gap, gap + 1)
        for low, gap, d in zip(attrs.low, attrs.interior, x.shape, strict=True)
    )
    result[places] = x
    return result


def window(attrs: Any, type: TensorType, x: Array) -> Array:
    shape = concrete(type.shape)
    taps = [np.arange(size) for size in attrs.sizes]
    places = []
    for axis in range(x.ndim):
        line = np.arange(shape[axis])
        column = line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        if axis in attrs.axes:
            n = attrs.axes.index(axis)
            tap = taps[n].reshape([-1 if i == x.ndim + n else 1 for i in range(len(shape))])
            column = column * attrs.strides[n] + tap * attrs.dilations[n]
        places.append(column)
    return np.array(np.broadcast_to(x[tuple(places)], shape)) if x.ndim else x


def concat(attrs: Any, type: TensorType, *arrays: Array) -> Array:
    return np.concatenate(arrays, attrs.axis)


def contract(attrs: Any, type: TensorType, x: Array, y: Array) -> Array:
    """Einsum in the accumulator type; bool contracts with or and and."""
    if type.dtype.kind == "b":
        counts = x.astype(np.int64), y.astype(np.int64)
        return np.asarray(np.einsum(counts[0], attrs.lhs, counts[1], attrs.rhs, attrs.out) > 0)
    wide = accumulator(type.dtype).numpy
    with np.errstate(all="ignore"):
        result = np.einsum(x.astype(wide), attrs.lhs, y.astype(wide), attrs.rhs, attrs.out)
    return np.asarray(result).astype(type.dtype.numpy)


def checked(index: Array, size: int) -> Array:
    """Indices counted from the start. Raises ``IndexError`` for one outside."""
    if index.size and (index.min() < -size or index.max() >= size):
        raise IndexError(f"index outside an axis of size {size}")
    wide = index.astype(np.int64)
    return np.where(wide < 0, wide + size, wide)


def take(attrs: Any, type: TensorType, x: Array, index: Array) -> Array:
    return np.take(x, checked(index, x.shape[attrs.axis]), attrs.axis)


def take_along(attrs: Any, type: TensorType, x: Array, index: Array) -> Array:
    return np.take_along_axis(x, checked(index, x.shape[attrs.axis]), attrs.axis)


_COMBINE: dict[str, np.ufunc] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}


def combined(attrs: Any, result: Array, places: Any, values: Array) -> None:
    """Bring values to places that all differ, in place."""
    if attrs.mode == "set":
        result[places] = values
    else:
        result[places] = _COMBINE[attrs.mode](result[places], values)


def put(attrs: Any, type: TensorType, x: Array, index: Array, values: Array) -> Array:
    """One index after another, in row-major order."""
    wide = accumulator(type.dtype).numpy
    result = np.moveaxis(x, attrs.axis, 0).astype(wide)
    rest = [i for i in range(values.ndim) if not attrs.axis <= i < attrs.axis + index.ndim]
    order = [*range(attrs.axis, attrs.axis + index.ndim), *rest]
    rows = np.transpose(values, order).reshape(index.size, *result.shape[1:]).astype(wide)
    with np.errstate(all="ignore"):
        for place, row in zip(checked(index, len(result)).reshape(-1), rows, strict=True):
            combined(attrs, result, place, row)
    return np.moveaxis(result, 0, attrs.axis).astype(type.dtype.numpy)


def put_along(attrs: Any, type: TensorType, x: Array, index: Array, values: Array) -> Array:
    """One index of each row after another."""
    wide = accumulator(type.dtype).numpy
    result, rows, added = (
        np.moveaxis(a, attrs.axis, 0) for a in (
            x.astype(wide), checked(index, x.shape[attrs.axis]), values.astype(wide)))
    others = np.indices(rows.shape[1:], sparse=True)
    with np.errstate(all="ignore"):
        for places, row in zip(rows, added, strict=True):
            combined(attrs, result, (places, *others), row)
    return np.moveaxis(result, 0, attrs.axis).astype(type.dtype.numpy)


def scan(f: Callable[..., Any]) -> Callable[..., Array]:
    """A function (array, axis) that accumulates, in the accumulator type, from either end."""
    def run(attrs: Any, type: TensorType, *arrays: Array) -> Array:
        wide = [a.astype(accumulator(dtype_of(a)).numpy, copy=False) for a in arrays]
        if attrs.reverse:
            wide = [np.flip(a, attrs.axis) for a in wide]
        with np.errstate(all="ignore"):
            result = np.asarray(f(*wide, attrs.axis))
        if attrs.reverse:
            result = np.flip(result, attrs.axis)
        return result.astype(type.dtype.numpy, copy=False)
    return run


def accumulate(ufunc: np.ufunc) -> Callable[..., Array]:
    """``ufunc.accumulate`` in the element type of the array."""
    return scan(lambda x, axis: ufunc.accumulate(x, axis, x.dtype))


def recurrence(factors: Array, terms: Array, axis: int) -> Array:
    """y[i] = factors[i] * y[i - 1] + terms[i], and y[-1] = 0."""
    a, result = np.moveaxis(factors, axis, 0), np.moveaxis(terms, axis, 0).copy()
    for i in range(1, len(result)):
        result[i] += a[i] * result[i - 1]
    return np.moveaxis(result, 0, axis)


def running_place(reaches: np.ufunc) -> Callable[..., Array]:
    """Where the running extreme stands: the last of equals, and the last NaN if there is one."""
    def run(attrs: Any, type: TensorType, x: Array) -> Array:
        rows = np.moveaxis(x, attrs.axis, 0)
        result = np.zeros(rows.shape, np.int64)
        order = range(len(rows))[:: -1 if attrs.reverse else 1]
        for before, i in zip(order, order[1:], strict=False):
            if before == order[0]:
                best, result[before] = rows[before], before
            taken = reaches(rows[i], best) | (rows[i] != rows[i])
            best = np.where(taken, rows[i], best)
            result[i] = np.where(taken, i, result[before])
        return np.moveaxis(result, 0, attrs.axis)
    return run


def argsort(attrs: Any, type: TensorType, x: Array) -> Array:
    """A stable sort; the descending one is the ascending one of the reversed axis, reversed."""
    wide, axis = x.astype(accumulator(dtype_of(x)).numpy, copy=False), attrs.axis
    if attrs.descending:
        backwards = np.argsort(np.flip(wide, axis), axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(backwards, axis)
    else:
        order = np.argsort(wide, axis, kind="stable")
    wanted = range(as_number(attrs.start), as_number(attrs.stop))
    return np.take(order, wanted, axis).astype(np.int64, copy=False)


def sort(attrs: Any, type: TensorType, x: Array) -> Array:
    return np.take_along_axis(x, argsort(attrs, type, x), attrs.axis)


def searchsorted(attrs: Any, type: TensorType, x: Array, values: Array) -> Array:
    """Row by row."""
    side: Literal["left", "right"] = "right" if attrs.right else "left"
    a, v = (y.astype(accumulator(dtype_of(y)).numpy, copy=False) for y in (x, values))
    if a.ndim == 1:
        return np.asarray(np.searchsorted(a, v, side)).astype(np.int64, copy=False)
    result = np.zeros(v.shape, np.int64)
    for row in np.ndindex(v.shape[:-1]):
        result[row] = np.searchsorted(a[row], v[row], side)
    return result


def power(x: Array, y: Array) -> Array:
    """NumPy's power; a negative integer exponent gives what truncating 1 / x**-y gives."""
    if x.dtype.kind == "f":
        return np.power(x, y)
    positive = np.power(x, np.maximum(y, 0) if y.dtype.kind == "i" else y)
    return np.where(y < 0, np.where(np.abs(x) == 1, np.power(x, y & 1), 0), positive)
