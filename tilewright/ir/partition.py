"""A graph and its gradient as two graphs that run at different times.

What the gradient needs of the forward computation is either kept or computed again: the results of
contractions, reductions, gathers and their kin are kept, elementwise ops and views are computed
again, for they cost less than the memory they would take (T. Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016, on what to keep).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.graph import OPS, Graph, InputAttrs, Node, substitute

CHEAP = ("source", "elementwise", "view")
"""Kinds of ops whose results are computed again rather than kept."""


@dataclass(frozen=True)
class Split:
    """Forward and backward.

    forward   results of the graph, then what is kept
    backward  from the graph's inputs, what was kept and a cotangent per floating point result, to
              the cotangents of the inputs that were asked for
    kept      which results of ``forward`` are kept, in the order of the backward's inputs
    """

    forward: Graph
    backward: Graph
    kept: tuple[int, ...]


def split(graph: Graph, wrt: Sequence[int]) -> Split:
    """The two graphs of a graph and its cotangents by the inputs numbered in ``wrt``.

    Raises ``TypeError`` for an input that is not floating point.
    """
    whole = vjp_graph(graph, wrt)
    count, given = len(graph.outputs), len(graph.inputs)
    results, cotangents = whole.outputs[:count], whole.outputs[count:]
    kept = _kept(cotangents, whole.inputs[given:])
    outputs = list(results)
    for node in kept:
        if node not in outputs:
            outputs.append(node)
    names = {n.attrs.name for n in whole.inputs}
    stand_ins = {node: _fresh(i, node, names) for i, node in enumerate(kept)}
    backward = Graph(
        (*graph.inputs, *stand_ins.values(), *whole.inputs[given:]),
        substitute(cotangents, stand_ins), f"{graph.name}_backward")
    places = tuple(outputs.index(node) for node in kept)
    return Split(Graph(graph.inputs, tuple(outputs), graph.name), backward, places)


def _kept(cotangents: Sequence[Node], seeds: Sequence[Node]) -> list[Node]:
    """The values that do not depend on the seeds and are not cheap, nearest to the cotangents."""
    late = set(seeds)
    for node in Graph((), tuple(cotangents)).nodes():
        if any(n in late for n in node.inputs):
            late.add(node)
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    waiting = list(reversed(cotangents))
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node not in late and node.op.kind not in CHEAP:
            found[node] = None
        else:
            waiting += reversed(node.inputs)
    return list(found)


def _fresh(number: int, node: Node, taken: set[str]) -> Node:
    """An input of its own of a node's type."""
    name = f"kept{number}"
    while name in taken:
        name += "_"
    return Node(OPS["input"], (), InputAttrs(name), node.type, node.loc)
