"""Distances between the rows of two tensors, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, captured, make
from tilewright.ir.types import Shape, TensorType, i64
from tilewright.torch.nodes import cast, number, reduce, wide
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

MOST_ROWS = 256
"""Rows up to which their pairs are a constant of the program."""


def _norm(x: Node, p: float) -> Node:
    """The p-norm along the last axis."""
    axes = (x.type.rank - 1,)
    size = make("abs", (x,))
    if p == 0:
        return reduce("sum", cast(make("ne", (x, number(0, x.dtype, x.shape))), x.dtype), axes)
    if p == 1:
        return reduce("sum", size, axes)
    if p == 2:
        return make("sqrt", (reduce("sum", x * x, axes),))
    if math.isinf(p):
        return reduce("reduce_max", size, axes) if x.shape[-1] else reduce("sum", size, axes)
    powers = make("pow", (size, number(p, x.dtype, x.shape)))
    total = reduce("sum", powers, axes)
    return make("pow", (total, number(1 / p, total.dtype, total.shape)))


def _norm_gradient(grad: Node, x: Node, norm: Node, p: float) -> Node:
    """The gradient of a norm along the last axis; 0 where the norm has none."""
    shape = x.shape
    g, n = (build.broadcast(v, shape, range(v.type.rank)) for v in (grad, norm))
    zero = number(0, x.dtype, shape)
    sign, size = make("sign", (x,)), make("abs", (x,))
    if p == 0:
        return zero
    if p == 1:
        return g * sign
    if math.isinf(p):
        return build.where(make("eq", (size, n)), g * sign, zero)
    if p == 2:
        found = g * x / n
    else:
        power = number(p - 1, x.dtype, shape)
        found = sign * make("pow", (size, power)) * g / make("pow", (n, power))
    none = make("eq", (n, zero))
    if p < 1:
        none = none | make("eq", (x, zero))
    return build.where(none, zero, found)


def _differences(x: Node, y: Node) -> Node:
    """Every row of ``x`` less every row of ``y``: [..., rows, rows, columns]."""
    rank = x.type.rank
    shape = (*x.shape[:-1], y.shape[-2], x.shape[-1])
    lead = list(range(rank - 2))
    a = build.broadcast(x, shape, [*lead, rank - 2, rank])
    return a - build.broadcast(y, shape, [*lead, rank - 1, rank])


def _same_lead(x: Node, shape: Shape) -> Node:
    target = (*shape, *x.shape[-2:])
    return build.broadcast(x, target, range(len(target) - x.type.rank, len(target)))


@row(aten._cdist_forward)
def cdist(call: Call, x: Node, y: Node, p: float, mode: int | None) -> Node:
    lead = call.type.shape[:-2]
    a, b = (_same_lead(cast(n, wide(n.dtype)), lead) for n in (x, y))
    return _norm(_differences(a, b), p)


@row(aten._cdist_backward)
def cdist_backward(call: Call, grad: Node, x: Node, y: Node, p: float, norm: Node) -> Node:
    lead = grad.shape[:-2]
    a, b = (_same_lead(n, lead) for n in (x, y))
    if not call.type.size or not grad.type.size:
        return number(0, call.type.dtype, call.type.shape)
    found = _norm_gradient(grad, _differences(a, b), norm, p)
    total = reduce("sum", found, (found.type.rank - 2,))
    if total.shape != call.type.shape:
        raise NotCompiled("a gradient of broadcast batches")
    return total


def _pairs(rows: int) -> tuple[Node, Node]:
    if rows > MOST_ROWS:
        raise NotCompiled("the pairs of many rows")
    first, second = np.triu_indices(rows, 1)
    type = TensorType(i64, first.shape)
    return captured(first, type), captured(second, type)


@row(aten._pdist_forward)
def pdist(call: Call, x: Node, p: float = 2) -> Node:
    if not call.type.size:
        return number(0, x.dtype, call.type.shape)
    i, j = _pairs(int(x.shape[0]))
    return _norm(build.take(x, i, 0) - build.take(x, j, 0), p)


@row(aten._pdist_backward)
def pdist_backward(call: Call, grad: Node, x: Node, p: float, norm: Node) -> Node:
    zeros = number(0, x.dtype, x.shape)
    if not grad.type.size or not x.type.size:
        return zeros
    i, j = _pairs(int(x.shape[0]))
    found = _norm_gradient(grad, build.take(x, i, 0) - build.take(x, j, 0), norm, p)
    return build.put(build.put(zeros, i, found, 0, "add"), j, -found, 0, "add")
