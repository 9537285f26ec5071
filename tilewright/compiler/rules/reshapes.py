"""Laws that move a reshape behind its reader, so that neighbours walk the same axes and can share a
kernel: a linear layer on (batch, time, features) is a product of matrices only for its author.

A reshape only ever moves towards the results; what it leaves behind are reshapes of inputs, which
cost nothing, and pairs that cancel.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.rules.law import law, number, sample
from tilewright.ir.build import broadcast, contract, reduce, reshape
from tilewright.ir.graph import Node, make
from tilewright.ir.rewrite import Match, Rules, any_op, hole, op
from tilewright.ir.types import Block, Shape, reshape_blocks

x, y = hole("x"), hole("y")
REDUCTIONS = ("sum", "prod", "reduce_max", "reduce_min")


def real(shape: Shape, axes: Sequence[int]) -> list[int]:
    """The axes that have more than one element."""
    return [a for a in axes if shape[a] != 1]


def only_units(result: Shape, source: Shape) -> bool:
    """Whether a reshape does nothing but add and drop axes of size 1."""
    return [d for d in result if d != 1] == [d for d in source if d != 1]


# --- elementwise ----------------------------------------------------------------------------
MOST_MOVED = 48
"""Nodes of arithmetic on inputs that take another shape together with what they meet."""


def moved(
    node: Node, source: Shape, result: Shape, blocks: Sequence[Block], done: dict[Node, Node | None]
) -> Node | None:
    """``node``, of the shape ``result``, as one of the shape ``source``; None if that costs.

    ``done``: the answers so far.
    """
    if node not in done:
        done[node] = None
        if len(done) <= MOST_MOVED:
            done[node] = _moved(node, source, result, blocks, done)
    return done[node]


def _moved(
    node: Node, source: Shape, result: Shape, blocks: Sequence[Block], done: dict[Node, Node | None]
) -> Node | None:
    if node.op.name == "reshape" and node.inputs[0].shape == source:
        return node.inputs[0]
    if node.op.name == "full":
        return make("full", (), node.attrs, node.loc, node.type.with_shape(source))
    if node.op.name in ("input", "const"):
        return reshape(node, source)
    if node.op.kind == "elementwise":
        inputs = [moved(n, source, result, blocks, done) for n in node.inputs]
        if any(n is None for n in inputs):
            return None
        return make(node.op, inputs, node.attrs)  # type: ignore[arg-type]
    if node.op.name != "broadcast":
        return None
    small, at = node.inputs[0], node.attrs.axes
    covered = {a: i for i, a in enumerate(at) if small.shape[i] != 1}
    shape: list[object] = []
    axes: list[int] = []
    for left, right in blocks:
        wide = real(result, left)
        held = [a for a in wide if a in covered]
        if held and held != wide:
            return None
        if held:
            axes += right
            shape += [source[a] for a in right]
    return broadcast(reshape(small, tuple(shape)), source, axes)  # type: ignore[arg-type]


def elementwise_of_reshapes(m: Match) -> Node | None:
    """An op on reshapes of one shape, as a reshape of the op on what was reshaped."""
    root = m.root
    computed = [
        n.inputs[0].shape for n in root.inputs
        if n.op.name == "reshape" and n.inputs[0].op.kind != "source"
    ]
    if not computed or any(s != computed[0] for s in computed):
        return None
    source, result = computed[0], root.shape
    if only_units(result, source):
        return None
    blocks = reshape_blocks(result, source)
    done: dict[Node, Node | None] = {}
    inputs = [moved(n, source, result, blocks, done) for n in root.inputs]
    if any(n is None for n in inputs):
        return None
    return reshape(make(root.op, inputs, root.attrs), result)  # type: ignore[arg-type]


# --- reductions -----------------------------------------------------------------------------
def reduction_of_reshape(m: Match) -> Node | None:
    """A reduction of whole blocks of a reshape, as a reduction of what was reshaped."""
    outer, inner = m["r"], m["r"].inputs[0]
    if only_units(outer.shape, inner.shape) or inner.op.kind == "source":
        return None
    gone = m.root.attrs.axes
    axes: list[int] = []
    for left, right in reshape_blocks(outer.shape, inner.shape):
        wide = real(outer.shape, left)
        reduced = [a for a in wide if a in gone]
        if reduced and reduced != wide:
            return None
        if reduced:
            axes += real(inner.shape, right)
    return reshape(reduce(m.root.op.name, inner, axes), m.root.shape) if axes else None


# --- contractions ---------------------------------------------------------------------------
def splits_of(node: Node) -> dict[int, tuple[int, ...]]:
    """Axis of a reshape -> the sizes of the several axes that it joins into this one."""
    if node.op.name != "reshape" or node.inputs[0].op.kind == "source":
        return {}
    inner = node.inputs[0].shape
    return {
        left[0]: tuple(inner[a] for a in right)
        for left, right in reshape_blocks(node.shape, inner)
        if len(left) == 1 and len(real(inner, right)) > 1
    }


def split(node: Node, parts: dict[int, tuple[int, ...]]) -> Node:
    """A node with each of these axes taken apart into axes of these sizes."""
    shape = [d for a in range(node.type.rank) for d in parts.get(a, (node.shape[a],))]
    target = tuple(shape)
    source = node.inputs[0] if node.op.name == "reshape" else node
    return source if source.shape == target else reshape(source, target)


def contraction_of_reshapes(m: Match) -> Node | None:
    """A contraction over joined axes, as one over the axes that were joined."""
    root, attrs = m.root, m.root.attrs
    labels = (attrs.lhs, attrs.rhs)
    found = [
        {side[a]: sizes for a, sizes in splits_of(n).items()}
        for side, n in zip(labels, root.inputs, strict=True)
    ]
    parts: dict[int, tuple[int, ...]] = {}
    for label in dict.fromkeys((*found[0], *found[1])):
        sizes = found[0].get(label) or found[1][label]
        others = [
            (n, f) for side, n, f in zip(labels, root.inputs, found, strict=True)
            if label in side and f.get(label) != sizes
        ]
        if all(_is_free(n) and label not in f for n, f in others):
            parts[label] = sizes
    if not parts:
        return None
    fresh = max((*attrs.lhs, *attrs.rhs)) + 1
    names: dict[int, tuple[int, ...]] = {}
    for label, sizes in parts.items():
        names[label] = tuple(range(fresh, fresh + len(sizes)))
        fresh += len(sizes)
    left, right = (
        split(n, {a: parts[label] for a, label in enumerate(side) if label in parts})
        for side, n in zip(labels, root.inputs, strict=True)
    )
    lhs, rhs, out = (
        tuple(n for label in side for n in names.get(label, (label,)))
        for side in (*labels, attrs.out)
    )
    return reshape(contract(left, right, lhs, rhs, out), root.shape)


def _is_free(node: Node) -> bool:
    """Whether a reshape of a node costs nothing: it is in memory, or the same everywhere."""
    return node.op.kind == "source" or (
        node.op.name == "reshape" and node.inputs[0].op.kind == "source")


def _examples() -> list[Node]:
    wide = sample(2, 3, 4) * sample(2, 3, 4, name="y")
    flat, turned = reshape(wide, (6, 4)), reshape(wide, (2, 12))
    return [
        flat + broadcast(sample(4, name="b"), (6, 4), (1,)),
        flat * 2.0, flat - sample(6, 4, name="b"), flat * 0.1 + sample(6, 4, name="b") * 0.9,
        turned + broadcast(sample(2, name="b"), (2, 12), (0,)),
        contract(flat, sample(4, 5, name="w"), (0, 1), (1, 2), (0, 2)),
        contract(sample(5, 4, name="w"), flat, (0, 1), (2, 1), (0, 2)),
        contract(flat, sample(6, 5, name="g"), (0, 1), (0, 2), (1, 2)),
        contract(flat, flat, (0, 1), (0, 2), (1, 2)),
        contract(reshape(wide, (6, 1, 4)), sample(6, 4, 2, name="g"), (0, 1, 2), (0, 2, 3),
                 (0, 1, 3)),
        number(1.0, 6, 4) / flat,
    ]


def _reductions() -> list[Node]:
    wide = sample(2, 3, 4) * sample(2, 3, 4, name="y")
    return [
        reduce(name, reshape(wide, shape), (axis,))
        for name in REDUCTIONS for shape in ((6, 4), (2, 12)) for axis in (0, 1)
    ]


RESHAPED = Rules(
    law("elementwise-reshape", any_op("elementwise"), elementwise_of_reshapes,
        when=lambda m: any(n.op.name == "reshape" for n in m.root.inputs), examples=_examples),
    *(law(f"{name}-reshape", op(name, op("reshape", ..., bind="r")), reduction_of_reshape,
          examples=_reductions)
      for name in REDUCTIONS),
    law("contract-reshape", op("contract", x, y), contraction_of_reshapes,
        when=lambda m: any(n.op.name == "reshape" for n in m.root.inputs), examples=_examples),
)
