"""What multiplies two tiles of shared memory.

An engine says how the operands lie in shared memory, and where each thread's sums stand in the
block of the result: for each of ``rows`` and ``groups``, ``width`` neighbours along n.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from tilewright.compiler.schedules.access import Writer
from tilewright.compiler.schedules.gpu.contraction_sides import ACCESS, Side, Tile, zero
from tilewright.ir import loops as k
from tilewright.ir.types import DType

WARP = 32
"""Threads of a warp."""

HIDING = 256
"""FMAs of a thread that hide the way of a load from memory: 1000 clocks of 4 warps that take
turns."""


@dataclass(frozen=True)
class Shape:
    """A block of the result, and how its threads share it.

    m, n, depth  of the tiles
    down, across ffma: threads along m and n; mma: warps along them; wgmma: warpgroups along m
    gain         what it makes of the machine, compared to the largest block
    """

    m: int
    n: int
    depth: int
    down: int
    across: int
    gain: float


class Engine(ABC):
    """A way to multiply tiles.

    dtype     of the elements of the tiles, ``sums`` of the sums
    lhs, rhs  the tiles
    rows, groups, width  how many sums a thread has: see above
    """

    threads: int
    dtype: DType
    sums: DType
    lhs: Tile
    rhs: Tile
    rows: int
    groups: int
    width: int

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    @abstractmethod
    def begin(self, w: Writer, thread: k.Expr) -> None:
        """Name what the thread needs, before all loops."""

    @abstractmethod
    def multiply(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        """Add the product of the tiles of a stage."""

    def overlap(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr,
        store: Callable[[], None],
    ) -> None:
        """Add the product, and store what was loaded before when it has had time to arrive."""
        self.multiply(w, sums, tiles, stage)
        store()

    def finish(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        """Add the product of the last tiles: nothing is loaded meanwhile."""
        self.multiply(w, sums, tiles, stage)

    @abstractmethod
    def row(self, i: k.Expr) -> k.Expr:
        """The row in the block of one of the thread's rows."""

    @abstractmethod
    def column(self, j: k.Expr) -> k.Expr:
        """The first column in the block of one of the thread's groups."""

    def slot(self, i: k.Expr, j: k.Expr) -> k.Expr:
        """Where the first sum of a row and a group is."""
        return k.mul(k.add(k.mul(i, self.groups), j), self.width)

    @property
    def count(self) -> int:
        """Sums of a thread."""
        return self.rows * self.groups * self.width


class Ffma(Engine):
    """Each thread has a small matrix of sums, in squares as wide as an access."""

    def __init__(self, shape: Shape, lhs: Side, rhs: Side, dtype: DType) -> None:
        super().__init__(shape)
        self.dtype = self.sums = dtype
        self.width = min(4, ACCESS // dtype.itemsize)
        self.threads = shape.down * shape.across
        self.rows = shape.m // shape.down
        self.groups = shape.n // (shape.across * self.width)
        self.lhs, self.rhs = (
            # What is turned over on its way is stored across the lines.
            Tile(side.free, size, shape.depth, size + (side.unit == "k") * self.width)
            for side, size in ((lhs, shape.m), (rhs, shape.n)))

    def begin(self, w: Writer, thread: k.Expr) -> None:
        # A warp has 4 x 8 threads: eight neighbours read 128 bytes of rhs, and one place of lhs.
        lane, warp = k.mod(thread, WARP), k.floordiv(thread, WARP)
        across = self.shape.across // 8
        y = k.add(k.mul(k.floordiv(warp, across), 4), k.floordiv(lane, 8))
        x = k.add(k.mul(k.mod(warp, across), 8), k.mod(lane, 8))
        self.y, self.x = w.let("y", k.mul(y, self.width)), w.let("x", k.mul(x, self.width))

    def multiply(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        self._steps(w, sums, tiles, stage, 0, self.shape.depth)

    def overlap(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr,
        store: Callable[[], None],
    ) -> None:
        # Until the store, the loaded elements take registers, and ptxas cannot fetch the fragments
        # of later steps before it: the sooner it comes, the fewer registers there must be.
        depth = self.shape.depth
        middle = min(depth, -(-HIDING // self.count))
        self._steps(w, sums, tiles, stage, 0, middle)
        store()
        if middle < depth:
            self._steps(w, sums, tiles, stage, middle, depth)

    def finish(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr
    ) -> None:
        # Nothing stands between these steps and the results: were they written one by one, ptxas
        # would fetch the fragments of all of them first.
        self._steps(w, sums, tiles, stage, 0, self.shape.depth, "serial")

    def _steps(
        self, w: Writer, sums: k.Buffer, tiles: tuple[k.Buffer, k.Buffer], stage: k.Expr,
        first_step: int, last_step: int, kind: k.LoopKind = "unroll",
    ) -> None:
        """Add the products of some of the contracted elements."""
        parts = []
        for name, tile, first, count, step in (
            ("a", self.lhs, self.y, self.rows, self.shape.down),
            ("b", self.rhs, self.x, self.groups * self.width, self.shape.across),
        ):
            base = w.let("base", k.add(k.mul(stage, tile.size), first))
            parts.append((name, tile, base, count, step * self.width))
        with w.loop("k", first_step, last_step, kind) as kk:
            a, b = (
                self._fragment(w, buffer, kk, *part)
                for buffer, part in zip(tiles, parts, strict=True))
            columns = self.groups * self.width
            with w.loop("i", 0, self.rows, "unroll") as i:
                with w.loop("j", 0, columns, "unroll") as j:
                    product = k.Call("mul", (a[i], b[j]), self.sums)
                    w.write(k.Accumulate(sums, k.add(k.mul(i, columns), j), "add", product))

    def _fragment(
        self, w: Writer, buffer: k.Buffer, kk: k.Expr, name: str, tile: Tile, base: k.Expr,
        count: int, step: int,
    ) -> k.Buffer:
        """This thread's rows or columns of one contracted element."""
        part = w.alloc(name, self.dtype, count, "register")
        line = k.add(base, k.mul(kk, tile.pitch))
        with w.loop("g", 0, count // self.width, "unroll") as g:
            with w.loop("v", 0, self.width, "vector", width=self.width) as v:
                place = k.add(k.add(line, k.mul(g, step)), v)
                w.write(k.Store(part, k.add(k.mul(g, self.width), v), k.Load(buffer, place)))
        return part

    def row(self, i: k.Expr) -> k.Expr:
        step = self.shape.down * self.width
        return k.add(k.add(self.y, k.mul(k.floordiv(i, self.width), step)), k.mod(i, self.width))

    def column(self, j: k.Expr) -> k.Expr:
        return k.add(self.x, k.mul(j, self.shape.across * self.width))


def clear(w: Writer, registers: k.Buffer, piece: int = 1) -> None:
    """Zeros in registers that are used one by one, or in pieces."""
    with w.loop("i", 0, k.floordiv(k.expr(registers.size), piece), "unroll") as i:
        if piece == 1:
            w.write(k.Store(registers, i, zero(registers.dtype)))
            return
        with w.loop("v", 0, piece, "vector", width=piece) as v:
            w.write(k.Store(registers, k.add(k.mul(i, piece), v), zero(registers.dtype)))
