"""Contractions on a GPU: blocks of the result, from tiles of the operands in shared memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.gpu.contraction_choice import choose
from tilewright.compiler.schedules.gpu.contraction_copies import copied, grouped
from tilewright.compiler.schedules.gpu.contraction_engines import clear
from tilewright.compiler.schedules.gpu.contraction_results import (
    Results,
    below,
    roles_for_gpu,
    sums_of,
)
from tilewright.compiler.schedules.gpu.contraction_sides import pieces_of_result
from tilewright.compiler.schedules.gpu.contraction_specialised import Ring
from tilewright.compiler.schedules.gpu.contraction_stages import Block, loaded, stages_of
from tilewright.compiler.schedules.gpu.contraction_thin import THIN, lower_thin
from tilewright.compiler.schedules.gpu.contraction_warps import GROUP, Wgmma
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.schedules.reduction import converted
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.sizes import Dim, ceil_div, product, smallest
from tilewright.ir.types import i64

TINY = 16
"""Rows and columns below which a block of threads has too little to do."""

SHORT = 64
"""Contracted elements that a thread adds up by itself."""

TOGETHER = 8
"""Blocks along n that are worked on at the same time as those below them, which share operands."""


def lower_contraction(group: Group, target: Target) -> LoweredKernel:
    """One contraction with its elementwise prologues and epilogue."""
    roles = roles_for_gpu(group)
    m, n, depth = roles.m, roles.n, roles.depth
    if isinstance(m, int) and isinstance(n, int):
        if max(m, n) < TINY and isinstance(depth, int) and depth <= SHORT:
            return _Elements(group, target, roles).lower()
    if any(isinstance(d, int) and d <= THIN for d in (m, n)):
        return lower_thin(group, target, roles)
    return _Tiles(group, target, roles).lower()


class _Elements(Results):
    """A thread for each element of the result."""

    def lower(self) -> LoweredKernel:
        w, attrs = self.w, self.node.attrs
        summed = [label for label in attrs.lhs if label not in attrs.out]
        with w.loop("p", 0, product(self.group.shape), "parallel") as p:
            index = tuple(w.let("o", e) for e in unflatten(p, self.group.shape))
            places: dict[int, k.Expr] = dict(zip(attrs.out, index, strict=True))
            total = w.alloc("total", self.sums, 1, "register")
            clear(w, total)
            with ExitStack() as loops:
                for label in summed:
                    places[label] = loops.enter_context(w.loop("k", 0, self.roles.sizes[label]))
                factors = tuple(
                    converted(w.value(x, tuple(places[label] for label in labels)), self.sums)
                    for x, labels in zip(self.node.inputs, (attrs.lhs, attrs.rhs), strict=True))
                w.write(k.Accumulate(
                    total, k.Const(0), "add", k.Call("mul", factors, self.sums)))
            self.write(index, total[0], k.Const(0))
        return self.finish()


class _Tiles(Results):
    """A block of threads for each block of the result."""

    def lower(self) -> LoweredKernel:
        w, r = self.w, self.roles
        sums, own = sums_of(self.node), self.node.dtype
        wide = self.side("lhs", sums), self.side("rhs", sums)
        narrow = self.side("lhs", own), self.side("rhs", own)
        self.choice = choose(r, wide, narrow, self.target)
        self.split(self.choice.splits)
        shape = self.choice.engine.shape
        self.sizes, self.order = grid(
            r.batch_extents, self.splits, ceil_div(r.m, shape.m), ceil_div(r.n, shape.n))
        if self.choice.boxes:
            self._specialised()
            return self.finish()
        with w.loop("block", 0, product(self.sizes), "block") as number:
            self._block(*self._place(number))
        return self.finish()

    def _place(self, number: k.Expr) -> tuple[tuple[k.Expr, ...], k.Expr, k.Expr, k.Expr]:
        """The (batch, part, row, column) of a block."""
        w = self.w
        *batch, part, row, column = self.order(
            [w.let("o", e) for e in unflatten(number, self.sizes)])
        return tuple(batch), part, w.let("row", row), w.let("column", column)

    def _specialised(self) -> None:
        """A block of threads for each multiprocessor, which goes through many of the result."""
        w, c, gpu = self.w, self.choice, self.target.gpu
        engine, total = c.engine, product(self.sizes)
        assert isinstance(engine, Wgmma) and gpu is not None

        def place(number: k.Expr) -> tuple[tuple[k.Expr, ...], k.Expr, k.Expr]:
            batch, _, row, column = self._place(number)
            return batch, row, column

        with w.loop("block", 0, smallest(total, gpu.multiprocessors), "block") as first:
            tiles = stages_of(w, engine, c.stages)
            bars = w.alloc("bars", i64, 2 * c.stages, "shared")
            with w.loop("thread", 0, engine.threads + GROUP, "thread") as thread:
                Ring(
                    w, engine, c.sides, c.stages, tiles, bars, place, first, gpu.multiprocessors,
                    total, ceil_div(self.roles.depth, engine.shape.depth),
                ).run(thread, lambda block, sums: self._results(block, sums, k.Const(0)))

    def _block(
        self, batch: tuple[k.Expr, ...], part: k.Expr, row: k.Expr, column: k.Expr
    ) -> None:
        """One block: its share of the contracted tiles, then the results."""
        w, c = self.w, self.choice
        engine = c.engine
        tiles = ceil_div(self.roles.depth, engine.shape.depth)
        low: k.Expr = k.Const(0)
        high = k.expr(tiles)
        if self.splits > 1:
            share = ceil_div(tiles, self.splits)
            low = w.let("low", k.mul(part, share))
            high = w.let("high", k.minimum(k.add(low, share), tiles))
        shared = stages_of(w, engine, c.stages or 2)
        with w.loop("thread", 0, engine.threads, "thread") as thread:
            engine.begin(w, thread)
            sums = w.alloc("sums", engine.sums, engine.count, "register")
            clear(w, sums)
            block = Block(w, engine, c.sides, thread, batch, (row, column), low, high)
            if not c.stages:
                loaded(block, sums, shared)
            elif isinstance(engine, Wgmma):
                grouped(block, sums, shared, c.stages)
            else:
                copied(block, sums, shared, c.stages)
            self._results(block, sums, part)

    def _results(self, block: Block, sums: k.Buffer, part: k.Expr) -> None:
        """Store what a thread has summed up."""
        w, engine, r = self.w, block.engine, self.roles
        shape = engine.shape
        parts = self.sums if self.splits > 1 else None
        piece = pieces_of_result(self.group, r, self.node, engine.width, parts)
        pieces = engine.width // piece
        with w.loop("i", 0, engine.rows, "unroll") as i:
            def row() -> k.Expr:
                return w.let("row", k.add(k.mul(block.corners[0], shape.m), engine.row(i)))
            with w.loop("j", 0, engine.groups * pieces, "unroll") as j:
                beside = k.mul(k.mod(j, pieces), piece)
                group = k.floordiv(j, pieces)

                def column() -> k.Expr:
                    inner = k.add(engine.column(group), beside)
                    return w.let("column", k.add(k.mul(block.corners[1], shape.n), inner))

                def store() -> None:
                    at = row(), column()
                    slot = k.add(engine.slot(i, group), beside)
                    if piece == 1:
                        self.write(self.index(block.batch, *at), sums[slot], part)
                        return
                    with w.loop("v", 0, piece, "vector", width=piece) as v:
                        index = self.index(block.batch, *at, v)
                        self.write(index, sums[k.add(slot, v)], part)

                self.when(
                    [below(row(), r.m, shape.m), below(column(), r.n, shape.n)], store)


def grid(
    batch: list[Dim], splits: int, rows: Dim, columns: Dim
) -> tuple[list[Dim], Callable[[list[k.Expr]], list[k.Expr]]]:
    """The sizes of the grid, and a function from the places on them to (*batch, part, row, column).

    Blocks with neighbouring numbers run at the same time: they are a few columns wide, and share
    what they read.
    """
    if not isinstance(columns, int) or columns <= TOGETHER:
        return [*batch, splits, rows, columns], lambda at: at
    width = next(c for c in range(TOGETHER, 0, -1) if columns % c == 0)

    def order(at: list[k.Expr]) -> list[k.Expr]:
        *outer, stripe, row, column = at
        return [*outer, row, k.add(k.mul(stripe, width), column)]
    return [*batch, splits, columns // width, rows, width], order
