"""How tiles come to shared memory, by way of registers, while those before them are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tilewright.compiler.schedules.access import Index, Writer
from tilewright.compiler.schedules.gpu.contraction_engines import Engine
from tilewright.compiler.schedules.gpu.contraction_sides import Share, Side, Tile, zero
from tilewright.ir import loops as k


@dataclass
class Block:
    """A block of the grid and the tiles that it walks.

    batch     positions on the batch axes
    corners   numbers of the block along m and n
    low, high numbers of its first tile along k, and of the one after its last
    """

    w: Writer
    engine: Engine
    sides: tuple[Side, Side]
    thread: k.Expr
    batch: Index
    corners: tuple[k.Expr, k.Expr]
    low: k.Expr
    high: k.Expr

    @property
    def parts(self) -> list[tuple[Side, Tile, int, k.Expr]]:
        """For each operand: it, its tile, rows of a block, and which block of rows this is."""
        e = self.engine
        return list(zip(
            self.sides, (e.lhs, e.rhs), (e.shape.m, e.shape.n), self.corners, strict=True))

    def some(self) -> k.Expr | None:
        """Whether there is anything to add up; None: there is."""
        low, high = k.const_int(self.low), k.const_int(self.high)
        if low is not None and high is not None and low < high:
            return None
        return k.compare("lt", self.low, self.high)


Stages = tuple[k.Buffer, k.Buffer]


def stages_of(w: Writer, engine: Engine, count: int) -> Stages:
    """Shared memory for so many stages of both tiles."""
    return (
        w.alloc("lhs", engine.dtype, count * engine.lhs.size, "shared"),
        w.alloc("rhs", engine.dtype, count * engine.rhs.size, "shared"))


def within(w: Writer, condition: k.Expr | None, body: Callable[[], None]) -> None:
    """Run ``body`` if the condition holds; None: it does."""
    if condition is None:
        body()
        return
    with w.when(condition):
        body()


def loaded(block: Block, sums: k.Buffer, tiles: Stages) -> None:
    """Load a tile into registers, multiply the one before it, then store it for all."""
    w, engine = block.w, block.engine
    moves = [_Move(block, tile, *part) for tile, part in zip(tiles, block.parts, strict=True)]

    def fetch(number: k.Expr) -> None:
        for move in moves:
            move.fetch(number)

    def put(stage: k.Expr) -> None:
        for move in moves:
            move.put(stage)

    def first() -> None:
        fetch(block.low)
        put(k.Const(0))

    def stage_of(number: k.Expr) -> k.Expr:
        return w.let("stage", k.mod(k.sub(number, block.low), 2))

    # What is loaded is stored in the same iteration, so that nothing need be known of it before.
    last = k.sub(block.high, 1)
    within(w, block.some(), first)
    w.write(k.Barrier())
    with w.loop("tile", block.low, last) as number:
        fetch(k.add(number, 1))
        stage = stage_of(number)
        engine.overlap(w, sums, tiles, stage, partial(put, k.sub(1, stage)))
        w.write(k.Barrier())
    within(w, block.some(), lambda: engine.finish(w, sums, tiles, stage_of(last)))


class _Move:
    """The pieces of a tile that a thread holds on their way."""

    def __init__(
        self, block: Block, buffer: k.Buffer, side: Side, tile: Tile, rows: int, corner: k.Expr
    ) -> None:
        self.block, self.buffer, self.side, self.tile = block, buffer, side, tile
        self.rows, self.corner = rows, corner
        self.share = Share(tile, side.piece, block.engine.threads, side.unit)
        count = self.share.count * side.piece
        self.held = block.w.alloc("held", block.engine.dtype, count, "register")

    def _pieces(self, body: Callable[[k.Expr, k.Expr, k.Expr], None]) -> None:
        """Run ``body(number, place along the unit, place across it)`` for this thread's pieces."""
        w, share, thread = self.block.w, self.share, self.block.thread
        fewer = share.pieces < share.threads
        with w.loop("p", 0, share.count, "unroll") as p:
            within(
                w, k.compare("lt", thread, share.pieces) if fewer else None,
                lambda: body(p, *(w.let("o", e) for e in share.place(thread, p))))

    def fetch(self, number: k.Expr) -> None:
        """Load the pieces of a tile, zeros beyond the last contracted element."""
        w, side, block = self.block.w, self.side, self.block

        def one(p: k.Expr, along: k.Expr, across: k.Expr) -> None:
            free, contracted = (across, along) if side.unit == "k" else (along, across)
            row, _ = side.clamped(side.free, self.corner, self.rows, free)
            at, valid = side.clamped("k", number, block.engine.shape.depth, contracted)
            row, at = w.let("row", row), w.let("at", at)
            valid = None if valid is None else w.let("valid", valid)

            def element(beside: k.Expr) -> None:
                value = side.value(w, block.batch, row, at, beside)
                if valid is not None:
                    value = k.Call("where", (valid, value, zero(value.dtype)), value.dtype)
                w.write(k.Store(self.held, k.add(k.mul(p, side.piece), beside), value))
            self._each(element)
        self._pieces(one)

    def _each(self, body: Callable[[k.Expr], None]) -> None:
        if self.side.piece == 1:
            body(k.Const(0))
            return
        piece = self.side.piece
        with self.block.w.loop("v", 0, piece, "vector", width=piece) as v:
            body(v)

    def put(self, stage: k.Expr) -> None:
        """Store the pieces in a stage."""
        w, side, tile = self.block.w, self.side, self.tile

        def one(p: k.Expr, along: k.Expr, across: k.Expr) -> None:
            straight = tile.along == side.unit
            major, minor = (across, along) if straight else (along, across)
            base = k.mul(stage, tile.size)
            first = k.add(base, tile.at(major, minor))
            if side.piece < tile.swizzle:
                first = k.add(first, k.mod(minor, tile.swizzle))
            first = w.let("to", first)

            def element(beside: k.Expr) -> None:
                place = k.add(first, k.mul(beside, 1 if straight else tile.pitch))
                value = k.Load(self.held, k.add(k.mul(p, side.piece), beside))
                w.write(k.Store(self.buffer, place, value))
            if straight:
                self._each(element)
            else:
                with w.loop("v", 0, side.piece, "unroll") as v:
                    element(v)
        self._pieces(one)
