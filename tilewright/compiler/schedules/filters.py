"""Sums over windows, one per tap: the gradient of the filters of a convolution.

    for shares of the batch:
        for blocks of windows:
            what they see, and what stands beside each of them, to the stack
            for tiles of taps: in registers, over all windows of the block
        the lanes' sums, and from those the share's

Vectors run along the windows, or along channels, each of which has filters of its own. A share's
sums do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product as product_of
from math import prod

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Writer, flat, unflatten
from tilewright.compiler.schedules.columns import lower_columns
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import (
    COMBINE,
    converted,
    hold,
    identity,
    lower_rows,
    store_kept,
)
from tilewright.compiler.schedules.window_tiles import even
from tilewright.compiler.schedules.windowed import (
    Block,
    Kept,
    KeptPlaces,
    Seen,
    Walk,
    lane_axis,
    seen_by,
)
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import accumulator

SHARES = 16
"""The most parts that the batch is cut into."""


@dataclass(frozen=True)
class _Plan(Walk):
    """How windows and taps are walked.

    kept    the other axes of places that the sums have
    batch   those that are summed, but for the windows
    split   the windowed axis that is cut into ``blocks`` of at most ``most``
    tile    taps along the last axes that are summed at once
    """

    kept: tuple[int, ...]
    batch: tuple[int, ...]
    split: int
    most: int
    shares: int
    tile: tuple[int, ...]

    @property
    def blocks(self) -> int:
        """Into how many the windows are cut."""
        return -(-self.seen.count(self.split) // self.most)

    @property
    def rest(self) -> int:
        """Lanes of the last vector of windows, if it is not whole."""
        return 0 if self.per_lane else self.seen.count(self.lane) % self.width

    @property
    def sizes(self) -> dict[int, int]:
        """The most windows of a block along each windowed axis."""
        found = {axis: self.seen.count(axis) for axis in self.seen.attrs.axes}
        return found | {self.split: self.most}

    @property
    def taps(self) -> int:
        """The number of sums of a channel."""
        return prod(self.seen.count(a) for a in self.seen.tap_axes)

    def values(self, w: Writer, first: Mapping[int, k.Expr]) -> list[Kept]:
        """What is kept for a block that begins there."""
        block = Block(self.lane, first, self.sizes, self.width)
        found = [Kept(self.seen, n, block, w.is_leaf) for n in self.seen.windows]
        return found + [KeptPlaces(self.seen, n, block) for n in self.seen.places]


def lower_filters(group: Group, target: Target) -> LoweredKernel:
    """Tiles of taps over blocks of windows; where sizes are not known, any other reduction."""
    seen = seen_by(group.anchors, group.writer().is_leaf)
    plan = None if seen is None or seen.taps else _plan(group, target, seen)
    if plan is None:
        return (lower_rows if along_rows(group) else lower_columns)(group, target)
    w, outputs = group.writer(), output_buffers(group)
    kept = [i for i in range(len(group.shape)) if i not in group.axes]
    sizes = [group.shape[i] for i in kept]
    if plan.shares == 1:
        with _items(w, plan) as (_, place):
            sums = _sums(group, w, plan, place, k.Const(0))
            for at, totals in _results(w, plan, place, sums):
                index = tuple(at[i] for i in kept)
                _hold(w, totals, index)
                store_kept(group, w, outputs, index, sizes)
        _release(w, group)
        return finish(group, w, outputs)
    size = product(sizes)
    parts = {
        a: k.Buffer(f"part{i}", accumulator(a.dtype), plan.shares * size, "global", "workspace")
        for i, a in enumerate(group.anchors)}
    with _items(w, plan) as (share, place):
        sums = _sums(group, w, plan, place, share)
        for at, totals in _results(w, plan, place, sums):
            offset = k.add(k.mul(share, size), flat(tuple(at[i] for i in kept), sizes))
            for node, total in totals.items():
                w.write(k.Store(parts[node], offset, total))
    w.write(k.Barrier())
    with w.loop("p", 0, product(sizes[:-1]), "parallel") as p:
        outer = tuple(w.let("o", e) for e in unflatten(p, sizes[:-1]))
        with w.loop("c", 0, sizes[-1], "vector", width=plan.width) as c:
            index = (*outer, c)
            _hold(w, {a: _joined(a, b, flat(index, sizes), plan) for a, b in parts.items()}, index)
            store_kept(group, w, outputs, index, sizes)
        _release(w, group)
    return finish(group, w, outputs, [(b, b.size * b.dtype.itemsize) for b in parts.values()])


def along_rows(group: Group) -> bool:
    """Whether windows that are neighbours in memory are summed."""
    places = [i for i in range(group.anchors[0].inputs[0].type.rank) if group.shape[i] != 1]
    seen = seen_by(group.anchors, lambda n: False)
    along = [i for i in places if seen is None or i < seen.rank]
    return along[-1] in group.axes


# --- the plan -------------------------------------------------------------------------------
def _plan(group: Group, target: Target, seen: Seen) -> _Plan | None:
    """How to walk them; None if the sizes are not known."""
    width = target.lanes(max(accumulator(n.dtype).itemsize for n in group.anchors))
    places = [a for a in range(seen.rank) if a not in seen.attrs.axes]
    kept = [a for a in places if a not in group.axes]
    if not all(isinstance(seen.shape[a], int) for a in kept):
        return None
    lane = lane_axis(seen, kept, width, group.writer().is_leaf)
    split = seen.attrs.axes[0]
    kept = [a for a in kept if a != lane]
    batch = [a for a in places if a in group.axes]
    most = (target.registers - 2) // len(group.anchors)
    plan = _Plan(seen, lane, width, tuple(kept), tuple(batch), split, seen.count(split), 1,
                 _tile(seen, most))
    taps, _, dilation = seen.along(split)
    least = 4 * width if split == lane else max(1, (taps - 1) * dilation // 2)
    while plan.most >= 2 * least and _bytes(plan) > target.l1 * 3 // 4:
        half = -(-plan.most // 2)
        plan = replace(plan, most=-(-half // width) * width if split == lane else half)
    items = plan.vectors * estimate(product(seen.shape[a] for a in kept))
    units = estimate(_units(plan))
    return replace(plan, shares=max(1, min(SHARES, SHARES // items, units)))


def _tile(seen: Seen, most: int) -> tuple[int, ...]:
    """Taps along the last two axes of taps whose sums are in registers at once."""
    sizes = [seen.shape[a] for a in seen.tap_axes][-2:]
    assert isinstance(sizes[-1], int)
    last = even(sizes[-1], most)
    if len(sizes) == 1:
        return (last,)
    assert isinstance(sizes[0], int)
    return min(sizes[0], most // last), last


def _bytes(plan: _Plan) -> int:
    """What a block takes on the stack."""
    block = Block(plan.lane, {}, plan.sizes, plan.width)
    found = [Kept(plan.seen, n, block) for n in plan.seen.windows]
    return sum(one.nbytes for one in found + [KeptPlaces(plan.seen, n, block)
                                              for n in plan.seen.places])


def _units(plan: _Plan) -> Dim:
    """The blocks of the whole batch."""
    return product(plan.seen.shape[a] for a in plan.batch) * plan.blocks


# --- the sums of a share --------------------------------------------------------------------
@contextmanager
def _items(w: Writer, plan: _Plan) -> Iterator[tuple[k.Expr, dict[int, k.Expr]]]:
    """The parallel loop over channels and shares: the share, and the place along axes kept."""
    sizes = [*(plan.seen.shape[a] for a in plan.kept), plan.vectors, plan.shares]
    with w.loop("p", 0, product(sizes), "parallel") as p:
        *outer, vector, share = (w.let("o", e) for e in unflatten(p, sizes))
        place = dict(zip(plan.kept, outer, strict=True))
        if plan.per_lane:
            place[plan.lane] = k.mul(vector, plan.width)
        yield share, place


@dataclass
class _Sums:
    """Per reduction, a vector of sums for each tap; those of the last vector of windows, part of
    which is beyond the windows, apart.
    """

    whole: dict[Node, k.Buffer]
    last: dict[Node, k.Buffer]


@dataclass(frozen=True)
class _Tile:
    """Taps whose sums are in registers: from ``first`` on, ``sizes`` along the axes of a tile."""

    first: Mapping[int, k.Expr]
    sizes: Mapping[int, int]

    @contextmanager
    def taps(self, w: Writer) -> Iterator[tuple[dict[int, k.Expr], k.Expr]]:
        """Loops over the taps, written out: their places, and their numbers in the tile."""
        at, number = dict(self.first), k.expr(0)
        with ExitStack() as loops:
            for axis, size in self.sizes.items():
                t = loops.enter_context(w.loop("t", 0, size, "unroll"))
                at[axis] = k.add(self.first[axis], t)
                number = k.add(k.mul(number, size), t)
            yield at, number


def _sums(
    group: Group, w: Writer, plan: _Plan, place: Mapping[int, k.Expr], share: k.Expr
) -> _Sums:
    """The sums of a share."""
    def zeros() -> dict[Node, k.Buffer]:
        found = {}
        for node in group.anchors:
            size = plan.taps * plan.width
            buffer = found[node] = w.alloc("sums", accumulator(node.dtype), size, "stack")
            with w.loop("v", 0, size, "vector", width=plan.width) as v:
                w.write(k.Store(buffer, v, identity(node)))
        return found
    sums = _Sums(zeros(), zeros() if plan.rest else {})
    units = _units(plan)
    low, high = (w.let("unit", k.floordiv(k.mul(s, units), plan.shares))
                 for s in (share, k.add(share, 1)))
    with w.loop("u", low, high) as u:
        sizes = [*(plan.seen.shape[a] for a in plan.batch), plan.blocks]
        *batch, block = (w.let("o", e) for e in unflatten(u, sizes))
        first: dict[int, k.Expr] = {a: k.Const(0) for a in plan.seen.attrs.axes}
        first |= {**place, **dict(zip(plan.batch, batch, strict=True))}
        stop: dict[int, k.Expr] = {a: k.Const(plan.seen.count(a)) for a in plan.seen.attrs.axes}
        if plan.blocks > 1:
            first[plan.split] = w.let("low", k.mul(block, plan.most))
            end = k.minimum(k.add(first[plan.split], plan.most), stop[plan.split])
            stop[plan.split] = w.let("high", end)
        for one in plan.values(w, first):
            one.fill(w, {a: k.sub(stop[a], first[a]) for a in plan.seen.attrs.axes})
        _block(w, plan, sums, first, stop)
        for node in (*plan.seen.windows, *plan.seen.places):
            w.bound.pop(node)
    return sums


def _block(
    w: Writer, plan: _Plan, sums: _Sums, first: Mapping[int, k.Expr], stop: Mapping[int, k.Expr]
) -> None:
    """Add the windows of a block, whole vectors of them and the last."""
    if plan.per_lane:
        _vectors(w, plan, sums.whole, first, stop, (0, 1))
        return
    lane, width = plan.lane, plan.width
    count = k.sub(stop[lane], first[lane])
    whole = w.let("whole", k.floordiv(count, width))
    if k.const_int(whole) != 0:
        _vectors(w, plan, sums.whole, first, stop, (0, whole))
    if plan.rest:
        final = k.compare("gt", count, k.mul(whole, width))
        with ExitStack() as branch:
            if k.const_int(count) is None:
                branch.enter_context(w.when(final))
            _vectors(w, plan, sums.last, first, stop, (whole, k.add(whole, 1)))


def _vectors(
    w: Writer, plan: _Plan, sums: Mapping[Node, k.Buffer], first: Mapping[int, k.Expr],
    stop: Mapping[int, k.Expr], vectors: tuple[k.ExprLike, k.ExprLike],
) -> None:
    """Add the windows of these vectors along the lanes, tile by tile of the taps."""
    axes = plan.seen.tap_axes
    front = axes[:len(axes) - len(plan.tile)]
    with ExitStack() as loops:
        taps = {a: loops.enter_context(w.loop("y", 0, plan.seen.count(a))) for a in front}
        for tiles in product_of(*(
            _tiles(plan.seen.count(a), size)
            for a, size in zip(axes[len(front):], plan.tile, strict=True)
        )):
            with ExitStack() as inner:
                at: dict[int, k.Expr] = dict(taps)
                sizes = {}
                for axis, (start, count, size) in zip(axes[len(front):], tiles, strict=True):
                    i = inner.enter_context(w.loop("i", 0, count))
                    at[axis] = k.add(k.mul(i, size), start)
                    sizes[axis] = size
                _in_registers(w, plan, sums, first, stop, vectors, _Tile(at, sizes))


def _tiles(size: int, tile: int) -> list[tuple[int, int, int]]:
    """An axis as (start, number, size) of tiles: the whole ones, and the rest."""
    found = [(0, size // tile, tile), (size // tile * tile, 1, size % tile)]
    return [t for t in found if t[2]]


def _in_registers(
    w: Writer, plan: _Plan, sums: Mapping[Node, k.Buffer], first: Mapping[int, k.Expr],
    stop: Mapping[int, k.Expr], vectors: tuple[k.ExprLike, k.ExprLike], tile: _Tile,
) -> None:
    """Add the windows to the sums of a tile of taps."""
    seen, width = plan.seen, plan.width
    with w.loop("v", 0, width, "vector", width=width) as v:
        here: dict[int, k.Expr] = dict(first)

        def place(at: Mapping[int, k.Expr]) -> k.Expr:
            sizes = [seen.count(a) for a in seen.tap_axes]
            tap = flat(tuple(at[a] for a in seen.tap_axes), sizes)
            return k.add(k.mul(tap, width), v)
        registers = {
            node: w.alloc("acc", buffer.dtype, prod(tile.sizes.values()), "register")
            for node, buffer in sums.items()}
        for node, buffer in sums.items():
            with tile.taps(w) as (at, number):
                w.write(k.Store(registers[node], number, k.Load(buffer, place(at))))
        with ExitStack() as loops:
            for axis in seen.attrs.axes:
                if axis != plan.lane:
                    here[axis] = loops.enter_context(w.loop("y", first[axis], stop[axis]))
            if plan.per_lane:
                here[plan.lane] = k.add(first[plan.lane], v)
            else:
                j = loops.enter_context(w.loop("j", *vectors))
                here[plan.lane] = k.add(first[plan.lane], k.add(k.mul(j, width), v))
            with tile.taps(w) as (at, number):
                index = tuple({**here, **at}[i] for i in range(len(seen.shape)))
                for node, acc in registers.items():
                    value = converted(w.value(node.inputs[0], index), acc.dtype)
                    w.write(k.Accumulate(acc, number, COMBINE[node.op.name], value))
        for node, buffer in sums.items():
            with tile.taps(w) as (at, number):
                w.write(k.Store(buffer, place(at), k.Load(registers[node], number)))


# --- results --------------------------------------------------------------------------------
def _results(
    w: Writer, plan: _Plan, place: Mapping[int, k.Expr], sums: _Sums
) -> Iterator[tuple[dict[int, k.Expr], dict[Node, k.Expr]]]:
    """In loops over the taps (and channels, if there is one per lane): the place, and the sums."""
    sizes = [plan.seen.count(a) for a in plan.seen.tap_axes]
    with w.loop("y", 0, plan.taps) as y:
        at = {**place, **dict(zip(plan.seen.tap_axes, unflatten(y, sizes), strict=True))}
        row = k.mul(y, plan.width)
        if plan.per_lane:
            count = k.minimum(k.sub(plan.seen.count(plan.lane), place[plan.lane]), plan.width)
            stop = k.expr(plan.width) if plan.seen.count(plan.lane) % plan.width == 0 else count
            with w.loop("v", 0, stop, "vector", width=plan.width) as v:
                at[plan.lane] = k.add(place[plan.lane], v)
                yield at, {n: k.Load(b, k.add(row, v)) for n, b in sums.whole.items()}
            return
        totals = {}
        for node, whole in sums.whole.items():
            acc = w.alloc("acc", whole.dtype, 1, "register")
            w.write(k.Store(acc, k.Const(0), identity(node)))
            parts = [(whole, plan.width)]
            parts += [(sums.last[node], plan.rest)] if plan.rest else []
            for buffer, lanes in parts:
                with w.loop("v", 0, lanes, "vector", width=plan.width) as v:
                    part = k.Load(buffer, k.add(row, v))
                    w.write(k.Accumulate(acc, k.Const(0), COMBINE[node.op.name], part))
            totals[node] = w.let("r", k.Load(acc, k.Const(0)))
        yield at, totals


def _joined(node: Node, parts: k.Buffer, offset: k.Expr, plan: _Plan) -> k.Expr:
    """The shares' sums together, in their order."""
    size = parts.size // plan.shares
    total: k.Expr = k.Load(parts, offset)
    for share in range(1, plan.shares):
        more = k.Load(parts, k.add(offset, share * size))
        total = k.Call(COMBINE[node.op.name], (total, more), parts.dtype)
    return total


def _hold(w: Writer, totals: Mapping[Node, k.Expr], index: tuple[k.Expr, ...]) -> None:
    """From here on, the reductions' elements at ``index`` are these."""
    for node, total in totals.items():
        hold(w, node, w.let("r", converted(total, node.dtype)), index)


def _release(w: Writer, group: Group) -> None:
    """Nothing is held any more."""
    for node in group.anchors:
        w.bound.pop(node)
