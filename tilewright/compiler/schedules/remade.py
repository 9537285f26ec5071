"""Contractions whose operand is made anew from other contractions, never stored.

    s = contract(q, k); p = exp(s - top) * r; dv = contract(p, g)
    d = contract(g, v); dq = contract(p * (d - e), k)

One kernel computes a block of the result from blocks of ``s`` and ``d`` that it multiplies itself.
The gradient of attention is three of these: what was kept of the forward computation are the rows'
largest scores and sums (T. Dao, "FlashAttention-2", 2023).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.schedules.attention import (
    NARROW,
    WIDEST,
    Attention,
    attentions,
    fused_attention,
    same_rows,
    wide,
)
from tilewright.compiler.target import Target
from tilewright.ir.graph import Node
from tilewright.ir.types import as_number, bf16, f16

NONE = -2

MOST_NODES = 100
"""Elementwise nodes between the contractions."""

MOST_PRODUCTS, MOST_RESULTS = 2, 2
"""Contractions that an operand is made from, and results of a kernel: there are registers for so
many.
"""


@dataclass(frozen=True)
class Operand:
    """An operand of a contraction: by axis of the result's or operand's domain, where it has it.

    axes  for each axis of the node: the axis of the domain, or -1, the one that the domain lacks;
          :data:`NONE`: there is one element along it
    """

    node: Node
    axes: tuple[int, ...]

    @property
    def width(self) -> int:
        """Elements along the axis that the domain lacks."""
        return as_number(self.node.shape[self.axes.index(-1)])


@dataclass(frozen=True)
class Result:
    """A contraction of the made operand ``made`` with ``other``.

    axes  for each axis of the result: the axis of the domain, or -1, the one of ``other`` alone
    """

    node: Node
    made: Node
    other: Operand
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """A contraction that has an element for each place of the domain: of rows and of columns."""

    node: Node
    rows: Operand
    columns: Operand


@dataclass(frozen=True)
class Remade:
    """Results over one domain, [batch ..., rows, columns], that share what they are made from.

    own     the axis of the domain that the results keep; ``walked`` the one they sum over
    inside  nodes over the domain that are computed for each result anew
    """

    results: tuple[Result, ...]
    products: tuple[Product, ...]
    own: int
    walked: int
    inside: frozenset[Node]

    @property
    def anchors(self) -> list[Node]:
        """The results."""
        return [r.node for r in self.results]

    @property
    def domain(self) -> tuple[int, ...]:
        """The sizes of the domain."""
        return tuple(as_number(d) for d in self.results[0].made.shape)

    @property
    def power(self) -> Node:
        """The exponential that an operand is made of."""
        return next(n for n in self.inside if n.op.name == "exp")


def remade_of(anchors: Sequence[Node]) -> Remade:
    """What a group's anchors are."""
    parts = [x for a in anchors for side in (0, 1) if (x := _remade(a, side)) is not None]
    return _together(parts)


def remade(nodes: Iterable[Node], without: Collection[Node] = ()) -> list[Remade]:
    """All of a graph, those of one domain that keep the same axis together."""
    open_ones: dict[object, Remade] = {}
    found: list[Remade] = []
    for node in nodes:
        if node.op.kind != "contract" or node in without:
            continue
        one = next((x for side in (0, 1) if (x := _remade(node, side)) is not None), None)
        if one is None:
            continue
        keys = [(p.node, one.own, one.results[0].made.shape) for p in one.products]
        near = [open_ones[key] for key in keys if key in open_ones]
        if near and _joins(near[0], one):
            found.remove(near[0])
            one = _together([near[0], one])
        found.append(one)
        open_ones |= {(p.node, one.own, one.results[0].made.shape): one for p in one.products}
    return found


def _joins(a: Remade, b: Remade) -> bool:
    """Whether two can be one kernel."""
    products = {p.node for p in (*a.products, *b.products)}
    few = len(a.results) < MOST_RESULTS and len(products) <= MOST_PRODUCTS
    return few and b.inside.isdisjoint(a.anchors)


def _together(parts: Sequence[Remade]) -> Remade:
    first = parts[0]
    products = {p.node: p for part in parts for p in part.products}
    return Remade(
        tuple(r for part in parts for r in part.results), tuple(products.values()),
        first.own, first.walked, frozenset[Node]().union(*(p.inside for p in parts)))


def _remade(node: Node, side: int) -> Remade | None:
    """A contraction whose operand ``side`` is made of others, if it is one of 16-bit numbers."""
    made, a = node.inputs[side], node.attrs
    labels, others = (a.rhs, a.lhs) if side else (a.lhs, a.rhs)
    rank = made.type.rank
    if made.dtype not in (bf16, f16) or rank < 2 or not all(
        isinstance(d, int) and d > 0 for d in (*made.shape, *node.shape)
    ) or not (made.op.kind == "elementwise" or same_rows(made)) or 1 in made.shape[-2:]:
        return None
    summed = [x for x in labels if x not in a.out]
    if len(summed) != 1 or labels.index(summed[0]) < rank - 2:
        return None
    walked = labels.index(summed[0])
    own = 2 * rank - 3 - walked
    large = [axis for axis in range(rank - 2) if made.shape[axis] != 1]
    other = _operand(
        node.inputs[1 - side], others, {x: axis for axis, x in enumerate(labels)},
        {*large, walked})
    axes = tuple(labels.index(x) if x in labels else -1 for x in a.out)
    if other is None or sorted(axes) != sorted((*range(rank - 2), own, -1)):
        return None
    inside = _made(made)
    if inside is None or not any(n.op.name == "exp" for n in inside):
        return None
    products = [_product(n, made) for n in inside if n.op.kind == "contract"]
    if not 0 < len(products) <= MOST_PRODUCTS or None in products:
        return None
    return Remade(
        (Result(node, made, other, axes),), tuple(p for p in products if p is not None), own,
        walked, frozenset(inside))


def _operand(
    node: Node, labels: tuple[int, ...], domain: Mapping[int, int], wanted: set[int]
) -> Operand | None:
    """An operand that has the wanted axes of the domain and one of its own.

    domain  by label: the axis of the domain
    """
    axes = tuple(
        NONE if d == 1 and domain.get(x, NONE) not in wanted else domain.get(x, -1)
        for x, d in zip(labels, node.shape, strict=True))
    if sorted(x for x in axes if x != NONE) != sorted((*wanted, -1)):
        return None
    found = Operand(node, axes)
    return found if found.width % NARROW == 0 and found.width <= WIDEST else None


def _product(node: Node, made: Node) -> Product | None:
    """A contraction over the domain whose operands are of the made operand's type."""
    a, rank = node.attrs, made.type.rank
    if any(n.dtype is not made.dtype for n in node.inputs):
        return None
    large = [axis for axis, d in enumerate(made.shape) if d != 1]
    there = [label for label, d in zip(a.out, node.shape, strict=True) if d != 1]
    domain = dict(zip(there, large, strict=True))
    sides = []
    for axis in (rank - 2, rank - 1):
        wanted = {*large[:-2], axis}
        found = [
            x for n, labels in zip(node.inputs, (a.lhs, a.rhs), strict=True)
            if (x := _operand(n, labels, domain, wanted)) is not None]
        if len(found) != 1:
            return None
        sides += found
    return Product(node, *sides)


def _made(made: Node) -> list[Node] | None:
    """What an operand is made of, element by element, down to contractions; in no order."""
    stack, seen = [made], {made: None}
    while stack:
        node = stack.pop()
        if node.op.kind == "contract":
            continue
        for n in node.inputs:
            over = wide(n.shape) == wide(made.shape) and (
                n.op.kind in ("elementwise", "contract") or same_rows(n))
            if over and n not in seen:
                seen[n] = None
                stack.append(n)
        if len(seen) > MOST_NODES:
            return None
    return list(seen)


@dataclass(frozen=True)
class Whole:
    """What is computed without its scores in memory.

    inside    nodes that are not stored
    products  contractions among them that are computed wherever they are needed
    """

    attentions: tuple[Attention, ...] = ()
    remade: tuple[Remade, ...] = ()

    @property
    def inside(self) -> frozenset[Node]:
        parts = [a.inside for a in self.attentions] + [r.inside for r in self.remade]
        return frozenset[Node]().union(*parts)

    @property
    def products(self) -> frozenset[Node]:
        return frozenset(p.node for r in self.remade for p in r.products)


def whole(
    nodes: Iterable[Node], users: Mapping[Node, Sequence[Node]], results: Collection[Node],
    apart: frozenset[Node], target: Target | None,
) -> Whole:
    """What a target computes without its scores in memory: all that nothing else asks for."""
    if target is None or target.gpu is None or target.gpu.sm < 80:
        return Whole()
    nodes = list(nodes)
    ahead = [a for a in attentions(nodes)
             if fused_attention(a, target) and apart.isdisjoint(a.anchors)]
    lasts = {a.last for a in ahead}
    kept: list[Attention]
    remain: list[Remade]
    back = [r for r in remade(nodes, lasts) if apart.isdisjoint(r.anchors)]
    while True:
        again = {n for r in back for n in (*r.inside, *r.anchors)}

        def private(x: Attention | Remade, more: Collection[Node]) -> bool:
            allowed = x.inside.union(x.anchors, more)
            return all(
                n not in results and allowed.issuperset(users[n]) for n in x.inside)

        front = {n for a in ahead for n in (*a.inside, *a.anchors)}
        kept = [a for a in ahead if private(a, again)]
        remain = [r for r in back if private(r, again | front)]
        if (kept, remain) == (ahead, back):
            return Whole(tuple(ahead), tuple(back))
        ahead, back = kept, remain
