"""What the threads of a team keep of a row from one pass to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.schedules.gpu.vectors import lanes
from tilewright.compiler.schedules.gpu.walk import Spot, Walk
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.schedules.reduction import CACHED_FLOPS, hold, number
from tilewright.ir import loops as k
from tilewright.ir.graph import Node

CHEAP = ("broadcast", "full", "size", "iota")
"""Views whose elements are not read again at a cost."""


def pass_of(value: Node, level: Mapping[Node, int]) -> int:
    """The first pass over a row in which a value that is no reduction can be computed."""
    return level.get(value, 0) + 1


@dataclass(frozen=True)
class Span:
    """A value of a whole row that several passes need, with the first and the last of them."""

    node: Node
    first: int
    last: int


def kept_values(
    group: Group, members: Sequence[Node], level: Mapping[Node, int]
) -> list[Span]:
    """What is worth keeping: what is read, and what would cost much to compute again."""
    needed: dict[Node, set[int]] = {}
    for anchor in group.anchors:
        needed.setdefault(anchor.inputs[0], set()).add(level[anchor])
    for value, _ in group.stores:
        if value.shape == group.shape and value not in group.anchors:
            needed.setdefault(value, set()).add(pass_of(value, level))
    inside, found = set(members), []
    costs = _costs(group, members)
    leaves = dict.fromkeys(n for m in members for n in m.inputs if n not in inside)
    for node in (*reversed(members), *leaves):
        if node not in needed or node in group.anchors or node.shape != group.shape:
            continue
        passes, elementwise = needed[node], node.op.kind == "elementwise" and node in inside
        kept = len(passes) > 1 and (
            costs[node] >= CACHED_FLOPS if elementwise else node.op.name not in CHEAP)
        if kept:
            found.append(Span(node, min(passes), max(passes)))
        if elementwise:
            for source in node.inputs:
                needed.setdefault(source, set()).update({min(passes)} if kept else passes)
    return found[::-1]


def _costs(group: Group, members: Sequence[Node]) -> dict[Node, int]:
    """Operations for an element of each value of a whole row, from what is read."""
    costs: dict[Node, int] = {}
    for node in members:
        if node.op.kind == "elementwise" and node.shape == group.shape:
            costs[node] = node.op.flops + sum(costs.get(n, 0) for n in node.inputs)
    return costs


def alive(spans: Sequence[Span]) -> list[Span]:
    """The largest set of values that are kept at once, from one pass to the next."""
    ends = {s.first for s in spans}
    between = ([s for s in spans if s.first <= p < s.last] for p in sorted(ends))
    return max(between, key=lambda kept: sum(s.node.dtype.itemsize for s in kept), default=[])


class Kept:
    """The memory of kept values: registers of each thread, or shared memory, in which an element
    stands at its place in the row and is touched by its thread alone.
    """

    def __init__(self, walk: Walk, spans: Sequence[Span]) -> None:
        self.walk, self.spans = walk, list(spans)
        self.buffers: dict[Node, k.Buffer] = {}
        self.ready: list[Node] = []
        self.begun: set[k.Buffer] = set()

    def allocate(self, space: k.Space, pieces: int) -> list[k.Buffer]:
        """The buffers, for so many pieces of a thread or of a row. What is first kept where another
        value is last needed takes its place.
        """
        w, size = self.walk.w, pieces * self.walk.width
        made: list[k.Buffer] = []
        free: list[tuple[int, k.Buffer]] = []
        for span in sorted(self.spans, key=lambda s: s.first):
            buffer = next((b for last, b in free if last <= span.first
                           and b.dtype is span.node.dtype), None)
            if buffer is None:
                buffer = k.Buffer(w.name("row"), span.node.dtype, size, space)
                made.append(buffer)
            free = [(last, b) for last, b in free if b is not buffer] + [(span.last, buffer)]
            self.buffers[span.node] = buffer
        return made

    def fresh(self, number: int) -> list[Node]:
        """What this pass is the first to need."""
        return [s.node for s in self.spans if s.first == number]

    def begin(self, nodes: Sequence[Node], everywhere: bool, team: int) -> None:
        """Registers that not every thread fills have to hold something: the last of each thread,
        or, if only some teams fill them, all.
        """
        w, width = self.walk.w, self.walk.width
        for buffer in (self.buffers[node] for node in nodes):
            if buffer.space != "register" or buffer in self.begun:
                continue
            self.begun.add(buffer)
            assert isinstance(buffer.size, int)
            first = 0 if everywhere else self.walk.certain(team)
            if first * width == buffer.size:
                continue
            with w.loop("c", first, buffer.size // width, "unroll") as c:
                with lanes(w, width) as lane:
                    at = k.add(k.mul(c, width), lane)
                    w.write(k.Store(buffer, at, number(0, buffer.dtype)))

    def hold(self, spot: Spot) -> None:
        """Read what earlier passes kept of this element, before its memory is used again."""
        w = self.walk.w
        for node in self.ready:
            hold(w, node, w.let("e", self._element(node, spot)), _ones(spot, node))

    def save(self, spot: Spot, nodes: Sequence[Node]) -> None:
        """Compute and keep values that this pass is the first to need."""
        w = self.walk.w
        for node in nodes:
            value = w.let("e", w.value(node, spot.index))
            place = self._element(node, spot)
            w.write(k.Store(place.buffer, place.index, value))
            hold(w, node, value, _ones(spot, node))

    def release(self, nodes: Sequence[Node]) -> None:
        """After an element: nothing is held of it; ``nodes`` were kept."""
        for node in (*self.ready, *nodes):
            self.walk.w.bound.pop(node, None)

    def done(self, number: int) -> None:
        """After a pass: what it kept is there, and what it was the last to need is gone."""
        self.ready = [s.node for s in self.spans if s.first <= number < s.last]

    def _element(self, node: Node, spot: Spot) -> k.Load:
        buffer = self.buffers[node]
        return k.Load(buffer, spot.own if buffer.space == "register" else spot.offset)


def _ones(spot: Spot, node: Node) -> tuple[k.Expr, ...]:
    """The index as values are asked for: there is one element along an axis of size 1."""
    return tuple(
        k.Const(0) if d == 1 else i for i, d in zip(spot.index, node.shape, strict=True))
