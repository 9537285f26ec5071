"""What a reduction of windows is computed from, and what of it is kept next to the registers.

An element of a value is seen by many windows. It is computed once for a block of windows and kept
on the stack, so that padding, views and what is fused in front cost nothing per tap, and so that
the lanes of a vector are next to one another however the value lies in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tilewright.compiler.schedules.access import Index, Writer, strides
from tilewright.compiler.schedules.contraction_shape import unit_axis
from tilewright.compiler.schedules.reduction import converted, number
from tilewright.ir import loops as k
from tilewright.ir.attrs import WindowAttrs
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim
from tilewright.ir.types import Shape

MANY_TAPS = 25
"""Taps that pay for a block that is transposed while it is copied."""

FEW = 8
"""Elements that are stored one by one."""


@dataclass(frozen=True)
class Seen:
    """What a reduction of windows is computed from.

    shape    of the domain: ``rank`` axes of places, then the taps
    attrs    of all windows
    windows  the windows, or conversions of them
    places   values that do not depend on the taps
    taps     values that do not depend on the place along the axes that are windowed
    """

    shape: Shape
    rank: int
    attrs: WindowAttrs
    windows: tuple[Node, ...]
    places: tuple[Node, ...]
    taps: tuple[Node, ...]

    @property
    def tap_axes(self) -> range:
        """The axes of the domain that count taps."""
        return range(self.rank, len(self.shape))

    @property
    def overlap(self) -> float:
        """How many windows see an element."""
        return prod(self.attrs.sizes) / prod(self.attrs.strides)

    def tap_axis(self, axis: int) -> int:
        """The axis that counts the taps along a windowed one."""
        return self.rank + self.attrs.axes.index(axis)

    def count(self, axis: int) -> int:
        """The size of an axis that is known, such as the windows along a windowed one."""
        found = self.shape[axis]
        assert isinstance(found, int)
        return found

    def along(self, axis: int) -> tuple[int, int, int]:
        """Taps, stride and dilation along a windowed axis."""
        n = self.attrs.axes.index(axis)
        return self.attrs.sizes[n], self.attrs.strides[n], self.attrs.dilations[n]


def source_of(node: Node) -> Node:
    """What windows, or a conversion of them, slide along."""
    window = node.inputs[0] if node.op.name == "cast" else node
    return window.inputs[0]


def seen_by(anchors: Sequence[Node], is_leaf: Callable[[Node], bool]) -> Seen | None:
    """What reductions over one domain see, if it is windows of one kind in known numbers."""
    windows: dict[Node, None] = {}
    others: dict[Node, None] = {}
    kinds: set[tuple[int, WindowAttrs]] = set()
    shape = anchors[0].inputs[0].shape
    stack, done = [a.inputs[0] for a in anchors], set()
    while stack:
        node = stack.pop()
        if node in done:
            continue
        done.add(node)
        plain = node.inputs[0] if node.op.name == "cast" else node
        if is_leaf(node) or is_leaf(plain):
            return None
        if plain.op.name == "window" and plain.shape == shape:
            kinds.add((plain.inputs[0].type.rank, plain.attrs))
            windows[node] = None
        elif node.op.name == "broadcast":
            others[node] = None
        elif node.op.kind == "elementwise":
            stack.extend(node.inputs)
        elif node.op.name != "full":
            return None
    if len(kinds) != 1:
        return None
    (rank, attrs), = kinds
    known = [*attrs.axes, *range(rank, len(shape))]
    if not all(isinstance(shape[axis], int) for axis in known):
        return None
    return _sorted(Seen(shape, rank, attrs, tuple(windows), (), ()), tuple(others))


def _sorted(seen: Seen, others: Sequence[Node]) -> Seen | None:
    """With the values that are repeated; None if one depends on windows and taps."""
    places, taps = [], []
    for node in others:
        axes = places_of(node)
        if not axes & set(seen.tap_axes):
            places.append(node)
        elif not axes & set(seen.attrs.axes):
            taps.append(node)
        else:
            return None
    return Seen(seen.shape, seen.rank, seen.attrs, seen.windows, tuple(places), tuple(taps))


def places_of(node: Node) -> set[int]:
    """The axes along which the elements of a broadcast differ."""
    shape = node.inputs[0].shape
    return {a for a, d in zip(node.attrs.axes, shape, strict=True) if d != 1}


def lane_axis(
    seen: Seen, others: Sequence[int], width: int, is_leaf: Callable[[Node], bool]
) -> int:
    """The axis of places along which vectors run: one that is windowed, or one of ``others``.

    That along which values are contiguous, unless it is short and there are enough taps to pay for
    a transposition.
    """
    unit = unit_axis(source_of(seen.windows[0]), is_leaf)
    free = [a for a in others if isinstance(seen.shape[a], int) and filled(seen, a, width) > 0.5]
    if unit in free:
        return unit
    last = unit if unit in seen.attrs.axes else seen.attrs.axes[-1]
    if free and filled(seen, last, width) <= 0.5 and prod(seen.attrs.sizes) >= MANY_TAPS:
        return max(free, key=lambda a: seen.shape[a])
    return last


def filled(seen: Seen, axis: int, width: int) -> float:
    """The share of the lanes that have something to do."""
    size = seen.shape[axis]
    assert isinstance(size, int)
    return size / (-(-size // width) * width)


@dataclass(frozen=True)
class Block:
    """A block of windows.

    lane   the axis of places along which vectors run
    first  where the block begins, per axis of places; its place along axes that it does not cover
    sizes  how many windows it has along each windowed axis, at most
    width  lanes
    """

    lane: int
    first: Mapping[int, k.Expr]
    sizes: Mapping[int, int]
    width: int


def nothing(node: Node) -> bool:
    """No node is read from memory."""
    return False


class Kept:
    """The elements of a value that the windows of a block see, on the stack.

    Rows of vectors along the lanes; where those are windows a stride apart, the elements of each
    phase are next to one another. There are lanes up to a whole vector, zero where there is no
    element.
    """

    def __init__(
        self, seen: Seen, node: Node, block: Block, is_leaf: Callable[[Node], bool] = nothing
    ) -> None:
        self.seen, self.node, self.block, self.is_leaf = seen, node, block, is_leaf
        self.axes = [a for a in seen.attrs.axes if a != block.lane]
        self.windowed = block.lane in seen.attrs.axes
        self.phases, self.length = 1, block.width
        if self.windowed:
            taps, self.phases, dilation = self.along(block.lane)
            count = -(-block.sizes[block.lane] // block.width) * block.width
            self.length = count + (taps - 1) * dilation // self.phases
        self.shape = (*(self.span(a, block.sizes[a]) for a in self.axes), self.phases, self.length)

    def along(self, axis: int) -> tuple[int, int, int]:
        """Taps, stride and dilation along a windowed axis."""
        return self.seen.along(axis)

    def span(self, axis: int, count: int) -> int:
        """The elements from the first to the last that so many windows see."""
        taps, stride, dilation = self.along(axis)
        return (count - 1) * stride + (taps - 1) * dilation + 1

    @property
    def nbytes(self) -> int:
        """The bytes that this takes."""
        return prod(self.shape) * self.node.dtype.itemsize

    def reach(self, axis: int) -> tuple[Dim, Dim]:
        """Where the elements along an axis begin and end; around them is the filler."""
        source, padded = source_of(self.node), self.padded
        if padded is None:
            return 0, source.shape[axis]
        low = padded.attrs.low[axis]
        return low, low + padded.inputs[0].shape[axis]

    @property
    def padded(self) -> Node | None:
        """The pad that surrounds the elements, if one does."""
        source = source_of(self.node)
        plain = source.op.name == "pad" and not any(source.attrs.interior)
        return source if plain and not self.is_leaf(source) else None

    def element(self, w: Writer, index: Index, mask: k.Expr | None) -> k.Expr:
        """An element of what windows see, which is not the filler."""
        padded = self.padded
        if padded is None:
            return w.value(source_of(self.node), index, mask)
        at = tuple(k.sub(i, low) for i, low in zip(index, padded.attrs.low, strict=True))
        return w.value(padded.inputs[0], at, mask)

    def filler(self, w: Writer) -> k.Expr:
        """What surrounds the elements, or stands where nobody looks."""
        if self.padded is None:
            return number(0, self.node.dtype)
        return converted(w.value(self.padded.inputs[1], ()), self.node.dtype)

    def fill(self, w: Writer, counts: Mapping[int, k.ExprLike]) -> None:
        """Compute the elements for so many windows along the axes, and bind the value to them."""
        self.buffer = w.alloc("seen", self.node.dtype, prod(self.shape), "stack")
        self._rows(w, counts, [self.block.first[a] for a in range(self.seen.rank)], k.Const(0), 0)
        w.bound[self.node] = self.at

    def _rows(
        self, w: Writer, counts: Mapping[int, k.ExprLike], at: list[k.Expr], base: k.Expr, n: int
    ) -> None:
        """The elements from the n-th axis inwards, whose first one stands at ``base``."""
        pitch = prod(self.shape[n + 1:])
        if n == len(self.axes):
            for phase in range(self.phases):
                self._row(w, at, k.add(base, phase * pitch), phase)
            return
        axis = self.axes[n]
        taps, stride, dilation = self.along(axis)
        begin = k.mul(self.block.first[axis], stride)
        size = k.add(k.mul(k.sub(counts[axis], 1), stride), (taps - 1) * dilation + 1)
        low, high = (
            w.let("edge", k.maximum(0, k.minimum(k.sub(end, begin), size)))
            for end in self.reach(axis))
        self._around(w, base, k.Const(0), low, pitch)
        with w.loop("y", low, high) as y:
            here = list(at)
            here[axis] = k.add(begin, y)
            self._rows(w, counts, here, w.let("row", k.add(base, k.mul(y, pitch))), n + 1)
        self._around(w, base, high, size, pitch)

    def _around(
        self, w: Writer, base: k.Expr, low: k.Expr, high: k.Expr, pitch: int = 1
    ) -> None:
        """Store the filler from row ``low`` to row ``high``."""
        first, last = k.const_int(low), k.const_int(high)
        if first is not None and last is not None and first >= last:
            return
        short = pitch == 1 and first is not None and last is not None and last - first <= FEW
        with w.loop("v", k.mul(low, pitch), k.mul(high, pitch), "vector",
                    width=1 if short else self.block.width) as v:
            w.write(k.Store(self.buffer, k.add(base, v), self.filler(w)))

    def _row(self, w: Writer, at: list[k.Expr], base: k.Expr, phase: int) -> None:
        """The elements of one row of lanes, those of a phase."""
        lane, phases, width = self.block.lane, self.phases, self.block.width
        first = self.block.first[lane]
        ends: tuple[Dim, Dim] = self.reach(lane)
        if self.windowed:
            begin = k.add(k.mul(first, phases), phase)
            low, high = (
                w.let("edge", k.maximum(
                    0, k.minimum(ceil_div(k.sub(end, begin), phases), self.length)))
                for end in ends)
        else:
            low, begin = k.Const(0), first
            high = k.Const(self.length)
            if not isinstance(ends[1], int) or ends[1] % width:
                high = w.let("edge", k.minimum(k.sub(ends[1], begin), self.length))
        self._around(w, base, k.Const(0), low)
        # Elements further apart are as quickly read one by one.
        wide = width if phases <= 2 else 1
        with w.loop("v", low, high, "vector", width=wide, interleave=4) as v:
            here = list(at)
            here[lane] = k.add(begin, k.mul(v, phases))
            value = converted(self.element(w, tuple(here), None), self.node.dtype)
            w.write(k.Store(self.buffer, k.add(base, v), value))
        self._around(w, base, high, k.Const(self.length))

    def tap(self, index: Index, axis: int) -> k.Expr:
        """How far from a window's first element a tap is."""
        return k.mul(index[self.seen.tap_axis(axis)], self.along(axis)[2])

    def at(self, index: Index) -> k.Expr | None:
        """The element that a tap of a window sees."""
        first = self.block.first
        offset: k.Expr = k.Const(0)
        for axis, pitch in zip(self.axes, strides(self.shape), strict=False):
            row = k.mul(k.sub(index[axis], first[axis]), self.along(axis)[1])
            row = k.add(row, self.tap(index, axis))
            offset = k.add(offset, k.mul(row, pitch))
        lane = k.sub(index[self.block.lane], first[self.block.lane])
        if self.windowed:
            tap = self.tap(index, self.block.lane)
            offset = k.add(offset, k.mul(k.mod(tap, self.phases), self.length))
            lane = k.add(lane, k.floordiv(tap, self.phases))
        return k.Load(self.buffer, k.add(offset, lane))


class KeptPlaces(Kept):
    """What has one element per window, for the windows of a block."""

    def along(self, axis: int) -> tuple[int, int, int]:
        """Each window sees its own."""
        return 1, 1, 1

    def tap(self, index: Index, axis: int) -> k.Expr:
        """All taps see the same."""
        return k.Const(0)

    @property
    def padded(self) -> None:
        """Nothing surrounds them."""
        return None

    def reach(self, axis: int) -> tuple[Dim, Dim]:
        """The windows along an axis."""
        return 0, self.seen.shape[axis]

    def element(self, w: Writer, index: Index, mask: k.Expr | None) -> k.Expr:
        """The element of a window, whatever the tap."""
        taps = (k.Const(0),) * len(self.seen.tap_axes)
        return w.value(self.node, (*index, *taps), mask)


def ceil_div(a: k.Expr, b: int) -> k.Expr:
    """Index quotient, rounded up."""
    return k.floordiv(k.add(a, b - 1), b)


@dataclass(frozen=True)
class Walk:
    """How vectors run over windows.

    lane   the axis of places along which they run
    width  lanes of a vector
    """

    seen: Seen
    lane: int
    width: int

    @property
    def per_lane(self) -> bool:
        """Whether each lane has windows of its own channel."""
        return self.lane not in self.seen.attrs.axes

    @property
    def vectors(self) -> int:
        """Vectors of channels."""
        return -(-self.seen.count(self.lane) // self.width) if self.per_lane else 1
