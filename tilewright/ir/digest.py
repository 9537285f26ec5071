"""A graph as a line of text per node, quickly made: equal texts, equal programs."""

from __future__ import annotations

from tilewright.ir.graph import Graph, Node

UNCHECKED = frozenset(("elementwise", "reduce", "view", "contract", "grouped", "source"))
"""Kinds of ops of which no check ever fails, whose lines are therefore not reported."""


def reported(node: Node) -> bool:
    """Whether an error of a run may name the node's line."""
    return node.op.kind not in UNCHECKED


def graph_text(graph: Graph) -> str:
    """All that a compilation of the graph follows from: ops, attributes, types, and those lines of
    the user's that errors name. Names of inputs are left out.
    """
    number: dict[Node, int] = {}
    lines = []
    attrs_text: dict[object, str] = {}
    for node in graph.nodes():
        number[node] = len(number)
        if node.op.name == "input":
            lines.append(f"input {node.type}")
            continue
        attrs = attrs_text.get(node.attrs)
        if attrs is None:
            attrs = attrs_text[node.attrs] = repr(node.attrs)
        loc = repr(node.loc) if reported(node) else ""
        inputs = " ".join([str(number[n]) for n in node.inputs])
        type = node.type if node.op.kind == "source" else ""
        lines.append(f"{node.op.name} {inputs} {attrs} {type} {loc}")
    lines.append(f"{len(graph.inputs)} {[number[n] for n in graph.outputs]}")
    return "\n".join(lines)
