"""Operators that look at the same elements in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.attrs import FlipAttrs
from tilewright.ir.graph import Node, make
from tilewright.ir.sizes import Dim
from tilewright.torch.nodes import axis_of, cast, expand, operand
from tilewright.torch.table import Call, row

aten = torch.ops.aten


@row(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.unsqueeze, aten.squeeze,
     aten.unflatten, aten.view_copy, aten.unsqueeze_copy, aten.squeeze_copy)
def view(call: Call, x: Node, *args: Any) -> Node:
    if call.type.dtype is not x.dtype:  # view(dtype)
        return build.bitcast(x, call.type.dtype)
    return build.reshape(x, call.type.shape)


@row(aten.permute, aten.permute_copy)
def permute(call: Call, x: Node, dims: Sequence[int]) -> Node:
    return build.transpose(x, [axis_of(d, x.type.rank) for d in dims])


@row(aten.t)
def t(call: Call, x: Node) -> Node:
    return build.transpose(x, range(x.type.rank - 1, -1, -1))


@row(aten.transpose, aten.transpose_copy)
def transpose(call: Call, x: Node, a: int, b: int) -> Node:
    perm = list(range(x.type.rank))
    if perm:
        a, b = axis_of(a, len(perm)), axis_of(b, len(perm))
        perm[a], perm[b] = perm[b], perm[a]
    return build.transpose(x, perm)


@row(aten.expand, aten.expand_copy, torch.ops.prims.broadcast_in_dim)
def expand_(call: Call, x: Node, size: Any, axes: Any = None, *, implicit: bool = False) -> Node:
    if axes is not None:
        return build.broadcast(x, call.type.shape, axes)
    return expand(x, call.type.shape)


def slice_axis(x: Node, axis: int, start: Dim, stop: Dim, step: int = 1) -> Node:
    """Elements ``start`` to ``stop`` along one axis."""
    rank = x.type.rank
    starts: list[Dim] = [0] * rank
    stops, steps = list(x.shape), [1] * rank
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return build.part(x, starts, stops, steps)


def bounds(start: Any, stop: Any, size: Any) -> tuple[Any, Any]:
    """Python's reading of slice bounds, within the axis."""
    low = 0 if start is None else start
    high = size if stop is None else stop
    low = min(max(low + size if low < 0 else low, 0), size)
    high = min(max(high + size if high < 0 else high, low), size)
    return low, high


@row(aten.slice, aten.slice_copy)
def slice_(
    call: Call, x: Node, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Node:
    axis = axis_of(dim, x.type.rank)
    low, high = bounds(start, end, x.shape[axis])
    return slice_axis(x, axis, low, high, step)


@row(aten.narrow_copy)
def narrow_copy(call: Call, x: Node, dim: int, start: int, length: int) -> Node:
    axis = axis_of(dim, x.type.rank)
    first = start % max(1, int(x.shape[axis])) if start < 0 else start
    return slice_axis(x, axis, first, first + length)


@row(aten.select, aten.select_copy)
def select(call: Call, x: Node, dim: int, index: int) -> Node:
    axis = axis_of(dim, x.type.rank)
    at = index + x.shape[axis] if index < 0 else index
    return build.reshape(slice_axis(x, axis, at, at + 1), call.type.shape)


@row(aten.slice_scatter)
def slice_scatter(
    call: Call, x: Node, source: Node, dim: int = 0, start: int | None = None,
    end: int | None = None, step: int = 1,
) -> Node:
    axis = axis_of(dim, x.type.rank)
    size = x.shape[axis]
    low, high = bounds(start, end, size)
    return placed(x, operand(source, x.dtype, source.shape), axis, low, high, step)


def placed(x: Node, source: Node, axis: int, low: Any, high: Any, step: int) -> Node:
    """``x`` with ``source`` at the elements low, low + step ... below ``high`` of an axis."""
    size, rank = x.shape[axis], x.type.rank
    count = source.shape[axis]
    if count == 0:
        return x
    if step == 1:
        parts = [slice_axis(x, axis, 0, low), source, slice_axis(x, axis, high, size)]
        return build.concat([p for p in parts if p.shape[axis]], axis)
    widths: list[Any] = [0] * rank
    before, between, after = list(widths), list(widths), list(widths)
    before[axis], between[axis] = low, step - 1
    after[axis] = size - low - (count - 1) * step - 1
    spread = build.pad(source, before, after, between)
    truth = build.pad(build.truth(source, True), before, after, between, False)
    return build.where(truth, spread, x)


@row(aten.select_scatter)
def select_scatter(call: Call, x: Node, source: Node, dim: int, index: int) -> Node:
    axis = axis_of(dim, x.type.rank)
    at = index + x.shape[axis] if index < 0 else index
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1:])
    return placed(x, build.reshape(cast(source, x.dtype), shape), axis, at, at + 1, 1)


@row(aten.cat)
def cat(call: Call, tensors: Sequence[Node], dim: int = 0) -> Node:
    dtype, rank = call.type.dtype, call.type.rank
    # A tensor of shape (0,) may stand among tensors of any shape.
    kept = [cast(x, dtype) for x in tensors if x.type.rank == rank and x.shape != (0,)]
    return build.concat(kept, axis_of(dim, rank)) if kept else cast(tensors[0], dtype)


@row(aten.stack)
def stack(call: Call, tensors: Sequence[Node], dim: int = 0) -> Node:
    rank = call.type.rank
    axis = axis_of(dim, rank)
    shape = (*call.type.shape[:axis], 1, *call.type.shape[axis + 1:])
    return build.concat([build.reshape(cast(x, call.type.dtype), shape) for x in tensors], axis)


@row(aten.split, aten.split_with_sizes, aten.unsafe_split, aten.split_copy,
     aten.split_with_sizes_copy)
def split(call: Call, x: Node, sizes: Any, dim: int = 0) -> list[Node]:
    axis, parts = axis_of(dim, x.type.rank), []
    start: Dim = 0
    for out in call.out:
        stop = start + out.shape[axis]
        parts.append(slice_axis(x, axis, start, stop))
        start = stop
    return parts


@row(aten.unbind, aten.unbind_copy)
def unbind(call: Call, x: Node, dim: int = 0) -> list[Node]:
    axis = axis_of(dim, x.type.rank)
    return [
        build.reshape(slice_axis(x, axis, i, i + 1), out.shape) for i, out in enumerate(call.out)
    ]


@row(aten.flip)
def flip(call: Call, x: Node, dims: Sequence[int]) -> Node:
    axes = tuple(sorted({axis_of(d, x.type.rank) for d in dims}))
    return make("flip", (x,), FlipAttrs(axes)) if axes and x.type.rank else x


@row(aten.repeat)
def repeat(call: Call, x: Node, repeats: Sequence[int]) -> Node:
    lead = len(repeats) - x.type.rank
    shape = (*([1] * lead), *x.shape)
    wide = [n for r, d in zip(repeats, shape, strict=True) for n in (r, d)]
    axes = [2 * i + 1 for i in range(len(shape))]
    tiled = build.broadcast(build.reshape(x, shape), tuple(wide), axes)
    return build.reshape(tiled, call.type.shape)


@row(aten.constant_pad_nd)
def constant_pad(call: Call, x: Node, pad: Sequence[int], value: Any = 0) -> Node:
    rank = x.type.rank
    low, high = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    starts = [max(0, -n) for n in low]
    stops = [d - max(0, -n) for d, n in zip(x.shape, high, strict=True)]
    x = build.part(x, starts, stops, [1] * rank)
    widths = ([max(0, n) for n in low], [max(0, n) for n in high])
    return build.pad(x, *widths, [0] * rank, value)
