"""Attention on tensor cores: a block of threads for 64 rows of queries, keys block by block.

Scores and probabilities stay in registers. Of each row there are the largest score so far, the sum
of the exponentials and the sums of values; a larger score scales both sums down (T. Dao,
"FlashAttention-2", 2023). The next keys and values are copied while these are worked on.

Steps whose keys a mask hides from all rows of a block are left out. If the mask gives a number
rather than minus infinity, rows that saw nothing much larger go through what was left out as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.attention import attention_of
from tilewright.compiler.schedules.gpu.attention_tiles import (
    ROWS,
    STAGES,
    THREADS,
    WARPS,
    Threads,
    Tile,
    smallest,
)
from tilewright.compiler.schedules.gpu.hidden import KEY, ROW, VANISHING, hidden, steps_seen
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.sizes import ceil_div, product
from tilewright.ir.types import accumulator, bool_, f32, i64

KEYS = 64
"""Keys of a step."""


def lower_attention(group: Group, target: Target) -> LoweredKernel:
    """The kernel of a group of the family attention."""
    return _Attention(group).lower()


class _Attention:
    """The kernel under construction."""

    def __init__(self, group: Group) -> None:
        self.group, self.a = group, attention_of(group.anchors)
        self.w, self.outputs = group.writer(), output_buffers(group)
        a = self.a
        stores = list(zip(group.stores, self.outputs, strict=True))
        self.kept = [(value, buffer) for (value, _), buffer in stores if value in (a.top, a.total)]
        self.by_column = replace(group, stores=[
            store for store, _ in stores if store[0] not in (a.top, a.total)])
        self.results = [buffer for (value, _), buffer in stores if value not in (a.top, a.total)]
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
            self.q.alloc(w, "queries", 1)
            self.k.alloc(w, "keys", STAGES)
            self.v.alloc(w, "values", STAGES)
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
        self.own = own = Threads(w, thread)
        self.row_of = own.row(first)
        self.inner = dict(zip(self.batch, batch, strict=True))
        self.outer = dict(zip(self.a.chances[:-2], batch, strict=True))
        own.copy(self.q, self.inner, first, k.Const(0))
        self.result = own.fresh("result", f32, self.v.width // 2, 0)
        self.top = own.fresh("top", self.a.score.dtype, 2, float("-inf"))
        self.total = own.fresh("total", self.sums, 2, 0)
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
        alone = k.compare("eq", self.own.lane, 0)
        with w.when(alone):
            w.write(k.Store(self.lows, self.own.warp, number(float("inf"), f32)))
        w.write(k.Barrier())
        with w.loop("phase", 0, 2) as phase:
            low = w.let("low", smallest(self.lows))
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
            peak = k.Call("min", (self.top[0], self.top[1]), f32)
            self.own.least(self.lows, peak, (4, 8, 16))

    def _steps(self, count: k.ExprLike, place: Callable[[k.Expr], k.Expr]) -> None:
        """So many steps, each of :data:`KEYS` keys; ``place``: which ones."""
        w = self.w

        def copy(turn: k.Expr, stage: k.Expr) -> None:
            at = w.let("from", k.mul(place(turn), KEYS))
            self.own.copy(self.k, self.inner, at, stage)
            self.own.copy(self.v, self.outer, at, stage)

        with self.own.steps(count, copy) as (step, stage):
            scores = self._scores(self.inner, w.let("place", place(step)), stage)
            chances = self._softmax(scores, self.top, self.total, self.result)
            self.own.add(self.result, chances, self.v, stage)

    # --- parts ----------------------------------------------------------------------------
    def _scores(self, places: dict[int, k.Expr], step: k.Expr, stage: k.Expr) -> k.Buffer:
        """What softmax is taken of, 16 rows and 64 keys of a warp; -inf beyond the last key."""
        w, a = self.w, self.a
        sums = self.own.product("sums", self.q, self.k, stage)
        scores = w.alloc("scores", a.score.dtype, KEYS // 2, "register")
        with w.loop("i", 0, KEYS // 2, "unroll") as i:
            key = w.let("key", self.own.across(k.mul(step, KEYS), i))
            row = k.add(self.row_of, k.mul(self.own.half(i), 8))
            index = self._place(places, row, key)
            hold(w, a.first, w.let("s", converted(sums[i], a.first.dtype)), index)
            value = w.value(a.score, self._spread(index))
            if self.k.extent % KEYS:
                least = number(float("-inf"), a.score.dtype)
                inside = k.compare("lt", key, self.k.extent)
                value = k.Call("where", (inside, value, least), a.score.dtype)
            w.write(k.Store(scores, i, value))
            w.bound.pop(a.first)
        return scores

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
            w.write(k.Accumulate(peak, self.own.half(i), "max", scores[i]))
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
            scale = converted(factor[self.own.half(i)], f32)
            w.write(k.Store(result, i, k.Call("mul", (result[i], scale), f32)))
        chances = w.alloc("chances", self.dtype, KEYS // 2, "register")
        with w.loop("i", 0, KEYS // 2, "unroll") as i:
            less = k.Call("sub", (scores[i], shift[self.own.half(i)]), dtype)
            power = w.let("power", k.Call("exp", (less,), dtype))
            w.write(k.Accumulate(total, self.own.half(i), "add", converted(power, self.sums)))
            w.write(k.Store(chances, i, converted(power, self.dtype)))
        return chances

    def _store(self, result: k.Buffer, total: k.Buffer, places: dict[int, k.Expr]) -> None:
        """Divide by the sums, and store what follows from the results."""
        w = self.w
        with w.loop("h", 0, 2, "unroll") as h:
            for lane in (1, 2):
                w.write(k.Accumulate(total, h, "add", w.shuffle("xor", total[h], lane)))
        with w.loop("h", 0, 2, "unroll") as h:
            row = w.let("row", k.add(self.row_of, k.mul(h, 8)))
            inside = k.compare("lt", row, self.q.extent) if self.q.extent % ROWS else None
            if self.kept:
                alone = k.both(inside, k.compare("eq", self.own.t, 0))
                assert alone is not None
                with w.when(alone):
                    self._keep(row, h)
            w.write(k.Store(total, h, k.Call("div", (number(1, self.sums), total[h]), self.sums)))
            if inside is None:
                self._columns(result, converted(total[h], f32), places, row, h)
            else:
                with w.when(inside):
                    self._columns(result, converted(total[h], f32), places, row, h)

    def _keep(self, row: k.Expr, h: k.Expr) -> None:
        """Store a row's largest score, its sum, or both, if something else asks for them."""
        a = self.a
        at = self._spread(self._index(self.inner, row, k.Const(0)))[:-1]
        held = {a.top: self.top, a.total: self.total}
        for value, buffer in self.kept:
            number_ = converted(held[value][h], value.dtype)
            self.w.write(k.Store(buffer, flat(at, value.shape), number_))

    def _columns(
        self, result: k.Buffer, share: k.Expr, places: dict[int, k.Expr], row: k.Expr, h: k.Expr
    ) -> None:
        """Store one row's columns."""
        w, a = self.w, self.a
        with w.loop("n", 0, self.v.width // 8, "unroll") as n:
            column = w.let("column", k.add(k.mul(n, 8), k.mul(self.own.t, 2)))
            slot = k.add(k.mul(n, 4), k.mul(h, 2))
            with w.loop("v", 0, 2, "vector", width=2) as v:
                value = k.Call("mul", (result[k.add(slot, v)], share), f32)
                at = {**places, a.chances[-2]: row, a.columns: k.add(column, v)}
                index = tuple(at[label] for label in a.last.attrs.out)
                hold(w, a.last, w.let("r", converted(value, a.last.dtype)), index)
                store_all(self.by_column, w, self.results, index)
                w.bound.pop(a.last)
