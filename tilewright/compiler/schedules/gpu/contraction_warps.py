"""Warps and warpgroups that multiply tiles of shared memory on tensor cores."""

from __future__ import annotations

from abc import abstractmethod

from tilewright.compiler.schedules.access import Writer
from tilewright.compiler.schedules.gpu.contraction_engines import WARP, Engine, Shape
from tilewright.compiler.schedules.gpu.contraction_sides import ACCESS, Side, Tile
from tilewright.ir import loops as k
from tilewright.ir.instructions import STEP_BYTES
from tilewright.ir.types import DType, f32

GROUP = 4 * WARP
"""Threads of a warpgroup."""

LINE = 128
"""Bytes of the longest line of a swizzled tile."""


class Fragments(Engine):
    """Warps with mma: sums lie as the instruction has them, two neighbours in rows 8 apart."""

    width = 2
    step: int
    """Contracted elements of an instruction."""

    def __init__(self, shape: Shape, dtype: DType) -> None:
        super().__init__(shape)
        self.dtype, self.sums = dtype, f32
        self.threads = WARP * shape.down * shape.across
        self.high, self.wide = shape.m // (16 * shape.down), shape.n // (8 * shape.across)
        self.rows, self.groups = 2 * self.high, self.wide

    def begin(self, w: Writer, thread: k.Expr) -> None:
        warp, across = k.floordiv(thread, WARP), self.shape.across
        self.lane = w.let("lane", k.mod(thread, WARP))
        self.first_row = w.let("row", k.mul(k.floordiv(warp, across), 16 * self.high))
        self.first_column = w.let("column", k.mul(k.mod(warp, across), 8 * self.wide))
        self.down = w.let("g", k.floordiv(self.lane, 4))
        self.beside = w.let("t", k.mod(self.lane, 4))

    def products(self, w: Writer, sums: k.Buffer, a: k.Buffer, b: k.Buffer) -> None:
        """All instructions on the fragments of one step."""
        with w.loop("i", 0, self.high, "unroll") as i, w.loop("j", 0, self.wide, "unroll") as j:
            place = k.mul(k.add(k.mul(i, self.wide), j), 4)
            self.product(w, sums[place], a, i, b, j)

    @abstractmethod
    def product(
        self, w: Writer, sums: k.Load, a: k.Buffer, i: k.Expr, b: k.Buffer, j: k.Expr
    ) -> None:
        """The instructions for one place."""

    def row(self, i: k.Expr) -> k.Expr:
        return k.add(k.add(self.first_row, self.down), k.mul(i, 8))

    def column(self, j: k.Expr) -> k.Expr:
        return k.add(k.add(self.first_column, k.mul(self.beside, 2)), k.mul(j, 8))

    def slot(self, i: k.Expr, j: k.Expr) -> k.Expr:
        place = k.add(k.mul(k.floordiv(i, 2), self.wide), j)
        return k.add(k.mul(place, 4), k.mul(k.mod(i, 2), 2))


class Mma(Fragments):
    """16-bit elements by ldmatrix, whichever way they lie, and mma."""

    step = 16

    def __init__(self, shape: Shape, lhs: Side, rhs: Side, dtype: DType, deep: bool) -> None:
        super().__init__(shape, dtype)
        self.deep = deep
        self.lhs, self.rhs = (
            Tile("k", shape.depth, size, shape.depth, swizzle=8) if side.unit == "k"
            else Tile(side.free, size, shape.depth, size, swizzle=8)
            for side, size in ((lhs, shape.m), (rhs, shape.n)))

    def begin(self, w: Writer, thread: k.Expr) -> None:
        super().begin(w, thread)
        lane = self.lane
        # The row of eight elements whose place this thread gives: the four matrices are those of
        # the registers of a, and of two neighbours of b.
        half = w.let("half", k.mul(k.floordiv(lane, 16), 8))
        quarter = w.let("quarter", k.mul(k.mod(k.floordiv(lane, 8), 2), 8))
        self.eighth = w.let("eighth", k.mod(lane, 8))
        self.a = self._places(w, self.lhs, self.first_row, quarter, half, self.high)
        self.b = self._places(w, self.rhs, self.first_column, half, quarter, self.wide // 2)

    def _places(
        self, w: Writer, tile: Tile, corner: k.Expr, free: k.Expr, contracted: k.Expr, count: int
    ) -> list[list[k.Expr]]:
        """Where the matrices of each step and each 16 rows are, for this thread, in a stage."""
        steps = self.shape.depth // self.step
        turn = w.let("turn", tile.turn(self.eighth))
        corner = k.add(corner, free)
        if tile.along == "k":
            line = w.let("line", k.add(corner, self.eighth))
            starts = [
                w.let("at", tile.at(line, k.add(contracted, self.step * s), turn))
                for s in range(steps)]
            return [[k.add(start, 16 * i * tile.pitch) for i in range(count)] for start in starts]
        line = w.let("line", k.add(contracted, self.eighth))
        starts = [w.let("at", tile.at(line, k.add(corner, 16 * i), turn)) for i in range(count)]
        return [[k.add(start, self.step * s * tile.pitch) for start in starts]
                for s in range(steps)]

    def multiply(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        bases = [w.let("base", k.mul(stage, tile.size)) for tile in (self.lhs, self.rhs)]
        for a_places, b_places in zip(self.a, self.b, strict=True):
            parts = []
            for name, tile, buffer, base, places in (
                ("a", self.lhs, tiles[0], bases[0], a_places),
                ("b", self.rhs, tiles[1], bases[1], b_places),
            ):
                part = w.alloc(name, self.dtype, 8 * len(places), "register")
                load = "ldmatrix_x4" if tile.along == "k" else "ldmatrix_x4_t"
                for i, place in enumerate(places):
                    w.run(load, part[8 * i], buffer[k.add(base, place)])
                parts.append(part)
            self.products(w, sums, *parts)

    def product(
        self, w: Writer, sums: k.Load, a: k.Buffer, i: k.Expr, b: k.Buffer, j: k.Expr
    ) -> None:
        if self.deep:
            w.run("mma_m16n8k16", sums, a[k.mul(i, 8)], b[k.mul(j, 4)])
            return
        for half in range(2):
            w.run("mma_m16n8k8", sums, a[k.add(k.mul(i, 8), 4 * half)],
                  b[k.add(k.mul(j, 4), 2 * half)])


class Tf32(Fragments):
    """f32 rounded to 10 bits of mantissa, read element by element, and mma."""

    step = 8

    def __init__(self, shape: Shape, lhs: Side, rhs: Side) -> None:
        super().__init__(shape, f32)
        # Lines are so far apart that the 4 x 8 threads of a warp read from different banks.
        self.lhs, self.rhs = (
            Tile("k", shape.depth, size, shape.depth + 4) if side.unit == "k"
            else Tile(side.free, size, shape.depth, size + 8)
            for side, size in ((lhs, shape.m), (rhs, shape.n)))

    def multiply(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        bases = []
        for tile, corner in ((self.lhs, self.first_row), (self.rhs, self.first_column)):
            free = k.add(corner, self.down)
            first = tile.at(free, self.beside) if tile.along == "k" else tile.at(self.beside, free)
            bases.append(w.let("base", k.add(k.mul(stage, tile.size), first)))
        for s in range(self.shape.depth // self.step):
            a = w.alloc("a", f32, 4 * self.high, "register")
            b = w.alloc("b", f32, 2 * self.wide, "register")
            with w.loop("i", 0, self.high, "unroll") as i, w.loop("r", 0, 4, "unroll") as r:
                down = k.add(k.mul(i, 16), k.mul(k.mod(r, 2), 8))
                self._read(w, a, k.add(k.mul(i, 4), r), tiles[0], self.lhs, bases[0], down,
                           k.add(k.mul(k.floordiv(r, 2), 4), self.step * s))
            with w.loop("j", 0, self.wide, "unroll") as j, w.loop("r", 0, 2, "unroll") as r:
                self._read(w, b, k.add(k.mul(j, 2), r), tiles[1], self.rhs, bases[1], k.mul(j, 8),
                           k.add(k.mul(r, 4), self.step * s))
            self.products(w, sums, a, b)

    def _read(
        self, w: Writer, part: k.Buffer, slot: k.Expr, buffer: k.Buffer, tile: Tile, base: k.Expr,
        free: k.Expr, contracted: k.Expr,
    ) -> None:
        offset = tile.at(free, contracted) if tile.along == "k" else tile.at(contracted, free)
        w.write(k.Store(part, slot, k.Load(buffer, k.add(base, offset))))

    def product(
        self, w: Writer, sums: k.Load, a: k.Buffer, i: k.Expr, b: k.Buffer, j: k.Expr
    ) -> None:
        w.run("mma_m16n8k8_tf32", sums, a[k.mul(i, 4)], b[k.mul(j, 2)])


class Wgmma(Engine):
    """Warpgroups, each with 64 rows, that read both tiles where they are.

    A step is 32 bytes along k, and the tiles of a stage are a line deep. Those that lie across are
    squares of a line's elements.
    """

    width = 2

    def __init__(self, shape: Shape, lhs: Side, rhs: Side, dtype: DType) -> None:
        super().__init__(shape)
        self.dtype, self.sums = dtype, f32
        self.threads = GROUP * shape.down
        self.rows, self.groups = 2, shape.n // 8
        self.square, self.step = LINE // dtype.itemsize, STEP_BYTES // dtype.itemsize
        piece = ACCESS // dtype.itemsize
        self.lhs, self.rhs = (
            Tile("k", shape.depth, size, shape.depth, piece) if side.unit == "k"
            else Tile(side.free, size, shape.depth, self.square, piece, self.square)
            for side, size in ((lhs, shape.m), (rhs, shape.n)))

    def begin(self, w: Writer, thread: k.Expr, before: int = 0) -> None:
        """Name what the thread needs; ``before`` threads of the block do something else."""
        lane, warp = k.mod(thread, WARP), k.sub(k.floordiv(thread, WARP), before // WARP)
        self.first_row = w.let("row", k.add(k.mul(warp, 16), k.floordiv(lane, 4)))
        self.first_column = w.let("column", k.mul(k.mod(lane, 4), 2))
        self.group = w.let("group", k.sub(k.floordiv(thread, GROUP), before // GROUP))

    def multiply(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        """Begin the multiplication; who calls this waits for it."""
        # A warpgroup's rows are 64 lines of a tile along k, or a square of one along m.
        a = w.let("base", k.add(
            k.mul(stage, self.lhs.size), k.mul(self.group, 64 * self.shape.depth)))
        b = w.let("base", k.mul(stage, self.rhs.size))
        across = [tile.along for tile in (self.lhs, self.rhs) if tile.along != "k"]
        form = "tf32" if self.dtype is f32 else "".join(across)
        name = f"wgmma_m64n{self.shape.n}k{self.step}" + f"_{form}" * bool(form)
        w.run("wgmma_fence")
        for s in range(self.shape.depth // self.step):
            places = (
                buffer[k.add(base, s * self.step * (1 if tile.along == "k" else tile.pitch))]
                for buffer, tile, base in zip(tiles, (self.lhs, self.rhs), (a, b), strict=True))
            w.run(name, sums[0], *places)
        w.run("wgmma_commit")

    def row(self, i: k.Expr) -> k.Expr:
        return k.add(self.first_row, k.mul(i, 8))

    def column(self, j: k.Expr) -> k.Expr:
        return k.add(self.first_column, k.mul(j, 8))

    def slot(self, i: k.Expr, j: k.Expr) -> k.Expr:
        return k.add(k.mul(j, 4), k.mul(i, 2))
