"""Contractions with few rows or few columns: every element of the other operand is read once.

Matrix times vector is the case of one. Where the large operand has neighbours along what is summed,
a warp sums up for each of its rows; else a thread has a few of its columns, and the warps of a
block share what is summed.
"""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.contraction_shape import Roles
from tilewright.compiler.schedules.gpu.contraction_engines import WARP, clear
from tilewright.compiler.schedules.gpu.contraction_results import Results, below, sums_of
from tilewright.compiler.schedules.gpu.contraction_sides import Side, inside, zero
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import ceil_div, product

THIN = 8
"""Rows, or columns, that are few."""

WARPS = 8
"""Warps of a block."""

FLYING = 4
"""Accesses of a thread under way at once."""


def lower_thin(group: Group, target: Target, roles: Roles) -> LoweredKernel:
    """A contraction of which one operand has at most :data:`THIN` rows."""
    m, n = roles.m, roles.n
    few = "lhs" if isinstance(m, int) and m <= THIN and estimate(n) >= m else "rhs"
    made = _Thin(group, target, roles, few)
    return made.lower()


class _Thin(Results):
    """``few`` has ``count`` rows, ``many`` any number."""

    def __init__(self, group: Group, target: Target, roles: Roles, few: str) -> None:
        super().__init__(group, target, roles)
        sums = sums_of(self.node)
        self.few = self.side(few, sums)
        self.many = self.side("rhs" if few == "lhs" else "lhs", sums)
        assert isinstance(self.few.rows, int)
        self.count = self.few.rows
        self.along = self.many.unit == "k"
        # In the registers of a thread: a row of the large operand, or a piece of several.
        self.piece = min(self.many.piece, 4)
        if self.along:
            self.piece = self.many.piece

    @property
    def rows_of_block(self) -> int:
        return WARPS if self.along else WARP * self.piece

    @property
    def step(self) -> int:
        """Contracted elements that the threads of a block, or of a warp, take at once."""
        return FLYING * (WARP * self.piece if self.along else WARPS)

    def lower(self) -> LoweredKernel:
        assert self.target.gpu is not None
        w, r = self.w, self.roles
        blocks = ceil_div(self.many.rows, self.rows_of_block)
        steps = ceil_div(r.depth, self.step)
        self.split(self._splits(estimate(r.batch_size) * estimate(blocks), estimate(steps)))
        sizes = [*r.batch_extents, self.splits, blocks]
        with w.loop("block", 0, product(sizes), "block") as number:
            *self.batch, self.part, self.block = (
                w.let("o", e) for e in unflatten(number, sizes))
            low: k.Expr = k.Const(0)
            high = k.expr(steps)
            if self.splits > 1:
                share = ceil_div(steps, self.splits)
                low = w.let("low", k.mul(self.part, share))
                high = w.let("high", k.minimum(k.add(low, share), steps))
            self._block(low, high)
        return self.finish()

    def _splits(self, blocks: int, steps: int) -> int:
        """Blocks that share a sum, so that all multiprocessors have some to do."""
        assert self.target.gpu is not None
        wanted = 4 * self.target.gpu.multiprocessors // max(1, blocks)
        return max(1, min(wanted, steps // 4, 64))

    def _block(self, low: k.Expr, high: k.Expr) -> None:
        w = self.w
        each = 1 if self.along else self.piece
        if not self.along:
            size = WARPS * self.count * self.rows_of_block
            self.meeting = w.alloc("meeting", self.sums, size, "shared")
        with w.loop("thread", 0, WARPS * WARP, "thread") as thread:
            self.lane = w.let("lane", k.mod(thread, WARP))
            self.warp = w.let("warp", k.floordiv(thread, WARP))
            sums = w.alloc("sums", self.sums, self.count * each, "register")
            clear(w, sums)
            with w.loop("step", low, high) as step:
                with w.loop("u", 0, FLYING, "unroll") as u:
                    (self._along if self.along else self._across)(sums, step, u)
            if self.along:
                self._join_warp(sums)
            else:
                self._join_block(sums, thread)

    # --- a warp for each row ------------------------------------------------------------
    def _along(self, sums: k.Buffer, step: k.Expr, u: k.Expr) -> None:
        """Add a piece of a row times the same of the few."""
        w = self.w
        offset = k.mul(k.add(k.mul(u, WARP), self.lane), self.piece)
        at, valid = inside(step, self.step, offset, self.roles.depth, self.piece)
        row, _ = inside(self.block, WARPS, self.warp, self.many.rows, 1)
        at, row = w.let("at", at), w.let("row", row)
        valid = None if valid is None else w.let("valid", valid)
        large = self._piece(self.many, row, at, valid)
        with w.loop("r", 0, self.count, "unroll") as r:
            small = self._piece(self.few, r, at, valid)
            with w.loop("e", 0, self.piece, "unroll") as e:
                product_ = k.Call("mul", (large[e], small[e]), self.sums)
                w.write(k.Accumulate(sums, r, "add", product_))

    def _piece(self, side: Side, row: k.Expr, at: k.Expr, valid: k.Expr | None) -> k.Buffer:
        """Neighbours along what is summed, in registers; zeros beyond its end."""
        w = self.w
        held = w.alloc("piece", self.sums, self.piece, "register")
        together = side.unit == "k" and side.piece >= self.piece > 1

        def element(e: k.Expr) -> None:
            value = side.value(w, tuple(self.batch), row, at, e) if together else side.value(
                w, tuple(self.batch), row, k.add(at, e))
            if valid is not None:
                value = k.Call("where", (valid, value, zero(self.sums)), self.sums)
            w.write(k.Store(held, e, value))

        if together:
            with w.loop("v", 0, self.piece, "vector", width=self.piece) as v:
                element(v)
        else:
            with w.loop("v", 0, self.piece, "unroll") as v:
                element(v)
        return held

    def _join_warp(self, sums: k.Buffer) -> None:
        """Add up what the threads of a warp have, and store the results of its row."""
        w = self.w
        totals: list[k.Expr] = []
        for r in range(self.count):
            total = w.let("total", sums[r])
            distance = WARP // 2
            while distance:
                other = w.shuffle("xor", total, distance)
                total = w.let("total", k.Call("add", (total, other), self.sums))
                distance //= 2
            totals.append(total)
        first = k.compare("eq", self.lane, 0)
        position = k.add(k.mul(self.block, WARPS), self.warp)

        def store() -> None:
            many = w.let("row", position)
            for r, total in enumerate(totals):
                self._write(many, k.Const(r), total)
        self.when([first, below(position, self.many.rows, WARPS)], store)

    def _write(self, many: k.Expr, few: k.Expr, total: k.Expr) -> None:
        row, column = (few, many) if self.few.free == "m" else (many, few)
        self.write(self.index(tuple(self.batch), row, column), total, self.part)

    # --- a thread for each piece of columns ---------------------------------------------
    def _across(self, sums: k.Buffer, step: k.Expr, u: k.Expr) -> None:
        """Add a contracted element's piece of columns times the same of the few."""
        w = self.w
        at, valid = inside(
            step, self.step, k.add(k.mul(u, WARPS), self.warp), self.roles.depth, 1)
        row, _ = inside(
            self.block, self.rows_of_block, k.mul(self.lane, self.piece), self.many.rows,
            self.piece)
        at, row = w.let("at", at), w.let("row", row)
        large = w.alloc("piece", self.sums, self.piece, "register")

        def element(e: k.ExprLike) -> None:
            value = self.many.value(w, tuple(self.batch), row, at, e)
            w.write(k.Store(large, k.expr(e), value))
        if self.piece == 1:
            element(0)
        else:
            with w.loop("v", 0, self.piece, "vector", width=self.piece) as v:
                element(v)
        with w.loop("r", 0, self.count, "unroll") as r:
            small = self.few.value(w, tuple(self.batch), r, at)
            if valid is not None:
                small = k.Call("where", (valid, small, zero(self.sums)), self.sums)
            small = w.let("small", small)
            with w.loop("e", 0, self.piece, "unroll") as e:
                held: k.Expr = large[e]
                if valid is not None:
                    held = k.Call("where", (valid, held, zero(self.sums)), self.sums)
                product_ = k.Call("mul", (small, held), self.sums)
                w.write(k.Accumulate(sums, k.add(k.mul(r, self.piece), e), "add", product_))

    def _join_block(self, sums: k.Buffer, thread: k.Expr) -> None:
        """Add up what the warps have, in their order, a thread for each result."""
        w, columns = self.w, self.rows_of_block
        with w.loop("r", 0, self.count, "unroll") as r, w.loop("e", 0, self.piece, "unroll") as e:
            line = k.mul(k.add(k.mul(self.warp, self.count), r), columns)
            # Threads side by side store side by side.
            place = k.add(k.add(line, k.mul(e, WARP)), self.lane)
            w.write(k.Store(self.meeting, place, sums[k.add(k.mul(r, self.piece), e)]))
        w.write(k.Barrier())
        threads = WARPS * WARP
        with w.loop("i", 0, ceil_div(self.count * columns, threads), "unroll") as i:
            number = k.add(thread, k.mul(i, threads))
            few, c = w.let("few", k.floordiv(number, columns)), w.let("c", k.mod(number, columns))
            position = k.add(
                k.mul(self.block, columns),
                k.add(k.mul(k.mod(c, WARP), self.piece), k.floordiv(c, WARP)))

            def store() -> None:
                total = w.alloc("total", self.sums, 1, "register")
                clear(w, total)
                with w.loop("s", 0, WARPS, "unroll") as s:
                    line = k.mul(k.add(k.mul(s, self.count), few), columns)
                    w.write(k.Accumulate(
                        total, k.Const(0), "add", self.meeting[k.add(line, c)]))
                self._write(w.let("column", position), few, total[0])
            whole = self.count * columns % threads == 0
            self.when([
                None if whole else k.compare("lt", number, self.count * columns),
                below(position, self.many.rows, columns)], store)
