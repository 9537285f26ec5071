"""Reductions that keep the innermost axis: whole rows are added to a row of accumulators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div, product
from tilewright.ir.types import accumulator

ROWS = 8
"""Rows added at once: as many streams as the hardware prefetchers follow."""

SHARES = 16
"""The most parts that the reduced axes are cut into; sums do not depend on the threads."""


@dataclass
class _Columns:
    """How a column kernel walks its domain.

    outer   kept axes but the innermost run, one after another
    width   elements of the innermost kept run, cut into tiles of ``tile``
    rows    elements of the reduced axes, cut into ``shares``
    """

    group: Group
    w: Writer
    kept: list[int]
    inner: int
    outer: list[Dim]
    width: Dim
    tile: int
    rows: Dim
    shares: int
    lanes: int

    @property
    def tiles(self) -> Dim:
        return ceil_div(self.width, self.tile)

    @property
    def kept_size(self) -> Dim:
        return product(self.outer) * self.width


def _plan(group: Group, target: Target) -> _Columns:
    kept = [i for i in range(len(group.shape)) if i not in group.axes]
    inner = next(i for i in reversed(kept) if group.shape[i] != 1)
    kept = [i for i in kept if i != inner] + [inner]
    outer = [group.shape[i] for i in kept[:-1]]
    rows_, width_ = product(group.shape[axis] for axis in group.axes), group.shape[inner]
    rows, width, blocks = estimate(rows_), estimate(width_), estimate(product(outer))
    lanes = target.lanes(max(accumulator(a.dtype).itemsize for a in group.anchors))
    tile, shares = min(width, 4096), 1
    tasks = blocks * -(-width // tile)
    if tasks < 8 and rows >= 64 and rows * width * 4 > target.l2 * 2:
        # From memory: long runs of each row, so the rows are shared out, not the columns.
        shares = min(SHARES, rows // 32, -(-8 // tasks))
    elif tasks < 8 and rows * width > 1 << 14:
        tile = max(min(width, 16 * lanes), min(tile, -(-width // 8)))
        tile = min(width, -(-tile // lanes) * lanes)
        if blocks * -(-width // tile) < 4 and rows >= 64 and rows * width >= 1 << 15:
            shares, tile = min(SHARES, rows // 32), min(width, 4096)
    if not isinstance(width_, int):
        tile = max(tile, 16 * lanes)
    return _Columns(group, group.writer(), kept, inner, outer, width_, tile, rows_, shares, lanes)


def lower_columns(group: Group, target: Target) -> LoweredKernel:
    """Tiles of columns in parallel; with few columns, shares of the rows too, then their sums."""
    plan = _plan(group, target)
    w = plan.w
    outputs = output_buffers(group)
    if plan.shares == 1:
        with _Tasks(plan, 1) as (_, place, start, stop):
            rows = _sum_rows(plan, place, start, stop, 0, plan.rows)
            _finish_tile(plan, outputs, place, start, stop, rows, start)
        return finish(group, w, outputs)
    partials = [
        k.Buffer(
            f"part{i}", accumulator(a.dtype), plan.shares * plan.kept_size, "global", "workspace")
        for i, a in enumerate(group.anchors)
    ]
    with _Tasks(plan, plan.shares) as (share, place, start, stop):
        low = k.floordiv(k.mul(share, plan.rows), plan.shares)
        high = k.floordiv(k.mul(k.add(share, 1), plan.rows), plan.shares)
        rows = _sum_rows(plan, place, start, stop, low, high)
        base = k.add(k.mul(share, plan.kept_size), _kept_offset(plan, place))
        for buffer, row in zip(partials, rows, strict=True):
            with w.loop("c", start, stop, "vector", width=plan.lanes) as c:
                w.write(k.Store(buffer, k.add(base, c), k.Load(row, k.sub(c, start))))
    w.write(k.Barrier())
    with _Tasks(plan, 1) as (_, place, start, stop):
        rows = _add_partials(plan, partials, place, start, stop)
        _finish_tile(plan, outputs, place, start, stop, rows, start)
    sizes: list[tuple[k.Buffer, Dim]] = [(b, b.size * b.dtype.itemsize) for b in partials]
    return finish(group, w, outputs, sizes)


class _Tasks:
    """The parallel loop over shares, kept blocks and tiles: (share, kept index, start, stop)."""

    def __init__(self, plan: _Columns, shares: int) -> None:
        self.plan = plan
        self.sizes: list[Dim] = [shares, *plan.outer, plan.tiles]
        self.loop = plan.w.loop("p", 0, product(self.sizes), "parallel")

    def __enter__(self) -> tuple[k.Expr, list[k.Expr], k.Expr, k.Expr]:
        p, w, plan = self.loop.__enter__(), self.plan.w, self.plan
        share, *place, tile = (w.let("o", e) for e in unflatten(p, self.sizes))
        start = w.let("start", k.mul(tile, plan.tile))
        stop = k.expr(plan.width)
        if plan.tiles != 1:
            stop = w.let("stop", k.minimum(k.add(start, plan.tile), plan.width))
        return share, place, start, stop

    def __exit__(self, *error: object) -> None:
        self.loop.__exit__(None, None, None)


def _full_index(plan: _Columns, place: Sequence[k.Expr], column: k.Expr, row: k.Expr) -> Index:
    group = plan.group
    reduced = unflatten(row, [group.shape[a] for a in group.axes])
    index: list[k.Expr] = [k.Const(0)] * len(group.shape)
    for axis, e in zip(group.axes, reduced, strict=True):
        index[axis] = e
    for axis, e in zip(plan.kept, [*place, column], strict=True):
        index[axis] = e
    return tuple(index)


def _kept_offset(plan: _Columns, place: Sequence[k.Expr]) -> k.Expr:
    return flat((*place, k.Const(0)), [*plan.outer, plan.width])


def _sum_rows(
    plan: _Columns, place: Sequence[k.Expr], start: k.Expr, stop: k.Expr,
    low: k.ExprLike, high: k.ExprLike,
) -> list[k.Buffer]:
    """Reduce the rows ``low`` to ``high`` of a tile into rows of accumulators."""
    w, group = plan.w, plan.group
    sums = []
    for node in group.anchors:
        row = w.alloc("sums", accumulator(node.dtype), plan.tile, "stack")
        with w.loop("c", 0, plan.tile, "vector", width=plan.lanes) as c:
            w.write(k.Store(row, c, identity(node)))
        sums.append(row)

    def add(first: k.Expr, count: int) -> None:
        heights = [w.let("y", k.add(first, u)) for u in range(count)]
        indices = [_full_index(plan, place, k.Const(0), y) for y in heights]
        with w.loop("c", start, stop, "vector", width=plan.lanes) as c:
            at = k.sub(c, start)
            totals: list[k.Expr] = [k.Load(row, at) for row in sums]
            for index in indices:
                here = tuple(c if axis == plan.inner else e for axis, e in enumerate(index))
                for i, node in enumerate(group.anchors):
                    operand = converted(w.value(node.inputs[0], here), sums[i].dtype)
                    totals[i] = k.Call(COMBINE[node.op.name], (totals[i], operand), sums[i].dtype)
            for row, total in zip(sums, totals, strict=True):
                w.write(k.Store(row, at, total))

    first, last = k.const_int(low), k.const_int(high)
    whole: int | None = None
    if first is not None and last is not None:
        whole = first + (last - first) // ROWS * ROWS
        middle: k.Expr = k.Const(whole)
    else:
        low, high = w.let("low", k.expr(low)), w.let("high", k.expr(high))
        count = k.sub(high, low)
        middle = w.let("middle", k.add(low, k.mul(k.floordiv(count, ROWS), ROWS)))
    if whole is None or first != whole:
        with w.loop("y", low, middle, step=ROWS) as y:
            add(y, ROWS)
    if whole is None or last != whole:
        with w.loop("y", middle, high) as y:
            add(y, 1)
    return sums


def _add_partials(
    plan: _Columns, partials: Sequence[k.Buffer], place: Sequence[k.Expr], start: k.Expr,
    stop: k.Expr,
) -> list[k.Buffer]:
    """Combine the shares' partial rows, in order."""
    w = plan.w
    base = _kept_offset(plan, place)
    result = []
    for node, buffer in zip(plan.group.anchors, partials, strict=True):
        row = w.alloc("sums", buffer.dtype, plan.tile, "stack")
        with w.loop("c", start, stop, "vector", width=plan.lanes) as c:
            total: k.Expr = k.Load(buffer, k.add(base, c))
            for share in range(1, plan.shares):
                more = k.Load(buffer, k.add(k.add(base, c), share * plan.kept_size))
                total = k.Call(COMBINE[node.op.name], (total, more), buffer.dtype)
            w.write(k.Store(row, k.sub(c, start), total))
        result.append(row)
    return result


def _finish_tile(
    plan: _Columns, outputs: Sequence[k.Buffer], place: Sequence[k.Expr], start: k.Expr,
    stop: k.Expr, rows: Sequence[k.Buffer], origin: k.Expr,
) -> None:
    """Store the results of a tile: the sums and what is computed from them."""
    w, group = plan.w, plan.group
    with w.loop("c", start, stop, "vector", width=plan.lanes) as c:
        places = dict(zip(plan.kept, [*place, c], strict=True))
        kept = tuple(places[axis] for axis in sorted(places))
        sizes = [group.shape[axis] for axis in sorted(places)]
        for node, row in zip(group.anchors, rows, strict=True):
            total = converted(k.Load(row, k.sub(c, origin)), node.dtype)
            hold(w, node, w.let("r", total), kept)
        store_kept(group, w, outputs, kept, sizes)
    for node in group.anchors:
        w.bound.pop(node)
