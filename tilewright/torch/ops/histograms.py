"""Histograms, places of what is not zero, and hashes."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import torch

from tilewright.ir import build, ordered
from tilewright.ir.graph import Node, make
from tilewright.ir.types import as_number, bool_, f64, i64
from tilewright.torch.nodes import axes_of, cast, iota, number, reduce
from tilewright.torch.ops.views import slice_axis
from tilewright.torch.table import Call, Check, NotCompiled, row

aten = torch.ops.aten


# --- edges --------------------------------------------------------------------------------
def _ends(x: Node, given: Sequence[float] | None) -> tuple[Node, Node]:
    """The lowest and the highest edge; of no range, or of one number, one on either side."""
    if given is not None:
        low, high = (number(v, x.dtype) for v in given)
    elif not x.type.size:
        low, high = number(0, x.dtype), number(1, x.dtype)
    else:
        axes = tuple(range(x.type.rank))
        low, high = reduce("reduce_min", x, axes), reduce("reduce_max", x, axes)
    same = make("eq", (low, high))
    return build.where(same, low - 0.5, low), build.where(same, high + 0.5, high)


def _edges(low: Node, high: Node, bins: int) -> Node:
    """Evenly spaced, counted from the nearer end."""
    shape = (bins + 1,)
    at = cast(iota(shape, 0), low.dtype)

    def wide(x: Node) -> Node:
        return build.broadcast(x, shape, ())
    step = wide((high - low) / float(bins))
    from_below = wide(low) + step * at
    from_above = wide(high) - step * (float(bins) - at)
    return build.where(at < float((bins + 1) // 2), from_below, from_above)


def _counted(places: Node, inside: Node, weight: Node | None, bins: int, like: Node) -> Node:
    """The weights of what is inside, added up by place."""
    zero = number(0, like.dtype, inside.shape)
    values = number(1, like.dtype, inside.shape) if weight is None else weight
    at = make("min", (make("max", (places, number(0, i64, places.shape))),
                      number(bins - 1, i64, places.shape)))
    return build.put(
        number(0, like.dtype, (bins,)), at, build.where(inside, values, zero), 0, "add")


_numbers = builtins.range


def _flat(x: Node) -> Node:
    return build.reshape(x, (x.type.size,))


def _found(x: Node, edges: Node, weight: Node | None, density: bool) -> Node:
    """The histogram over these edges, of which the last one belongs to the last bin."""
    count = as_number(edges.shape[0])
    bins = count - 1
    flat = _flat(x)
    low, high = (build.broadcast(build.reshape(slice_axis(edges, 0, i, i + 1), ()), flat.shape, ())
                 for i in (0, bins))
    inside = make("ge", (flat, low)) & make("le", (flat, high))
    places = ordered.searchsorted(edges, flat, right=True) - 1
    hist = _counted(places, inside, None if weight is None else _flat(weight), bins, x)
    if not density:
        return hist
    widths = slice_axis(edges, 0, 1, count) - slice_axis(edges, 0, 0, bins)
    total = build.broadcast(reduce("sum", hist, (0,)), hist.shape, ())
    return hist / total / widths


def _bounds(call: Call, x: Node, given: Sequence[float] | None, name: str) -> tuple[Node, Node]:
    low, high = _ends(x, given)
    if given is None:
        size = high - low
        finite = make("eq", (size, size)) & (size < math.inf)
        call.checks.append(Check(
            aten._assert_async.msg, finite, (f"{name}: the range of the input is not finite",)))
    return low, high


def _supported(call: Call, x: Node) -> None:
    if not x.dtype.is_float or x.dtype.bits < 32:
        raise NotCompiled(f"a histogram of {x.dtype}")


@row(aten.histogram.bin_ct)
def histogram(
    call: Call, x: Node, bins: int = 100, *, range: Sequence[float] | None = None,
    weight: Node | None = None, density: bool = False,
) -> list[Node]:
    _supported(call, x)
    edges = _edges(*_bounds(call, x, range, "torch.histogram"), bins)
    return [_found(x, edges, weight, density), edges]


@row(aten.histogram.bins_tensor)
def histogram_of_edges(
    call: Call, x: Node, bins: Node, *, weight: Node | None = None, density: bool = False
) -> list[Node]:
    _supported(call, x)
    return [_found(x, bins, weight, density), bins]


def _columns(x: Node, count: int) -> list[Node]:
    """The coordinates of points, each of all of them."""
    points = build.reshape(x, (x.type.size // count, count))
    return [build.reshape(slice_axis(points, 1, i, i + 1), points.shape[:1])
            for i in _numbers(count)]


def _all_bounds(
    call: Call, x: Node, count: int, given: Sequence[float] | None
) -> list[tuple[Node, Node]]:
    return [
        _bounds(call, column, None if given is None else given[2 * i:2 * i + 2],
                "torch.histogramdd")
        for i, column in enumerate(_columns(x, count))
    ]


@row(aten._histogramdd_bin_edges.default)
def bin_edges(
    call: Call, x: Node, bins: Sequence[int], *, range: Sequence[float] | None = None,
    weight: Node | None = None, density: bool = False,
) -> list[Node]:
    _supported(call, x)
    bounds = _all_bounds(call, x, len(bins), range)
    return [_edges(*ends, count) for ends, count in zip(bounds, bins, strict=True)]


@row(aten._histogramdd_from_bin_cts.default)
def histogramdd(
    call: Call, x: Node, bins: Sequence[int], *, range: Sequence[float] | None = None,
    weight: Node | None = None, density: bool = False,
) -> Node:
    """The bin of a coordinate is its share of the range, rounded down."""
    _supported(call, x)
    if not x.type.size:
        return number(0, x.dtype, call.type.shape)
    place: Node | None = None
    inside: Node | None = None
    bounds = _all_bounds(call, x, len(bins), range)
    for column, (low, high), count in zip(_columns(x, len(bins)), bounds, bins, strict=True):
        a, b = (build.broadcast(v, column.shape, ()) for v in (low, high))
        within = make("ge", (column, a)) & make("le", (column, b))
        share = (column - a) * float(count) / (b - a)
        number_ = cast(build.where(within, share, number(0, share.dtype, share.shape)), i64)
        number_ = make("min", (number_, number(count - 1, i64, number_.shape)))
        place = number_ if place is None else place * count + number_
        inside = within if inside is None else inside & within
    assert place is not None and inside is not None
    flat = None if weight is None else _flat(weight)
    hist = build.reshape(_counted(place, inside, flat, math.prod(bins), x), call.type.shape)
    if not density:
        return hist
    total = reduce("sum", hist, tuple(_numbers(hist.type.rank)))
    volume = number(1, x.dtype)
    for (low, high), count in zip(bounds, bins, strict=True):
        volume = volume * ((high - low) / float(count))
    return hist / build.broadcast(total * volume, hist.shape, ())


# --- places and hashes --------------------------------------------------------------------
@row(aten.nonzero_static.default)
def nonzero_static(call: Call, x: Node, *, size: int, fill_value: int = -1) -> Node:
    """So many places of what is not zero, in order, as far as there are as many."""
    shape = call.type.shape
    rows, rank = as_number(shape[0]), x.type.rank
    if not rows or not rank or not x.type.size:
        return number(fill_value, i64, shape)
    truth = cast(_flat(x), bool_)
    position = ordered.scan("add", cast(truth, i64), 0) - 1
    last = number(rows, i64, position.shape)  # what is not taken goes behind the others
    at = build.where(truth, make("min", (position, last)), last)
    made = build.put(number(-1, i64, (rows + 1,)), at, iota(at.shape, 0), 0, "set")
    flat = slice_axis(made, 0, 0, rows)
    found, step = [], as_number(x.type.size)
    for d in x.shape:
        step //= as_number(d)
        digit = make("mod", (make("floordiv", (flat, number(step, i64, flat.shape))),
                             number(d, i64, flat.shape)))
        taken = build.where(flat < 0, number(fill_value, i64, flat.shape), digit)
        found.append(build.reshape(taken, (rows, 1)))
    return build.concat(found, 1)


@row(aten.hash_tensor.default)
def hash_tensor(
    call: Call, x: Node, dim: Any = (), *, keepdim: bool = False, mode: int = 0
) -> Node:
    """The bits of all elements, floats as f64 and integers as i64, put together by exclusive or."""
    if not x.type.size or mode != 0:
        raise NotCompiled("a hash of nothing, or of another kind")
    bits = build.bitcast(cast(x, f64), i64) if x.dtype.is_float else cast(x, i64)
    axes = axes_of(dim, x.type.rank)
    kept = [i for i in _numbers(x.type.rank) if i not in axes]
    rows = build.transpose(bits, [*kept, *axes])
    lead = rows.shape[:len(kept)]
    count = as_number(math.prod(x.shape[a] for a in axes))
    rows = build.reshape(rows, (*lead, count))
    while count > 1:
        half = (count + 1) // 2
        first, rest = slice_axis(rows, len(lead), 0, half), slice_axis(rows, len(lead), half, count)
        if count % 2:
            zero = number(0, i64, (*lead, 1))
            rest = build.concat([rest, zero], len(lead))
        rows, count = make("xor", (first, rest)), half
    return build.bitcast(build.reshape(rows, call.type.shape), call.type.dtype)
