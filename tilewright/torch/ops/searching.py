"""Medians without NaNs, searches in sorted rows, and counts."""

from __future__ import annotations

from typing import Any

import torch

from tilewright.ir import build, ordered
from tilewright.ir.graph import Node, make
from tilewright.ir.types import bool_, i64
from tilewright.torch.nodes import axis_of, cast, expand, number, operand, reduce
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


def _flat(x: Node) -> Node:
    return build.reshape(x, (x.type.size,))


def _nan_median(x: Node, dim: int) -> tuple[Node, Node]:
    """The lower median of the numbers of an axis: sorted, NaNs stand behind them."""
    if not x.dtype.is_float:
        return ordered.median(x, dim)
    x = x if x.type.rank else build.reshape(x, (1,))
    axis = axis_of(dim, x.type.rank)
    values, places = ordered.sort(x, axis)
    is_number = make("eq", (x, x))
    count = reduce("sum", cast(is_number, i64), (axis,), True)
    middle = make("floordiv", (count - 1, number(2, i64, count.shape)))
    at = make("max", (middle, number(0, i64, middle.shape)))
    return build.take_along(values, at, axis), build.take_along(places, at, axis)


@row(aten.nanmedian.default)
def nanmedian(call: Call, x: Node) -> Node:
    if not x.type.size:
        return number(float("nan"), x.dtype)
    return build.reshape(_nan_median(_flat(x), 0)[0], ())


@row(aten.nanmedian.dim)
def nanmedian_dim(call: Call, x: Node, dim: int, keepdim: bool = False) -> list[Node]:
    return [
        build.reshape(n, t.shape) for n, t in zip(_nan_median(x, dim), call.out, strict=True)]


# --- searches -----------------------------------------------------------------------------
def _found(call: Call, rows: Node, values: Any, right: bool) -> Node:
    values = operand(values, rows.dtype, getattr(values, "shape", ()))
    if not values.type.size:
        return number(0, i64, values.shape)
    return ordered.searchsorted(rows, values, right)


@row(aten.searchsorted)
def searchsorted(
    call: Call, rows: Node, values: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Node | None = None,
) -> Node:
    if isinstance(values, Node) and values.dtype is not rows.dtype:
        raise NotCompiled("a row and values of two types")
    if sorter is not None:
        rows = build.take_along(rows, sorter, rows.type.rank - 1)
    return _found(call, rows, values, right or side == "right")


@row(aten.bucketize)
def bucketize(
    call: Call, values: Any, rows: Node, *, out_int32: bool = False, right: bool = False
) -> Node:
    if isinstance(values, Node) and values.dtype is not rows.dtype:
        raise NotCompiled("a row and values of two types")
    return _found(call, rows, values, right)


@row(aten.histc)
def histc(call: Call, x: Node, bins: int = 100, min: Any = 0, max: Any = 0) -> Node:
    if min == max:
        raise NotCompiled("a range that depends on the data")
    low, high = float(min), float(max)
    flat = _flat(x)
    if not flat.type.size:
        return number(0, x.dtype, call.type.shape)
    inside = (flat >= low) & (flat <= high)
    place = (flat - low) * float(bins) / number(high - low, flat.dtype, flat.shape)
    place = cast(build.where(inside, place, number(0, flat.dtype, flat.shape)), i64)
    place = make("min", (place, number(bins - 1, i64, place.shape)))
    return build.put(number(0, x.dtype, (bins,)), place, cast(inside, x.dtype), 0, "add")


# --- equal elements -----------------------------------------------------------------------
MOST_COMPARED = 64
"""Elements up to which each is compared."""


@row(aten.isin)
def isin(
    call: Call, elements: Any, tests: Any, *, assume_unique: bool = False, invert: bool = False
) -> Node:
    given = [n for n in (elements, tests) if isinstance(n, Node)]
    dtype = given[0].dtype
    if any(n.dtype is not dtype for n in given):
        raise NotCompiled("elements of two types")
    x = operand(elements, dtype, getattr(elements, "shape", ()))
    flat = _flat(operand(tests, dtype, getattr(tests, "shape", ())))
    count = int(flat.shape[0])
    shape = call.type.shape
    if not count or not x.type.size:
        return number(invert, bool_, shape)
    if count <= MOST_COMPARED:
        wide = (*shape, count)
        left = build.broadcast(x, wide, range(len(shape)))
        hit = reduce("reduce_max", make("eq", (left, expand(flat, wide))), (len(shape),))
    else:
        row_ = ordered.sort(flat, 0)[0]
        at = ordered.searchsorted(row_, _flat(x))
        last = make("min", (at, number(count - 1, at.dtype, at.shape)))
        hit = build.reshape(make("eq", (build.take(row_, last, 0), _flat(x))), shape)
    return make("not", (hit,)) if invert else hit


@row(aten.masked_scatter)
def masked_scatter(call: Call, x: Node, mask: Node, source: Node) -> Node:
    """The elements of ``source`` in order where the mask holds: it counts them."""
    shape = call.type.shape
    truth, x = expand(cast(mask, bool_), shape), expand(x, shape)
    if not x.type.size or not source.type.size:
        return x
    position = ordered.scan("add", cast(_flat(truth), i64), 0) - 1
    at = make("max", (position, number(0, i64, position.shape)))
    taken = build.reshape(build.take(_flat(source), at, 0), shape)
    return build.where(truth, taken, x)


@row(aten.masked_scatter_backward)
def masked_scatter_backward(call: Call, grad: Node, mask: Node, sizes: Any) -> Node:
    truth = _flat(expand(cast(mask, bool_), grad.shape))
    count = int(call.type.size)
    if not count:
        return number(0, grad.dtype, call.type.shape)
    position = ordered.scan("add", cast(truth, i64), 0) - 1
    # What is not taken goes to a place behind the others.
    at = build.where(truth, position, number(count, i64, position.shape))
    made = build.put(number(0, grad.dtype, (count + 1,)), at, _flat(grad), 0, "add")
    return build.reshape(build.part(made, [0], [count], [1]), call.type.shape)
