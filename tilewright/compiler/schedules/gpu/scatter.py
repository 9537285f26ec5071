"""Scatters on a GPU: each thread owns places of the result and brings to them, in order, what falls
there. There are no atomics, and nothing depends on the order of blocks.

A block owns a range of the indexed axis, with some columns of a row. All of its threads look at the
indices, a block's worth at a time, and list those that fall into the range, in order; then each
walks the list for the places and columns that it owns. Where there are few places and many indices,
blocks take shares of the indices in copies of the result, which a second launch joins. Few indices
for each row, and columns that have indices of their own, are walked by a thread for each column.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import flat, unflatten
from tilewright.compiler.schedules.gpu.shares import BLOCKS
from tilewright.compiler.schedules.gpu.team import WARP, power_of_two
from tilewright.compiler.schedules.gpu.vectors import lanes, widest, width_for
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import converted, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.build import reshape
from tilewright.ir.hints import estimate
from tilewright.ir.indexing import identity
from tilewright.ir.sizes import ceil_div, less
from tilewright.ir.types import i32, i64, size_of

THREADS = 256
"""Threads of a block, and indices that it looks at together."""

SHARE = 1 << 13
"""Indices that are worth a block of their own."""

FEW = 16
"""Indices that a thread walks by itself."""

MOST_COPIED = 1 << 22
"""Elements of all copies of a result."""


def lower_scatter(group: Group, target: Target) -> LoweredKernel:
    """``put`` and ``put_along``."""
    node = group.anchors[0]
    columns = size_of(node.shape[node.attrs.axis + 1:])
    scatter = _Scatter(group, 1)
    few = estimate(scatter.count) <= FEW
    if few or node.op.name == "put_along" and columns != 1:
        return widest(
            lambda width: _Scatter(group, width).by_columns(),
            width_for(node.dtype.itemsize, node.type.size))
    return widest(
        lambda width: _Scatter(group, width).lower(), width_for(node.dtype.itemsize, columns))


@dataclass
class _Owner:
    """What a thread owns: of the places from ``low`` to ``high`` of a row those that its number
    ``down`` is congruent to, and there a piece of the columns, if it is ``inside``.

    copy  of the result that the block works on
    """

    row: k.Expr
    low: k.Expr
    high: k.Expr
    down: k.Expr
    piece: k.Expr
    inside: k.Expr | None
    copy: k.Expr


def counted(count: k.Expr, condition: k.Expr, more: k.Expr) -> k.Expr:
    """A count, and more if a condition holds."""
    more = k.Call("where", (condition, more, k.Const(0, i32)), i32)
    return k.Call("add", (count, more), i32)


class _Scatter:
    """The state of a scatter kernel under construction: rows, the indexed axis, and columns."""

    def __init__(self, group: Group, width: int) -> None:
        self.group, self.w, self.width = group, group.writer(), width
        self.node = node = group.anchors[0]
        (self.output,) = output_buffers(group)
        axis, shape = node.attrs.axis, node.shape
        data, index, values = node.inputs
        alone = node.op.name == "put_along"
        self.rows, self.size = size_of(shape[:axis]), shape[axis]
        self.columns = size_of(shape[axis + 1:])
        self.count = index.shape[axis] if alone else index.type.size
        self.data = reshape(data, (self.rows, self.size, self.columns))
        self.values = reshape(values, (self.rows, self.count, self.columns))
        self.index = reshape(index, self.values.shape if alone else (self.count,))
        self.pieces = self.columns if width == 1 else self.columns // width
        self.across = min(THREADS, power_of_two(estimate(self.pieces)))
        self.down = THREADS // self.across
        self.blocks = ceil_div(self.pieces, self.across)
        others = max(1, estimate(self.rows) * estimate(self.blocks))
        self.ranges = max(1, min(-(-BLOCKS // others), estimate(self.size)))
        self.shares = self._shares(others)

    def _shares(self, others: int) -> int:
        """Shares of the indices."""
        wanted = BLOCKS // (others * self.ranges)
        fixed = all(isinstance(d, int) for d in self.node.shape)
        if self.node.attrs.mode == "set" or not fixed or wanted < 2:
            return 1
        room = MOST_COPIED // max(1, estimate(self.node.type.size))
        return max(1, min(wanted, estimate(self.count) // SHARE, room))

    # --- kernels ----------------------------------------------------------------------------
    def lower(self) -> LoweredKernel:
        """One launch, or two with copies."""
        w, node, result = self.w, self.node, self.output
        if self.shares == 1:
            offset = self._launch()
            return finish(self.group, w, [result], inplace=[result], offset=offset)
        size = result.size
        copies = k.Buffer("copies", node.dtype, size * self.shares, "global", "workspace")
        self.output = copies
        self._launch()
        w.write(k.Barrier())
        whole = reshape(self.data, (size,))
        with w.loop("p", 0, size, "parallel") as p:
            total = w.alloc("total", node.dtype, 1, "register")
            w.write(k.Store(total, k.Const(0), w.value(whole, (p,))))
            with w.loop("s", 0, self.shares) as s:
                part = k.Load(copies, k.add(k.mul(s, size), p))
                w.write(k.Accumulate(total, k.Const(0), node.attrs.mode, part))
            w.write(k.Store(result, p, k.Load(total, k.Const(0))))
        nbytes = copies.size * node.dtype.itemsize
        return finish(self.group, w, [result], [(copies, nbytes)], [result], p)

    def by_columns(self) -> LoweredKernel:
        """Copy the data, then a thread for each column of each row walks all indices."""
        w, sizes = self.w, (self.rows, self.columns)
        offset = self._copy_all()
        w.write(k.Barrier())
        with w.loop("p", 0, size_of(sizes), "parallel") as p:
            row, column = (w.let("o", e) for e in unflatten(p, sizes))
            with w.loop("j", 0, self.count) as j:
                entry = (row, j, column) if self.index.type.rank == 3 else (j,)
                place, inside = w.indexed(self.index, entry, self.size, None, self.node)
                with self._inside(inside):
                    self._combine(row, place, j, column, offset=k.Const(0))
        return finish(self.group, w, [self.output], inplace=[self.output], offset=offset)

    def _copy_all(self) -> k.Expr:
        """Copy the data in the order of memory; returns the offset of its elements."""
        w, size, width = self.w, self.data.type.size, self.width
        data = reshape(self.data, (size,))
        with w.loop("p", 0, size if width == 1 else size // width, "parallel") as p:
            with lanes(w, width) as lane:
                offset = k.add(k.mul(p, width), lane)
                w.write(k.Store(self.output, offset, w.value(data, (offset,))))
        return offset

    def _launch(self) -> k.Expr:
        """Blocks of rows, ranges, shares and columns; returns the offset of what is copied."""
        w = self.w
        sizes = (self.rows, self.ranges, self.shares, self.blocks)
        with w.loop("b", 0, size_of(sizes), "block") as b:
            row, part, share, block = (w.let("o", e) for e in unflatten(b, sizes))
            low, high = self._bounds("low", "high", part, self.ranges, self.size)
            first, last = self._bounds("first", "last", share, self.shares, self.count)
            lists = [
                w.alloc(name, i32 if less(size, 1 << 31) else i64, THREADS, "shared")
                for name, size in (("places", self.size), ("numbers", self.count))]
            counts = w.alloc("counts", i32, THREADS // WARP, "shared")
            with w.loop("t", 0, THREADS, "thread") as t:
                piece = w.let("piece", k.add(
                    k.mul(block, self.across), k.mod(t, self.across)))
                even = isinstance(self.pieces, int) and self.pieces % self.across == 0
                inside = None if even else w.let(
                    "mine", k.compare("lt", piece, k.expr(self.pieces)))
                if inside is not None:
                    # What is the same for all indices is read before anybody asks whose it is.
                    piece = w.let("piece", k.minimum(piece, k.sub(self.pieces, 1)))
                down = w.let("down", k.floordiv(t, self.across)) if self.down > 1 else k.Const(0)
                owner = _Owner(row, low, high, down, piece, inside, share)
                offset = self._begin(owner)
                with w.loop("c", first, last, step=THREADS) as c:
                    found = self._list(owner, k.add(c, t), last, t, lists, counts)
                    self._bring(owner, found, lists)
                    w.write(k.Barrier())
        return offset

    def _bounds(
        self, first: str, second: str, part: k.Expr, parts: int, size: k.ExprLike
    ) -> tuple[k.Expr, k.Expr]:
        """The start and end of one of ``parts`` shares of ``size`` things."""
        if parts == 1:
            return k.Const(0), k.expr(size)
        size = k.expr(size)
        low = self.w.let(first, k.floordiv(k.mul(part, size), parts))
        return low, self.w.let(second, k.floordiv(k.mul(k.add(part, 1), size), parts))

    # --- what a thread does -----------------------------------------------------------------
    @contextmanager
    def _lanes(self, owner: _Owner) -> Iterator[k.Expr]:
        """The columns of a thread."""
        with lanes(self.w, self.width) as lane:
            yield k.add(k.mul(owner.piece, self.width), lane)

    @contextmanager
    def _inside(self, condition: k.Expr | None) -> Iterator[None]:
        if condition is None:
            yield
            return
        with self.w.when(condition):
            yield

    def _begin(self, owner: _Owner) -> k.Expr:
        """Copy the data of the thread's places, or, in a copy, what changes nothing."""
        w = self.w
        with self._inside(owner.inside):
            with w.loop("i", k.add(owner.low, owner.down), owner.high, step=self.down) as i:
                with self._lanes(owner) as column:
                    return self._copy(owner.copy, owner.row, i, column)

    def _copy(self, copy: k.Expr, row: k.Expr, place: k.Expr, column: k.Expr) -> k.Expr:
        offset = flat((row, place, column), self.data.shape)
        if self.shares == 1:
            value = self.w.value(self.data, (row, place, column))
        else:
            mode, dtype = self.node.attrs.mode, self.node.dtype
            offset = k.add(k.mul(copy, self.data.type.size), offset)
            # -0.0 changes nothing that it is added to, 0.0 would change -0.0.
            start = -0.0 if mode == "add" and dtype.is_float else identity(mode, dtype)
            value = number(start, dtype)
        self.w.write(k.Store(self.output, offset, value))
        return offset

    def _list(
        self, owner: _Owner, j: k.Expr, last: k.Expr, t: k.Expr, lists: list[k.Buffer],
        counts: k.Buffer,
    ) -> k.Expr:
        """List the indices that fall into the range, in order; returns how many there are."""
        w = self.w
        j = w.let("j", j)
        there = k.compare("lt", j, last)
        at = w.let("at", k.minimum(j, k.sub(last, 1)))
        entry = (owner.row, at, k.Const(0)) if self.index.type.rank == 3 else (at,)
        place, inside = w.indexed(self.index, entry, self.size, None, self.node)
        if self.ranges > 1:
            # What is inside of the range is inside of the axis.
            inside = k.both(
                k.compare("ge", place, owner.low), k.compare("lt", place, owner.high))
        hit = k.both(there, inside)
        assert hit is not None
        hit = w.let("hit", hit)
        lane, warp = w.let("lane", k.mod(t, WARP)), w.let("warp", k.floordiv(t, WARP))
        before: k.Expr = w.let("n", k.Call("cast", (hit,), i32))
        distance = 1
        while distance < WARP:
            below = w.shuffle("up", before, distance)
            before = w.let("n", counted(before, k.compare("ge", lane, distance), below))
            distance *= 2
        with w.when(k.compare("eq", lane, WARP - 1)):
            w.write(k.Store(counts, warp, before))
        w.write(k.Barrier())
        slot = before
        total: k.Expr = k.Const(0, i32)
        for number_ in range(THREADS // WARP):
            here = w.let("n", k.Load(counts, k.Const(number_)))
            slot = counted(slot, k.compare("gt", warp, number_), here)
            total = k.Call("add", (total, here), i32)
        with w.when(hit):
            where = w.let("slot", k.sub(converted(slot, i64), 1))
            for buffer, value in zip(lists, (place, at), strict=True):
                w.write(k.Store(buffer, where, converted(value, buffer.dtype)))
        w.write(k.Barrier())
        return w.let("total", converted(total, i64))

    def _bring(self, owner: _Owner, total: k.Expr, lists: list[k.Buffer]) -> None:
        """Each listed value to its place, by the thread that owns it."""
        w = self.w
        with self._inside(owner.inside), w.loop("e", 0, total) as e:
            place, j = (w.let("i", converted(k.Load(buffer, e), i64)) for buffer in lists)
            mine = None
            if self.down > 1:
                rest = k.mod(k.sub(place, owner.low), self.down)
                mine = k.compare("eq", rest, owner.down)
            with self._inside(mine), self._lanes(owner) as column:
                start = k.mul(owner.copy, self.data.type.size) if self.shares > 1 else k.Const(0)
                self._combine(owner.row, place, j, column, start)

    def _combine(
        self, row: k.Expr, place: k.Expr, j: k.Expr, column: k.Expr, offset: k.Expr
    ) -> None:
        """One value, or a vector of values of different columns, to its place."""
        mode = self.node.attrs.mode
        at = k.add(offset, flat((row, place, column), self.data.shape))
        value = self.w.value(self.values, (row, j, column))
        if mode == "set":
            self.w.write(k.Store(self.output, at, value))
        else:
            self.w.write(k.Accumulate(self.output, at, mode, value))
