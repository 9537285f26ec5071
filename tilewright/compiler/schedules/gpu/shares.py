"""Reductions that several blocks share out: each leaves what it has in memory, the next launch
combines that, in an order given by the sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.schedules.access import Writer
from tilewright.compiler.schedules.gpu.online import Pair, finite, scaled
from tilewright.compiler.schedules.gpu.sums import Sums
from tilewright.compiler.schedules.gpu.team import Team
from tilewright.compiler.schedules.gpu.walk import FLYING, Run, Walk
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div
from tilewright.ir.types import accumulator

TEAM = 512
"""Threads of a block that has a share."""

SHARE = 1 << 14
"""Elements of a share at least."""

BLOCKS = 256
"""Blocks that keep a large GPU busy."""


@dataclass(frozen=True)
class Division:
    """Pieces of a row in shares of ``each``; with a known number of pieces, none is empty."""

    pieces: Dim
    each: Dim
    shares: int

    def walk(self, walk: Walk, team: Team, share: k.Expr, run: Run) -> None:
        """Go through a share."""
        w, low = walk.w, k.mul(share, self.each)
        if self.each * self.shares == self.pieces:
            walk.grouped(team, run, w.let("low", low), self.each)
            return
        if not isinstance(self.pieces, int):
            low = k.minimum(low, k.expr(self.pieces))
        low = w.let("low", low)
        walk.grouped(team, run, low, k.minimum(self.each, k.sub(k.expr(self.pieces), low)))


def division(walk: Walk, others: int) -> Division:
    """Shares of a row, where ``others`` rows have as many."""
    pieces, wanted = walk.pieces, -(-BLOCKS // max(1, others))
    length = estimate(pieces) * walk.width
    count = max(1, min(wanted, -(-length // SHARE)))
    step = TEAM * FLYING
    if estimate(pieces) < count * step:
        step = TEAM
    each = ceil_div(ceil_div(pieces, count), step) * step
    if isinstance(pieces, int) and isinstance(each, int):
        count = max(1, -(-pieces // max(1, each)))
        each = min(each, pieces) if count == 1 else each
    return Division(pieces, each, count)


class Partials:
    """Memory for what each of ``shares`` blocks has of each of ``count`` results of reductions."""

    def __init__(self, w: Writer, anchors: Sequence[Node], count: Dim, shares: int) -> None:
        self.w, self.shares = w, shares
        self.buffers = {
            a: k.Buffer(w.name("part"), accumulator(a.dtype), count * shares, "global", "workspace")
            for a in anchors}

    def save(self, node: Node, row: k.ExprLike, share: k.Expr, value: k.Expr) -> None:
        """Leave what a share of a row has."""
        at = k.add(k.mul(k.expr(row), self.shares), share)
        self.w.write(k.Store(self.buffers[node], at, value))

    def combined(
        self, team: Team, nodes: Sequence[Node], row: k.ExprLike
    ) -> dict[Node, k.Expr]:
        """What all shares of a row have together."""
        w = self.w
        sums = Sums(w, nodes, 1)
        if nodes:
            with w.loop("s", team.thread, self.shares, step=team.size) as s:
                at = k.add(k.mul(k.expr(row), self.shares), s)
                sums.add(k.Const(0), [k.Load(self.buffers[n], at) for n in nodes])
        return sums.combined(team)

    def pair(self, team: Team, pair: Pair, row: k.ExprLike) -> tuple[k.Expr, k.Expr]:
        """What all shares of a row have of a pair together."""
        w, first = self.w, k.mul(k.expr(row), self.shares)
        top = self.combined(team, [pair.top], row)[pair.top]
        base = w.let("m", finite(top))
        sums = Sums(w, [pair.total], 1)
        with w.loop("s", team.thread, self.shares, step=team.size) as s:
            own, at_top = (
                k.Load(self.buffers[n], k.add(first, s)) for n in (pair.total, pair.top))
            sums.add(k.Const(0), [scaled(own, at_top, base)])
        return top, sums.combined(team)[pair.total]

    def workspaces(self) -> list[tuple[k.Buffer, Dim]]:
        """The buffers and their bytes."""
        return [(b, b.size * b.dtype.itemsize) for b in self.buffers.values()]
