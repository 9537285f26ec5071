"""Reductions of the segments of an axis, and their gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from tilewright.ir import build, ordered
from tilewright.ir.graph import Node, make
from tilewright.ir.types import i64
from tilewright.torch.nodes import axis_of, cast, iota, number, wide
from tilewright.torch.ops.views import slice_axis
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

MODES: dict[str, tuple[Any, float]] = {
    "sum": ("add", 0.0), "mean": ("add", 0.0), "prod": ("mul", 1.0),
    "max": ("max", -math.inf), "min": ("min", math.inf),
}
"""How the elements of a segment are put together, and what of none is."""


@dataclass(frozen=True)
class _Segments:
    """Segments of an axis of data.

    places  for each element of the data, 1 + its segment; beside the segments 0 or one too many
    counts  the elements of each segment
    """

    axis: int
    places: Node
    counts: Node

    def together(self, mode: Any, first: Any, values: Node) -> Node:
        """The elements of each segment put together with a first number."""
        shape = list(values.shape)
        count = self.counts.shape[self.axis]
        shape[self.axis] = count + 2
        made = build.put_along(
            number(first, values.dtype, tuple(shape)), self.places, values, self.axis, mode)
        return slice_axis(made, self.axis, 1, count + 1)

    def each(self, values: Node) -> Node:
        """For each element of the data, the value of its segment; 0 beside them."""
        shape = list(values.shape)
        shape[self.axis] = 1
        edge = number(0, values.dtype, tuple(shape))
        padded = build.concat([edge, values, edge], self.axis)
        return build.take_along(padded, self.places, self.axis)


def _segments(data: Node, lengths: Node | None, offsets: Node | None, axis: int) -> _Segments:
    axis = axis_of(axis, data.type.rank)
    if lengths is not None:
        sizes = cast(lengths, i64)
        zero = number(0, i64, (*sizes.shape[:-1], 1))
        edges = build.concat([zero, ordered.scan("add", sizes, axis)], axis)
    elif offsets is not None:
        edges = cast(offsets, i64)
        size = edges.shape[axis]
        sizes = slice_axis(edges, axis, 1, size) - slice_axis(edges, axis, 0, size - 1)
    else:
        raise NotCompiled("segments by indices")
    at = iota(data.shape[:axis + 1], axis)
    places = ordered.searchsorted(edges, at, right=True)
    rest = data.shape[axis + 1:]

    def wider(x: Node) -> Node:
        return build.broadcast(x, (*x.shape, *rest), range(axis + 1))
    return _Segments(axis, wider(places), wider(sizes))


@row(aten.segment_reduce.default)
def segment_reduce(
    call: Call, data: Node, reduce: str, *, lengths: Node | None = None,
    indices: Node | None = None, offsets: Node | None = None, axis: int = 0, unsafe: bool = False,
    initial: Any = None,
) -> Node:
    if not data.type.size or not call.type.size:
        raise NotCompiled("segments of nothing")
    found = _segments(data, lengths, offsets, axis)
    mode, nothing = MODES[reduce]
    values = cast(data, wide(data.dtype))
    first = nothing if initial is None else float(initial)
    total = found.together(mode, first, values)
    if reduce != "mean":
        return total
    count = cast(found.counts, total.dtype)
    empty = make("eq", (count, number(0, count.dtype, count.shape)))
    of_none = number(math.nan if initial is None else first, total.dtype, total.shape)
    return build.where(empty, of_none, total / count)


@row(aten._segment_reduce_backward.default)
def segment_reduce_backward(
    call: Call, grad: Node, output: Node, data: Node, reduce: str, *,
    lengths: Node | None = None, offsets: Node | None = None, axis: int = 0, initial: Any = None,
) -> Node:
    if not data.type.size or not output.type.size:
        raise NotCompiled("segments of nothing")
    found = _segments(data, lengths, offsets, axis)
    g, out, x = (cast(n, wide(data.dtype)) for n in (grad, output, data))
    if reduce == "sum":
        return found.each(g)
    if reduce == "mean":
        return found.each(g / cast(found.counts, g.dtype))
    zero, one = number(0, x.dtype, x.shape), number(1, x.dtype, x.shape)
    if reduce in ("max", "min"):
        chosen = make("eq", (x, found.each(out))) | build.nan_test(x)
        ties = found.together("add", 0, build.where(chosen, one, zero))
        return build.where(chosen, found.each(g) / found.each(ties), zero)
    return found.each(g) * _without(found, x, out, 1.0 if initial is None else float(initial))


def _without(found: _Segments, x: Node, product: Node, first: float) -> Node:
    """The product of the other elements of each element's segment."""
    zero, one = number(0, x.dtype, x.shape), number(1, x.dtype, x.shape)
    is_zero, is_nan = make("eq", (x, zero)), build.nan_test(x)
    plain = found.together("mul", first, build.where(is_zero | is_nan, one, x))

    def others(truth: Node) -> Node:
        marks = build.where(truth, one, zero)
        return found.each(found.together("add", 0, marks)) - marks > 0.5
    rest = build.where(others(is_zero), zero * found.each(plain), found.each(plain))
    rest = build.where(others(is_nan), number(math.nan, x.dtype, x.shape), rest)
    return build.where(is_zero | is_nan, rest, found.each(product) / x)
