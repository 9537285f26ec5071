"""Attention on tensor cores: a block of threads for 64 rows of queries, keys block by block.

Scores and probabilities stay in registers. Of each row there are the largest score so far, the sum of
the exponentials and the sums of values; a larger score scales both sums down (T. Dao, "FlashAttention-2",
2023). The next block of keys and values is copied while this one is worked on.
"""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.attention import attention_of
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import ceil_div, product
from tilewright.ir.types import DType, accumulator, as_number, bool_, f32

WARPS, WARP_ROWS, KEYS = 4, 16, 64
"""Warps of a block, rows of a warp, and keys of a step."""

ROWS, THREADS = WARPS * WARP_ROWS, WARPS * 32

PIECE = 8
"""16-bit elements of a copy."""

STAGES = 2


def lower_attention(group: Group, target: Target) -> LoweredKernel:
    """The kernel of a group of the family attention."""
    return _Attention(group).lower()


class Tile:
    """Rows of an operand in shared memory, eight elements apart from each other, so that the rows of
    a matrix that a warp loads lie in different banks.

    rows    of a tile, ``extent`` of the operand
    labels  of the operand's axes; ``row`` and ``column`` are those of a tile
    """

    def __init__(
        self, node: Node, labels: tuple[int, ...], row: int, column: int, rows: int
    ) -> None:
        self.node, self.labels, self.row, self.column, self.rows = node, labels, row, column, rows
        self.extent = as_number(node.shape[labels.index(row)])
        self.width = as_number(node.shape[labels.index(column)])
        self.pitch = self.width + PIECE
        self.size = rows * self.pitch

    def index(self, places: dict[int, k.Expr], row: k.Expr, column: k.Expr) -> Index:
        """Where an element is in the operand."""
        at = {**places, self.row: row, self.column: column}
        return tuple(at[label] for label in self.labels)


class _Attention:
    """The kernel under construction.

    lane, warp, g, t  of a thread: its numbers, lane / 4 and lane % 4
    """

    def __init__(self, group: Group) -> None:
        self.group, self.a = group, attention_of(group.anchors)
        self.w, self.outputs = group.writer(), output_buffers(group)
        a = self.a
        *self.batch, self.row, self.key = a.first.attrs.out
        self.q = Tile(*a.queries, self.row, a.depth, ROWS)
        self.k = Tile(*a.keys, self.key, a.depth, KEYS)
        self.v = Tile(*a.values, a.chances[-1], a.columns, KEYS)
        self.dtype = self.v.node.dtype
        self.power = a.total.inputs[0].dtype
        self.sums = accumulator(a.total.dtype)

    def lower(self) -> LoweredKernel:
        w = self.w
        extents = [*self.a.first.shape[:-2], ceil_div(self.q.extent, ROWS)]
        with w.loop("block", 0, product(extents), "block") as block:
            *batch, part = (w.let("o", e) for e in unflatten(block, extents))
            queries = w.alloc("queries", self.dtype, self.q.size, "shared")
            keys = w.alloc("keys", self.dtype, STAGES * self.k.size, "shared")
            values = w.alloc("values", self.dtype, STAGES * self.v.size, "shared")
            self.tiles = {self.q: queries, self.k: keys, self.v: values}
            with w.loop("thread", 0, THREADS, "thread") as thread:
                self._thread(thread, tuple(batch), w.let("row", k.mul(part, ROWS)))
        return finish(self.group, w, self.outputs)

    def _thread(self, thread: k.Expr, batch: Index, first: k.Expr) -> None:
        w, steps = self.w, ceil_div(self.k.extent, KEYS)
        self.thread = thread
        self.warp, self.lane = w.let("warp", k.floordiv(thread, 32)), w.let("lane", k.mod(thread, 32))
        self.g, self.t = w.let("g", k.floordiv(self.lane, 4)), w.let("t", k.mod(self.lane, 4))
        self.row_of = w.let("row", k.add(k.add(first, k.mul(self.warp, WARP_ROWS)), self.g))
        inner = dict(zip(self.batch, batch, strict=True))
        outer = dict(zip(self.a.chances[:-2], batch, strict=True))
        self._copy(self.q, inner, first, k.Const(0))
        self._copy(self.k, inner, k.Const(0), k.Const(0))
        self._copy(self.v, outer, k.Const(0), k.Const(0))
        self._run("async_commit")
        result = self._fresh("result", f32, self.v.width // 2, 0)
        top = self._fresh("top", self.a.score.dtype, 2, float("-inf"))
        total = self._fresh("total", self.sums, 2, 0)
        with w.loop("step", 0, steps) as step:
            self._run("async_wait", k.Const(0))
            w.write(k.Barrier())
            after = w.let("after", k.add(step, 1))
            with w.when(k.compare("lt", after, steps)):
                for tile, places in ((self.k, inner), (self.v, outer)):
                    stage = w.let("stage", k.mod(after, STAGES))
                    self._copy(tile, places, w.let("from", k.mul(after, KEYS)), stage)
            self._run("async_commit")
            stage = w.let("stage", k.mod(step, STAGES))
            scores = self._scores(inner, step, stage)
            chances = self._softmax(scores, top, total, result)
            self._add(result, chances, stage)
        self._run("async_wait", k.Const(0))
        self._store(result, total, outer)

    # --- parts ----------------------------------------------------------------------------
    def _run(self, name: str, *operands: k.Expr) -> None:
        self.w.write(k.Instruction(name, operands))

    def _fresh(self, name: str, dtype: DType, size: int, value: float) -> k.Buffer:
        """Registers that hold a number."""
        buffer = self.w.alloc(name, dtype, size, "register")
        with self.w.loop("i", 0, size, "unroll") as i:
            self.w.write(k.Store(buffer, i, number(value, dtype)))
        return buffer

    def _copy(self, tile: Tile, places: dict[int, k.Expr], first: k.Expr, stage: k.Expr) -> None:
        """Begin to copy the rows from ``first`` on; those that the operand does not have are 0."""
        w, line = self.w, tile.width // PIECE
        base = w.let("base", k.mul(stage, tile.size))
        with w.loop("p", 0, ceil_div(tile.rows * line, THREADS), "unroll") as p:
            piece = w.let("piece", k.add(k.mul(p, THREADS), self.thread))
            row = w.let("r", k.floordiv(piece, line))
            column = w.let("c", k.mul(k.mod(piece, line), PIECE))
            to = w.let("to", k.add(base, k.add(k.mul(row, tile.pitch), column)))
            at = w.let("at", k.add(first, row))
            held = w.let("held", k.minimum(at, tile.extent - 1))
            inside = k.compare("lt", at, tile.extent)
            if tile.extent % tile.rows == 0:
                held, inside = at, k.Const(True, bool_)

            def move() -> None:
                source = self._plain(tile, tile.index(places, held, column))
                if source is not None:
                    self._run("async_copy", self.tiles[tile][to], source, inside)
                    return
                with w.loop("e", 0, PIECE, "unroll") as e:
                    index = tile.index(places, held, k.add(column, e))
                    value = k.Call("where", (
                        inside, w.value(tile.node, index), number(0, self.dtype)), self.dtype)
                    w.write(k.Store(self.tiles[tile], k.add(to, e), value))

            if tile.rows * line % THREADS:
                with w.when(k.compare("lt", piece, tile.rows * line)):
                    move()
            else:
                move()
