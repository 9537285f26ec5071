"""A scatter of one element a row into zeros is a choice by position: the gradient of a gather.

    y = take_along_add(0, i, v) [axis=1], with i and v of one column
->  y = where(eq(iota, broadcast(i)), broadcast(v), 0)
"""

from __future__ import annotations

from tilewright.compiler.target import Target
from tilewright.ir.attrs import IotaAttrs
from tilewright.ir.build import broadcast, cast
from tilewright.ir.graph import Graph, Node, apply, full, full_value, make, rebuild_node, transform
from tilewright.ir.types import TensorType, concrete, i64


def specialize(graph: Graph, target: Target | None = None) -> Graph:
    """The same function; such scatters join the elementwise work around them."""
    read = {
        (n.inputs[1], n.inputs[0].shape[n.attrs.axis], n.attrs.axis)
        for n in graph.nodes() if n.op.name == "take_along"
    }

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        fresh = rebuild_node(node, inputs)
        if node.op.name == "take_along_add":
            axis = node.attrs.axis
            checked = (node.inputs[1], node.shape[axis], axis) in read
            return one_per_row(fresh) if checked else fresh
        return fresh
    return graph.rebuild(transform(graph.outputs, rule, {n: n for n in graph.inputs}))


def one_per_row(node: Node) -> Node:
    """``take_along_add`` of one element a row into a constant: a choice by position.

    Only where a ``take_along`` reads the same places, and so checks that they exist.
    """
    data, index, values = node.inputs
    axis = node.attrs.axis
    if data.op.name != "full" or full_value(data) != 0 or index.shape[axis] != 1:
        return node
    size = concrete(data.shape)[axis]
    wide = cast(index, i64)
    if index.dtype.kind == "i":
        wide = apply("where", apply("lt", wide, 0), apply("add", wide, size), wide)
    shape, axes = data.shape, range(len(data.shape))
    count = make("iota", (), IotaAttrs(axis), None, TensorType(i64, shape))
    hit = make("eq", (count, broadcast(wide, shape, axes)), loc=node.loc)
    zero = full(data.type, 0)
    return make("where", (hit, broadcast(values, shape, axes), zero), loc=node.loc)
