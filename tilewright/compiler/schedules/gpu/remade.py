"""The gradient of attention on tensor cores: a block of threads for 64 rows, or 64 keys.

The block goes through the other axis step by step. Of each step it multiplies the scores again, and
what else the gradient is made of, has them in registers, and adds their product with the rows of
the step to its results (T. Dao, "FlashAttention-2", 2023). Each sum has one owner, so that nothing
is added atomically: gradients of keys and values are one kernel, that of queries is another.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.gpu.attention_tiles import (
    ROWS,
    STAGES,
    THREADS,
    WARPS,
    Threads,
    Tile,
)
from tilewright.compiler.schedules.gpu.hidden import (
    KEY,
    ROW,
    VANISHING,
    Bound,
    Hidden,
    hidden,
    steps_seen,
)
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.schedules.remade import NONE, Operand, Product, remade_of
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node, full_value, topological
from tilewright.ir.sizes import ceil_div, product
from tilewright.ir.types import Shape, bool_, f32, i64

STEPS = (64, 32, 16)
"""Rows or keys of a step, the first for which there are registers and shared memory."""

MOST_HELD = 176
"""Registers of a thread for sums and what they are made of."""


def lower_remade(group: Group, target: Target) -> LoweredKernel:
    """The kernel of a group of the family remade."""
    return _Remade(group, target).lower()


class _Remade:
    """The kernel under construction.

    own, walked  the axes of the domain: of the block's results, and the other
    """

    def __init__(self, group: Group, target: Target) -> None:
        self.group, self.r = group, remade_of(group.anchors)
        self.w, self.outputs = group.writer(), output_buffers(group)
        r = self.r
        self.domain, self.own, self.walked = r.domain, r.own, r.walked
        self.made = list(dict.fromkeys(x.made for x in r.results))
        self.step = self._step(target)
        self.held = {
            x: Tile(group, x.node, x.axes, self.own, -1, ROWS)
            for x in dict.fromkeys(self._side(p, self.own) for p in r.products)}
        walked = [self._side(p, self.walked) for p in r.products]
        self.steps = {
            x: Tile(group, x.node, x.axes, self.walked, -1, self.step)
            for x in dict.fromkeys([*walked, *(y.other for y in r.results)])}
        self.hidden = self._hidden()
        self.w.bound |= self.hidden.bands

    def _side(self, p: Product, axis: int) -> Operand:
        """The operand of a product that has an axis."""
        return p.rows if axis == len(self.domain) - 2 else p.columns

    def _step(self, target: Target) -> int:
        """How far a block goes at a time."""
        r, gpu = self.r, target.gpu
        assert gpu is not None
        sums = sum(x.other.width for x in r.results) // 2
        own = {self._side(p, self.own) for p in r.products}
        others = {self._side(p, self.walked) for p in r.products} | {x.other for x in r.results}

        def fits(step: int, most: int) -> bool:
            held = sums + len(r.products) * step // 2 + len(self.made) * step // 4
            rows = [(x, ROWS) for x in own] + [(x, STAGES * step) for x in others]
            return held <= MOST_HELD and sum(2 * (x.width + 8) * n for x, n in rows) <= most

        two = [s for s in STEPS if fits(s, gpu.shared_all // 2 - 2048)]
        one = [s for s in STEPS if fits(s, gpu.shared_most - 1024)]
        return (two or one or [STEPS[-1]])[0]

    # --- masks ----------------------------------------------------------------------------
    def _hidden(self) -> Hidden:
        """What hides scores, and with them all that is added."""
        less = self.r.power.inputs[0]
        if less.op.name != "sub" or less.dtype is not f32:
            return Hidden()
        if not all(vanishes(x, self.r.power) for x in self.made):
            return Hidden()
        batch = [k.Const(0) if d == 1 else k.Var(f"at{i}") for i, d in enumerate(self.domain[:-2])]
        score = less.inputs[0]
        place = spread((*batch, ROW, KEY), self.domain, score.shape)
        found = hidden(self.group, score, place, (self.domain[-2], self.domain[-1]))
        if self.own == len(self.domain) - 1:
            found.bounds = [Bound(b.keys, b.rows, b.constant) for b in found.bounds if b.rows]
        return found

    def _walk(self, first: k.Expr) -> tuple[k.Expr, k.Expr]:
        """The first step, and how many there are."""
        w, steps = self.w, ceil_div(self.domain[self.walked], self.step)
        if not self.hidden.bounds:
            return k.Const(0), k.Const(steps)
        last = w.let("last", k.minimum(k.add(first, ROWS - 1), self.domain[self.own] - 1))
        start, stop = steps_seen(
            self.hidden.bounds, first, last, self.domain[self.walked], self.step)
        count = k.Call("max", (k.sub(stop, start), k.Const(0)), i64)
        # Rows whose largest score is no larger than what the mask gives see what it hides.
        least = number(self.hidden.fill + VANISHING, f32)
        every = k.Call("not", (k.Call("gt", (self._lowest(), least), bool_),), bool_)
        start = k.Call("where", (every, k.Const(0), start), i64)
        count = k.Call("where", (every, k.Const(steps), count), i64)
        return w.let("start", start), w.let("count", count)

    def _lowest(self) -> k.Expr:
        """The smallest of what is subtracted from the scores of the rows that this block needs."""
        w, less = self.w, self.r.power.inputs[0].inputs[1]
        rows = self.domain[-2]
        low = self.threads.fresh("low", f32, 1, float("inf"))

        def note(row: k.Expr) -> None:
            at = w.let("row", k.minimum(row, rows - 1))
            index = spread((*self.batch, at, k.Const(0)), self.domain, less.shape)
            w.write(k.Accumulate(low, k.Const(0), "min", w.value(less, index)))

        if self.own == len(self.domain) - 2:
            with w.loop("h", 0, 2, "unroll") as h:
                note(k.add(self.row, k.mul(h, 8)))
            return self.threads.least(self.lows, low[0], (4, 8, 16))
        with w.loop("j", 0, ceil_div(rows, THREADS)) as j:
            note(k.add(k.mul(j, THREADS), self.threads.thread))
        return self.threads.least(self.lows, low[0], (1, 2, 4, 8, 16))

    # --- the kernel -----------------------------------------------------------------------
    def lower(self) -> LoweredKernel:
        w = self.w
        extents = [*self.domain[:-2], ceil_div(self.domain[self.own], ROWS)]
        with w.loop("block", 0, product(extents), "block") as block:
            *batch, part = (w.let("o", e) for e in unflatten(block, extents))
            for tile in self.held.values():
                tile.alloc(w, "held", 1)
            for tile in self.steps.values():
                tile.alloc(w, "step", STAGES)
            if self.hidden.bounds:
                self.lows = w.alloc("lows", f32, WARPS, "shared")
            with w.loop("thread", 0, THREADS, "thread") as thread:
                self.batch = tuple(batch)
                self._thread(thread, w.let("first", k.mul(part, ROWS)))
        return finish(self.group, w, self.outputs)

    def _thread(self, thread: k.Expr, first: k.Expr) -> None:
        w = self.w
        self.threads = threads = Threads(w, thread)
        self.row = threads.row(first)
        places: dict[int, k.Expr] = {NONE: k.Const(0), **dict(enumerate(self.batch))}
        for tile in self.held.values():
            threads.copy(tile, places, first, k.Const(0))
        start, count = self._walk(first)

        def copy(turn: k.Expr, stage: k.Expr) -> None:
            at = w.let("from", k.mul(k.add(turn, start), self.step))
            for tile in self.steps.values():
                threads.copy(tile, places, at, stage)

        results = [
            threads.fresh("result", f32, x.other.width // 2, 0) for x in self.r.results]
        with threads.steps(count, copy) as (step, stage):
            made = self._make(w.let("from", k.mul(k.add(step, start), self.step)), stage)
            for x, result in zip(self.r.results, results, strict=True):
                threads.add(result, made[x.made], self.steps[x.other], stage)
        w.run("async_wait", 0)
        self._store(results)

    def _make(self, first: k.Expr, stage: k.Expr) -> dict[Node, k.Buffer]:
        """The made operands' elements of a step, as a warp multiplies them; 0 beyond the last."""
        w, threads, r = self.w, self.threads, self.r
        sums = {
            p.node: threads.product(
                "sums", self.held[self._side(p, self.own)], self.steps[self._side(p, self.walked)],
                stage)
            for p in r.products}
        made = {x: w.alloc("made", x.dtype, self.step // 2, "register") for x in self.made}
        with w.loop("i", 0, self.step // 2, "unroll") as i:
            across = w.let("across", threads.across(first, i))
            index = self._place(k.add(self.row, k.mul(threads.half(i), 8)), across)
            for node, buffer in sums.items():
                value = w.let("s", converted(buffer[i], node.dtype))
                hold(w, node, value, spread(index, self.domain, node.shape))
            for node, buffer in made.items():
                value = w.value(node, index)
                if self.domain[self.walked] % self.step:
                    inside = k.compare("lt", across, self.domain[self.walked])
                    value = k.Call("where", (inside, value, number(0, node.dtype)), node.dtype)
                w.write(k.Store(buffer, i, value))
            for node in sums:
                w.bound.pop(node)
        return made

    def _place(self, own: k.Expr, walked: k.Expr) -> Index:
        """A place of the domain, or another that there is, in place of one that there is not."""
        if self.domain[self.own] % ROWS:
            own = k.minimum(own, self.domain[self.own] - 1)
        if self.domain[self.walked] % self.step:
            walked = k.minimum(walked, self.domain[self.walked] - 1)
        at = {self.own: self.w.let("own", own), self.walked: self.w.let("walked", walked)}
        return (*self.batch, *(at[axis] for axis in sorted(at)))

    def _store(self, results: list[k.Buffer]) -> None:
        """Store what follows from the results."""
        w = self.w
        with w.loop("h", 0, 2, "unroll") as h:
            row = w.let("row", k.add(self.row, k.mul(h, 8)))
            if self.domain[self.own] % ROWS:
                with w.when(k.compare("lt", row, self.domain[self.own])):
                    self._columns(results, row, h)
            else:
                self._columns(results, row, h)

    def _columns(self, results: list[k.Buffer], row: k.Expr, h: k.Expr) -> None:
        """Store one row's columns."""
        w = self.w
        places: dict[int, k.Expr] = {**dict(enumerate(self.batch)), self.own: row}
        for x, result in zip(self.r.results, results, strict=True):
            stores, outputs = self._of(x.node)
            kind: k.LoopKind = "vector" if x.axes[-1] == -1 else "unroll"
            with w.loop("n", 0, x.other.width // 8, "unroll") as n:
                column = w.let("column", k.add(k.mul(n, 8), k.mul(self.threads.t, 2)))
                slot = k.add(k.mul(n, 4), k.mul(h, 2))
                with w.loop("v", 0, 2, kind, width=2 if kind == "vector" else 1) as v:
                    at = {**places, -1: k.add(column, v)}
                    index = tuple(at[axis] for axis in x.axes)
                    value = converted(result[k.add(slot, v)], x.node.dtype)
                    hold(w, x.node, w.let("r", value), index)
                    store_all(stores, w, outputs, index)
                    w.bound.pop(x.node)

    def _of(self, anchor: Node) -> tuple[Group, list[k.Buffer]]:
        """The stores that follow from one of the results."""
        anchors = set(self.group.anchors)

        def rests(value: Node) -> bool:
            below = topological([value], leaf=lambda n: any(n is a for a in anchors - {anchor}))
            return anchor in below

        pairs = [
            (store, buffer) for store, buffer in zip(self.group.stores, self.outputs, strict=True)
            if store[0] is anchor or store[0] not in anchors and rests(store[0])]
        return replace(self.group, stores=[s for s, _ in pairs]), [b for _, b in pairs]


def spread(index: Index, shape: Shape, other: Shape) -> Index:
    """The same place in a shape that has other axes of size 1."""
    rest = iter([i for i, d in zip(index, shape, strict=True) if d != 1])
    return tuple(k.Const(0) if d == 1 else next(rest) for d in other)


def vanishes(node: Node, power: Node) -> bool:
    """Whether a node is 0 where ``power`` is, if nothing else in it is without end."""
    name, sources = node.op.name, node.inputs
    if node is power:
        return True
    if name == "full":
        return float(full_value(node)) == 0
    if name in ("cast", "neg", "reshape"):
        return vanishes(sources[0], power)
    if name == "mul":
        return any(vanishes(x, power) for x in sources)
    if name == "div":
        return vanishes(sources[0], power)
    if name in ("add", "sub"):
        return all(vanishes(x, power) for x in sources)
    return name == "where" and all(vanishes(x, power) for x in sources[1:])
