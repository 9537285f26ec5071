"""Attention on tensor cores: a block of threads for 64 rows of queries, keys block by block.

Scores and probabilities stay in registers. Of each row there are the largest score so far, the sum
of the exponentials and the sums of values; a larger score scales both sums down (T. Dao,
"FlashAttention-2", 2023). The next keys and values are copied while these are worked on.

Steps whose keys a mask hides from all rows of a block are left out. If the mask gives a number
rather than minus infinity, rows that saw nothing much larger go through what was left out as well.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.attention import attention_of
from tilewright.compiler.schedules.gpu.contraction_sides import BESIDE, PIECE, Seen, trial_of
from tilewright.compiler.schedules.gpu.hidden import KEY, ROW, VANISHING, hidden, steps_seen
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import ceil_div, product
from tilewright.ir.types import DType, accumulator, as_number, bool_, f32, i64

WARPS, WARP_ROWS, KEYS = 4, 16, 64
"""Warps of a block, rows of a warp, and keys of a step."""

ROWS, THREADS = WARPS * WARP_ROWS, WARPS * 32

WIDTH = 8
"""16-bit elements of a copy."""

STAGES = 2


def lower_attention(group: Group, target: Target) -> LoweredKernel:
    """The kernel of a group of the family attention."""
    return _Attention(group).lower()


class Tile:
    """Rows of an operand in shared memory, eight elements apart from each other, so that the rows
    of a matrix that a warp loads lie in different banks.

    rows    of a tile, ``extent`` of the operand
    labels  of the operand's axes; ``row`` and ``column`` are those of a tile
    plain   eight elements are 16 bytes in memory
    """

    def __init__(
        self, group: Group, node: Node, labels: tuple[int, ...], row: int, column: int, rows: int
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
        self.q = Tile(group, *a.queries, self.row, a.depth, ROWS)
        self.k = Tile(group, *a.keys, self.key, a.depth, KEYS)
        self.v = Tile(group, *a.values, a.chances[-1], a.columns, KEYS)
        self.dtype = self.v.node.dtype
        self.power = a.total.inputs[0].dtype
        self.sums = accumulator(a.total.dtype)
        place = self._index({label: k.Var(f"at{label}") for label in self.batch}, ROW, KEY)
        self.hidden = hidden(
            group, a.score, self._spread(place), (self.q.extent, self.k.extent))
        self.w.bound |= self.hidden.bands

    def lower(self) -> LoweredKernel:
        w = self.w
        extents = [*self.a.first.shape[:-2], ceil_div(self.q.extent, ROWS)]
        with w.loop("block", 0, product(extents), "block") as block:
            *batch, part = (w.let("o", e) for e in unflatten(block, extents))
            queries = w.alloc("queries", self.dtype, self.q.size, "shared")
            keys = w.alloc("keys", self.dtype, STAGES * self.k.size, "shared")
            values = w.alloc("values", self.dtype, STAGES * self.v.size, "shared")
            self.tiles = {self.q: queries, self.k: keys, self.v: values}
            if self.revisits:
                self.lows = w.alloc("lows", f32, WARPS, "shared")
            with w.loop("thread", 0, THREADS, "thread") as thread:
                self._thread(thread, tuple(batch), w.let("row", k.mul(part, ROWS)))
        return finish(self.group, w, self.outputs)

    @property
    def revisits(self) -> bool:
        """Whether steps that are left out may be needed after all."""
        return bool(self.hidden.bounds) and self.hidden.fill > float("-inf")

    def _thread(self, thread: k.Expr, batch: Index, first: k.Expr) -> None:
        w = self.w
        self.thread = thread
        self.warp = w.let("warp", k.floordiv(thread, 32))
        self.lane = w.let("lane", k.mod(thread, 32))
        self.g, self.t = w.let("g", k.floordiv(self.lane, 4)), w.let("t", k.mod(self.lane, 4))
        self.row_of = w.let("row", k.add(k.add(first, k.mul(self.warp, WARP_ROWS)), self.g))
        self.inner = dict(zip(self.batch, batch, strict=True))
        self.outer = dict(zip(self.a.chances[:-2], batch, strict=True))
        self._copy(self.q, self.inner, first, k.Const(0))
        self.result = self._fresh("result", f32, self.v.width // 2, 0)
        self.top = self._fresh("top", self.a.score.dtype, 2, float("-inf"))
        self.total = self._fresh("total", self.sums, 2, 0)
        self._walk(first)
        w.run("async_wait", 0)
        self._store(self.result, self.total, self.outer)

    def _walk(self, first: k.Expr) -> None:
        """Go through the keys, those that the mask hides only if it matters."""
        w, steps = self.w, ceil_div(self.k.extent, KEYS)
        if not self.hidden.bounds:
            self._steps(steps, lambda step: step)
            return
        last = w.let("last", k.minimum(k.add(first, ROWS - 1), self.q.extent - 1))
        start, stop = steps_seen(self.hidden.bounds, first, last, self.k.extent, KEYS)
        start = w.let("start", start)
        count = w.let("count", k.Call("max", (k.sub(stop, start), k.Const(0)), i64))
        if not self.revisits:
            self._steps(count, lambda step: k.add(step, start))
            return
        alone = k.compare("eq", self.lane, 0)
        with w.when(alone):
            w.write(k.Store(self.lows, self.warp, number(float("inf"), f32)))
        w.write(k.Barrier())
        with w.loop("phase", 0, 2) as phase:
            low = w.let("low", self._low())
            again = k.compare("eq", phase, 1)
            w.write(k.Barrier())
            need = k.Call("le", (low, number(self.hidden.fill + VANISHING, f32)), bool_)
            rest = k.Call("where", (need, k.sub(steps, count), k.Const(0)), i64)
            turns = w.let("turns", k.Call("where", (again, rest, count), i64))

            def place(step: k.Expr) -> k.Expr:
                skip = k.both(again, k.compare("lt", step, start))
                seen = k.Call("where", (again, count, start), i64)
                assert skip is not None
                return k.add(step, k.Call("where", (skip, k.Const(0), seen), i64))

            self._steps(turns, place)
            peak = w.let("peak", k.Call("min", (self.top[0], self.top[1]), f32))
            for lane in (4, 8, 16):
                peak = k.Call("min", (peak, w.shuffle("xor", peak, lane)), f32)
                peak = w.let("peak", peak)
            with w.when(alone):
                w.write(k.Store(self.lows, self.warp, peak))
            w.write(k.Barrier())

    def _low(self) -> k.Expr:
        """The smallest of the largest scores of rows."""
        low: k.Expr = self.lows[0]
        for warp in range(1, WARPS):
            low = k.Call("min", (low, self.lows[warp]), f32)
        return low

    def _steps(self, count: k.ExprLike, place: Callable[[k.Expr], k.Expr]) -> None:
        """So many steps, each of :data:`KEYS` keys; ``place``: which ones."""
        w = self.w

        def copy(turn: k.Expr, stage: k.Expr) -> None:
            at = w.let("from", k.mul(place(turn), KEYS))
            self._copy(self.k, self.inner, at, stage)
            self._copy(self.v, self.outer, at, stage)

        some = k.compare("gt", count, 0)
        if k.const_int(count) is None:
            with w.when(some):
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
            stage = w.let("stage", k.mod(step, STAGES))
            scores = self._scores(self.inner, w.let("place", place(step)), stage)
            chances = self._softmax(scores, self.top, self.total, self.result)
            self._add(self.result, chances, stage)

    # --- parts ----------------------------------------------------------------------------
    def _fresh(self, name: str, dtype: DType, size: int, value: float) -> k.Buffer:
        """Registers that hold a number."""
        buffer = self.w.alloc(name, dtype, size, "register")
        with self.w.loop("i", 0, size, "unroll") as i:
            self.w.write(k.Store(buffer, i, number(value, dtype)))
        return buffer

    def _copy(self, tile: Tile, places: dict[int, k.Expr], first: k.Expr, stage: k.Expr) -> None:
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
                    w.run("async_copy", self.tiles[tile][to], source, inside)
                    return
                with w.loop("e", 0, WIDTH, "unroll") as e:
                    index = tile.index(places, held, k.add(column, e))
                    value = k.Call("where", (
                        inside, w.value(tile.node, index), number(0, self.dtype)), self.dtype)
                    w.write(k.Store(self.tiles[tile], k.add(to, e), value))

            if tile.rows * line % THREADS:
                with w.when(k.compare("lt", piece, tile.rows * line)):
                    move()
            else:
                move()

    def _scores(self, places: dict[int, k.Expr], step: k.Expr, stage: k.Expr) -> k.Buffer:
        """What softmax is taken of, 16 rows and 64 keys of a warp; -inf beyond the last key."""
        w, a = self.w, self.a
        sums = self._fresh("sums", f32, KEYS // 2, 0)
        row = k.add(k.mul(self.warp, WARP_ROWS), k.mod(self.lane, 16))
        left = w.let("left", k.add(k.mul(row, self.q.pitch), k.mul(k.floordiv(self.lane, 16), 8)))
        line = k.add(k.mul(k.floordiv(self.lane, 16), 8), k.mod(self.lane, 8))
        half = k.mul(k.mod(k.floordiv(self.lane, 8), 2), 8)
        right = w.let("right", k.add(
            k.mul(stage, self.k.size), k.add(k.mul(line, self.k.pitch), half)))
        with w.loop("d", 0, self.q.width // 16, "unroll") as d:
            part = w.alloc("part", self.dtype, 8, "register")
            w.run("ldmatrix_x4", part[0], self.tiles[self.q][k.add(left, k.mul(d, 16))])
            with w.loop("n", 0, KEYS // 16, "unroll") as n:
                other = w.alloc("other", self.dtype, 8, "register")
                at = k.add(right, k.add(k.mul(n, 16 * self.k.pitch), k.mul(d, 16)))
                w.run("ldmatrix_x4", other[0], self.tiles[self.k][at])
                self._multiply(sums, n, part[0], other)
        scores = w.alloc("scores", a.score.dtype, KEYS // 2, "register")
        with w.loop("i", 0, KEYS // 2, "unroll") as i:
            key = self._key(step, i)
            index = self._place(places, k.add(self.row_of, self._down(i)), key)
            hold(w, a.first, w.let("s", converted(sums[i], a.first.dtype)), index)
            value = w.value(a.score, self._spread(index))
            if self.k.extent % KEYS:
                least = number(float("-inf"), a.score.dtype)
                inside = k.compare("lt", key, self.k.extent)
                value = k.Call("where", (inside, value, least), a.score.dtype)
            w.write(k.Store(scores, i, value))
            w.bound.pop(a.first)
        return scores

    def _key(self, step: k.Expr, i: k.Expr) -> k.Expr:
        """The key of one of a thread's scores."""
        across = k.add(k.mul(k.floordiv(i, 4), 8), k.mod(i, 2))
        return self.w.let("key", k.add(k.add(k.mul(step, KEYS), across), k.mul(self.t, 2)))

    def _down(self, i: k.Expr) -> k.Expr:
        """How far the row of one of a thread's elements is below its first one: 0 or 8."""
        return k.mul(self._half(i), 8)

    def _half(self, i: k.Expr) -> k.Expr:
        """Which of its two rows one of a thread's elements is in."""
        return k.mod(k.floordiv(i, 2), 2)

    def _place(self, places: dict[int, k.Expr], row: k.Expr, key: k.Expr) -> Index:
        """The index of a score, or of another that there is, in place of one that there is not."""
        if self.q.extent % ROWS:
            row = k.minimum(row, self.q.extent - 1)
        if self.k.extent % KEYS:
            key = k.minimum(key, self.k.extent - 1)
        return self._index(places, self.w.let("row", row), self.w.let("key", key))

    def _index(self, places: dict[int, k.Expr], row: k.Expr, key: k.Expr) -> Index:
        """The index of a score among those of the first contraction."""
        at, first = {**places, self.row: row, self.key: key}, self.a.first
        return tuple(
            k.Const(0) if d == 1 else at[label]
            for label, d in zip(first.attrs.out, first.shape, strict=True))

    def _spread(self, index: Index) -> Index:
        """The same place among the scores that softmax is taken of."""
        pairs = zip(index, self.a.first.shape, strict=True)
        rest = iter([i for i, d in pairs if d != 1])
        return tuple(k.Const(0) if d == 1 else next(rest) for d in self.a.score.shape)

    def _multiply(self, sums: k.Buffer, n: k.Expr, part: k.Load, other: k.Buffer) -> None:
        """Two products, of 16 rows and 8 columns each."""
        first = k.mul(n, 8)
        self.w.run("mma_m16n8k16", sums[first], part, other[0])
        self.w.run("mma_m16n8k16", sums[k.add(first, 4)], part, other[4])

    def _softmax(
        self, scores: k.Buffer, top: k.Buffer, total: k.Buffer, result: k.Buffer
    ) -> k.Buffer:
        """The exponentials; ``top``, ``total`` and ``result`` are brought up to date."""
        w, dtype = self.w, scores.dtype
        peak = w.alloc("peak", dtype, 2, "register")
        shift = w.alloc("shift", dtype, 2, "register")
        factor = w.alloc("factor", self.sums, 2, "register")
        with w.loop("h", 0, 2, "unroll") as h:
            w.write(k.Store(peak, h, top[h]))
        with w.loop("i", 0, KEYS // 2, "unroll") as i:
            w.write(k.Accumulate(peak, self._half(i), "max", scores[i]))
        with w.loop("h", 0, 2, "unroll") as h:
            for lane in (1, 2):
                w.write(k.Accumulate(peak, h, "max", w.shuffle("xor", peak[h], lane)))
            # A row without any score so far has nothing to subtract.
            none = k.Call("eq", (peak[h], number(float("-inf"), dtype)), bool_)
            w.write(k.Store(
                shift, h, k.Call("where", (none, number(0, dtype), peak[h]), dtype)))
            down = k.Call("exp", (k.Call("sub", (top[h], shift[h]), dtype),), dtype)
            w.write(k.Store(factor, h, converted(down, self.sums)))
            w.write(k.Store(top, h, peak[h]))
            w.write(k.Store(total, h, k.Call("mul", (total[h], factor[h]), self.sums)))
        with w.loop("i", 0, result.size, "unroll") as i:
            scale = converted(factor[self._half(i)], f32)
            w.write(k.Store(result, i, k.Call("mul", (result[i], scale), f32)))
        chances = w.alloc("chances", self.dtype, KEYS // 2, "register")
        with w.loop("i", 0, KEYS // 2, "unroll") as i:
            less = k.Call("sub", (scores[i], shift[self._half(i)]), dtype)
            power = w.let("power", k.Call("exp", (less,), dtype))
            w.write(k.Accumulate(total, self._half(i), "add", converted(power, self.sums)))
            w.write(k.Store(chances, i, converted(power, self.dtype)))
        return chances

    def _add(self, result: k.Buffer, chances: k.Buffer, stage: k.Expr) -> None:
        """Add the values, as much of each as its probability is."""
        w = self.w
        line = k.add(k.mul(k.mod(k.floordiv(self.lane, 8), 2), 8), k.mod(self.lane, 8))
        beside = k.mul(k.floordiv(self.lane, 16), 8)
        base = w.let("base", k.add(
            k.mul(stage, self.v.size), k.add(k.mul(line, self.v.pitch), beside)))
        with w.loop("d", 0, KEYS // 16, "unroll") as d:
            with w.loop("n", 0, self.v.width // 16, "unroll") as n:
                other = w.alloc("other", self.dtype, 8, "register")
                at = k.add(base, k.add(k.mul(d, 16 * self.v.pitch), k.mul(n, 16)))
                w.run("ldmatrix_x4_t", other[0], self.tiles[self.v][at])
                self._multiply(result, n, chances[k.mul(d, 8)], other)

    def _store(self, result: k.Buffer, total: k.Buffer, places: dict[int, k.Expr]) -> None:
        """Divide by the sums, and store what follows from the results."""
        w, a = self.w, self.a
        with w.loop("h", 0, 2, "unroll") as h:
            for lane in (1, 2):
                w.write(k.Accumulate(total, h, "add", w.shuffle("xor", total[h], lane)))
            w.write(k.Store(total, h, k.Call("div", (number(1, self.sums), total[h]), self.sums)))
        with w.loop("h", 0, 2, "unroll") as h:
            row = w.let("row", k.add(self.row_of, k.mul(h, 8)))

            def columns() -> None:
                with w.loop("n", 0, self.v.width // 8, "unroll") as n:
                    column = w.let("column", k.add(k.mul(n, 8), k.mul(self.t, 2)))
                    slot = k.add(k.mul(n, 4), k.mul(h, 2))
                    with w.loop("v", 0, 2, "vector", width=2) as v:
                        share = converted(total[h], f32)
                        value = k.Call("mul", (result[k.add(slot, v)], share), f32)
                        at = {**places, a.chances[-2]: row, a.columns: k.add(column, v)}
                        index = tuple(at[label] for label in a.last.attrs.out)
                        hold(w, a.last, w.let("r", converted(value, a.last.dtype)), index)
                        store_all(self.group, w, self.outputs, index)
                        w.bound.pop(a.last)

            if self.q.extent % ROWS:
                with w.when(k.compare("lt", row, self.q.extent)):
                    columns()
            else:
                columns()
