"""``tw.numpy``: NumPy's functions, and those that NumPy itself does not dispatch.

The functions that create arrays give traced values while a function is traced and plain NumPy
arrays otherwise. Every other name is NumPy's own: ``tw.numpy.exp is np.exp``.
"""

from __future__ import annotations

import operator as _operator
from typing import Any

import numpy as _np

from tilewright.frontend import api as _api
from tilewright.frontend import build as _build
from tilewright.frontend.functions import erf
from tilewright.frontend.places import put_along_axis, scatter_add
from tilewright.frontend.shapes import size as _size
from tilewright.frontend.shapes import sizes as _sizes
from tilewright.frontend.tracer import Tracer as _Tracer
from tilewright.frontend.tracer import current as _current
from tilewright.ir.sizes import Size as _Sized
from tilewright.ir.sizes import ceil_div as _ceil_div
from tilewright.ir.sizes import largest as _largest
from tilewright.ir.types import dtype_of as _dtype_of

__all__ = [
    "arange",
    "array",
    "asarray",
    "empty",
    "erf",
    "eye",
    "full",
    "identity",
    "iota",
    "linspace",
    "ones",
    "put_along_axis",
    "scatter_add",
    "tri",
    "zeros",
]


def __getattr__(name: str) -> Any:
    return getattr(_np, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_api.traceable()})


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array of this shape with one value (a number, or an array that broadcasts) everywhere."""
    if _current() is None:
        return _np.full(_sizes(shape, "tw.numpy.full"), fill_value, dtype)
    node = _build.as_node(fill_value)
    if dtype is not None:
        node = _build.cast(
            node, _build.checked_dtype(_np.dtype(dtype), "tw.numpy.full: the result")
        )
    return _build.wrap(_build.broadcast_to(node, _sizes(shape, "tw.numpy.full")), fill_value)


def zeros(shape: Any, dtype: Any = float) -> Any:
    """An array of zeros, f64 unless ``dtype`` says otherwise."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> Any:
    """An array of ones, f64 unless ``dtype`` says otherwise."""
    return full(shape, 1, dtype)


def empty(shape: Any, dtype: Any = float) -> Any:
    """An array whose contents do not matter; it is filled with zeros."""
    return full(shape, 0, dtype)


def iota(shape: Any, axis: int = -1, dtype: Any = _np.int64) -> Any:
    """0, 1, 2 ... along ``axis``, the same along the others."""
    target = _sizes(shape, "tw.numpy.iota")
    along = _build.axis_of(axis, len(target), "tw.numpy.iota")
    if _current() is None:
        counts = _np.arange(target[along]).astype(dtype)
        column = counts.reshape([-1 if i == along else 1 for i in range(len(target))])
        return _np.broadcast_to(column, target).copy()
    return _build.wrap(_build.iota(target, along, _dtype_of(_np.dtype(dtype))))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """``np.arange``; the bounds are known while tracing, or sizes of traced arrays."""
    first, end = (0, start) if stop is None else (start, stop)
    if isinstance(first, _Sized) or isinstance(end, _Sized):
        return _arange(first, end, step, dtype)
    for bound in (first, end, step):
        if isinstance(bound, _Tracer):
            _size(bound, "tw.numpy.arange")
    plain: Any = _np.arange
    if _current() is None:
        return plain(first, end, step, dtype)
    kind = _np.dtype(dtype) if dtype is not None else plain(first, first, step).dtype
    if kind.kind not in "iu":
        return asarray(plain(first, end, step, kind))
    counts = iota((len(range(first, end, step)),), 0, kind)
    scaled = counts if step == 1 else counts * kind.type(step)
    return scaled if first == 0 else scaled + kind.type(first)


def _arange(first: Any, end: Any, step: Any, dtype: Any) -> Any:
    """A range between sizes that have names."""
    kind = _np.dtype(_np.int64 if dtype is None else dtype)
    first, end = _size(first, "tw.numpy.arange"), _size(end, "tw.numpy.arange")
    by = _operator.index(step)
    count = _ceil_div(end - first, by) if by > 0 else _ceil_div(first - end, -by)
    counts = iota((_largest(0, count),), 0, kind)
    return counts * kind.type(by) + first if by != 1 else counts + first if first != 0 else counts


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None) -> Any:
    """``np.linspace`` between numbers (traced or not)."""
    if not any(isinstance(v, _Tracer) for v in (start, stop)):
        points = _np.linspace(start, stop, num, endpoint, dtype=dtype)
        return points if _current() is None else asarray(points)
    fractions = _np.linspace(0.0, 1.0, num, endpoint)
    points = start + (stop - start) * fractions.reshape(
        -1, *(1,) * max(_np.ndim(start), _np.ndim(stop))
    )
    return points if dtype is None else points.astype(dtype)


def eye(
    N: int,  # noqa: N803 - NumPy's name
    M: int | None = None,  # noqa: N803
    k: int = 0,
    dtype: Any = float,
) -> Any:
    """``np.eye``."""
    if _current() is None:
        return _np.eye(N, M, k, dtype)
    shape = (_size(N, "tw.numpy.eye"), _size(N if M is None else M, "tw.numpy.eye"))
    return (iota(shape, 0) + k == iota(shape, 1)).astype(dtype)


def identity(n: int, dtype: Any = float) -> Any:
    """``np.identity``."""
    return eye(n, dtype=dtype)


def tri(
    N: int,  # noqa: N803 - NumPy's name
    M: int | None = None,  # noqa: N803
    k: int = 0,
    dtype: Any = float,
) -> Any:
    """``np.tri``: ones on and below the k-th diagonal."""
    if _current() is None:
        return _np.tri(N, M, k, dtype)
    shape = (_size(N, "tw.numpy.tri"), _size(N if M is None else M, "tw.numpy.tri"))
    return (iota(shape, 0) + k >= iota(shape, 1)).astype(dtype)


def asarray(a: Any, dtype: Any = None) -> Any:
    """An array, a number or a nested sequence of traced values and numbers, as one array."""
    if isinstance(a, _Tracer):
        return a if dtype is None or a.dtype == _np.dtype(dtype) else a.astype(dtype)
    if _current() is None:
        return _np.asarray(a, dtype)
    if not _build.contains_traced(a):
        a = _np.asarray(a, dtype)
    result = _build.wrap(_build.as_node(a))
    return result if dtype is None else result.astype(dtype)


def array(object: Any, dtype: Any = None) -> Any:
    """Like :func:`asarray`, and always a copy."""
    if _current() is None and not isinstance(object, _Tracer):
        return _np.array(object, dtype)
    return _np.copy(asarray(object, dtype))
