"""Reductions that share a kernel, and what else fits into it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tilewright.compiler.schedules.group import Family
from tilewright.compiler.schedules.remade import Whole
from tilewright.ir.attrs import PutAttrs
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.types import Shape

Token = int | None
"""An axis of the iteration domain, or None for any other index."""

Index: TypeAlias = tuple[Token, ...]

MOST_ANCHORS = 8

MOST_STEPS = 40
"""Nodes that are looked at for the windows that a value is made of."""

MOST_OPEN = 16
"""Clusters of a domain that another reduction may still join."""

WHOLE = ("contraction", "grouped", "attention", "remade", "scan", "sort")
"""Families whose anchors have an element at every place of the domain."""

SUMS = ("rows", "columns", "full", "taps", "filters")
"""Families whose anchors reduce axes of the domain."""

SMALL_FULL = 1 << 15
"""Elements up to which a full reduction is one row for one thread."""


def is_anchor(node: Node) -> bool:
    """Whether a node is the heart of a kernel: a reduction, contraction, scan, sort, routine or
    scatter.
    """
    kinds = ("reduce", "contract", "grouped", "scan", "sort", "routine")
    return node.op.kind in kinds or node.op.attrs is PutAttrs


class Anchors:
    """The anchors of a graph, numbered in order, and which of them every node rests on.

    Sets of anchors are whole numbers with one bit per anchor.

    above   all anchors that a node rests on
    near    those that it reaches without passing through another anchor
    contractions   the anchors that are contractions
    """

    def __init__(self, nodes: Sequence[Node], without: Collection[Node] = ()) -> None:
        self.nodes = [n for n in nodes if is_anchor(n) and n not in without]
        self.number = {n: i for i, n in enumerate(self.nodes)}
        self.above: dict[Node, int] = {}
        self.near: dict[Node, int] = {}
        self.contractions = sum(
            1 << i for i, n in enumerate(self.nodes) if n.op.kind in ("contract", "grouped"))
        self._large: dict[Node, frozenset[Node]] = {}
        for node in nodes:
            above = near = 0
            for source in node.inputs:
                above |= self.above[source]
                number = self.number.get(source)
                near |= self.near[source] if number is None else 1 << number
            self.near[node] = near
            self.above[node] = above | near

    def large(self, anchor: Node) -> frozenset[Node]:
        """The large values in memory, or of other anchors, that an anchor reads."""
        if anchor not in self._large:
            found, stack, seen = set(), list(anchor.inputs), set()
            while stack:
                n = stack.pop()
                if n in seen:
                    continue
                seen.add(n)
                if n.op.name in ("input", "const") or is_anchor(n):
                    found.add(n)
                else:
                    stack.extend(n.inputs)
            self._large[anchor] = frozenset(
                n for n in found if estimate(n.type.size) > SMALL_FULL)
        return self._large[anchor]

    def members(self, bits: int) -> Iterator[Node]:
        """The anchors of a set, first to last."""
        while bits:
            lowest = bits & -bits
            yield self.nodes[lowest.bit_length() - 1]
            bits ^= lowest


@dataclass(eq=False)
class Cluster:
    """Anchors computed by one kernel over one domain.

    mask     the set of ``anchors``
    below    the anchors up to number ``scanned`` that rest on them
    held     (node, index) pairs that are known to be aligned
    """

    of: Anchors
    family: Family
    shape: Shape
    axes: tuple[int, ...]
    anchors: list[Node] = field(default_factory=list)
    mask: int = 0
    below: int = 0
    scanned: int = 0
    held: set[tuple[Node, tuple[Token, ...]]] = field(default_factory=set)

    def add(self, anchor: Node) -> None:
        """Compute this anchor as well."""
        number = self.of.number[anchor]
        if not self.anchors:
            self.scanned = number
        self.anchors.append(anchor)
        self.mask |= 1 << number

    def between(self, node: Node) -> bool:
        """Whether another anchor rests on this cluster and ``node``, a later anchor, on that one.

        To be asked of anchors in their order.
        """
        above, number = self.of.above, self.of.number[node]
        for i in range(self.scanned, number):
            if above[self.of.nodes[i]] & self.mask:
                self.below |= 1 << i
        self.scanned = number
        return bool(above[node] & self.below & ~self.mask)

    @property
    def kept(self) -> list[int]:
        """The axes that a reduction leaves, without those of size 1."""
        return [i for i, d in enumerate(self.shape) if i not in self.axes and d != 1]

    def fits(self, node: Node) -> bool:
        """Whether the kernel can compute ``node`` from what it holds at each point."""
        if node.op.kind not in ("elementwise", "view") and node.op.name != "take_along":
            return False
        shape = node.shape
        tokens: Index = tuple(range(len(shape)))
        if self.family == "remade":
            # Each result has an order of axes of its own.
            below = list(self.of.members(self.of.near[node] & self.mask))
            same = len(below) == 1 and below[0].shape == shape and node.op.kind == "elementwise"
            return same and self.aligned(node, tokens)
        if self.family in WHOLE:
            same = shape == self.shape and node.op.kind == "elementwise"
            return same and self.aligned(node, tokens)
        if self.family == "rows" and shape == self.shape and self.aligned(node, tokens):
            return True
        if self.family in SUMS:
            sizes = [self.shape[i] for i in self.kept]
            if [d for d in shape if d != 1] != sizes:
                return False
            kept = iter(self.kept)
            return self.aligned(node, tuple(None if d == 1 else next(kept) for d in shape))
        return False

    def aligned(self, node: Node, index: Index) -> bool:
        """Whether ``node`` at ``index`` rests on the anchors only where the kernel holds them."""
        fresh = {(node, index)}
        stack = [(node, index)]
        while stack:
            node, index = stack.pop()
            number = self.of.number.get(node)
            if number is not None:
                if self.mask >> number & 1 and not self.holds(node, index):
                    return False
            elif self.of.near[node] & self.mask:
                more = [p for p in operands(node, index) if p not in fresh and p not in self.held]
                fresh.update(more)
                stack += more
        self.held |= fresh
        return True

    def holds(self, anchor: Node, index: Index) -> bool:
        """Whether the kernel has the anchor's element at ``index``."""
        at = [t for t, d in zip(index, anchor.shape, strict=True) if d != 1]
        if self.family == "remade":
            return at == [i for i, d in enumerate(anchor.shape) if d != 1]
        if self.family in WHOLE:
            return at == [i for i, d in enumerate(self.shape) if d != 1]
        return at == self.kept


def operands(node: Node, index: Index) -> list[tuple[Node, Index]]:
    """The inputs of a node that is no anchor, each where it is read for the element at ``index``.

    A token is None where that place does not follow the domain.
    """
    name, attrs = node.op.name, node.attrs
    if node.op.kind == "elementwise":
        return [(n, index) for n in node.inputs]
    source = node.inputs[0]
    if name == "broadcast":
        sizes = zip(source.shape, attrs.axes, strict=True)
        return [(source, tuple(None if d == 1 else index[a] for d, a in sizes))]
    if name == "transpose":
        moved: list[Token] = [None] * len(index)
        for token, axis in zip(index, attrs.perm, strict=True):
            moved[axis] = token
        return [(source, tuple(moved))]
    if name == "reshape" and [d for d in source.shape if d != 1] == [
        d for d in node.shape if d != 1
    ]:
        rest = iter([t for t, d in zip(index, node.shape, strict=True) if d != 1])
        return [(source, tuple(None if d == 1 else next(rest) for d in source.shape))]
    if name == "take_along":
        data = (*index[:attrs.axis], None, *index[attrs.axis + 1:])
        return [(source, data), (node.inputs[1], index)]
    return [(n, (None,) * len(n.shape)) for n in node.inputs]


def _family(node: Node) -> tuple[Family, Shape, tuple[int, ...]]:
    """The schedule family of an anchor, its domain and its reduced axes."""
    if node.op.kind == "contract":
        return "contraction", node.shape, ()
    if node.op.kind == "grouped":
        return "grouped", node.shape, ()
    if node.op.kind == "index":
        return "scatter", node.shape, ()
    if node.op.kind == "routine":
        return "routine", node.shape, ()
    if node.op.kind in ("scan", "sort"):
        family: Family = "scan" if node.op.kind == "scan" else "sort"
        return family, node.shape, (node.attrs.axis,)
    shape, axes = node.inputs[0].shape, node.attrs.axes
    wide = [i for i, d in enumerate(shape) if d != 1]
    if all(i in axes for i in wide):
        big = estimate(node.inputs[0].type.size) > SMALL_FULL and not node.type.rank
        return ("full" if big else "rows"), shape, axes
    window = window_of(node.inputs[0])
    taps = set[int]() if window is None else set(range(window.inputs[0].type.rank, len(shape)))
    along = [i for i in wide if i not in taps]
    if taps and along and not (taps & set(wide)) - set(axes) and along[-1] not in axes:
        return "taps", shape, axes
    if window is not None and not taps & set(axes) and set(window.attrs.axes) <= set(axes):
        return "filters", shape, axes
    # Neighbours in memory are those along the windows, not along the taps behind them.
    last = along[-1] if along and not taps & set(axes) else wide[-1]
    return ("rows" if last in axes else "columns"), shape, axes


def window_of(node: Node) -> Node | None:
    """The windows that a value is made of element by element, if it is."""
    seen: set[Node] = set()
    stack = [node]
    while stack and len(seen) < MOST_STEPS:
        n = stack.pop()
        if n in seen or n.shape != node.shape:
            continue
        seen.add(n)
        if n.op.name == "window":
            return n
        if n.op.kind == "elementwise":
            stack.extend(n.inputs)
    return None


def clusters_of(
    anchors: Anchors, apart: frozenset[Node] = frozenset(), whole: Whole | None = None
) -> list[Cluster]:
    """Reductions of one domain together, where no other anchor stands between them.

    Those in ``apart`` stay alone, what is computed as a ``whole`` is one cluster. Only the latest
    few clusters of a domain are looked at.
    """
    result: list[Cluster] = []
    open_clusters: dict[object, list[Cluster]] = {}
    of: dict[Node, tuple[Family, list[Node]]] = {}
    if whole is not None:
        of |= {n: ("attention", a.anchors) for a in whole.attentions for n in a.anchors}
        of |= {n: ("remade", r.anchors) for r in whole.remade for n in r.anchors}
    for node in anchors.nodes:
        if node in of:
            family, together = of[node]
            if node is together[-1]:
                result.append(Cluster(anchors, family, node.shape, ()))
                for anchor in together:
                    result[-1].add(anchor)
            continue
        family, shape, axes = _family(node)
        key: object = family if family == "full" else (family, shape, axes)
        if family in ("scan", "sort"):
            key = family, shape, node.attrs, node.inputs if family == "sort" else ()
        alone = node in apart or family in ("contraction", "grouped", "scatter", "routine")
        candidates = [] if alone else open_clusters.setdefault(key, [])
        for cluster in reversed(candidates[-MOST_OPEN:]):
            if _joins(node, cluster):
                cluster.add(node)
                break
        else:
            cluster = Cluster(anchors, family, shape, axes)
            cluster.add(node)
            candidates.append(cluster)
            result.append(cluster)
    return result


def _joins(node: Node, cluster: Cluster) -> bool:
    """Whether ``cluster``, of the family and, unless that is 'full', the domain of ``node``, can
    compute it as well.
    """
    if len(cluster.anchors) >= MOST_ANCHORS:
        return False
    rests = cluster.of.above[node] & cluster.mask
    if rests and cluster.family != "rows":
        return False
    shape = node.inputs[0].shape
    of, first = cluster.of, cluster.anchors[0]
    if cluster.family == "full" and shape != cluster.shape and not of.large(node) & of.large(first):
        return False
    # Sums with contractions between them gain little from sharing a kernel, and what the earlier
    # ones read would have to stay in memory until the last.
    apart = (of.above[node] ^ of.above[first]) & of.contractions
    if not rests and apart and estimate(node.inputs[0].type.size) > SMALL_FULL:
        return False
    if cluster.between(node):
        return False
    return not rests or cluster.aligned(node.inputs[0], tuple(range(len(shape))))
