"""A sum of tensors that are zero but for ranges of one axis that are apart is those ranges, joined.

    y = pad(a, 0.0) [low=(0,), high=(2,)] + pad(b, 0.0) [low=(2,), high=(1,)]
->  y = concat(a + 0.0, b + 0.0, 0.0)

The gradient of slices is such a sum: of every slice, zero outside of it. Ranges may have steps, as
those of ``x[::2]``. A range within another is added to it; others that overlap stay a sum. All bits
of the sum are kept: adding 0.0 to an element, as the other terms do, makes 0.0 of -0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from math import gcd

from tilewright.compiler.rules.views import adjacent
from tilewright.compiler.target import Target
from tilewright.ir.build import concat, pad, part, place, reshape
from tilewright.ir.graph import Graph, Node, full, make, rebuild_node, users
from tilewright.ir.patterns import fold
from tilewright.ir.sizes import Dim, less
from tilewright.ir.types import TensorType

DEEPEST = 4
"""Functions that are zero at zero, such as casts, that a term may be under."""


def disjoint(graph: Graph, target: Target | None = None) -> Graph:
    """The same function with sums of ranges that are apart as concatenations."""
    chains = _Chains(graph)
    done: dict[Node, Node] = {}
    for node in graph.nodes():
        if node in chains.inner:
            continue
        spine, terms = chains.of(node)
        found = _sum([done[n] for n in terms]) if len(terms) > 1 else None
        if found is not None:
            done[node] = place(found, [done[n] for n in terms], node.loc)
            continue
        for n in reversed(spine):
            done[n] = rebuild_node(n, [done[i] for i in n.inputs])
    return graph.rebuild(done[n] for n in graph.outputs)


class _Chains:
    """Sums of sums that nothing else reads. ``inner``: the sums in them but for the last."""

    def __init__(self, graph: Graph) -> None:
        self.read, self.results = users(graph), set(graph.outputs)
        spines = (self.spine(n) for n in self.read)
        self.inner = {n for n in spines if n is not None}

    def spine(self, node: Node) -> Node | None:
        """The operand of a sum that is a sum which nothing else reads."""
        if node.op.name != "add":
            return None
        for n in node.inputs:
            if n.op.name == "add" and len(self.read[n]) == 1 and n not in self.results:
                return n
        return None

    def of(self, node: Node) -> tuple[list[Node], list[Node]]:
        """The sums that end with ``node``, last to first, and their terms, first to last."""
        spine = [node]
        terms: list[Node] = []
        if node.op.name != "add":
            return spine, terms
        while (below := self.spine(spine[-1])) is not None:
            first, second = spine[-1].inputs
            terms.append(second if first is below else first)
            spine.append(below)
        terms += reversed(spine[-1].inputs)
        return spine, terms[::-1]


def _sum(terms: Sequence[Node]) -> Node | None:
    """The sum of terms in their order, with the ranges among them joined; None if none are.

    At every place the order of the terms that are not zero there stays: a later range may join an
    earlier one past one tensor without zeros, since a + b is b + a, but not past two.
    """
    dense: Node | None = None
    ranges: _Ranges | None = None
    joined = False
    for term in terms:
        placed = _placed(term, None if ranges is None else ranges.axis)
        if placed is not None and ranges is not None and ranges.take(placed, dense is None):
            joined = True
            continue
        if ranges is not None and (placed is not None or dense is not None):
            dense, ranges = _plus(dense, ranges.node()), None
        if placed is None:
            dense = _plus(dense, term)
        else:
            ranges = _Ranges(term, placed)
    if not joined:
        return None
    return dense if ranges is None else _plus(dense, ranges.node())


def _plus(total: Node | None, term: Node) -> Node:
    return term if total is None else total + term


@dataclass(frozen=True)
class _Cell:
    """The places ``start``, ``start + step`` ... of an axis, ``count`` of them, and what is added
    up there.
    """

    start: Dim
    step: int
    count: Dim
    values: tuple[Node, ...]

    @property
    def stop(self) -> Dim:
        """Behind the last place."""
        return self.start + (self.count - 1) * self.step + 1

    def within(self, other: _Cell) -> tuple[int, int] | None:
        """How many places ``other`` has before and behind those of this one, if it has them all."""
        if self.start == other.start and self.count == other.count == 1:
            return 0, 0
        step = other.step
        numbers = (self.start, self.count, other.start, other.count)
        if (self.start, self.step, self.count) == (other.start, step, other.count):
            return 0, 0
        if self.step != step and self.count != 1 or not all(isinstance(n, int) for n in numbers):
            return None
        before, rest = divmod(self.start - other.start, step)
        behind = other.count - before - self.count
        return None if rest or before < 0 or behind < 0 else (int(before), int(behind))

    def apart(self, other: _Cell) -> bool:
        """Whether the two have no place in common, for all that is known."""
        if less(other.start, self.stop) is False or less(self.start, other.stop) is False:
            return True
        a, b = self.start, other.start
        if not isinstance(a, int) or not isinstance(b, int):
            return False
        steps = [c.step for c in (self, other) if c.count != 1]
        return len(steps) > 0 and (a - b) % gcd(*steps) != 0


@dataclass(frozen=True)
class _Placed:
    """A tensor that is zero along ``axis`` but for these cells."""

    axis: int
    cells: tuple[_Cell, ...]


def _placed(node: Node, axis: int | None, depth: int = DEEPEST) -> _Placed | None:
    """A node as ranges among zeros, of ``axis`` if that is one of its; None if it is not that."""
    if node.op.name == "pad" and _zero(node.inputs[1]):
        return _of_pad(node, axis)
    if node.op.name == "concat" and any(map(_zero, node.inputs)):
        start: Dim = 0
        cells = []
        for piece in node.inputs:
            count = piece.shape[node.attrs.axis]
            if not _zero(piece):
                cells.append(_Cell(start, 1, count, (piece,)))
            start = start + count
        return _Placed(node.attrs.axis, tuple(cells))
    if node.op.kind != "elementwise" or not depth:
        return None
    inner = [n for n in node.inputs if n.op.name != "full"]
    placed = _placed(inner[0], axis, depth - 1) if len(inner) == 1 else None
    return None if placed is None else _mapped(node, placed)


def _zero(node: Node) -> bool:
    """Whether all bits are 0: 0.0 is one, -0.0 is not."""
    return node.op.name == "full" and node.attrs.bits == 0


def _of_pad(node: Node, axis: int | None) -> _Placed | None:
    x, attrs = node.inputs[0], node.attrs
    rank = x.type.rank
    around = [i for i in range(rank)
              if attrs.low[i] != 0 or attrs.high[i] != 0 or attrs.interior[i] != 0]
    axis = axis if axis in around else around[0]
    if attrs.interior[axis] and not isinstance(x.shape[axis], int) or x.shape[axis] == 0:
        return None
    low, high, interior = (
        [0 if i == axis else w for i, w in enumerate(widths)]
        for widths in (attrs.low, attrs.high, attrs.interior))
    inner = pad(x, low, high, interior, node.inputs[1])
    cell = _Cell(attrs.low[axis], attrs.interior[axis] + 1, x.shape[axis], (inner,))
    return _Placed(axis, (cell,))


def _mapped(node: Node, placed: _Placed) -> _Placed | None:
    """A function of one tensor of ranges, if it is zero at zero."""
    def on(value: Node) -> Node:
        shape = value.shape
        inputs = [
            make("full", (), n.attrs, type=n.type.with_shape(shape)) if n.op.name == "full"
            else value for n in node.inputs]
        return make(node.op, inputs, node.attrs)

    operand = next(n for n in node.inputs if n.op.name != "full")
    at_zero = fold(on(full(operand.type, 0)))
    if at_zero is None or not _zero(at_zero):
        return None
    cells = tuple(
        _Cell(c.start, c.step, c.count, tuple(map(on, c.values))) for c in placed.cells)
    return _Placed(placed.axis, cells)


class _Ranges:
    """A sum of tensors that are zero but for ranges of one axis.

    terms   how many these are
    """

    def __init__(self, node: Node, placed: _Placed) -> None:
        self.type, self.axis = node.type, placed.axis
        self.first = node
        self.cells: list[_Cell] = list(placed.cells)
        self.terms = 1

    def take(self, placed: _Placed, may_add: bool) -> bool:
        """Add a term, if its ranges are apart from those that are here or, if these may be added
        to, within one or around one; returns whether it is.
        """
        if placed.axis != self.axis:
            return False
        cells = list(self.cells)
        for cell in placed.cells:
            met = [i for i, c in enumerate(cells) if not c.apart(cell)]
            if not met:
                cells.append(cell)
                _merge_last(cells, self.axis)
                continue
            both = _added(cells[met[0]], cell, self.axis) if len(met) == 1 and may_add else None
            if both is None:
                return False
            cells[met[0]] = both
        if not _layable(cells, self.type.shape[self.axis]):
            return False
        self.cells, self.terms = cells, self.terms + 1
        return True

    def node(self) -> Node:
        """The sum."""
        if self.terms == 1:
            return self.first
        pieces = []
        for c in self.cells:
            value = c.values[0]
            for other in c.values[1:]:
                value = value + other
            # The other terms are 0.0 here.
            value = value + 0 if len(c.values) < self.terms else value
            pieces.append(_Cell(c.start, c.step, c.count, (value,)))
        return _laid(pieces, self.axis, self.type)


def _added(a: _Cell, b: _Cell, axis: int) -> _Cell | None:
    """The sum of two cells, one of which has all the places of the other."""
    for inner, outer in ((a, b), (b, a)):
        around = inner.within(outer)
        if around is None:
            continue
        low, high = (
            [n if i == axis else 0 for i in range(a.values[0].type.rank)] for n in around)
        wide = tuple(pad(v, low, high, [0] * len(low)) for v in inner.values)
        values = (*wide, *b.values) if inner is a else (*a.values, *wide)
        return _Cell(outer.start, outer.step, outer.count, values)
    return None


def _merge_last(cells: list[_Cell], axis: int) -> None:
    """Make one of the last cell and one that it continues, if both are parts of one tensor."""
    last = cells[-1]
    for i, c in enumerate(cells[:-1]):
        step = c.step if c.count != 1 else last.step if last.count != 1 else last.start - c.start
        if c.start + c.count * step != last.start or not isinstance(step, int) or step < 1:
            continue
        if any(x.count != 1 and x.step != step for x in (c, last)):
            continue
        if len(c.values) == len(last.values) == 1:
            whole = adjacent(c.values[0], last.values[0], axis)
            if whole is not None:
                del cells[-1]
                cells[i] = _Cell(c.start, step, c.count + last.count, (whole,))
                return


def _layable(cells: Sequence[_Cell], size: Dim) -> bool:
    """Whether the cells are ranges, or all of them have one step."""
    steps = {c.step for c in cells if c.count != 1}
    if steps <= {1}:
        return True
    numbers = [size, *(n for c in cells for n in (c.start, c.count))]
    return len(steps) == 1 and all(isinstance(n, int) for n in numbers)


def _laid(cells: Sequence[_Cell], axis: int, type: TensorType) -> Node:
    """A tensor of cells with one value each, zero elsewhere."""
    step = max([c.step for c in cells if c.count != 1], default=1)
    size = type.shape[axis]
    if step == 1:
        return _side_by_side(cells, axis, type, size)
    rows = size // step
    columns: list[list[_Cell]] = [[] for _ in range(step)]
    tail: list[_Cell] = []
    for c in cells:
        (value,), row = c.values, c.start // step
        inside = min(c.count, rows - row)
        if inside > 0:
            columns[c.start % step].append(_Cell(row, 1, inside, (_range(value, axis, 0, inside),)))
        if inside < c.count:
            at = c.start % step
            tail.append(_Cell(at, 1, 1, (_range(value, axis, c.count - 1, c.count),)))
    shape = type.shape
    single = (*shape[:axis], rows, 1, *shape[axis + 1:])
    turns = concat(
        [reshape(_side_by_side(c, axis, type, rows), single) for c in columns], axis + 1)
    whole = reshape(turns, (*shape[:axis], rows * step, *shape[axis + 1:]))
    if rows * step == size:
        return whole
    return concat([whole, _side_by_side(tail, axis, type, size - rows * step)], axis)


def _range(x: Node, axis: int, start: Dim, stop: Dim) -> Node:
    """A range of an axis."""
    starts: list[Dim] = [0] * x.type.rank
    stops = list(x.shape)
    starts[axis], stops[axis] = start, stop
    return part(x, starts, stops, [1] * x.type.rank)


def _side_by_side(cells: Sequence[_Cell], axis: int, type: TensorType, size: Dim) -> Node:
    """Ranges of an axis of this size, with zeros between them."""
    def zeros(count: Dim) -> Node:
        return full(type.with_shape((*type.shape[:axis], count, *type.shape[axis + 1:])), 0)

    pieces: list[Node] = []
    at: Dim = 0
    for c in sorted(cells, key=cmp_to_key(_order)):
        if c.start != at:
            pieces.append(zeros(c.start - at))
        pieces += c.values
        at = c.stop
    if at != size:
        pieces.append(zeros(size - at))
    return concat(pieces, axis)


def _order(a: _Cell, b: _Cell) -> int:
    """Ranges that are apart, from first to last."""
    return -1 if less(b.start, a.stop) is False else 1
