"""Reverse-mode differentiation, Graph -> Graph, to any order.

The elementwise rows of the op table give partial derivatives, the others transposes; a row with
neither is taken apart first. Zero cotangents are absent nodes, so nothing is computed for them.
Cotangents are added up in the order in which the graph lists a value's users, last user first.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.errors import CompilerBug
from tilewright.ir.build import place, where
from tilewright.ir.expansions import expand_node
from tilewright.ir.graph import (
    OPS,
    Graph,
    InputAttrs,
    Node,
    full,
    full_value,
    rebuild_node,
    topological,
)


def vjp_graph(graph: Graph, wrt: Sequence[int] | None = None) -> Graph:
    """The graph of results and cotangents.

    Its inputs are those of ``graph`` and, for each floating point result, a cotangent of that
    result's type. Its results are those of ``graph`` and, for each input numbered in ``wrt``
    (None: every floating point input), the cotangent of that input.
    Raises ``TypeError`` for an input in ``wrt`` that is not floating point.
    """
    if wrt is None:
        wrt = [i for i, n in enumerate(graph.inputs) if n.dtype.is_float]
    chosen = [graph.inputs[i] for i in wrt]
    for node in chosen:
        if not node.dtype.is_float:
            raise TypeError(f"input {node.attrs.name} has element type {node.dtype}, not a float")
    names = {n.attrs.name for n in graph.inputs}
    cotangents = [
        cotangent_input(i, node, names) if node.dtype.is_float else None
        for i, node in enumerate(graph.outputs)
    ]
    found = pullback(graph.outputs, cotangents, chosen)
    inputs = graph.inputs + tuple(n for n in cotangents if n is not None)
    results = [*graph.outputs, *(zero_of(n, ct) for n, ct in zip(chosen, found, strict=True))]
    return Graph(inputs, tuple(results), f"{graph.name}_vjp")


def cotangent_input(number: int, result: Node, taken: set[str]) -> Node:
    """A fresh input of the type of a result, named after its number."""
    name = f"ct{number}"
    while name in taken:
        name += "_"
    # Not interned: an input of the same name and type may belong to another graph.
    return Node(OPS["input"], (), InputAttrs(name), result.type, result.loc)


def zero_of(node: Node, cotangent: Node | None) -> Node:
    """The cotangent, or zeros where there is none."""
    return full(node.type, 0) if cotangent is None else cotangent


def pullback(
    outputs: Sequence[Node], cotangents: Sequence[Node | None], wrt: Sequence[Node]
) -> list[Node | None]:
    """The cotangents of the nodes ``wrt`` from those of ``outputs``; None is zero."""
    roots = differentiable(outputs, wrt)
    order = topological(roots)
    active = {id(n) for n in wrt}
    for node in order:
        if node.dtype.is_float and any(id(n) in active for n in node.inputs):
            active.add(id(node))
    sums: dict[int, Node] = {}

    def accumulate(node: Node, cotangent: Node | None) -> None:
        if cotangent is not None and id(node) in active:
            known = sums.get(id(node))
            if known is not None:
                cotangent = place(known + cotangent, (known, cotangent), node.loc)
            sums[id(node)] = cotangent

    for root, cotangent in zip(roots, cotangents, strict=True):
        accumulate(root, cotangent)
    sources = {id(n) for n in wrt}
    for node in reversed(order):
        if id(node) in sums and id(node) not in sources:
            below = sums[id(node)]
            for source, part in zip(node.inputs, cotangents_of(node, below), strict=True):
                if part is not None:
                    accumulate(source, place(part, (*node.inputs, node, below), node.loc))
    return [sums.get(id(n)) for n in wrt]


def differentiable(outputs: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """``outputs`` with the ops taken apart that have neither a derivative nor a transpose."""
    done = {id(n): n for n in wrt}
    for node in topological(outputs, wrt):
        if id(node) not in done:
            fresh = rebuild_node(node, [done[id(n)] for n in node.inputs])
            has_rule = fresh.op.derivative is not None or fresh.op.transpose is not None
            done[id(node)] = fresh if has_rule else expand_node(fresh)
    return [done[id(n)] for n in outputs]


def cotangents_of(node: Node, cotangent: Node) -> tuple[Node | None, ...]:
    """The cotangents of a node's inputs."""
    if node.op.transpose is not None:
        return node.op.transpose(node, cotangent)
    if node.op.derivative is None:
        raise CompilerBug(f"the op {node.op.name} has no derivative")
    partials = node.op.derivative(node, *node.inputs)
    return tuple(None if p is None else scaled(cotangent, p) for p in partials)


def scaled(cotangent: Node, partial: Node) -> Node | None:
    """``cotangent * partial``; routed, not multiplied, where ``partial`` is a choice of constants.

    A zero that was chosen stays zero even where the cotangent is infinite or NaN.
    """
    name = partial.op.name
    if name == "full":
        value = full_value(partial)
        if value == 0:
            return None
        if value == 1:
            return cotangent
        return -cotangent if value == -1 else cotangent * partial
    if name == "where" and any(constant(n) for n in partial.inputs[1:]):
        condition, x, y = partial.inputs
        left, right = scaled(cotangent, x), scaled(cotangent, y)
        if left is None and right is None:
            return None
        return where(condition, zero_of(x, left), zero_of(y, right))
    if name == "div" and constant(partial.inputs[0]):
        numerator = scaled(cotangent, partial.inputs[0])
        return None if numerator is None else numerator / partial.inputs[1]
    return cotangent * partial


def constant(node: Node) -> bool:
    """True for one value everywhere."""
    return node.op.name == "full"
