"""Attention in a graph: two contractions with a softmax between them, of which the last is used.

    s = score(contract(q, k)); e = exp(s - max(s)); p = e / sum(e); contract(p, v)

One kernel can compute it block of keys by block of keys, without the scores in memory: M. Milakov
and N. Gimelshein, "Online normalizer calculation for softmax" (2018); T. Dao et al.,
"FlashAttention" (2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.compiler.target import Target
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim
from tilewright.ir.types import Shape, as_number, bf16, f16

MOST_SCORE = 64
"""Nodes between the first contraction and the softmax."""


@dataclass(frozen=True)
class Attention:
    """What there is between the contractions.

    first    contraction of queries and keys, ``last`` of probabilities and values
    score    what softmax is taken of, made of ``first`` element by element
    top      its maximum over keys, ``total`` the sum of the exponentials
    side     which operand of ``last`` the probabilities are
    inside   what has an element for every row and key, from ``first`` to what ``last`` reads
    """

    first: Node
    score: Node
    top: Node
    total: Node
    last: Node
    side: int
    inside: frozenset[Node]

    @property
    def anchors(self) -> list[Node]:
        """The reductions, in order."""
        return [self.first, self.top, self.total, self.last]

    @property
    def power(self) -> Node:
        """The exponentials."""
        return self.total.inputs[0]

    @property
    def queries(self) -> tuple[Node, tuple[int, ...]]:
        """The operand of ``first`` whose rows are those of the scores, and its labels."""
        return self.operand(self.first, self.row_side)

    @property
    def keys(self) -> tuple[Node, tuple[int, ...]]:
        """The other operand, and its labels."""
        return self.operand(self.first, 1 - self.row_side)

    @property
    def values(self) -> tuple[Node, tuple[int, ...]]:
        """The values, and their labels."""
        return self.operand(self.last, 1 - self.side)

    @property
    def row_side(self) -> int:
        """Which operand of ``first`` has the rows: it lacks the last label, that of the keys."""
        return int(self.first.attrs.out[-1] in self.first.attrs.lhs)

    @property
    def depth(self) -> int:
        """The label that the first contraction sums over."""
        return int(next(x for x in self.first.attrs.lhs if x not in self.first.attrs.out))

    @property
    def chances(self) -> tuple[int, ...]:
        """The labels of the probabilities in the last contraction: batch, rows and keys."""
        return self.operand(self.last, self.side)[1]

    @property
    def columns(self) -> int:
        """The label of the columns of the values in the last contraction."""
        return next(x for x in self.values[1] if x not in self.chances)

    @staticmethod
    def operand(node: Node, side: int) -> tuple[Node, tuple[int, ...]]:
        """An operand of a contraction, and the labels of its axes."""
        return node.inputs[side], node.attrs.rhs if side else node.attrs.lhs


WIDEST = 128
"""Columns of queries and of values that a kernel has registers for."""

NARROW = 16
"""What the columns must be a multiple of."""


def fused_attention(found: Attention, target: Target | None) -> bool:
    """Whether a target has a kernel for it: of 16-bit operands that are not too wide."""
    if target is None or target.gpu is None or target.gpu.sm < 80:
        return False
    queries, keys, values = found.queries, found.keys, found.values
    dtype = values[0].dtype
    if dtype not in (bf16, f16) or any(x.dtype is not dtype for x, _ in (queries, keys)):
        return False
    shapes = (*found.first.shape, *found.last.shape, *queries[0].shape, *values[0].shape)
    if not all(isinstance(d, int) and d > 0 for d in shapes):
        return False
    widths = [
        as_number(x.shape[labels.index(column)]) for (x, labels), column in (
            (queries, found.depth), (values, found.columns))]
    return all(d % NARROW == 0 and d <= WIDEST for d in widths)


def wide(shape: Shape) -> tuple[Dim, ...]:
    """The axes of a shape but those of size 1."""
    return tuple(d for d in shape if d != 1)


def same_rows(node: Node) -> bool:
    """Whether a node only adds axes of size 1, or takes some away."""
    return node.op.name == "reshape" and wide(node.shape) == wide(node.inputs[0].shape)


def attention_of(anchors: Sequence[Node]) -> Attention:
    """The attention of a group's anchors."""
    first, top, total, last = anchors
    sides = (n for n in (0, 1) if _softmax(last.inputs[n]) is total)
    return Attention(first, top.inputs[0], top, total, last, next(sides), frozenset())


def _softmax(share: Node) -> Node | None:
    """The sum that probabilities are divided by, if they are."""
    while share.op.name in ("cast", "reshape"):
        share = share.inputs[0]
    if share.op.name != "div":
        return None
    total = share.inputs[1]
    while total.op.name in ("broadcast", "reshape"):
        total = total.inputs[0]
    return total


def attentions(nodes: Iterable[Node]) -> list[Attention]:
    """All of a graph, in order, whoever else uses what is inside of them."""
    found = []
    for node in nodes:
        if node.op.kind == "contract":
            sides = (_attention(node, side) for side in (0, 1))
            found += [a for a in sides if a is not None][:1]
    return found


def _attention(last: Node, side: int) -> Attention | None:
    """The attention that ends in a contraction whose operand ``side`` is a softmax over keys."""
    inside: set[Node] = set()

    def over(node: Node, name: str) -> Node | None:
        """The reduction over the last axis that a node repeats along it."""
        if node.op.name != "broadcast":
            return None
        source, axes = node.inputs[0], tuple(range(node.type.rank - 1))
        if source.op.name == "reshape" and source.shape == (*node.shape[:-1], 1):
            source = source.inputs[0]
        fits = source.op.name == name and source.attrs.axes == (node.type.rank - 1,)
        return source if fits and node.attrs.axes[:len(axes)] == axes else None

    share = last.inputs[side]
    while share.op.name == "cast" or same_rows(share):
        inside.add(share)
        share = share.inputs[0]
    if share.op.name != "div":
        return None
    power, total = share.inputs[0], over(share.inputs[1], "sum")
    if power.op.name != "exp" or total is None or total.inputs[0] is not power:
        return None
    less = power.inputs[0]
    if less.op.name != "sub":
        return None
    score, top = less.inputs[0], over(less.inputs[1], "reduce_max")
    if top is None or top.inputs[0] is not score:
        return None
    inside |= {share, power, less}
    first = _scores(score, inside)
    if first is None or not _fits(first, last, side):
        return None
    return Attention(first, score, top, total, last, side, frozenset(inside))


def _scores(score: Node, inside: set[Node]) -> Node | None:
    """The one contraction that a score is made of element by element."""
    found: list[Node] = []
    stack, seen = [score], {score}
    rests: list[Node] = []
    while stack:
        node = stack.pop()
        if node.op.kind == "contract":
            found.append(node)
        elif (
            node.op.kind == "elementwise" and wide(node.shape) == wide(score.shape)
            or same_rows(node)
        ):
            rests.append(node)
            fresh = [n for n in node.inputs if n not in seen]
            seen.update(fresh)
            stack += fresh
        if len(seen) > MOST_SCORE:
            return None
    own = [n for n in found if wide(n.shape) == wide(score.shape)]
    if len(own) != 1:
        return None
    above, grown = {own[0]}, True
    while grown:
        more = {n for n in rests if n not in above and any(x in above for x in n.inputs)}
        above, grown = above | more, bool(more)
    inside |= above
    return own[0]


def _fits(first: Node, last: Node, side: int) -> bool:
    """Whether the labels are those of attention: one is summed in each contraction, rows and keys
    come from one operand each, and all else is of the batch or a column of the values.
    """
    a, b = first.attrs, last.attrs
    chances, values = (b.rhs, b.lhs) if side else (b.lhs, b.rhs)
    if first.type.rank < 2 or first.shape != last.inputs[side].shape or first.shape[-1] == 1:
        # Of one key, axes of size 1 would not tell where it is.
        return False
    row, key = a.out[-2:]
    summed = [label for label in a.lhs if label not in a.out]
    apart = (row in a.lhs, row in a.rhs) == (key in a.rhs, key in a.lhs) and (
        (row in a.lhs) != (row in a.rhs))
    columns = [label for label in values if label not in chances]
    return (
        len(summed) == len(columns) == 1 and apart and chances[-1] in values
        and chances[-2] not in values and set(b.out) == {*chances[:-1], *columns})
