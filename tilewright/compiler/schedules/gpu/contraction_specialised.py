"""Warpgroups that multiply, and one whose first thread has the machine copy tiles for them.

A block of threads goes through several blocks of the result. A stage is *full* when its bytes have
landed, and *empty* when all warps are done with it: an mbarrier for each. The copies run as far
ahead as there are stages, also into the next block of the result while one is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewright.compiler.schedules.access import Index, Writer
from tilewright.compiler.schedules.gpu.contraction_engines import WARP, clear
from tilewright.compiler.schedules.gpu.contraction_sides import Side, Tile
from tilewright.compiler.schedules.gpu.contraction_stages import Block, Stages
from tilewright.compiler.schedules.gpu.contraction_warps import GROUP, Wgmma
from tilewright.ir import loops as k
from tilewright.ir.sizes import Dim

COPYING, MULTIPLYING = 40, 232
"""Registers of a thread: two warpgroups with so many and one with few fill a multiprocessor."""

Place = Callable[[k.Expr], tuple[Index, k.Expr, k.Expr]]
"""Number of a block of the result -> its (batch, row, column)."""


@dataclass
class Ring:
    """The stages of a block of threads.

    bars    mbarriers: those of full stages, then those of empty ones
    place   where a block of the result is
    first   the number of the first one, the others are ``apart`` and fewer than ``total``
    depth   tiles along k
    """

    w: Writer
    engine: Wgmma
    sides: tuple[Side, Side]
    stages: int
    tiles: Stages
    bars: k.Buffer
    place: Place
    first: k.Expr
    apart: int
    total: Dim
    depth: Dim

    def run(self, thread: k.Expr, store: Callable[[Block, k.Buffer], None]) -> None:
        """All threads' work; ``store`` takes what a thread has summed up for a block."""
        w, engine = self.w, self.engine
        with w.when(k.compare("eq", thread, 0)):
            with w.loop("s", 0, self.stages) as s:
                w.run("mbarrier_init", self.bars[s], 1)
                w.run("mbarrier_init", self.bars[k.add(s, self.stages)], engine.threads // WARP)
        w.run("async_fence")
        w.write(k.Barrier())
        with w.when(k.compare("lt", thread, GROUP)):
            w.run("registers_less", COPYING)
            with w.when(k.compare("eq", thread, 0)):
                self._each_block(lambda turn, number: self._copy_block(turn, number))
        with w.otherwise():
            w.run("registers_more", MULTIPLYING)
            engine.begin(w, thread, GROUP)
            self._each_block(
                lambda turn, number: self._multiply_block(thread, turn, number, store))

    def _each_block(self, body: Callable[[k.Expr, k.Expr], None]) -> None:
        """Run ``body(turn, number)`` for the blocks of the result."""
        w = self.w
        left = k.add(k.sub(k.expr(self.total), self.first), self.apart - 1)
        with w.loop("turn", 0, w.let("turns", k.floordiv(left, self.apart))) as turn:
            body(turn, w.let("number", k.add(self.first, k.mul(turn, self.apart))))

    def _stage(self, count: k.Expr) -> tuple[k.Expr, k.Expr]:
        """The stage of the tile that is number ``count`` of all, and how often it was used."""
        w = self.w
        return (w.let("stage", k.mod(count, self.stages)),
                w.let("round", k.mod(k.floordiv(count, self.stages), 2)))

    def _copy_block(self, turn: k.Expr, number: k.Expr) -> None:
        """Have all tiles of a block copied, each when its stage is empty."""
        w, e = self.w, self.engine
        batch, row, column = self.place(number)
        nbytes = (e.lhs.size + e.rhs.size) * e.dtype.itemsize
        with w.loop("tile", 0, self.depth) as tile:
            stage, round_ = self._stage(w.let("count", k.add(k.mul(turn, self.depth), tile)))
            w.run("mbarrier_wait", self.bars[k.add(stage, self.stages)], k.sub(1, round_))
            w.run("mbarrier_expect", self.bars[stage], nbytes)
            for buffer, side, layout, rows, corner in zip(
                self.tiles, self.sides, (e.lhs, e.rhs), (e.shape.m, e.shape.n), (row, column),
                strict=True,
            ):
                self._boxes(buffer, side, layout, batch, k.mul(corner, rows), tile, stage)

    def _boxes(
        self, buffer: k.Buffer, side: Side, layout: Tile, batch: Index, corner: k.Expr,
        tile: k.Expr, stage: k.Expr,
    ) -> None:
        """Copy a tile, whose lines are 128 bytes of a matrix, or of several squares."""
        w, matrix = self.w, side.matrix
        assert matrix is not None
        contracted = k.mul(tile, self.engine.shape.depth)
        first, across = (corner, contracted) if side.unit == "k" else (contracted, corner)
        row = w.let("row", matrix.row(batch, first))
        start = side.place(w, (k.Const(0),) * len(batch), k.Const(0), k.Const(0))
        to = k.mul(stage, layout.size)
        line = self.engine.square
        for square in range(layout.minor // line):
            w.run(
                "tensor_copy", buffer[k.add(to, square * line * layout.major)], start,
                self.bars[stage], row, w.let("column", k.add(across, square * line)),
                matrix.rows, matrix.columns, layout.major)

    def _multiply_block(
        self, thread: k.Expr, turn: k.Expr, number: k.Expr,
        store: Callable[[Block, k.Buffer], None],
    ) -> None:
        """Sum up a block; one multiplication is under way while the next begins."""
        w, e = self.w, self.engine
        batch, row, column = self.place(number)
        sums = w.alloc("sums", e.sums, e.count, "register")
        clear(w, sums)
        before = k.mul(turn, self.depth)
        with w.loop("tile", 0, self.depth) as tile:
            count = w.let("count", k.add(before, tile))
            stage, round_ = self._stage(count)
            w.run("mbarrier_wait", self.bars[stage], round_)
            e.multiply(w, sums, self.tiles, stage)
            w.run("wgmma_wait", 1)
            with w.when(k.compare("gt", tile, 0)):
                self._release(thread, k.sub(count, 1))
        w.run("wgmma_wait", 0)
        with w.when(k.compare("gt", k.expr(self.depth), 0)):
            self._release(thread, k.sub(k.add(before, self.depth), 1))
        store(Block(w, e, self.sides, thread, batch, (row, column), k.Const(0), k.Const(0)), sums)

    def _release(self, thread: k.Expr, count: k.Expr) -> None:
        """This warp is done with a tile."""
        w = self.w
        with w.when(k.compare("eq", k.mod(thread, WARP), 0)):
            w.run("mbarrier_arrive", self.bars[k.add(k.mod(count, self.stages), self.stages)])
