"""NumPy's scans, sorts and searches on traced values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, OutOfBounds, ShapeError
from tilewright.frontend.build import (
    as_node,
    axis_of,
    cast,
    checked_dtype,
    common_dtype,
    describe_value,
    emit,
    reshape,
    wrap,
)
from tilewright.frontend.elementwise import ACCUMULATIONS, check_keywords
from tilewright.frontend.location import here
from tilewright.frontend.reductions import accumulation
from tilewright.frontend.tracer import Tracer, implements, refuse
from tilewright.ir.attrs import ScanAttrs, SearchAttrs, SortAttrs
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim
from tilewright.ir.types import bool_, dtype_of

KINDS = (None, "quicksort", "mergesort", "heapsort", "stable", "q", "m", "h", "s")


# --- scans --------------------------------------------------------------------------------
def row_of(a: Any, axis: Any, name: str) -> tuple[Node, int]:
    """The node and the axis counted from the start; for None the flattened node."""
    node = as_node(a)
    if axis is None:
        return reshape(node, (node.type.size,)), 0
    return node, axis_of(axis, len(node.shape), name)


def scan(op: str, x: Node, axis: int) -> Node:
    """A running result."""
    return emit(op, (x,), ScanAttrs(axis))


def running(ufunc: np.ufunc, op: str, a: Any, axis: Any, dtype: Any, name: str) -> Tracer:
    """A running sum or product."""
    x, along = row_of(a, axis, name)
    x = cast(x, accumulation(ufunc, x, dtype))
    if x.dtype is bool_:
        op = "cummax" if op == "cumsum" else "cummin"
    return wrap(scan(op, x, along), a)


@implements(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
    """``np.cumsum``; the 16-bit floats are added up in f32."""
    check_keywords("np.cumsum", {"out": out}, ())
    return running(np.add, "cumsum", a, axis, dtype, "np.cumsum")


@implements(np.cumprod)
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
    """``np.cumprod``; the 16-bit floats are multiplied in f32."""
    check_keywords("np.cumprod", {"out": out}, ())
    return running(np.multiply, "cumprod", a, axis, dtype, "np.cumprod")


def without_nans(function: Callable[..., Tracer], value: float) -> Callable[..., Tracer]:
    """A scan that leaves out NaNs, by a value that changes nothing."""

    def run(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
        x = as_node(a)
        kept = np.where(np.isnan(a), x.dtype.numpy.type(value), a) if x.dtype.is_float else a
        return function(kept, axis, dtype, out)

    return run


implements(np.nancumsum)(without_nans(cumsum, 0.0))
implements(np.nancumprod)(without_nans(cumprod, 1.0))


def cumulative(function: Callable[..., Tracer], start: int) -> Callable[..., Any]:
    """``np.cumulative_sum`` and ``np.cumulative_prod``."""

    def run(
        x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None,
        include_initial: bool = False,
    ) -> Any:
        if axis is None and np.ndim(x) != 1:
            raise ShapeError(
                "a cumulative function of several axes needs axis=",
                got=describe_value(x),
                loc=here(),
            )
        result = function(x, axis or 0, dtype, out)
        if not include_initial:
            return result
        along = axis_of(axis or 0, np.ndim(x), "a cumulative function")
        shape = [1 if i == along else d for i, d in enumerate(result.shape)]
        return np.concatenate([np.full_like(result, start, shape=shape), result], along)

    return run


if hasattr(np, "cumulative_sum"):  # from NumPy 2.1 on
    implements(np.cumulative_sum)(cumulative(cumsum, 0))
    implements(np.cumulative_prod)(cumulative(cumprod, 1))


def accumulate(ufunc: np.ufunc, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None
               ) -> Tracer:
    """``ufunc.accumulate`` of those ufuncs that have a scan."""
    name = f"np.{ufunc.__name__}.accumulate"
    check_keywords(name, {"out": out}, ())
    op = SCANS.get(ufunc)
    if op is None:
        refuse(
            f"the ufunc method {name} cannot be traced",
            f"only {', '.join('np.' + u.__name__ for u in SCANS)} have a running form; use a loop "
            "over x[i]",
        )
    if ufunc in (np.add, np.multiply):
        return running(ufunc, op, array, axis, dtype, name)
    x, along = row_of(array, axis, name)
    if ufunc in (np.logical_and, np.logical_or):
        x = cast(x, bool_)
    elif ufunc is np.logaddexp and not x.dtype.is_float:
        x = cast(x, dtype_of(np.float64))
    if dtype is not None:
        x = cast(x, checked_dtype(np.dtype(dtype), "the dtype of a scan"))
    return wrap(scan(op, x, along), array)


SCANS: dict[np.ufunc, str] = {
    np.add: "cumsum", np.multiply: "cumprod", np.maximum: "cummax", np.minimum: "cummin",
    np.logical_or: "cummax", np.logical_and: "cummin", np.logaddexp: "logcumsumexp",
}
ACCUMULATIONS["accumulate"] = accumulate


# --- sorts --------------------------------------------------------------------------------
def places(op: str, x: Node, axis: int, start: Dim, stop: Dim) -> Node:
    """The places ``start`` to ``stop`` of the sorted axis, or where their elements came from."""
    return emit(op, (x,), SortAttrs(axis, False, start, stop))


def in_order(op: str, a: Any, axis: Any, kind: Any, order: Any, name: str) -> Tracer:
    """A whole axis in order."""
    if kind not in KINDS:
        raise DTypeError(f"{name}: there is no kind of sort {kind!r}", loc=here(),
                         hint="leave it out: every sort here is stable")
    check_keywords(name, {"order": order}, ())
    x, along = row_of(a, axis, name)
    return wrap(places(op, x, along, 0, x.shape[along]), a)


@implements(np.sort)
def sort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Tracer:
    """``np.sort``: NaN stands last; equal elements keep their order, whatever ``kind`` says."""
    return in_order("sort", a, axis, kind, order, "np.sort")


@implements(np.argsort)
def argsort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Tracer:
    """``np.argsort``, always a stable one."""
    return in_order("argsort", a, axis, kind, order, "np.argsort")


def divided(op: str, name: str) -> Callable[..., Tracer]:
    """A partition is a sort."""

    def run(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
            ) -> Tracer:
        x, along = row_of(a, axis, name)
        size = x.shape[along]
        for place in np.atleast_1d(np.asarray(kth)).tolist() if isinstance(size, int) else ():
            if not -size <= place < size:
                raise OutOfBounds(
                    f"{name}: there is no place {place}",
                    expected=f"-{size} to {size - 1}" if size else "no place: the axis is empty",
                    got=place,
                    loc=here(),
                )
        return in_order(op, a, axis, None, order, name)

    return run


implements(np.partition)(divided("sort", "np.partition"))
implements(np.argpartition)(divided("argsort", "np.argpartition"))


@implements(np.lexsort)
def lexsort(keys: Any, axis: Any = -1) -> Any:
    """``np.lexsort``: the last key counts most; one stable sort per key."""
    listed = list(keys)
    if not listed:
        raise ShapeError("np.lexsort needs a key", loc=here())
    order = np.argsort(listed[0], axis)
    for key in listed[1:]:
        moved = np.take_along_axis(key, order, axis)
        order = np.take_along_axis(order, np.argsort(moved, axis), axis)
    return order


# --- searches -----------------------------------------------------------------------------
@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Tracer:
    """``np.searchsorted``: a binary search for each element of ``v``."""
    if side not in ("left", "right"):
        raise DTypeError("np.searchsorted: side is neither 'left' nor 'right'", got=repr(side),
                         loc=here())
    if np.ndim(a) != 1:
        raise ShapeError("np.searchsorted looks in an array with one axis",
                         got=describe_value(a), loc=here())
    if sorter is not None:
        a = np.take(a, sorter)
    dtype = dtype_of(common_dtype("np.searchsorted", as_node(a).dtype.numpy, v))
    inputs = (cast(as_node(a), dtype), cast(as_node(v), dtype))
    return wrap(emit("searchsorted", inputs, SearchAttrs(side == "right")), a, v)


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """``np.digitize``; whether traced bins rise or fall is seen when the program runs."""
    side = "left" if right else "right"
    if isinstance(bins, Tracer):
        if not np.size(bins):
            return searchsorted(bins, x, side)
        falling = np.size(bins) - searchsorted(np.flip(bins), x, side)
        return np.where(bins[0] <= bins[-1], searchsorted(bins, x, side), falling)
    steps = np.diff(bins)
    if np.all(steps >= 0):
        return searchsorted(bins, x, side)
    if not np.all(steps <= 0):
        raise ShapeError("np.digitize: the bins neither rise nor fall", got=describe_value(bins),
                         loc=here())
    return np.size(bins) - searchsorted(np.flip(bins), x, side)
