"""Views that are more than another order of axes: diagonals, windows, strides over memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.attrs import WindowAttrs
from tilewright.ir.graph import Node, make
from tilewright.ir.types import i64, size_of
from tilewright.ir.windows import adjoint
from tilewright.torch.nodes import axis_of, cast, iota, number, operand
from tilewright.torch.strides import Layout, layout_of, read, write
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


# --- diagonals ----------------------------------------------------------------------------
def _to_end(x: Node, a: int, b: int) -> tuple[Node, list[int]]:
    """``x`` with two axes behind the others, and the order of axes that does so."""
    a, b = axis_of(a, x.type.rank), axis_of(b, x.type.rank)
    order = [*(i for i in range(x.type.rank) if i not in (a, b)), a, b]
    return build.transpose(x, order), order


def _back(x: Node, order: Sequence[int]) -> Node:
    return build.transpose(x, sorted(range(len(order)), key=lambda i: order[i]))


@row(aten.diagonal, aten.diagonal_copy)
def diagonal(call: Call, x: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    x, _ = _to_end(x, dim1, dim2)
    length = int(call.type.shape[-1])
    rank = x.type.rank
    lead = x.shape[:-2]
    if not length:
        return number(0, x.dtype, call.type.shape)
    starts = [0] * (rank - 2) + [max(0, -offset), max(0, offset)]
    stops = [*lead, starts[-2] + length, starts[-1] + length]
    square = build.part(x, starts, stops, [1] * rank)
    flat = build.reshape(square, (*lead, length * length))
    return build.part(flat, [0] * (rank - 1), [*lead, length * length],
                      [1] * (rank - 2) + [length + 1])


def embedded(x: Node, offset: int, rows: int, columns: int) -> Node:
    """Matrices with the last axis of ``x`` on a diagonal and zeros elsewhere."""
    length = int(x.shape[-1])
    lead = x.shape[:-1]
    if not length:
        return number(0, x.dtype, (*lead, rows, columns))
    widths = [0] * len(lead)
    flat = build.pad(x, [*widths, 0], [*widths, 0], [*widths, length])
    square = build.reshape(flat, (*lead, length, length))
    low = [*widths, max(0, -offset), max(0, offset)]
    high = [*widths, rows - length - low[-2], columns - length - low[-1]]
    return build.pad(square, low, high, [0] * (len(lead) + 2))


@row(aten.diag_embed)
def diag_embed(call: Call, x: Node, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    size = int(x.shape[-1]) + abs(offset)
    made = embedded(x, offset, size, size)
    a, b = axis_of(dim1, made.type.rank), axis_of(dim2, made.type.rank)
    order = [*(i for i in range(made.type.rank) if i not in (a, b)), a, b]
    return _back(made, order)


@row(aten.diagonal_scatter)
def diagonal_scatter(
    call: Call, x: Node, source: Node, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Node:
    x, order = _to_end(x, dim1, dim2)
    rows, columns = (int(d) for d in x.shape[-2:])
    rank = x.type.rank
    made = embedded(cast(source, x.dtype), offset, rows, columns)
    on = make("eq", (iota(x.shape, rank - 1), iota(x.shape, rank - 2) + offset))
    return _back(build.where(on, made, x), order)


@row(aten.diagonal_backward)
def diagonal_backward(
    call: Call, grad: Node, sizes: Sequence[int], offset: int, dim1: int, dim2: int
) -> Node:
    a, b = axis_of(dim1, len(sizes)), axis_of(dim2, len(sizes))
    made = embedded(grad, offset, int(sizes[a]), int(sizes[b]))
    return _back(made, [*(i for i in range(len(sizes)) if i not in (a, b)), a, b])


def _triangle(op: str, x: Node, diagonal: int) -> Node:
    rank = x.type.rank
    kept = make(op, (iota(x.shape, rank - 1), iota(x.shape, rank - 2) + diagonal))
    return build.where(kept, x, number(0, x.dtype, x.shape))


@row(aten.tril)
def tril(call: Call, x: Node, diagonal: int = 0) -> Node:
    return _triangle("le", x, diagonal)


@row(aten.triu)
def triu(call: Call, x: Node, diagonal: int = 0) -> Node:
    return _triangle("ge", x, diagonal)


# --- windows ------------------------------------------------------------------------------
@row(aten.unfold, aten.unfold_copy)
def unfold(call: Call, x: Node, dim: int, size: int, step: int) -> Node:
    if x.type.rank == 0:
        return build.reshape(x, call.type.shape) if size else number(0, x.dtype, (0,))
    if not call.type.size:
        return number(0, x.dtype, call.type.shape)
    return build.window(x, (axis_of(dim, x.type.rank),), (size,), (step,), (1,))


@row(aten.unfold_backward)
def unfold_backward(
    call: Call, grad: Node, sizes: Sequence[int], dim: int, size: int, step: int
) -> Node:
    if not sizes:
        return build.reshape(grad, ()) if size else number(0, grad.dtype)
    if not grad.type.size:
        return number(0, grad.dtype, call.type.shape)
    axis = axis_of(dim, len(sizes))
    others = [i for i in range(len(sizes)) if i != axis]
    if any(grad.shape[i] != sizes[i] for i in others):
        raise NotCompiled("a gradient of another size than the tensor")
    attrs = WindowAttrs((axis,), (size,), (step,), (1,))
    return adjoint(grad, attrs, [(0, int(sizes[axis]))])


# --- memory -------------------------------------------------------------------------------
def _memory(x: Node, meta: Any) -> tuple[Node, Layout, int]:
    """The elements of a tensor in the order of its memory, its layout, and its offset there."""
    strides = [int(s) for s in meta.stride()]
    layout = layout_of([int(d) for d in x.shape], strides)
    if layout is None or not layout.dense:
        raise NotCompiled("strides over a tensor with gaps")
    flat = write(x, layout)
    return build.reshape(flat, (size_of(flat.shape),)), layout, int(meta.storage_offset())


def _places(shape: Sequence[int], strides: Sequence[int], first: int) -> Node:
    """Where in memory the elements of a strided tensor are."""
    places = number(first, i64, tuple(shape))
    for axis, stride in enumerate(strides):
        if shape[axis] > 1 and stride:
            places = places + iota(tuple(shape), axis) * stride
    return places


@row(aten.as_strided, aten.as_strided_copy)
def as_strided(
    call: Call, x: Node, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Node:
    if not call.type.size:
        return number(0, x.dtype, call.type.shape)
    flat, _, start = _memory(x, call.args[0])
    first = 0 if offset is None else offset - start
    last = first + sum((d - 1) * s for d, s in zip(size, stride, strict=True))
    length = int(flat.shape[0])
    if first < 0 or last >= length:
        raise NotCompiled("strides over memory beside the tensor")
    layout = layout_of(size, stride)
    if layout is None:
        return build.take(flat, _places(size, stride, first), 0)
    count = int(size_of(layout.shape))
    part = build.part(flat, [first], [min(length, first + count)], [1])
    part = build.pad(part, [0], [max(0, first + count - length)], [0])
    return read(build.reshape(part, layout.shape), layout, size)


@row(aten.as_strided_scatter)
def as_strided_scatter(
    call: Call, x: Node, source: Node, size: Sequence[int], stride: Sequence[int],
    offset: int | None = None,
) -> Node:
    if not source.type.size:
        return x
    flat, layout, start = _memory(x, call.args[0])
    first = 0 if offset is None else offset - start
    last = first + sum((d - 1) * s for d, s in zip(size, stride, strict=True))
    if first < 0 or last >= int(flat.shape[0]):
        raise NotCompiled("strides over memory beside the tensor")
    values = operand(source, x.dtype, tuple(size))
    made = build.put(flat, _places(size, stride, first), values, 0, "set")
    return read(build.reshape(made, layout.shape), layout, x.shape)
