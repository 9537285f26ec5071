"""Matrix products."""

from __future__ import annotations

from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node
from tilewright.torch.nodes import cast, expand, number, wide
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
