"""NumPy's elementwise functions that are no ufuncs: where, clip, round, casts, and tw.erf."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.frontend.build import (
    as_node,
    broadcast_to,
    cast,
    checked_dtype,
    common_dtype,
    common_shape,
    emit,
    wrap,
)
from tilewright.frontend.elementwise import check_keywords, convert, kind_of, regular
from tilewright.frontend.tracer import Tracer, implements, refuse
from tilewright.ir.graph import OPS
from tilewright.ir.types import FLOATS, TensorType, bool_, dtype_of, f64


@implements(np.where)
def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """``np.where`` with three arguments."""
    if x is None or y is None:
        refuse(
            "np.where with one argument cannot be traced: its result has no fixed size",
            "use the three-argument form np.where(condition, a, b)",
        )
    values = [regular(v, "np.where") for v in (condition, x, y)]
    kinds = [kind_of(v) for v in values[1:]]
    plain = [np.dtype(k).type(0) if isinstance(k, np.dtype) else k(0) for k in kinds]
    dtype = common_dtype("np.where", *plain)
    shape = common_shape("np.where", [v.node if isinstance(v, Tracer) else v for v in values])
    chosen = broadcast_to(cast(as_node(values[0]), bool_), shape)
    nodes = (chosen, *(convert(v, dtype, shape) for v in values[1:]))
    return wrap(emit("where", nodes), *values)


@implements(np.clip)
def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **bounds: Any) -> Any:
    """``np.clip``; a bound may be None."""
    low, high = bounds.pop("min", a_min), bounds.pop("max", a_max)
    low, high = (None if b is np._NoValue else b for b in (low, high))
    check_keywords("np.clip", {"out": out, **bounds}, ())
    result = a
    if low is not None:
        result = np.maximum(result, low)
    if high is not None:
        result = np.minimum(result, high)
    return np.copy(result) if result is a else result


@implements(np.round, np.around)
def round_(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """``np.round``: halves go to the even neighbour."""
    check_keywords("np.round", {"out": out}, ())
    node = as_node(a)
    if not node.dtype.is_float:
        if decimals < 0:
            refuse(
                "np.round of integers with negative decimals cannot be traced",
                "divide, round and multiply floats",
            )
        return wrap(node, a)
    if decimals == 0:
        return np.rint(a)
    scale = 10.0 ** abs(decimals)
    scaled = a * scale if decimals > 0 else a / scale
    rounded = np.rint(scaled)
    return (rounded / scale if decimals > 0 else rounded * scale).astype(a.dtype)


@implements(np.fix)
def fix(x: Any, out: Any = None) -> Any:
    """``np.fix``: towards zero."""
    return np.trunc(x)


@implements(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """``np.astype``."""
    return wrap(cast(as_node(x), checked_dtype(np.dtype(dtype), "astype: the result")), x)


@implements(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Any:
    """``np.copy``: the same values, sharing no memory."""
    return wrap(as_node(a), a)


@implements(np.nan_to_num)
def nan_to_num(
    x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    """``np.nan_to_num``."""
    node = as_node(x)
    if not node.dtype.is_float:
        return wrap(node, x)
    most = float(largest(node.dtype.numpy))
    result = np.where(np.isnan(x), node.dtype.numpy.type(nan), x)
    for infinity, value in ((np.inf, posinf), (-np.inf, neginf)):
        limit = np.copysign(most, infinity) if value is None else value
        result = np.where(np.equal(x, infinity), node.dtype.numpy.type(limit), result)
    return result


def largest(dtype: np.dtype) -> Any:
    """The largest finite number of a float type."""
    return np.nextafter(dtype.type(np.inf), dtype.type(0))


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """``np.isclose``."""
    near = np.less_equal(np.abs(np.subtract(a, b)), atol + rtol * np.abs(b))
    result = np.where(np.logical_and(np.isfinite(a), np.isfinite(b)), near, np.equal(a, b))
    if equal_nan:
        result = np.logical_or(result, np.logical_and(np.isnan(a), np.isnan(b)))
    return result


def erf(x: Any) -> Any:
    """The error function, elementwise; integers count as f64, plain arrays give plain arrays."""
    value = regular(x, "tw.erf")
    if isinstance(value, Tracer):
        node = value.node if value.node.dtype.is_float else cast(value.node, f64)
        return wrap(emit("erf", (node,)), x)
    array = np.asarray(value)
    wide = array if array.dtype in FLOAT_DTYPES else array.astype(np.float64)
    kind = TensorType(dtype_of(wide), wide.shape)
    return OPS["erf"].numpy(None, kind, wide)[()]


FLOAT_DTYPES = tuple(d.numpy for d in FLOATS)
