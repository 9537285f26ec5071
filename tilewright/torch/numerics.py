"""The option ``numerics``: what rounding a compiled part may leave out.

``strict`` is a property of the target, on which no elementwise sum takes a product unrounded.
``fast`` is a rewrite of the graph: 16-bit floats stay in f32 from one elementwise op to the next.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler.target import Target
from tilewright.errors import UserError
from tilewright.ir import build
from tilewright.ir.graph import Graph, Node, make, rebuild_node
from tilewright.ir.types import bf16, bool_, f16, f32

HALVES = (bf16, f16)


def target_for(target: Target, numerics: str) -> Target:
    """The target, with fused sums only where sums are accumulated if ``numerics`` is strict.

    Raises ``UserError`` for a GPU.
    """
    if target.gpu is not None:
        raise UserError(
            "the backend for PyTorch compiles for CPUs", expected="a CPU tier", got=target.name,
            hint="see the option target, and the switch TILEWRIGHT_TARGET",
        )
    return replace(target, contract=False) if numerics == "strict" else target


def graph_for(graph: Graph, numerics: str) -> Graph:
    """The graph, with elementwise chains of 16-bit floats in f32 if ``numerics`` is fast."""
    return widened(graph) if numerics == "fast" else graph


def widened(graph: Graph) -> Graph:
    """Every elementwise op on 16-bit floats computes in f32 and rounds only what others read."""
    wide: dict[Node, Node] = {}
    done: dict[Node, Node] = {}
    for node in graph.nodes():
        inputs = [done[n] for n in node.inputs]
        if _stays(node):
            wide[node] = made = _wide(node, [_operand(n, done, wide) for n in node.inputs])
            done[node] = made if made.dtype is node.dtype else build.cast(made, node.dtype)
        else:
            done[node] = rebuild_node(node, inputs)
    return graph.rebuild([done[n] for n in graph.outputs])


def _stays(node: Node) -> bool:
    """Whether an op can be computed in f32 in the place of a 16-bit float."""
    if node.op.kind != "elementwise" or node.op.name == "bitcast":
        return False
    if node.op.name == "cast":
        return node.dtype in HALVES or (
            node.dtype is f32 and node.inputs[0].dtype in HALVES)
    return node.dtype in HALVES or (
        node.dtype is bool_ and any(n.dtype in HALVES for n in node.inputs))


def _wide(node: Node, inputs: list[Node]) -> Node:
    if node.op.name == "cast":
        source = inputs[0]
        return build.cast(source, f32) if source.dtype is not f32 else source
    return make(node.op, inputs, node.attrs, node.loc)


def _operand(node: Node, done: dict[Node, Node], wide: dict[Node, Node]) -> Node:
    if node in wide and wide[node].dtype is f32:
        return wide[node]
    made = done[node]
    return build.cast(made, f32) if made.dtype in HALVES else made
