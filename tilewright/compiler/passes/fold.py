"""What depends on no input is computed now, as far as it stays within a fixed size and work.

    a = iota(axis=0) : f32[8];  b = take(full 2.0, ...);  y = x * exp(a)
->  y = x * const<...>
"""

from __future__ import annotations

import hashlib

import numpy as np

from tilewright.compiler.cost import node_flops
from tilewright.compiler.target import Target
from tilewright.ir.graph import (
    CONSTANTS,
    ConstAttrs,
    FullAttrs,
    Graph,
    Node,
    make,
    substitute,
)
from tilewright.ir.interp import run_node
from tilewright.ir.sizes import Size
from tilewright.ir.types import as_number

MOST_BYTES = 4096
"""No tensor larger than this is computed at compile time, nor read for it."""
MOST_WORK = 1 << 20
"""Operations spent on one graph at compile time; a step of a node counts as one as well."""


def fold(graph: Graph, target: Target | None = None) -> Graph:
    """The same function with small subgraphs of constants replaced by their values."""
    known: dict[Node, np.ndarray] = {}
    work = 0
    for node in graph.nodes():
        if not small(node) or any(n not in known for n in node.inputs):
            continue
        work += as_number(node_flops(node) + node.type.size)
        if work > MOST_WORK:
            break
        value = evaluate(node, [known[n] for n in node.inputs])
        if value is not None:
            known[node] = value
    replaced: dict[Node, Node] = {}
    stack, seen = list(graph.outputs), set(graph.outputs)
    while stack:
        node = stack.pop()
        if node in known and worthwhile(node):
            replaced[node] = constant(known[node], node)
            continue
        fresh = [n for n in node.inputs if n not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return graph.rebuild(substitute(graph.outputs, replaced)) if replaced else graph


def small(node: Node) -> bool:
    """Whether the node's value may be held at compile time."""
    if node.op.name in ("input", "size"):
        return False
    nbytes = node.type.nbytes
    if not nbytes and any(isinstance(d, Size) for d in node.shape):
        return False
    return isinstance(nbytes, int) and nbytes <= MOST_BYTES


def worthwhile(node: Node) -> bool:
    """Whether a constant is better than the node: not for sources nor for what only repeats one."""
    return node.op.kind != "source" and node.op.name != "broadcast"


def evaluate(node: Node, inputs: list[np.ndarray]) -> np.ndarray | None:
    """The node's value; None where an index is outside its axis, which the program reports."""
    try:
        return run_node(node, inputs)
    except IndexError:
        return None


def constant(value: np.ndarray, node: Node) -> Node:
    """A node with this value: ``full`` if all elements have the same bits, else ``const``."""
    data = np.array(value, order="C", copy=True)
    raw = data.tobytes()
    if data.size and raw == raw[:data.itemsize] * data.size:
        bits = int.from_bytes(raw[:data.itemsize], "little")
        return make("full", (), FullAttrs(bits), node.loc, node.type)
    # The type belongs to the digest: arrays of several types may have the same bytes.
    digest = hashlib.blake2b(repr(node.type).encode() + raw, digest_size=16).hexdigest()
    data.setflags(write=False)
    CONSTANTS.setdefault(digest, data)
    return make("const", (), ConstAttrs(digest), node.loc, node.type)
