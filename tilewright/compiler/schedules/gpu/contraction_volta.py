"""Warps that multiply f16 on the tensor cores of sm_70, by mma.m8n8k4."""

from __future__ import annotations

from tilewright.compiler.schedules.access import Writer
from tilewright.compiler.schedules.gpu.contraction_engines import WARP, Engine, Shape
from tilewright.compiler.schedules.gpu.contraction_sides import Side, Tile
from tilewright.ir import loops as k
from tilewright.ir.types import f16, f32

STEP = 4
"""Contracted elements of an instruction, and neighbours that a thread reads at once."""


class Volta(Engine):
    """A warp has squares of 16 x 16, of which each group of threads has a quarter.

    Operands may lie either way in their tiles: the instruction takes them so.
    """

    width = 2

    def __init__(self, shape: Shape, lhs: Side, rhs: Side) -> None:
        super().__init__(shape)
        self.dtype, self.sums = f16, f32
        self.threads = WARP * shape.down * shape.across
        self.high, self.wide = shape.m // (16 * shape.down), shape.n // (16 * shape.across)
        self.rows, self.groups = 2 * self.high, 2 * self.wide
        # Lines are so far apart that no two threads read from one bank.
        self.lhs, self.rhs = (
            Tile("k", shape.depth, size, shape.depth + 4) if side.unit == "k"
            else Tile(side.free, size, shape.depth, size + 16)
            for side, size in ((lhs, shape.m), (rhs, shape.n)))
        ways = ("row" if tile.along == "k" else "col" for tile in (self.lhs, self.rhs))
        left, right = ways
        self.name = f"mma_m8n8k4_{left}_{'col' if right == 'row' else 'row'}"

    def begin(self, w: Writer, thread: k.Expr) -> None:
        warp, across = k.floordiv(thread, WARP), self.shape.across
        lane = w.let("lane", k.mod(thread, WARP))
        quad = w.let("quad", k.mod(k.floordiv(lane, 4), 4))
        self.four, high = w.let("four", k.mod(lane, 4)), k.floordiv(lane, 16)
        self.upper = w.let("upper", k.mul(high, 4))
        self.first_row = w.let("row", k.add(
            k.mul(k.floordiv(warp, across), 16 * self.high), k.mul(k.mod(quad, 2), 8)))
        self.first_column = w.let("column", k.add(
            k.mul(k.mod(warp, across), 16 * self.wide), k.mul(k.floordiv(quad, 2), 8)))
        self.down = w.let("down", k.add(self.upper, k.mod(lane, 2)))
        self.beside = w.let("beside", k.mul(k.mod(k.floordiv(lane, 2), 2), 2))
        self.a = self._place(w, self.lhs, self.first_row)
        self.b = self._place(w, self.rhs, self.first_column)

    def _place(self, w: Writer, tile: Tile, corner: k.Expr) -> k.Expr:
        """Where this thread's first elements are in a tile."""
        if tile.along == "k":
            return w.let("at", tile.at(k.add(k.add(corner, self.upper), self.four), k.Const(0)))
        return w.let("at", tile.at(self.four, k.add(corner, self.upper)))

    def multiply(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        bases = [
            w.let("base", k.add(k.mul(stage, tile.size), first))
            for tile, first in ((self.lhs, self.a), (self.rhs, self.b))]
        with w.loop("s", 0, self.shape.depth // STEP, "unroll") as s:
            a = self._fragments(w, tiles[0], self.lhs, bases[0], s, self.high)
            b = self._fragments(w, tiles[1], self.rhs, bases[1], s, self.wide)
            with w.loop("i", 0, self.high, "unroll") as i:
                with w.loop("j", 0, self.wide, "unroll") as j:
                    place = k.mul(k.add(k.mul(i, self.wide), j), 8)
                    w.run(self.name, sums[place], a[k.mul(i, STEP)], b[k.mul(j, STEP)])

    def _fragments(
        self, w: Writer, buffer: k.Buffer, tile: Tile, base: k.Expr, s: k.Expr, count: int
    ) -> k.Buffer:
        """Four elements of each square of 16 along the operand's rows."""
        part = w.alloc("part", f16, STEP * count, "register")
        near, far = (1, tile.pitch) if tile.along == "k" else (tile.pitch, 1)
        with w.loop("g", 0, count, "unroll") as g:
            at = k.add(base, k.add(k.mul(s, STEP * near), k.mul(g, 16 * far)))
            with w.loop("v", 0, STEP, "vector", width=STEP) as v:
                w.write(k.Store(part, k.add(k.mul(g, STEP), v), buffer[k.add(at, v)]))
        return part

    def row(self, i: k.Expr) -> k.Expr:
        inner = k.add(k.mul(k.floordiv(i, 2), 16), k.mul(k.mod(i, 2), 2))
        return k.add(k.add(self.first_row, self.down), inner)

    def column(self, j: k.Expr) -> k.Expr:
        inner = k.add(k.mul(k.floordiv(j, 2), 16), k.mul(k.mod(j, 2), 4))
        return k.add(k.add(self.first_column, self.beside), inner)

    def slot(self, i: k.Expr, j: k.Expr) -> k.Expr:
        place = k.add(k.mul(k.floordiv(i, 2), self.wide), k.floordiv(j, 2))
        within = k.add(k.mul(k.mod(j, 2), 4), k.mul(k.mod(i, 2), 2))
        return k.add(k.mul(place, 8), within)
