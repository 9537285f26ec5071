"""Operators that read and write at places given by a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tilewright.ir import build, indexing
from tilewright.ir.attrs import IndexAttrs
from tilewright.ir.graph import Node, make
from tilewright.ir.indexing import index_many
from tilewright.ir.types import bool_, u8
from tilewright.torch.nodes import (
    axis_of,
    cast,
    expand,
    from_start,
    iota,
    number,
    operand,
    wide,
)
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


@row(aten.embedding)
def embedding(
    call: Call, weight: Node, indices: Node, padding_idx: int = -1, scale_grad: bool = False,
    sparse: bool = False,
) -> Node:
    return make("take", (weight, from_start(indices)), IndexAttrs(0))


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


def _by_axis(x: Node, indices: Sequence[Node | None]) -> dict[int, Node]:
    """Index tensors by axis; a mask over one axis or more has no fixed number of places."""
    found: dict[int, Node] = {}
    for axis, at in enumerate(indices):
        if at is not None:
            if not at.dtype.is_int or at.dtype is u8:
                raise NotCompiled("a mask as an index")
            found[axis] = at
    return found


@row(aten.index, aten._unsafe_index)
def index(call: Call, x: Node, indices: Sequence[Node | None]) -> Node:
    given = _by_axis(x, indices)
    if not given:
        return x
    if not call.type.size:
        return number(0, x.dtype, call.type.shape)
    return index_many(x, given)


@row(aten.index_put, aten._unsafe_index_put)
def index_put(
    call: Call, x: Node, indices: Sequence[Node | None], values: Node, accumulate: bool = False
) -> Node:
    masks = [i for i in indices if i is not None and i.dtype in (bool_, u8)]
    if masks:
        return _masked_put(x, indices, cast(values, x.dtype), accumulate)
    given = _by_axis(x, indices)
    if not given:
        value = operand(values, x.dtype, x.shape)
        return x + value if accumulate else value
    if 0 in x.shape or 0 in values.shape or any(0 in i.shape for i in given.values()):
        return x
    wider = wide(x.dtype) if accumulate else x.dtype
    if accumulate and x.dtype is bool_:
        raise NotCompiled("accumulating truth values")
    mode: Any = "add" if accumulate else "set"
    return indexing.index_put(cast(x, wider), given, cast(values, wider), mode)


def _masked_put(
    x: Node, indices: Sequence[Node | None], values: Node, accumulate: bool
) -> Node:
    """One value, or one for each of the last axes, where a mask over the first axes holds."""
    mask = indices[0]
    if mask is None or any(i is not None for i in indices[1:]):
        raise NotCompiled("a mask beside other indices")
    rank = mask.type.rank
    rest = x.shape[rank:]
    shape = values.shape
    while len(shape) > len(rest) and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > len(rest):
        raise NotCompiled("a value for each element of a mask")
    truth = build.broadcast(cast(mask, bool_), x.shape, range(rank))
    value = expand(build.reshape(values, shape), x.shape)
    return build.where(truth, x + value if accumulate else value, x)


@row(aten.index_select)
def index_select(call: Call, x: Node, dim: int, at: Node) -> Node:
    if x.type.rank == 0 or not call.type.size:
        return build.broadcast(build.reshape(x, ()), call.type.shape, ()) if x.type.rank == 0 else (
            number(0, x.dtype, call.type.shape))
    flat = build.reshape(at, (at.type.size,))
    return build.take(x, from_start(flat), axis_of(dim, x.type.rank))


@row(aten.gather)
def gather(call: Call, x: Node, dim: int, at: Node, *, sparse_grad: bool = False) -> Node:
    if not call.type.size:
        return number(0, x.dtype, call.type.shape)
    return indexing.gather(x, from_start(at), axis_of(dim, x.type.rank))


MODES = {
    "sum": "add", "prod": "mul", "mean": "mean", "amax": "max", "amin": "min",
    "add": "add", "multiply": "mul",
}
"""PyTorch's names of what a scatter does with a value, and ours."""


@row(aten.scatter)
def scatter(
    call: Call, x: Node, dim: int, at: Node, value: Any, *, reduce: str | None = None
) -> Node:
    axis = axis_of(dim, x.type.rank)
    mode = "set" if reduce is None else MODES[reduce]
    if mode == "set" and not isinstance(value, Node) and _single(x, at, axis):
        places = iota(x.shape, axis)
        found = build.take(iota((x.shape[axis],), 0), from_start(at), 0)  # for the error outside
        hit = make("eq", (places, expand(found, x.shape)))
        return build.where(hit, number(value, x.dtype, x.shape), x)
    return _scatter(x, axis, at, operand(value, x.dtype, getattr(value, "shape", ())), mode)


def _single(x: Node, at: Node, axis: int) -> bool:
    """Whether every row has one index: then a comparison does it."""
    return at.type.rank > 0 and at.shape == (*x.shape[:axis], 1, *x.shape[axis + 1:])


def _scatter(
    x: Node, axis: int, at: Node, values: Node, mode: str, include_self: bool = True
) -> Node:
    how: Any = mode
    wider = wide(x.dtype) if mode in ("add", "mul", "mean") else x.dtype
    if x.dtype is bool_ and mode in ("add", "mul", "mean"):
        raise NotCompiled("sums of truth values")
    if not at.type.size:
        return x
    return indexing.scatter(
        cast(x, wider), from_start(at), cast(values, wider), axis, how, include_self)


@row(aten.scatter_add)
def scatter_add(call: Call, x: Node, dim: int, at: Node, values: Node) -> Node:
    return _scatter(x, axis_of(dim, x.type.rank), at, values, "add")


@row(aten.scatter_reduce)
def scatter_reduce(
    call: Call, x: Node, dim: int, at: Node, values: Node, reduce: str, *,
    include_self: bool = True,
) -> Node:
    return _scatter(x, axis_of(dim, x.type.rank), at, values, MODES[reduce], include_self)


@row(aten.index_add)
def index_add(
    call: Call, x: Node, dim: int, at: Node, source: Node, *, alpha: Any = 1
) -> Node:
    added = cast(source, wide(x.dtype))
    if alpha != 1:
        added = added * alpha
    return _index_reduce(x, dim, at, added, "add")


@row(aten.index_copy)
def index_copy(call: Call, x: Node, dim: int, at: Node, source: Node) -> Node:
    return _index_reduce(x, dim, at, source, "set")


@row(aten.index_reduce)
def index_reduce(
    call: Call, x: Node, dim: int, at: Node, source: Node, reduce: str, *,
    include_self: bool = True,
) -> Node:
    return _index_reduce(x, dim, at, source, MODES[reduce], include_self)


def _index_reduce(
    x: Node, dim: int, at: Node, values: Node, mode: str, include_self: bool = True
) -> Node:
    if not at.type.size or not x.type.size:
        return x
    how: Any = mode
    if x.dtype is bool_ and mode not in ("set", "max", "min"):
        raise NotCompiled("sums of truth values")
    wider = wide(x.dtype) if mode in ("add", "mul", "mean") else x.dtype
    shape = x.shape or (1,)
    axis = axis_of(dim, len(shape))
    places = from_start(build.reshape(at, (at.type.size,)))
    data = build.reshape(cast(x, wider), shape)
    seen = (*shape[:axis], at.type.size, *shape[axis + 1:])
    added = build.reshape(cast(values, wider), seen)
    made = indexing.index_reduce(data, places, added, axis, how, include_self)
    return build.reshape(made, x.shape)


@row(aten.index_fill)
def index_fill(call: Call, x: Node, dim: int, at: Node, value: Any) -> Node:
    shape = x.shape or (1,)
    axis = axis_of(dim, len(shape))
    if not at.type.size or not x.type.size:
        return x
    places = build.reshape(at, (at.type.size,))
    filled = operand(value, x.dtype, (*shape[:axis], at.type.size, *shape[axis + 1:]))
    made = indexing.index_reduce(build.reshape(x, shape), places, filled, axis, "set")
    return build.reshape(made, x.shape)


@row(aten.take)
def take(call: Call, x: Node, at: Node) -> Node:
    if not at.type.size:
        return number(0, x.dtype, at.shape)
    return build.take(build.reshape(x, (x.type.size,)), at, 0)


@row(aten.put)
def put(call: Call, x: Node, at: Node, values: Node, accumulate: bool = False) -> Node:
    if not at.type.size:
        return x
    if accumulate and x.dtype is bool_:
        raise NotCompiled("sums of truth values")
    wider = wide(x.dtype) if accumulate else x.dtype
    flat = build.reshape(cast(x, wider), (x.type.size,))
    added = build.reshape(cast(values, wider), at.shape)
    return build.reshape(build.put(flat, at, added, 0, "add" if accumulate else "set"), x.shape)
