"""Reductions that keep the innermost axis, on a GPU: threads side by side along the columns.

A block is ``across`` threads wide and ``down`` high: each thread reduces every ``down``-th row of
its columns, and shared memory brings together those of a column. Where there are many rows, blocks
take shares of them, and a second launch reduces what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.gpu.shares import BLOCKS
from tilewright.compiler.schedules.gpu.sums import Sums, settled
from tilewright.compiler.schedules.gpu.team import WARP, power_of_two
from tilewright.compiler.schedules.gpu.vectors import lanes, widest, width_for
from tilewright.compiler.schedules.gpu.walk import FLYING
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import COMBINE, align, hold
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div, product
from tilewright.ir.types import accumulator

THREADS = 256
"""Threads of a block."""

LEAST_ACROSS = 8
"""Threads side by side at least."""

ROWS = 4
"""Rows of a thread at least, where there are several threads for a column."""

SHARE = 32
"""Rows of a thread that are worth a second launch."""

Read = Callable[[Node, k.Expr, k.Expr], k.Expr]
"""An operand's element at a row and a lane."""

Give = Callable[[k.Expr, Sequence[k.Expr]], None]
"""What is done with the results of a lane's column."""


def lower_columns(group: Group, target: Target) -> LoweredKernel:
    """Columns in one launch, or in shares of the rows and a second one."""
    kept = [d for i, d in enumerate(group.shape) if i not in group.axes and d != 1]
    itemsize = max(a.inputs[0].dtype.itemsize for a in group.anchors)
    return widest(lambda width: _Columns(group, width).lower(), width_for(itemsize, kept[-1]))


@dataclass
class _Place:
    """Where a thread stands: its piece of the columns, its position on the kept axes, in pieces
    on the innermost, its share of the rows, and whether there is such a piece; None: there is.
    """

    piece: k.Expr
    at: dict[int, k.Expr]
    share: k.Expr
    inside: k.Expr | None


class _Columns:
    """The state of a column kernel under construction."""

    def __init__(self, group: Group, width: int) -> None:
        self.group, self.w, self.width = group, group.writer(), width
        self.outputs = output_buffers(group)
        self.axes = [i for i in range(len(group.shape)) if i not in group.axes]
        self.inner = next(i for i in reversed(self.axes) if group.shape[i] != 1)
        self.sizes = [
            group.shape[i] // width if i == self.inner and width > 1 else group.shape[i]
            for i in self.axes]
        self.pieces = product(self.sizes)
        self.rows = product(group.shape[i] for i in group.axes)
        pieces, rows = estimate(self.pieces), estimate(self.rows)
        across = min(WARP, max(LEAST_ACROSS, power_of_two(pieces)))
        self.down = min(THREADS // across, power_of_two(-(-rows // ROWS)))
        self.across = max(WARP // self.down, min(THREADS // self.down, power_of_two(pieces)))
        blocks = -(-pieces // self.across)
        self.shares = max(1, min(BLOCKS // blocks, rows // (self.down * SHARE)))

    @property
    def threads(self) -> int:
        return self.across * self.down

    def lower(self) -> LoweredKernel:
        """The kernel."""
        w, group = self.w, self.group
        if self.shares == 1:
            self._launch(self.rows, 1, self._operand, self._finish)
            return finish(group, w, self.outputs)
        size = self.pieces * self.width
        partials = {
            a: k.Buffer(w.name("part"), accumulator(a.dtype), size * self.shares, "global",
                        "workspace") for a in group.anchors}

        def save(place: _Place) -> Give:
            base = k.add(k.mul(place.share, size), k.mul(place.piece, self.width))

            def give(lane: k.Expr, totals: Sequence[k.Expr]) -> None:
                for buffer, total in zip(partials.values(), totals, strict=True):
                    w.write(k.Store(buffer, k.add(base, lane), total))
            return give

        def read(place: _Place) -> Read:
            base = k.mul(place.piece, self.width)
            return lambda node, row, lane: k.Load(
                partials[node], k.add(k.add(k.mul(row, size), base), lane))

        self._launch(self.rows, self.shares, self._operand, save)
        w.write(k.Barrier())
        self._launch(self.shares, 1, read, self._finish)
        sizes: list[tuple[k.Buffer, Dim]] = [
            (b, b.size * b.dtype.itemsize) for b in partials.values()]
        return finish(group, w, self.outputs, sizes)

    # --- what is reduced, and what becomes of it --------------------------------------------
    def _kept(self, place: _Place, lane: k.Expr) -> dict[int, k.Expr]:
        """The position on each kept axis."""
        return place.at | {self.inner: k.add(k.mul(place.at[self.inner], self.width), lane)}

    def _operand(self, place: _Place) -> Read:
        """The elements of the operands."""
        group = self.group

        def read(node: Node, row: k.Expr, lane: k.Expr) -> k.Expr:
            at = self._kept(place, lane)
            at |= zip(group.axes, unflatten(row, [group.shape[a] for a in group.axes]), strict=True)
            return self.w.value(node.inputs[0], tuple(at[i] for i in range(len(group.shape))))
        return read

    def _finish(self, place: _Place) -> Give:
        """Store the results: the reductions and what is computed from them."""
        w, group = self.w, self.group

        def give(lane: k.Expr, totals: Sequence[k.Expr]) -> None:
            at = self._kept(place, lane)
            kept: Index = tuple(at[i] for i in self.axes)
            sizes = [group.shape[i] for i in self.axes]
            for node, total in zip(group.anchors, totals, strict=True):
                hold(w, node, w.let("r", settled(node, total)), kept)
            values = []
            for (value, _), buffer in zip(group.stores, self.outputs, strict=True):
                index = align(kept, sizes, value.shape)
                offset = flat(index, value.shape)
                values.append((buffer, offset, w.let("v", w.value(value, index))))
            for buffer, offset, v in values:
                w.write(k.Store(buffer, offset, v))
            for node in group.anchors:
                w.bound.pop(node)
        return give

    # --- a launch ---------------------------------------------------------------------------
    def _launch(
        self, rows: Dim, shares: int, read: Callable[[_Place], Read], give: Callable[[_Place], Give]
    ) -> None:
        """Reduce shares of the rows."""
        w, blocks = self.w, ceil_div(self.pieces, self.across)
        with w.loop("b", 0, shares * blocks, "block") as b:
            share, block = (w.let("o", e) for e in unflatten(b, (shares, blocks)))
            parts = [
                w.alloc("parts", accumulator(a.dtype), self.threads * self.width, "shared")
                for a in self.group.anchors] if self.down > 1 else []
            with w.loop("t", 0, self.threads, "thread") as t:
                across = w.let("x", k.mod(t, self.across))
                down = w.let("y", k.floordiv(t, self.across))
                place = self._place(block, share, across)
                sums = self._sums(rows, shares, place, down, read(place))
                self._bring_together(parts, sums, across, down, place, give(place))

    def _place(self, block: k.Expr, share: k.Expr, across: k.Expr) -> _Place:
        w, pieces, inside = self.w, self.pieces, None
        piece = w.let("piece", k.add(k.mul(block, self.across), across))
        if not isinstance(pieces, int) or pieces % self.across:
            inside = w.let("inside", k.compare("lt", piece, k.expr(pieces)))
            piece = w.let("piece", k.minimum(piece, k.sub(pieces, 1)))
        at = [w.let("o", e) for e in unflatten(piece, self.sizes)]
        return _Place(piece, dict(zip(self.axes, at, strict=True)), share, inside)

    def _sums(
        self, rows: Dim, shares: int, place: _Place, down: k.Expr, read: Read
    ) -> Sums:
        """What a thread has of its columns."""
        w, anchors = self.w, self.group.anchors
        sums = Sums(w, anchors, self.width)

        def add(row: k.Expr) -> None:
            row = w.let("row", row)
            with lanes(w, self.width) as lane:
                sums.add(lane, [read(node, row, lane) for node in anchors])

        low, high = k.expr(0), k.expr(rows)
        if shares > 1:
            low = w.let("low", k.floordiv(k.mul(place.share, rows), shares))
            high = w.let("high", k.floordiv(k.mul(k.add(place.share, 1), rows), shares))
        step = self.down * FLYING
        whole = k.mul(k.floordiv(k.sub(high, low), step), step)
        middle = w.let("middle", k.add(low, whole))
        if whole != k.Const(0):
            with w.loop("c", low, middle, step=step) as c, w.loop("u", 0, FLYING, "unroll") as u:
                add(k.add(k.add(c, k.mul(u, self.down)), down))
        if middle != high:
            with w.loop("c", k.add(middle, down), high, step=self.down) as c:
                add(c)
        return sums

    def _bring_together(
        self, parts: Sequence[k.Buffer], sums: Sums, across: k.Expr, down: k.Expr,
        place: _Place, give: Give,
    ) -> None:
        """The sums of all threads of a column, in the first of them."""
        w, row = self.w, self.across * self.width
        first, registers = k.mul(across, self.width), sums.registers.values()
        if parts:
            with lanes(w, self.width) as lane:
                for part, register in zip(parts, registers, strict=True):
                    at = k.add(k.add(k.mul(down, row), first), lane)
                    w.write(k.Store(part, at, k.Load(register, lane)))
            w.write(k.Barrier())
        condition = k.both(k.compare("eq", down, 0) if parts else None, place.inside)
        with w.when(condition) if condition is not None else nullcontext():
            with lanes(w, self.width) as lane:
                totals: list[k.Expr] = [k.Load(register, lane) for register in registers]
                for i, (node, part) in enumerate(zip(self.group.anchors, parts, strict=False)):
                    for y in range(1, self.down):
                        other = k.Load(part, k.add(k.add(first, y * row), lane))
                        totals[i] = k.Call(COMBINE[node.op.name], (totals[i], other), other.dtype)
                give(lane, [w.let("s", total) for total in totals])
