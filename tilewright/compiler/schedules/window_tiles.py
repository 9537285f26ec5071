"""Reductions of the taps of windows that overlap, in tiles of windows in registers.

    for blocks of windows:
        what they see, to the stack
        for tiles of 8 windows (times a vector along the lanes):
            for taps: 8 x accumulate(window's element, tap's value)

Each value of a tap is loaded once for a tile. Lanes are windows next to one another, or channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import (
    COMBINE,
    converted,
    hold,
    identity,
    store_kept,
)
from tilewright.compiler.schedules.windowed import Block, Kept, Seen, Walk, lane_axis, places_of
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import accumulator

TILE = 8
"""Sums in flight: two additions are begun per cycle, each takes four."""

UNROLLED = 16
"""Taps that are written out, for each of a tile's windows."""


@dataclass(frozen=True)
class _Plan(Walk):
    """How windows are walked.

    across  the windowed axis along which tiles have ``tile`` windows, if there is one but the lanes
    split   the windowed axis that is cut into ``blocks``
    outer   the other axes of places
    """

    across: int | None
    tile: int
    split: int
    blocks: int
    outer: tuple[int, ...]

    @property
    def sizes(self) -> dict[int, int]:
        """The most windows of a block along each windowed axis."""
        found = {axis: self.seen.count(axis) for axis in self.seen.attrs.axes}
        found[self.split] = -(-found[self.split] // self.blocks)
        return found


def _plan(group: Group, target: Target, seen: Seen) -> _Plan:
    width = target.lanes(max(accumulator(n.dtype).itemsize for n in group.anchors))
    channels = [a for a in range(seen.rank) if a not in seen.attrs.axes]
    lane = lane_axis(seen, channels, width, group.writer().is_leaf)
    across = next((a for a in reversed(seen.attrs.axes) if a != lane), None)
    most = TILE // len(group.anchors) or 1
    tile = 1 if across is None else even(seen.count(across), most)
    split = seen.attrs.axes[0]
    outer = tuple(a for a in range(seen.rank) if a not in (*seen.attrs.axes, lane))
    plan = _Plan(seen, lane, width, across, tile, split, 1, outer)
    least = tile if split == across else 1
    if split == lane:
        least = 4 * width
    taps, _, dilation = seen.along(split)
    least = max(least, (taps - 1) * dilation)
    while seen.count(split) // (2 * plan.blocks) >= least and _bytes(plan) > target.l1 * 3 // 4:
        plan = replace(plan, blocks=2 * plan.blocks)
    return plan


def even(count: int, most: int) -> int:
    """The size of tiles of at most so many that cover a count with little overlap."""
    return -(-count // -(-count // most))


def _bytes(plan: _Plan) -> int:
    """What a block takes on the stack."""
    nowhere = Block(plan.lane, {}, plan.sizes, plan.width)
    return sum(Kept(plan.seen, n, nowhere).nbytes for n in plan.seen.windows)


def lower_tiles(group: Group, target: Target, seen: Seen) -> LoweredKernel:
    """Blocks of windows in parallel, tile by tile."""
    plan = _plan(group, target, seen)
    w, outputs = group.writer(), output_buffers(group)
    shared = _Taps(w, plan)
    sizes = [plan.vectors, *(seen.shape[a] for a in plan.outer), plan.blocks]
    with w.loop("p", 0, product(sizes), "parallel") as p:
        vector, *outer, block = (w.let("o", e) for e in unflatten(p, sizes))
        first: dict[int, k.Expr] = {a: k.Const(0) for a in seen.attrs.axes}
        first |= dict(zip(plan.outer, outer, strict=True))
        stop: dict[int, k.Expr] = {a: k.Const(seen.count(a)) for a in seen.attrs.axes}
        if plan.per_lane:
            first[plan.lane] = k.mul(vector, plan.width)
            size = seen.shape[plan.lane]
            stop[plan.lane] = k.minimum(k.add(first[plan.lane], plan.width), size)
            if size % plan.width == 0:
                stop[plan.lane] = k.add(first[plan.lane], plan.width)
        if plan.blocks > 1:
            count = seen.count(plan.split)
            first[plan.split] = w.let("low", k.floordiv(k.mul(block, count), plan.blocks))
            stop[plan.split] = w.let(
                "high", k.floordiv(k.mul(k.add(block, 1), count), plan.blocks))
        kept = [Kept(seen, n, Block(plan.lane, first, plan.sizes, plan.width), w.is_leaf)
                for n in seen.windows]
        for one in kept:
            one.fill(w, {a: k.sub(stop[a], first[a]) for a in seen.attrs.axes})
        shared.bind(w, first[plan.lane])
        _tiles(group, w, outputs, plan, first, stop)
        for node in (*seen.windows, *shared.buffers):
            w.bound.pop(node)
    return finish(group, w, outputs, shared.workspaces)


def _tiles(
    group: Group, w: Writer, outputs: Sequence[k.Buffer], plan: _Plan,
    first: Mapping[int, k.Expr], stop: Mapping[int, k.Expr],
) -> None:
    """All windows of a block. The last tile begins early enough to be whole."""
    place = dict(first)
    with ExitStack() as loops:
        for axis in plan.seen.attrs.axes:
            if axis == plan.across:
                tiles = -(-plan.sizes[axis] // plan.tile)
                i = loops.enter_context(w.loop("i", 0, tiles))
                begin = k.minimum(
                    k.add(first[axis], k.mul(i, plan.tile)), k.sub(stop[axis], plan.tile))
                place[axis] = w.let("tile", begin)
            elif axis != plan.lane:
                place[axis] = loops.enter_context(w.loop("y", first[axis], stop[axis]))
        wide = 1 if plan.per_lane else min(4, TILE // plan.tile)
        place[plan.lane] = loops.enter_context(w.loop(
            "c", first[plan.lane], stop[plan.lane], "vector", width=plan.width, interleave=wide))
        _tile(group, w, outputs, plan, place)


def _tile(
    group: Group, w: Writer, outputs: Sequence[k.Buffer], plan: _Plan, place: dict[int, k.Expr]
) -> None:
    """The windows of a tile: their taps, then their results."""
    seen, registers = plan.seen, {}
    for node in group.anchors:
        acc = registers[node] = w.alloc("acc", accumulator(node.dtype), plan.tile, "register")
        with w.loop("t", 0, plan.tile, "unroll") as t:
            w.write(k.Store(acc, t, identity(node)))

    def window(t: k.Expr) -> dict[int, k.Expr]:
        return place if plan.across is None else {
            **place, plan.across: k.add(place[plan.across], t)}

    with ExitStack() as loops:
        taps = {}
        for axis, kind in _tap_loops(plan):
            taps[axis] = loops.enter_context(w.loop("y", 0, seen.shape[axis], kind))
        with w.loop("t", 0, plan.tile, "unroll") as t:
            at = {**window(t), **taps}
            index = tuple(at[i] for i in range(len(seen.shape)))
            values = [w.value(node.inputs[0], index) for node in registers]
            for (node, acc), value in zip(registers.items(), values, strict=True):
                wide = converted(value, acc.dtype)
                w.write(k.Accumulate(acc, t, COMBINE[node.op.name], wide))
    with w.loop("t", 0, plan.tile, "unroll") as t:
        at = window(t)
        index = tuple(at[i] for i in range(seen.rank))
        for node, acc in registers.items():
            hold(w, node, w.let("r", converted(k.Load(acc, t), node.dtype)), index)
        store_kept(group, w, outputs, index, seen.shape[:seen.rank])
    for node in group.anchors:
        w.bound.pop(node)


def _tap_loops(plan: _Plan) -> list[tuple[int, k.LoopKind]]:
    """The axes of taps from the outermost loop inwards.

    Those along which the windows of a tile lie stay a loop: elements that several of them see would
    all be kept in registers.
    """
    seen = plan.seen
    last = [] if plan.across is None else [seen.tap_axis(plan.across)]
    rest = [a for a in seen.tap_axes if a not in last]
    count, kinds = 1, dict[int, k.LoopKind]()
    for axis in reversed(rest):
        count *= seen.attrs.sizes[axis - seen.rank]
        kinds[axis] = "unroll" if count <= UNROLLED else "serial"
    outside = [a for a in rest if kinds[a] == "serial"]
    inside = [a for a in rest if kinds[a] == "unroll"]
    return [(a, "serial") for a in (*outside, *last)] + [(a, "unroll") for a in inside]


class _Taps:
    """The values of taps that differ between channels, vector by vector, for all threads."""

    def __init__(self, w: Writer, plan: _Plan) -> None:
        self.plan, seen = plan, plan.seen
        self.sizes = [seen.shape[a] for a in seen.tap_axes]
        self.buffers: dict[Node, k.Buffer] = {}
        lane = {plan.lane} if plan.per_lane else None
        own = [n for n in seen.taps if places_of(n) - set(seen.tap_axes) == lane]
        if not own:
            return
        size = plan.vectors * product(self.sizes) * plan.width
        for node in own:
            self.buffers[node] = k.Buffer(w.name("taps"), node.dtype, size, "global", "workspace")
        with w.loop("p", 0, plan.vectors, "parallel") as p:
            for node in own:
                self._fill(w, node, p)
        w.write(k.Barrier())

    @property
    def workspaces(self) -> list[tuple[k.Buffer, Dim]]:
        """The memory that this takes."""
        return [(b, b.size * b.dtype.itemsize) for b in self.buffers.values()]

    def _fill(self, w: Writer, node: Node, p: k.Expr) -> None:
        plan, first = self.plan, k.mul(p, self.plan.width)
        size = plan.seen.shape[plan.lane]
        with w.loop("y", 0, product(self.sizes)) as y, w.loop(
            "v", 0, plan.width, "vector", width=plan.width
        ) as v:
            place: list[k.Expr] = [k.Const(0)] * plan.seen.rank
            place[plan.lane] = k.add(first, v)
            mask = k.compare("lt", place[plan.lane], size) if size % plan.width else None
            taps = unflatten(y, self.sizes)
            value = w.value(node, (*place, *taps), mask)
            w.write(k.Store(self.buffers[node], self._offset(first, y, v), value))

    def _offset(self, first: k.Expr, tap: k.Expr, lane: k.Expr) -> k.Expr:
        rows = k.mul(first, product(self.sizes))
        return k.add(k.add(rows, k.mul(tap, self.plan.width)), lane)

    def bind(self, w: Writer, first: k.Expr) -> None:
        """From here on the values are those of the channels from ``first`` on."""
        plan = self.plan

        def reader(buffer: k.Buffer) -> Callable[[Index], k.Expr | None]:
            def read(index: Index) -> k.Expr | None:
                tap = flat(index[plan.seen.rank:], self.sizes)
                return k.Load(buffer, self._offset(first, tap, k.sub(index[plan.lane], first)))
            return read
        for node, buffer in self.buffers.items():
            w.bound[node] = reader(buffer)
