"""Matrix products."""

from __future__ import annotations

from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node
from tilewright.ir.types import broadcast_shapes
from tilewright.torch import linear_calls
from tilewright.torch.nodes import axis_of, cast, count, expand, number, reduce, wide
from tilewright.torch.table import Call, row

aten = torch.ops.aten


@row(aten.mm)
def mm(call: Call, x: Node, y: Node) -> Node:
    return build.contract(x, y, (0, 1), (1, 2), (0, 2))


@row(aten.bmm)
def bmm(call: Call, x: Node, y: Node) -> Node:
    return build.contract(x, y, (0, 1, 2), (0, 2, 3), (0, 1, 3))


@row(aten.mv)
def mv(call: Call, x: Node, y: Node) -> Node:
    return build.contract(x, y, (0, 1), (1,), (0,))


@row(aten.dot, aten.vdot)
def dot(call: Call, x: Node, y: Node) -> Node:
    return build.contract(x, y, (0,), (0,), ())


def combined(call: Call, bias: Node, product: Node, beta: Any, alpha: Any) -> Node:
    """beta * bias + alpha * product, rounded once; a beta of 0 leaves NaNs of the bias out."""
    dtype = wide(call.type.dtype)
    total = cast(product, dtype)
    if alpha != 1:
        total = total * alpha
    if beta == 0:
        return total
    added = expand(cast(bias, dtype), call.type.shape)
    return (added if beta == 1 else added * beta) + total


@row(aten.addmm)
def addmm(call: Call, bias: Node, x: Node, y: Node, *, beta: Any = 1, alpha: Any = 1) -> Node:
    return combined(call, bias, mm(call, x, y), beta, alpha)


@row(aten.baddbmm)
def baddbmm(call: Call, bias: Node, x: Node, y: Node, *, beta: Any = 1, alpha: Any = 1) -> Node:
    return combined(call, bias, bmm(call, x, y), beta, alpha)


@row(aten.addmv)
def addmv(call: Call, bias: Node, x: Node, y: Node, *, beta: Any = 1, alpha: Any = 1) -> Node:
    return combined(call, bias, mv(call, x, y), beta, alpha)


@row(aten.addbmm)
def addbmm(call: Call, bias: Node, x: Node, y: Node, *, beta: Any = 1, alpha: Any = 1) -> Node:
    product = build.contract(x, y, (0, 1, 2), (0, 2, 3), (1, 3))
    return combined(call, bias, product, beta, alpha)


@row(aten.addr)
def addr(call: Call, bias: Node, x: Node, y: Node, *, beta: Any = 1, alpha: Any = 1) -> Node:
    dtype = call.type.dtype
    outer = build.contract(cast(x, dtype), cast(y, dtype), (0,), (1,), (0, 1))
    if dtype.is_float:
        return combined(call, bias, outer, beta, alpha)
    scaled = outer * alpha if alpha != 1 else outer
    if beta == 0:
        return scaled
    added = expand(cast(bias, dtype), call.type.shape)
    return added * beta + scaled if beta != 1 else added + scaled


@row(linear_calls.linear)
def linear(call: Call, x: Node, weight: Node, bias: Node | None) -> Node:
    """``x @ weight.T + bias`` over rows."""
    product = build.contract(_rows(x), weight, (0, 1), (2, 1), (0, 2))
    if bias is not None:
        product = expand(bias, product.shape) + product
    return build.reshape(product, call.type.shape)


@row(linear_calls.gradient)
def linear_gradient(
    call: Call, gradient: Node, x: Node | None, weight: Node | None, bias: bool
) -> list[Node]:
    """Of a linear layer, by ``x``, ``weight`` and ``bias``: those that are asked for."""
    given, found = _rows(gradient), []
    if weight is not None:
        by_x = build.contract(given, weight, (0, 1), (1, 2), (0, 2))
        found.append(build.reshape(by_x, call.out[0].shape))
    if x is not None:
        found.append(build.contract(given, _rows(x), (0, 1), (0, 2), (1, 2)))
    if bias:
        found.append(reduce("sum", given, (0,)))
    return found


def _rows(x: Node) -> Node:
    """All axes but the last as one."""
    return build.reshape(x, (count(x.shape[:-1], range(x.type.rank - 1)), x.shape[-1]))


@row(aten.trace)
def trace(call: Call, x: Node) -> Node:
    rows, columns = (int(d) for d in x.shape)
    n = min(rows, columns)
    if not n:
        return number(0, call.type.dtype)
    square = build.part(x, [0, 0], [n, n], [1, 1])
    flat = build.reshape(square, (n * n,))
    return build.reduce("sum", cast(build.part(flat, [0], [n * n], [n + 1]),
                                    call.type.dtype), (0,))


@row(aten._trilinear)
def trilinear(
    call: Call, a: Node, b: Node, c: Node, expand_a: Any, expand_b: Any, expand_c: Any,
    summed: Any, unroll: int = 1,
) -> Node:
    """The product of three tensors with axes put in, summed over some axes."""
    rank = a.type.rank + len(expand_a)
    seen = [_with_axes(n, axes, rank) for n, axes in ((a, expand_a), (b, expand_b), (c, expand_c))]
    shape = broadcast_shapes(*(n.shape for n in seen))
    x, y, z = (expand(cast(n, wide(call.type.dtype)), shape) for n in seen)
    return build.reduce("sum", x * y * z, [axis_of(i, rank) for i in summed])


def _with_axes(x: Node, axes: Any, rank: int) -> Node:
    shape = list(x.shape)
    for axis in sorted(axis_of(i, rank) for i in axes):
        shape.insert(axis, 1)
    return build.reshape(x, tuple(shape))
