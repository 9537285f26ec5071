"""Few long rows: several blocks for each, and a launch for each pass over them."""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.gpu.online import Online, Pair
from tilewright.compiler.schedules.gpu.rows import Rows
from tilewright.compiler.schedules.gpu.shares import BLOCKS, SHARE, TEAM, Partials, division
from tilewright.compiler.schedules.gpu.sums import Sums
from tilewright.compiler.schedules.gpu.team import Team, teams
from tilewright.compiler.schedules.gpu.vectors import widest, width_for
from tilewright.compiler.schedules.gpu.walk import Body, Run, Spot
from tilewright.compiler.schedules.group import Group, finish
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
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
        stages = self.stages()
        for number in range(len(stages)):
            self._launch(stages[:number], *stages[number])
        return finish(group, w, self.outputs, self.partials.workspaces())

    def _launch(self, before: list[tuple[int, Pair | None]], p: int, pair: Pair | None) -> None:
        """Combine what the launches before left, and go on with a share of each row."""
        w, shares = self.w, self.division.shares
        last, stores = p > self.passes, self.wide_at(p)
        if last and not stores:
            shares = 1
        if before:
            w.write(k.Barrier())
        pairs = [known for _, known in before if known is not None]
        paired = {n for known in pairs for n in (known.top, known.total)}
        known = [a for a in self.group.anchors if self.level[a] < p and a not in paired]
        fresh = [a for a in self.group.anchors if self.level[a] == p]
        if pair is not None:
            fresh = [pair.top, pair.total]
        combined = (*known, *(n for q in pairs for n in (q.top, q.total)), *fresh)
        with teams(w, self.rows * shares, TEAM, [accumulator(a.dtype) for a in combined]) as team:
            row, share = (w.let("o", e) for e in unflatten(team.number, (self.rows, shares)))
            self.kept = tuple(w.let("o", e) for e in unflatten(row, self.outer))
            self.hold(self.partials.combined(team, known, row))
            for earlier in pairs:
                self.hold_pair(earlier, *self.partials.pair(team, earlier, row))
            if fresh:
                totals = self._share(team, share, p, fresh, pair)
                with team.guard(first_only=True):
                    for node, total in zip(fresh, totals, strict=True):
                        self.partials.save(node, row, share, total)
            elif stores:
                write = self.each(lambda spot: self.store_wide(p, spot))
                self.division.walk(self.walk, team, share, write)
            if last:
                self._store_once(team, share)
        w.bound.clear()

    def each(self, body: Body) -> Run:
        """What is done with pieces, from what is done with an element."""
        return lambda pieces: self.walk.each(pieces, body)

    def _share(
        self, team: Team, share: k.Expr, p: int, fresh: list[Node], pair: Pair | None
    ) -> list[k.Expr]:
        """What a share has of the reductions of a pass."""
        if pair is not None:
            online = Online(self.w, pair, self.walk.width)
            self.division.walk(
                self.walk, team, share, lambda pieces: self.take(online, p, pieces))
            return list(online.combined(team))
        sums = Sums(self.w, fresh, self.walk.width)

        def body(spot: Spot) -> None:
            self.store_wide(p, spot)
            sums.accumulate(spot.lane, spot.index)

        self.division.walk(self.walk, team, share, self.each(body))
        return list(sums.combined(team).values())

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
