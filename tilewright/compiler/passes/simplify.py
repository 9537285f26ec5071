"""No law of ``compiler/rules`` applies any more; the laws are rows of the tables there.

    t = transpose(w, [1, 0]);  y = contract(x, t, "ij,jk->ik");  z = (y + 0) * 1
->  z = contract(x, w, "ij,kj->ik")
"""

from __future__ import annotations

from collections import Counter

from tilewright.compiler.rules.arithmetic import ELEMENTWISE
from tilewright.compiler.rules.groups import GROUPS, OF_GROUPS
from tilewright.compiler.rules.ordered import ORDERED
from tilewright.compiler.rules.reductions import CONTRACT, ONLY_USER, REDUCE
from tilewright.compiler.rules.reshapes import RESHAPED
from tilewright.compiler.rules.views import VIEWS
from tilewright.compiler.rules.windows import WINDOWS
from tilewright.compiler.target import Target
from tilewright.ir.graph import Graph, Node, rebuild_node, users
from tilewright.ir.rewrite import Rules, rewrite

SIMPLIFY: Rules = (
    VIEWS + WINDOWS + ELEMENTWISE + RESHAPED + REDUCE + CONTRACT + GROUPS + ORDERED)
ALONE: Rules = ONLY_USER + OF_GROUPS


def simplify(graph: Graph, target: Target | None = None) -> Graph:
    """The same function with the rules applied until none fires, whatever the target."""
    return simplify_logged(graph, Counter())


def simplify_logged(graph: Graph, log: Counter[str]) -> Graph:
    """As :func:`simplify`; ``log`` counts how often each rule fired."""
    while True:
        graph = rewrite(graph, SIMPLIFY, log)
        merged = merge_only_users(graph, log)
        if merged.outputs == graph.outputs:
            return graph
        graph = merged


def merge_only_users(graph: Graph, log: Counter[str]) -> Graph:
    """Apply the laws that need a node to be the only reader of its operand, once everywhere."""
    readers = users(graph)
    kept = set(graph.outputs)
    done: dict[Node, Node] = {}
    for node in graph.nodes():
        result = rebuild_node(node, [done[n] for n in node.inputs])
        laws = ALONE.of(node)
        alone = laws and len(readers[node.inputs[0]]) == 1 and node.inputs[0] not in kept
        for candidate in laws if alone else ():
            replacement = candidate.apply(result)
            if replacement is not None:
                log[candidate.name] += 1
                result = replacement
                break
        done[node] = result
    return graph.rebuild(done[n] for n in graph.outputs)
