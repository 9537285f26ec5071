"""Few long rows: several blocks for each, and a launch for each pass over them."""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import flat, unflatten
from tilewright.compiler.schedules.gpu.kept import pass_of
from tilewright.compiler.schedules.gpu.rows import Rows
from tilewright.compiler.schedules.gpu.shares import BLOCKS, SHARE, TEAM, Partials, division
from tilewright.compiler.schedules.gpu.sums import Sums
from tilewright.compiler.schedules.gpu.team import Team, teams
from tilewright.compiler.schedules.gpu.vectors import widest, width_for
from tilewright.compiler.schedules.gpu.walk import Spot
from tilewright.compiler.schedules.group import Group, finish
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import product
from tilewright.ir.types import accumulator

LONG = 4 * SHARE
"""Elements of a row that is worth several blocks."""


def is_long(rows: Rows) -> bool:
    """Whether rows are so few and long that a block for each would leave most of a GPU idle."""
    count = estimate(product(rows.outer))
    return count < BLOCKS // 2 and estimate(product(rows.walk.extents)) >= LONG


class LongRows(Rows):
    """The state of such a kernel under construction."""

    def lower(self) -> LoweredKernel:
        """The kernel."""
        w, group = self.w, self.group
        self.rows = product(self.outer)
        self.division = division(self.walk, estimate(self.rows))
        self.partials = Partials(w, group.anchors, self.rows, self.division.shares)
        for p in range(1, self.passes + 2):
            self._launch(p)
        return finish(group, w, self.outputs, self.partials.workspaces())

    def _launch(self, p: int) -> None:
        """Combine what the launches before left, and go on with a share of each row."""
        w, shares = self.w, self.division.shares
        last = p > self.passes
        stores = [(v, b) for v, b in self.wide if pass_of(v, self.level) == p]
        if last and not stores:
            shares = 1
        if p > 1:
            w.write(k.Barrier())
        known = [a for a in self.group.anchors if self.level[a] < p]
        fresh = [a for a in self.group.anchors if self.level[a] == p]
        types = [accumulator(a.dtype) for a in (*known, *fresh)]
        with teams(w, self.rows * shares, TEAM, types) as team:
            row, share = (w.let("o", e) for e in unflatten(team.number, (self.rows, shares)))
            self.kept = tuple(w.let("o", e) for e in unflatten(row, self.outer))
            self.hold(self.partials.combined(team, known, row))
            sums = Sums(w, fresh, self.walk.width)

            def body(spot: Spot) -> None:
                values = [w.let("v", w.value(v, spot.index)) for v, _ in stores]
                for (value, buffer), v in zip(stores, values, strict=True):
                    w.write(k.Store(buffer, flat(spot.index, value.shape), v))
                sums.accumulate(spot.lane, spot.index)

            if stores or fresh:
                self.division.walk(self.walk, team, share, body)
            if fresh:
                totals = sums.combined(team)
                with team.guard(first_only=True):
                    for node, total in totals.items():
                        self.partials.save(node, row, share, total)
            if last:
                self._store_once(team, share)
        w.bound.clear()

    def _store_once(self, team: Team, share: k.Expr) -> None:
        """What has one element per row is written by the first block of a row."""
        if share == k.Const(0):
            self._store_row_values(team)
            return
        with self.w.when(k.compare("eq", share, 0)):
            self._store_row_values(team)


def lower_rows(group: Group, target: Target) -> LoweredKernel:
    """Reductions over the same axes, and what is computed from them, with one read per element."""
    rows = Rows(group, target, 1)
    sizes = [b.dtype.itemsize for b in rows.wide_buffers()]
    width = width_for(max(sizes, default=4), rows.walk.extents[-1])
    kind = LongRows if is_long(rows) else Rows
    return widest(lambda width: kind(group, target, width).lower(), width)
