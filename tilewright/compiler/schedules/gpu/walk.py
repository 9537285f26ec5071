"""The elements of a row, shared out among the threads of a team, a few neighbours at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.compiler.schedules.access import Index, Writer, unflatten
from tilewright.compiler.schedules.gpu.team import Team
from tilewright.compiler.schedules.gpu.vectors import lanes
from tilewright.ir import loops as k
from tilewright.ir.sizes import Dim, product

FLYING = 4
"""Accesses of a thread that are on their way at once."""



@dataclass(frozen=True)
class Spot:
    """An element: its lane in the access, its index, its number among its thread's and in the row.
    """

    lane: k.Expr
    index: Index
    own: k.Expr
    offset: k.Expr


@dataclass(frozen=True)
class Pieces:
    """So many pieces of a row for one thread, ``step`` apart."""

    first: k.Expr
    count: int
    step: int


Body = Callable[[Spot], None]
Run = Callable[[Pieces], None]


@dataclass(eq=False)
class Walk:
    """How a team goes through a row.

    extents   sizes of the merged axes of a row
    width     neighbours that a thread takes at once; divides the last extent
    index     of the element at a position on the merged axes
    """

    w: Writer
    extents: Sequence[Dim]
    width: int
    index: Callable[[Sequence[k.Expr]], Index]

    @property
    def pieces(self) -> Dim:
        """Pieces of ``width`` elements in a row."""
        return product([*self.extents[:-1], self.last])

    @property
    def last(self) -> Dim:
        """Pieces along the innermost axis."""
        size = self.extents[-1]
        return size if self.width == 1 else size // self.width

    def slots(self, team: int) -> int:
        """The most pieces that a thread has of a row of known length."""
        pieces = self.pieces
        assert isinstance(pieces, int)
        return -(-pieces // team)

    def certain(self, team: int) -> int:
        """How many pieces each thread has for certain."""
        return self.pieces // team if isinstance(self.pieces, int) else 0

    def unrolled(self, team: Team, slots: int, body: Body) -> None:
        """All of a row, ``slots`` pieces for each thread at most, written out: thread t takes
        pieces t, t + size ...
        """
        w, full = self.w, self.certain(team.size)
        if full:
            with w.loop("c", 0, full, "unroll") as c:
                at = k.add(k.mul(c, team.size), team.thread)
                self._piece(at, k.mul(c, self.width), body)
        if slots > full:
            with w.loop("c", full, slots, "unroll") as c:
                at = k.add(k.mul(c, team.size), team.thread)
                with w.when(k.compare("lt", at, k.expr(self.pieces))):
                    self._piece(w.let("q", at, own=True), k.mul(c, self.width), body)

    def looped(
        self, team: Team, body: Body, low: k.ExprLike = 0, count: Dim | k.Expr | None = None
    ) -> None:
        """``count`` pieces from ``low`` on, all if nothing is said, in a loop."""
        self.grouped(team, lambda pieces: self.each(pieces, body), low, count)

    def grouped(
        self, team: Team, run: Run, low: k.ExprLike = 0,
        count: Dim | k.Expr | None = None,
    ) -> None:
        """The same, some pieces at a time."""
        w, step = self.w, team.size * FLYING
        first, count = k.expr(low), self.pieces if count is None else count
        last = w.let("end", k.add(first, k.expr(count)))
        whole = k.mul(w.let("steps", k.floordiv(k.expr(count), step)), step)
        middle = w.let("middle", k.add(first, whole))
        if whole != k.Const(0):
            with w.loop("c", first, middle, step=step) as c:
                run(Pieces(k.add(c, team.thread), FLYING, team.size))
        if middle != last:
            with w.loop("c", k.add(middle, team.thread), last, step=team.size) as c:
                run(Pieces(c, 1, team.size))

    def each(self, pieces: Pieces, body: Body) -> None:
        """The elements of some pieces."""
        if pieces.count == 1:
            self._piece(pieces.first, k.Const(0), body)
            return
        with self.w.loop("u", 0, pieces.count, "unroll") as u:
            at = k.add(pieces.first, k.mul(u, pieces.step))
            self._piece(at, k.mul(u, self.width), body)

    def _piece(self, at: k.Expr, own: k.Expr, body: Body) -> None:
        """The elements of a piece."""
        w = self.w
        at = w.let("q", at)
        *outer, inner = unflatten(at, [*self.extents[:-1], self.last])
        place = [w.let("o", e) for e in outer]
        first, offset = k.mul(w.let("o", inner), self.width), k.mul(at, self.width)
        with lanes(w, self.width) as lane:
            index = self.index([*place, k.add(first, lane)])
            body(Spot(lane, index, k.add(own, lane), k.add(offset, lane)))
