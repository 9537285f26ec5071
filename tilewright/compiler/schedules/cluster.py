"""Reductions that share a kernel, and what else fits into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tilewright.compiler.schedules.group import Family
from tilewright.ir.attrs import PutAttrs
from tilewright.ir.graph import Node
from tilewright.ir.types import concrete

Token = int | None
"""An axis of the iteration domain, or None for any other index."""

MOST_ANCHORS = 8

SMALL_FULL = 1 << 15
"""Elements up to which a full reduction is one row for one thread."""


def is_anchor(node: Node) -> bool:
    """Whether a node is the heart of a kernel: a reduction, a contraction or a scatter."""
    return node.op.kind in ("reduce", "contract") or node.op.attrs is PutAttrs


@dataclass(eq=False)
class Cluster:
    """Anchors computed by one kernel over one domain."""

    family: Family
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    anchors: list[Node] = field(default_factory=list)

    @property
    def kept(self) -> list[int]:
        """The axes that a reduction leaves, without those of size 1."""
        return [i for i, d in enumerate(self.shape) if i not in self.axes and d != 1]

    def fits(self, node: Node) -> bool:
        """Whether the kernel can compute ``node`` from what it holds at each point."""
        if node.op.kind not in ("elementwise", "view") and node.op.name != "take_along":
            return False
        shape = concrete(node.shape)
        tokens: list[Token] = list(range(len(shape)))
        if self.family == "contraction":
            same = shape == self.shape and node.op.kind == "elementwise"
            return same and aligned(node, tokens, self)
        if self.family == "rows" and shape == self.shape and aligned(node, tokens, self):
            return True
        if self.family in ("rows", "columns", "full"):
            sizes = [self.shape[i] for i in self.kept]
            if [d for d in shape if d != 1] != sizes:
                return False
            kept = iter(self.kept)
            return aligned(node, [None if d == 1 else next(kept) for d in shape], self)
        return False


def aligned(node: Node, index: Sequence[Token], cluster: Cluster) -> bool:
    """Whether ``node`` at ``index`` rests on the anchors only where the kernel holds them."""
    if node in cluster.anchors:
        at = [t for t, d in zip(index, concrete(node.shape), strict=True) if d != 1]
        own = cluster.kept if cluster.family != "contraction" else [
            i for i, d in enumerate(cluster.shape) if d != 1]
        return at == own
    if node.op.kind == "source" or is_anchor(node):
        return True
    name, attrs = node.op.name, node.attrs
    if node.op.kind == "elementwise":
        return all(aligned(n, index, cluster) for n in node.inputs)
    if name == "broadcast":
        at = [None if d == 1 else index[a]
              for d, a in zip(node.inputs[0].shape, attrs.axes, strict=True)]
        return aligned(node.inputs[0], at, cluster)
    if name == "transpose":
        moved: list[Token] = [None] * len(index)
        for token, axis in zip(index, attrs.perm, strict=True):
            moved[axis] = token
        return aligned(node.inputs[0], moved, cluster)
    if name == "reshape":
        source = node.inputs[0]
        wide = [t for t, d in zip(index, node.shape, strict=True) if d != 1]
        if [d for d in source.shape if d != 1] == [d for d in node.shape if d != 1]:
            rest = iter(wide)
            return aligned(source, [None if d == 1 else next(rest) for d in source.shape], cluster)
        return aligned(source, [None] * len(source.shape), cluster)
    if name == "take_along":
        data: list[Token] = list(index)
        data[attrs.axis] = None
        return aligned(node.inputs[0], data, cluster) and aligned(node.inputs[1], index, cluster)
    return all(aligned(n, [None] * len(n.shape), cluster) for n in node.inputs)


def ancestors(nodes: Sequence[Node]) -> dict[Node, int]:
    """For each node, in order, a bit set of the positions of all nodes that it rests on."""
    position = {n: i for i, n in enumerate(nodes)}
    result: dict[Node, int] = {}
    for node in nodes:
        bits = 0
        for source in node.inputs:
            bits |= result[source] | 1 << position[source]
        result[node] = bits
    return result


def _family(node: Node) -> tuple[Family, tuple[int, ...], tuple[int, ...]]:
    """The schedule family of an anchor, its domain and its reduced axes."""
    if node.op.kind == "contract":
        return "contraction", concrete(node.shape), ()
    if node.op.kind == "index":
        return "scatter", concrete(node.shape), ()
    shape, axes = concrete(node.inputs[0].shape), node.attrs.axes
    wide = [i for i, d in enumerate(shape) if d != 1]
    if all(i in axes for i in wide):
        big = node.inputs[0].type.size > SMALL_FULL and not node.type.rank
        return ("full" if big else "rows"), shape, axes
    return ("rows" if wide[-1] in axes else "columns"), shape, axes


def clusters_of(
    nodes: Sequence[Node], above: dict[Node, int], position: dict[Node, int],
    apart: frozenset[Node] = frozenset(),
) -> list[Cluster]:
    """Reductions of one domain together, where no other anchor stands between them.

    Those in ``apart`` stay alone.
    """
    result: list[Cluster] = []
    anchors = [n for n in nodes if is_anchor(n)]
    for node in anchors:
        family, shape, axes = _family(node)
        for cluster in [] if node in apart else reversed(result):
            if _joins(node, family, shape, axes, cluster, anchors, above, position, apart):
                cluster.anchors.append(node)
                break
        else:
            result.append(Cluster(family, shape, axes, [node]))
    return result


def _joins(
    node: Node, family: Family, shape: tuple[int, ...], axes: tuple[int, ...], cluster: Cluster,
    anchors: Sequence[Node], above: dict[Node, int], position: dict[Node, int],
    apart: frozenset[Node],
) -> bool:
    if family != cluster.family or family in ("contraction", "scatter"):
        return False
    if len(cluster.anchors) >= MOST_ANCHORS or cluster.anchors[0] in apart:
        return False
    if family != "full" and (shape, axes) != (cluster.shape, cluster.axes):
        return False
    rests = [a for a in cluster.anchors if above[node] >> position[a] & 1]
    if rests and family != "rows":
        return False
    if family == "full" and shape != cluster.shape and not _shares_operand(node, cluster):
        return False
    for other in anchors:
        if other in cluster.anchors or not above[node] >> position[other] & 1:
            continue
        if any(above[other] >> position[a] & 1 for a in cluster.anchors):
            return False
    if not rests:
        return True
    return aligned(node.inputs[0], list(range(len(shape))), cluster)


def _shares_operand(node: Node, cluster: Cluster) -> bool:
    """Whether the reductions read a common large tensor."""
    def leaves(root: Node) -> set[Node]:
        found, stack, seen = set(), list(root.inputs), set()
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            if not n.inputs or is_anchor(n):
                found.add(n)
            else:
                stack.extend(n.inputs)
        return {n for n in found if n.type.size > SMALL_FULL}
    return bool(leaves(node) & leaves(cluster.anchors[0]))
