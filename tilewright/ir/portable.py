"""A graph as plain tuples, of which another process makes it again, quicker than of its text."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from tilewright.ir.graph import CONSTANTS, Graph, Node, make

Row: TypeAlias = tuple[str, tuple[int, ...], Any, Any, Any]
"""The op, inputs by number, attributes, the type of a source, the user's line."""

Packed: TypeAlias = tuple[str, int, tuple[int, ...], list[Row], dict[str, np.ndarray]]
"""The name, the number of inputs, results by number, nodes in order, captured arrays by digest."""


def pack(graph: Graph) -> Packed:
    """The graph as tuples, with the arrays that it has captured."""
    number: dict[Node, int] = {}
    rows: list[Row] = []
    captured: dict[str, np.ndarray] = {}
    for node in graph.nodes():
        number[node] = len(rows)
        type = node.type if node.op.kind == "source" else None
        inputs = tuple([number[n] for n in node.inputs])
        rows.append((node.op.name, inputs, node.attrs, type, node.loc))
        if node.op.name == "const":
            captured[node.attrs.digest] = CONSTANTS[node.attrs.digest]
    outputs = tuple([number[n] for n in graph.outputs])
    return graph.name, len(graph.inputs), outputs, rows, captured


def unpack(packed: Packed) -> Graph:
    """The graph that was packed."""
    name, count, outputs, rows, captured = packed
    for digest, array in captured.items():
        if digest not in CONSTANTS:
            kept = np.ascontiguousarray(array)
            kept.setflags(write=False)
            CONSTANTS[digest] = kept
    nodes: list[Node] = []
    for op, inputs, attrs, type, loc in rows:
        nodes.append(make(op, [nodes[i] for i in inputs], attrs, loc, type))
    return Graph(tuple(nodes[:count]), tuple([nodes[i] for i in outputs]), name)
