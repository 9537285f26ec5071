"""Operators that read and write at places given by a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.attrs import IndexAttrs
from tilewright.ir.graph import Node, make
from tilewright.torch.nodes import axis_of, cast, expand, iota, number, wide
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


@row(aten.embedding)
def embedding(
    call: Call, weight: Node, indices: Node, padding_idx: int = -1, scale_grad: bool = False,
    sparse: bool = False,
) -> Node:
    return make("take", (weight, indices), IndexAttrs(0))


@row(aten.embedding_dense_backward)
def embedding_dense_backward(
    call: Call, grad: Node, indices: Node, num_weights: int, padding_idx: int,
    scale_grad_by_freq: bool,
) -> Node:
    if scale_grad_by_freq:
        raise NotCompiled("gradients scaled by frequency")
    g = cast(grad, wide(grad.dtype))
    if padding_idx >= 0:
        keep = make("ne", (indices, number(padding_idx, indices.dtype, indices.shape)))
        kept = build.broadcast(keep, g.shape, range(keep.type.rank))
        g = build.where(kept, g, number(0, g.dtype, g.shape))
    zeros = number(0, g.dtype, call.type.shape)
    return build.put(zeros, indices, g, 0, "add")


@row(aten.index)
def index(call: Call, x: Node, indices: Sequence[Node | None]) -> Node:
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if len(given) != 1 or not given[0][1].dtype.is_int:
        raise NotCompiled("several index tensors, or a mask")
    axis, at = given[0]
    return make("take", (x, at), IndexAttrs(axis))


@row(aten.index_select)
def index_select(call: Call, x: Node, dim: int, at: Node) -> Node:
    if x.type.rank == 0:
        return build.reshape(x, call.type.shape)
    flat = build.reshape(at, (at.type.size,))
    taken = make("take", (x, flat), IndexAttrs(axis_of(dim, x.type.rank)))
    return build.reshape(taken, call.type.shape)


@row(aten.gather)
def gather(call: Call, x: Node, dim: int, at: Node, *, sparse_grad: bool = False) -> Node:
    rank = x.type.rank
    if rank == 0 or at.type.rank == 0:
        raise NotCompiled("a scalar")
    axis = axis_of(dim, rank)
    stops = [d if a == axis else n for a, (d, n) in enumerate(zip(x.shape, at.shape, strict=True))]
    inner = build.part(x, [0] * rank, stops, [1] * rank)
    return make("take_along", (inner, at), IndexAttrs(axis))


@row(aten.scatter.value)
def scatter_value(call: Call, x: Node, dim: int, at: Node, value: Any) -> Node:
    """One value at the places that gather reads, each row with a single index: a comparison."""
    axis = axis_of(dim, x.type.rank)
    rest = [(d, n) for a, (d, n) in enumerate(zip(x.shape, at.shape, strict=True)) if a != axis]
    if at.type.rank == 0 or at.shape[axis] != 1 or any(d != n for d, n in rest):
        raise NotCompiled("several indices along the axis")
    places = iota(x.shape, axis)
    hit = make("eq", (places, expand(cast(at, places.dtype), x.shape)))
    return build.where(hit, number(value, x.dtype, x.shape), x)
