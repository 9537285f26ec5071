"""NumPy's reductions that are made of others: ptp, average, the nan family, norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError
from tilewright.frontend.build import as_node, axes_of, axis_of, count
from tilewright.frontend.elementwise import check_keywords
from tilewright.frontend.location import here
from tilewright.frontend.reductions import max_, mean, min_
from tilewright.frontend.tracer import implements, refuse


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    """``np.ptp``: largest minus smallest."""
    check_keywords("np.ptp", {"out": out}, ())
    return max_(a, axis, keepdims=keepdims) - min_(a, axis, keepdims=keepdims)


@implements(np.average)
def average(
    a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False
) -> Any:
    """``np.average``; weights have the shape of ``a`` or the length of ``axis``."""
    if weights is None:
        result = mean(a, axis, keepdims=keepdims)
        places = np.full(result.shape, count(np.shape(a), axes_of(axis, np.ndim(a), "np.average")))
        return (result, places.astype(result.dtype)) if returned else result
    if np.shape(weights) != np.shape(a):
        if not isinstance(axis, (int, np.integer)) or np.ndim(weights) != 1:
            raise ShapeError(
                "np.average: the weights do not fit",
                expected=f"{np.shape(a)}, or one axis and weights of its length",
                got=np.shape(weights),
                loc=here(),
            )
        along = axis_of(axis, np.ndim(a), "np.average")
        weights = np.reshape(weights, [-1 if i == along else 1 for i in range(np.ndim(a))])
    dtype = np.result_type(a, weights)
    wide = np.result_type(dtype, np.float64) if dtype.kind in "biu" else dtype
    product = np.multiply(a, weights).astype(wide)
    total = np.sum(np.broadcast_to(weights, np.shape(a)).astype(wide), axis, keepdims=keepdims)
    result = np.sum(product, axis, keepdims=keepdims) / total
    return (result, total) if returned else result


def _without_nans(function: Any, value: float) -> Callable[..., Any]:
    """A reduction that leaves out NaNs, by a value that changes nothing."""

    def run(a: Any, axis: Any = None, **options: Any) -> Any:
        x = as_node(a)
        if not x.dtype.is_float:
            return function(a, axis, **options)
        result = function(np.where(np.isnan(a), x.dtype.numpy.type(value), a), axis, **options)
        if abs(value) != np.inf:
            return result
        missing = np.all(np.isnan(a), axis, keepdims=options.get("keepdims", False))
        return np.where(missing, x.dtype.numpy.type(np.nan), result)

    return run


implements(np.nansum)(_without_nans(np.sum, 0.0))
implements(np.nanprod)(_without_nans(np.prod, 1.0))
implements(np.nanmax)(_without_nans(np.max, -np.inf))
implements(np.nanmin)(_without_nans(np.min, np.inf))


@implements(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False
) -> Any:
    """``np.nanmean``."""
    check_keywords("np.nanmean", {"out": out}, ())
    if not as_node(a).dtype.is_float:
        return mean(a, axis, dtype, keepdims=keepdims)
    return mean(a, axis, dtype, keepdims=keepdims, where=np.logical_not(np.isnan(a)))


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """``np.linalg.norm``: of vectors for the orders None, 0, 1, 2, any p and infinity; of matrices
    for None, 'fro', 1, -1 and infinity."""
    wide = as_node(x)
    x = np.astype(x, np.float64) if not wide.dtype.is_float else x
    axes = axes_of(axis, len(wide.shape), "np.linalg.norm")
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return np.sqrt(np.sum(np.multiply(x, x), axes, keepdims=keepdims))
    size = np.abs(x)
    if len(axes) == 1:
        return _vector_norm(size, ord, axes, keepdims)
    if len(axes) != 2 or ord not in (1, -1, np.inf, -np.inf):
        refuse(
            f"np.linalg.norm with ord={ord!r} cannot be traced",
            "use the orders None, 'fro', 1, -1, inf or -inf for matrices",
        )
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else axes
    rows, columns = (axis_of(a, len(wide.shape), "np.linalg.norm") for a in listed)
    first, second = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = np.sum(size, first, keepdims=True)
    result = (np.max if ord > 0 else np.min)(sums, second, keepdims=True)
    return result if keepdims else np.squeeze(result, axes)


def _vector_norm(size: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if ord in (np.inf, -np.inf):
        return (np.max if ord > 0 else np.min)(size, axes, keepdims=keepdims)
    if ord == 0:
        return np.sum(np.not_equal(size, 0).astype(size.dtype), axes, keepdims=keepdims)
    if ord == 1:
        return np.sum(size, axes, keepdims=keepdims)
    if not isinstance(ord, (int, float)):
        raise DTypeError("np.linalg.norm: no such order for vectors", got=repr(ord), loc=here())
    return np.power(np.sum(np.power(size, ord), axes, keepdims=keepdims), 1.0 / ord)
