"""How the machine copies tiles to shared memory, several ahead of the one that is multiplied."""

from __future__ import annotations

from tilewright.compiler.schedules.gpu.contraction_sides import Share, Side, Tile
from tilewright.compiler.schedules.gpu.contraction_stages import Block, Stages, within
from tilewright.ir import loops as k
from tilewright.ir.types import bool_


def copy_tiles(block: Block, tiles: Stages, number: k.Expr, stage: k.Expr) -> None:
    """Begin the copies of a tile, if it is one of the block's, and close their group."""
    w = block.w

    def copies() -> None:
        for buffer, (side, tile, rows, corner) in zip(tiles, block.parts, strict=True):
            _copy(block, buffer, side, tile, rows, corner, number, stage)

    known = k.const_int(number), k.const_int(block.high)
    if known[0] is not None and known[1] is not None:
        if known[0] < known[1]:
            copies()
    else:
        with w.when(k.compare("lt", number, block.high)):
            copies()
    w.run("async_commit")


def _copy(
    block: Block, buffer: k.Buffer, side: Side, tile: Tile, rows: int, corner: k.Expr,
    number: k.Expr, stage: k.Expr,
) -> None:
    """Begin the copies of this thread's pieces of a tile."""
    w, share = block.w, Share(tile, side.piece, block.engine.threads, side.unit)
    fewer = share.pieces < share.threads
    base = w.let("to", k.mul(stage, tile.size))

    def one(p: k.Expr) -> None:
        along, across = (w.let("o", e) for e in share.place(block.thread, p))
        free, contracted = (across, along) if side.unit == "k" else (along, across)
        row, _ = side.clamped(side.free, corner, rows, free)
        at, valid = side.clamped("k", number, block.engine.shape.depth, contracted)
        source = side.place(w, block.batch, w.let("row", row), w.let("at", at))
        place = buffer[k.add(base, tile.at(across, along))]
        w.run("async_copy", place, source, valid or k.Const(True, bool_))

    with w.loop("p", 0, share.count, "unroll") as p:
        within(w, k.compare("lt", block.thread, share.pieces) if fewer else None, lambda: one(p))


def copied(block: Block, sums: k.Buffer, tiles: Stages, stages: int) -> None:
    """Tiles are copied ``stages - 1`` ahead; one barrier for each."""
    w, engine = block.w, block.engine
    ahead = stages - 1
    for s in range(ahead):
        copy_tiles(block, tiles, k.add(block.low, s), k.Const(s))
    with w.loop("tile", block.low, block.high) as number:
        step = k.sub(number, block.low)
        w.run("async_wait", stages - 2)
        # Everyone's copies have landed, and nobody reads the stage that is filled next.
        w.write(k.Barrier())
        copy_tiles(block, tiles, k.add(number, ahead), w.let("next", k.mod(
            k.add(step, ahead), stages)))
        engine.multiply(w, sums, tiles, w.let("stage", k.mod(step, stages)))


def grouped(block: Block, sums: k.Buffer, tiles: Stages, stages: int) -> None:
    """As :func:`copied`, with a multiplication still under way when the next one begins."""
    w, engine = block.w, block.engine
    ahead = stages - 2
    for s in range(ahead):
        copy_tiles(block, tiles, k.add(block.low, s), k.Const(s))
    with w.loop("tile", block.low, block.high) as number:
        step = k.sub(number, block.low)
        w.run("async_wait", ahead - 1)
        w.run("async_fence")
        # Everyone's copies have landed, and all multiplications but the last have ended.
        w.write(k.Barrier())
        engine.multiply(w, sums, tiles, w.let("stage", k.mod(step, stages)))
        copy_tiles(block, tiles, k.add(number, ahead), w.let("next", k.mod(
            k.add(step, ahead), stages)))
        w.run("wgmma_wait", 1)
    w.run("wgmma_wait", 0)
