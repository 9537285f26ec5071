"""Tiles of operands in shared memory, and what a block of four warps does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tilewright.compiler.schedules.access import Index, Writer
from tilewright.compiler.schedules.gpu.contraction_sides import BESIDE, PIECE, Seen, trial_of
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.schedules.reduction import number
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import ceil_div
from tilewright.ir.types import DType, as_number, bool_, f32

WARPS, WARP_ROWS = 4, 16
"""Warps of a block, rows of a warp."""

ROWS, THREADS = WARPS * WARP_ROWS, WARPS * 32

WIDTH = 8
"""16-bit elements of a copy."""

STAGES = 2


class Tile:
    """Rows of an operand in shared memory, eight elements apart from each other, so that the rows
    of a matrix that a warp loads lie in different banks.

    rows    of a tile, ``extent`` of the operand
    labels  of the operand's axes; ``row`` and ``column`` are those of a tile
    plain   eight elements are 16 bytes in memory
    """

    def __init__(
        self, group: Group, node: Node, labels: Sequence[int], row: int, column: int, rows: int
    ) -> None:
        self.node, self.labels, self.row, self.column, self.rows = node, labels, row, column, rows
        self.extent = as_number(node.shape[labels.index(row)])
        self.width = as_number(node.shape[labels.index(column)])
        self.pitch = self.width + WIDTH
        self.size = rows * self.pitch
        trial, batch = trial_of(group), {label: k.Var(f"at{label}") for label in labels}
        e = trial.value(node, self.index(dict(batch), k.Var("row"), k.add(PIECE, BESIDE)))
        seen = Seen(trial)
        e = seen.named(e)
        self.plain = isinstance(e, k.Load) and seen.wide(e, WIDTH)

    def index(self, places: Mapping[int, k.Expr], row: k.Expr, column: k.Expr) -> Index:
        """Where an element is in the operand."""
        at = {**places, self.row: row, self.column: column}
        return tuple(at[label] for label in self.labels)

    def alloc(self, w: Writer, name: str, stages: int) -> None:
        """Have shared memory for so many of it."""
        self.buffer = w.alloc(name, self.node.dtype, stages * self.size, "shared")


class Threads:
    """The threads of a block: each warp has 16 rows of results.

    lane, warp, g, t  of a thread: its numbers, lane / 4 and lane % 4
    """

    def __init__(self, w: Writer, thread: k.Expr) -> None:
        self.w, self.thread = w, thread
        self.warp = w.let("warp", k.floordiv(thread, 32))
        self.lane = w.let("lane", k.mod(thread, 32))
        self.g, self.t = w.let("g", k.floordiv(self.lane, 4)), w.let("t", k.mod(self.lane, 4))

    # --- where a thread's elements are ------------------------------------------------------
    def row(self, first: k.Expr) -> k.Expr:
        """The first of a thread's two rows; the other is 8 below."""
        return self.w.let("row", k.add(k.add(first, k.mul(self.warp, WARP_ROWS)), self.g))

    @staticmethod
    def half(i: k.Expr) -> k.Expr:
        """Which of its two rows one of a thread's elements is in."""
        return k.mod(k.floordiv(i, 2), 2)

    def across(self, first: k.Expr, i: k.Expr) -> k.Expr:
        """The column of one of a thread's elements, in columns from ``first`` on."""
        across = k.add(k.mul(k.floordiv(i, 4), 8), k.mod(i, 2))
        return k.add(k.add(first, across), k.mul(self.t, 2))

    # --- memory -----------------------------------------------------------------------------
    def fresh(self, name: str, dtype: DType, size: int, value: float) -> k.Buffer:
        """Registers that hold a number."""
        buffer = self.w.alloc(name, dtype, size, "register")
        with self.w.loop("i", 0, size, "unroll") as i:
            self.w.write(k.Store(buffer, i, number(value, dtype)))
        return buffer

    def copy(
        self, tile: Tile, places: Mapping[int, k.Expr], first: k.Expr, stage: k.Expr
    ) -> None:
        """Begin to copy the rows from ``first`` on; those that the operand does not have are 0."""
        w, line = self.w, tile.width // WIDTH
        base = w.let("base", k.mul(stage, tile.size))
        with w.loop("p", 0, ceil_div(tile.rows * line, THREADS), "unroll") as p:
            piece = w.let("piece", k.add(k.mul(p, THREADS), self.thread))
            row = w.let("r", k.floordiv(piece, line))
            column = w.let("c", k.mul(k.mod(piece, line), WIDTH))
            to = w.let("to", k.add(base, k.add(k.mul(row, tile.pitch), column)))
            at = w.let("at", k.add(first, row))
            held = w.let("held", k.minimum(at, tile.extent - 1))
            inside = k.compare("lt", at, tile.extent)
            if tile.extent % tile.rows == 0:
                held, inside = at, k.Const(True, bool_)

            def move() -> None:
                if tile.plain:
                    source = w.place(tile.node, tile.index(places, held, column))
                    w.run("async_copy", tile.buffer[to], source, inside)
                    return
                with w.loop("e", 0, WIDTH, "unroll") as e:
                    index = tile.index(places, held, k.add(column, e))
                    value = k.Call("where", (
                        inside, w.value(tile.node, index), number(0, tile.node.dtype)),
                        tile.node.dtype)
                    w.write(k.Store(tile.buffer, k.add(to, e), value))

            if tile.rows * line % THREADS:
                with w.when(k.compare("lt", piece, tile.rows * line)):
                    move()
            else:
                move()

    @contextmanager
    def steps(
        self, count: k.ExprLike, copy: Callable[[k.Expr, k.Expr], None]
    ) -> Iterator[tuple[k.Expr, k.Expr]]:
        """Go through so many steps; the next one's tiles are under way meanwhile.

        ``copy(step, stage)`` begins to copy a step's tiles. Gives the step and where its tiles are.
        """
        w = self.w
        if k.const_int(count) is None:
            with w.when(k.compare("gt", count, 0)):
                copy(k.Const(0), k.Const(0))
        else:
            copy(k.Const(0), k.Const(0))
        w.run("async_commit")
        with w.loop("step", 0, count) as step:
            w.run("async_wait", 0)
            w.write(k.Barrier())
            after = w.let("after", k.add(step, 1))
            with w.when(k.compare("lt", after, count)):
                copy(after, w.let("stage", k.mod(after, STAGES)))
            w.run("async_commit")
            yield step, w.let("stage", k.mod(step, STAGES))

    # --- products ---------------------------------------------------------------------------
    def product(self, name: str, left: Tile, right: Tile, stage: k.Expr) -> k.Buffer:
        """The products of a warp's 16 rows of ``left`` and all rows of a stage of ``right``."""
        w, dtype = self.w, left.node.dtype
        sums = self.fresh(name, f32, right.rows // 2, 0)
        row = k.add(k.mul(self.warp, WARP_ROWS), k.mod(self.lane, 16))
        first = w.let("left", k.add(k.mul(row, left.pitch), k.mul(k.floordiv(self.lane, 16), 8)))
        line = k.add(k.mul(k.floordiv(self.lane, 16), 8), k.mod(self.lane, 8))
        half = k.mul(k.mod(k.floordiv(self.lane, 8), 2), 8)
        base = w.let("right", k.add(
            k.mul(stage, right.size), k.add(k.mul(line, right.pitch), half)))
        with w.loop("d", 0, left.width // 16, "unroll") as d:
            part = w.alloc("part", dtype, 8, "register")
            w.run("ldmatrix_x4", part[0], left.buffer[k.add(first, k.mul(d, 16))])
            with w.loop("n", 0, right.rows // 16, "unroll") as n:
                other = w.alloc("other", dtype, 8, "register")
                at = k.add(base, k.add(k.mul(n, 16 * right.pitch), k.mul(d, 16)))
                w.run("ldmatrix_x4", other[0], right.buffer[at])
                self._multiply(sums, n, part[0], other)
        return sums

    def _multiply(self, sums: k.Buffer, n: k.Expr, part: k.Load, other: k.Buffer) -> None:
        """Two products, of 16 rows and 8 columns each."""
        first = k.mul(n, 8)
        self.w.run("mma_m16n8k16", sums[first], part, other[0])
        self.w.run("mma_m16n8k16", sums[k.add(first, 4)], part, other[4])

    def add(self, result: k.Buffer, made: k.Buffer, tile: Tile, stage: k.Expr) -> None:
        """Add the rows of a stage, each as often as ``made`` says: 16 rows of a warp."""
        w = self.w
        line = k.add(k.mul(k.mod(k.floordiv(self.lane, 8), 2), 8), k.mod(self.lane, 8))
        beside = k.mul(k.floordiv(self.lane, 16), 8)
        base = w.let("base", k.add(
            k.mul(stage, tile.size), k.add(k.mul(line, tile.pitch), beside)))
        with w.loop("d", 0, tile.rows // 16, "unroll") as d:
            with w.loop("n", 0, tile.width // 16, "unroll") as n:
                other = w.alloc("other", tile.node.dtype, 8, "register")
                at = k.add(base, k.add(k.mul(d, 16 * tile.pitch), k.mul(n, 16)))
                w.run("ldmatrix_x4_t", other[0], tile.buffer[at])
                self._multiply(result, n, made[k.mul(d, 8)], other)

    # --- what all agree on ------------------------------------------------------------------
    def least(self, lows: k.Buffer, value: k.Expr, lanes: Sequence[int]) -> k.Expr:
        """The smallest of what the threads of a block have, by way of shared memory.

        lanes  by which of a warp's threads their values may differ: powers of two
        """
        w = self.w
        for lane in lanes:
            value = w.let("low", value)
            value = k.Call("min", (value, w.shuffle("xor", value, lane)), value.dtype)
        value = w.let("low", value)
        with w.when(k.compare("eq", self.lane, 0)):
            w.write(k.Store(lows, self.warp, value))
        w.write(k.Barrier())
        return w.let("low", smallest(lows))


def smallest(lows: k.Buffer) -> k.Expr:
    """The smallest number of a buffer."""
    low: k.Expr = lows[0]
    for i in range(1, as_number(lows.size)):
        low = k.Call("min", (low, lows[i]), lows.dtype)
    return low
