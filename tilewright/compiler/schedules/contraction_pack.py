"""Operands of a contraction: their elements, and how they are copied to where tiles read them.

The operand whose elements are broadcast (``lhs``) is copied to a compact block, by rows where it is
contiguous along them, else in panels as high as the register tile; the operand read as vectors
(``rhs``) is packed into panels as wide as the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.contraction_blocks import Blocks, choose_blocks
from tilewright.compiler.schedules.contraction_shape import Roles, Spot, roles_of
from tilewright.compiler.schedules.group import Group, output_buffers
from tilewright.compiler.schedules.reduction import converted, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, ceil_div, less, product
from tilewright.ir.types import DType, accumulator, i32

Place: TypeAlias = "k.Expr | Spot"
"""A position on a class of labels as a whole, or the index of each of them."""

PACK_ROWS = 16
"""Rows of rhs that one thread packs at a time."""


class Operands:
    """The state of a contraction kernel under construction, and the copies of its operands."""

    block_buffer: k.Buffer
    """The copy of a block of lhs, while one is walked."""

    fixed: Spot
    """Where labels that are no part of the roles are, while a block is walked."""

    def __init__(self, group: Group, target: Target) -> None:
        self.group, self.w = group, group.writer()
        self.node: Node = group.anchors[0]
        self.outputs = output_buffers(group)
        self.dtype: DType = accumulator(self.node.dtype) if self.node.dtype.kind != "b" else i32
        values = [value for value, _ in group.stores]
        self.target = target
        self.roles, self.blocks = self._shape(values)
        self.workspaces: list[tuple[k.Buffer, Dim]] = []
        self.packed: k.Buffer | None = None
        self.offset: k.Expr | None = None
        self.fixed: Spot = {}

    def _shape(self, values: Sequence[Node]) -> tuple[Roles, Blocks]:
        """How the contraction is seen, and cut into blocks."""
        roles = roles_of(self.node, values, self.w.is_leaf)
        return roles, choose_blocks(roles, self.target, self.dtype)

    # --- elements of the operands and of the result -------------------------------------

    def _operand(
        self, side: str, batch: Index, which: str, free: Place, contracted: Place,
        mask: k.Expr | None = None,
    ) -> k.Expr:
        r = self.roles
        node, labels = (r.lhs, r.lhs_labels) if side == "lhs" else (r.rhs, r.rhs_labels)
        places = {**r.place("batch", batch), **self.fixed, **self._spot(which, free, side),
                  **self._spot("k", contracted, side)}
        index = tuple(places[label] for label in labels)
        return converted(self.w.value(node, index, mask), self.dtype)

    def _spot(self, which: str, place: Place, side: str) -> Spot:
        return place if isinstance(place, dict) else self.roles.spread(which, place, side)

    def _lhs(self, batch: Index, row: Place, contracted: Place) -> k.Expr:
        return self._operand("lhs", batch, "m", row, contracted)

    def _rhs(
        self, batch: Index, column: Place, contracted: Place, mask: k.Expr | None
    ) -> k.Expr:
        return self._operand("rhs", batch, "n", column, contracted, mask)

    # --- where columns and contracted elements stand ------------------------------------

    def _stretch_of(self, panel: k.Expr, name: str) -> tuple[Spot, k.Expr]:
        """The stretch of columns that a panel is in, and its first column there."""
        b, w, r = self.blocks, self.w, self.roles
        if b.row_columns == r.n:
            return {}, w.let(name, k.mul(panel, b.columns))
        each = ceil_div(b.row_columns, b.columns)
        *outer, _ = self._wide_runs()
        sizes = [r.size_of(run) for run in outer]
        at = unflatten(w.let("o", k.floordiv(panel, each)), sizes)
        spot: Spot = {x: k.Const(0) for run in r.runs["n"] for x in run}
        for run, e in zip(outer, at, strict=True):
            spot |= r.along(run, w.let("o", e))
        return spot, w.let(name, k.mul(k.mod(panel, each), b.columns))

    def _wide_runs(self) -> list[tuple[int, ...]]:
        return [run for run in self.roles.runs["n"] if self.roles.size_of(run) != 1]

    def _column(self, spot: Spot, column: k.Expr) -> Place:
        """A column of a stretch."""
        if self.blocks.row_columns == self.roles.n:
            return column
        return {**spot, **self.roles.along(self._wide_runs()[-1], column)}

    @contextmanager
    def _outer_contracted(
        self, block: k.Expr
    ) -> Iterator[tuple[k.Expr, Spot, k.Expr, k.Expr]]:
        """A loop over a depth block's contracted elements but for the inner runs.

        Gives the place in the block, where that is, and the bounds of the inner runs.
        """
        b, w, r = self.blocks, self.w, self.roles
        runs = r.runs["k"][:b.split]
        sizes = [r.size_of(run) for run in runs]

        def spot(q: k.Expr) -> Spot:
            at = unflatten(q, sizes)
            return {label: e for run, i in zip(runs, at, strict=True)
                    for label, e in r.along(run, w.let("o", i)).items()}

        if b.pieces > 1:
            start = w.let("start", k.mul(k.mod(block, b.pieces), b.depth))
            stop = w.let("stop", k.minimum(k.add(start, b.depth), b.inner))
            yield k.Const(0), spot(w.let("q", k.floordiv(block, b.pieces))), start, stop
            return
        low = w.let("q", k.mul(block, b.depth // b.inner))
        high = k.minimum(k.add(low, b.depth // b.inner), r.depth // b.inner)
        with w.loop("q", low, high) as q:
            base = w.let("base", k.mul(k.sub(q, low), b.inner))
            yield base, spot(q), k.Const(0), k.Const(b.inner)

    @contextmanager
    def _inner_contracted(
        self, place: tuple[k.Expr, Spot, k.Expr, k.Expr], vector: bool = False
    ) -> Iterator[tuple[k.Expr, Spot]]:
        """Loops over the inner runs: the place in the block, and where that is."""
        b, w, r = self.blocks, self.w, self.roles
        base, spot, start, stop = place
        *outer, last = r.runs["k"][b.split:]
        with ExitStack() as loops:
            at: list[k.Expr] = []
            for run in outer:
                at.append(loops.enter_context(w.loop("k", 0, r.size_of(run))))
            low, high = (k.Const(0), k.Const(r.size_of(last))) if outer else (start, stop)
            at.append(loops.enter_context(
                w.loop("k", low, high, "vector", width=b.lanes) if vector
                else w.loop("k", low, high)))
            inner = flat(tuple(at), [r.size_of(run) for run in (*outer, last)])
            here = dict(spot)
            for run, i in zip((*outer, last), at, strict=True):
                here |= r.along(run, i)
            yield k.add(base, k.sub(inner, start)), here

    # --- packing ------------------------------------------------------------------------

    def _pack_shared(self) -> None:
        """Pack all of rhs once, the team together."""
        b, w, r = self.blocks, self.w, self.roles
        size = r.batch_size * b.panels * b.depth_blocks * b.depth * b.columns
        self.packed = k.Buffer("packed", self.dtype, size, "global", "workspace")
        self.workspaces.append((self.packed, size * self.dtype.itemsize))
        # Work is cut so that memory is read in long runs: along rows, or panel by panel.
        cut = ceil_div(b.depth, PACK_ROWS) if r.rhs_unit == "n" else b.panels
        sizes = [*r.batch_extents, b.depth_blocks, cut]
        with w.loop("p", 0, product(sizes), "parallel") as p:
            *batch, block, piece = (w.let("o", e) for e in unflatten(p, sizes))
            base = w.let("base", self._panel(tuple(batch), k.Const(0), block))
            panels: tuple[k.Expr, k.Expr] = (k.Const(0), k.expr(b.panels))
            span: tuple[k.Expr, k.Expr] = (k.Const(0), self._depth(block))
            if r.rhs_unit == "n":
                low = w.let("low", k.mul(piece, PACK_ROWS))
                span = (low, w.let("high", k.minimum(k.add(low, PACK_ROWS), span[1])))
            else:
                panels = (piece, k.add(piece, 1))
            self._pack(tuple(batch), block, base, panels, span, k.Const(0))
        w.write(k.Barrier())

    def _panel(self, batch: Index, panel: k.Expr, block: k.Expr) -> k.Expr:
        """Where a panel of a depth block starts in the shared workspace."""
        b = self.blocks
        number_ = flat(
            (*batch, block, panel), [*self.roles.batch_extents, b.depth_blocks, b.panels])
        return k.mul(number_, b.depth * b.columns)

    def _pack(
        self, batch: Index, block: k.Expr, base: k.Expr, panels: tuple[k.Expr, k.Expr],
        span: tuple[k.Expr, k.Expr], first_panel: k.Expr,
    ) -> None:
        """Copy the rows ``span`` of a depth block of panels; ``first_panel`` goes to ``base``."""
        b, w = self.blocks, self.w
        low = w.let("low", self._low(block))

        def one_row(panel: k.Expr, kk: k.Expr) -> None:
            self._pack_row(batch, k.add(low, kk), panel, self._row_of(base, panel, first_panel, kk))

        if self.roles.rhs_unit == "n":
            with w.loop("k", *span) as kk, w.loop("j", *panels) as panel:
                one_row(panel, kk)
            return
        with w.loop("j", *panels) as panel:
            count = w.let("count", k.sub(span[1], span[0]))
            squares = k.mul(k.floordiv(count, b.lanes), b.lanes)
            if self.roles.n % b.columns:
                whole = k.compare("le", k.mul(k.add(panel, 1), b.columns), self.roles.n)
                squares = k.Call("where", (whole, squares, k.Const(0)), squares.dtype)
            middle = w.let("middle", k.add(span[0], squares))
            with w.loop("k", span[0], middle, step=b.lanes) as kk:
                row = self._row_of(base, panel, first_panel, kk)
                self._pack_square(batch, k.add(low, kk), panel, row)
            with w.loop("k", middle, span[1]) as kk:
                one_row(panel, kk)

    def _row_of(self, base: k.Expr, panel: k.Expr, first_panel: k.Expr, kk: k.Expr) -> k.Expr:
        """Where a panel's elements for one contracted index go."""
        b = self.blocks
        place = k.mul(k.sub(panel, first_panel), b.depth * b.columns)
        return self.w.let("row", k.add(k.add(base, place), k.mul(kk, b.columns)))

    def _pack_square(self, batch: Index, contracted: k.Expr, panel: k.Expr, row: k.Expr) -> None:
        """Copy a vector of contracted indices: read along them, written across."""
        first = self.w.let("first", k.mul(panel, self.blocks.columns))
        self._square(batch, lambda v: k.add(contracted, v), first, row)

    def _square(
        self, batch: Index, contracted: Callable[[k.Expr], Place], first: k.Expr, row: k.Expr,
        last: Dim | None = None, count: int | None = None,
    ) -> None:
        """Copy up to a vector of contracted elements (``count``; None: all) of a panel.

        Beyond column ``last`` that one is repeated: what it gives is computed, but not stored.
        """
        b, w = self.blocks, self.w
        assert self.packed is not None
        with w.loop("j", 0, b.vectors, "unroll") as j:
            square = w.alloc("square", self.dtype, b.lanes * b.lanes, "register")
            start = k.add(first, k.mul(j, b.lanes))
            with w.loop("n", 0, b.lanes, "unroll") as n:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    mask = None if count is None else k.compare("lt", v, count)
                    at = k.add(start, n)
                    at = at if last is None else k.minimum(at, last)
                    value = self._rhs(batch, at, contracted(v), mask)
                    w.write(k.Store(square, k.add(k.mul(n, b.lanes), v), value))
            with w.loop("u", 0, count or b.lanes, "unroll") as u:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    place = k.add(k.add(row, k.mul(u, b.columns)), k.add(k.mul(j, b.lanes), v))
                    across = k.Load(square, k.add(k.mul(v, b.lanes), u))
                    w.write(k.Store(self.packed, place, across))

    def _pack_row(self, batch: Index, contracted: Place, panel: k.Expr, row: k.Expr) -> None:
        """Copy one panel's elements for one contracted index, zeros beyond the last column."""
        stretch, first = self._stretch_of(panel, "first")
        self._row(batch, contracted, stretch, first, row)

    def _row(
        self, batch: Index, contracted: Place, stretch: Spot, first: k.Expr, row: k.Expr
    ) -> None:
        """Copy the columns of a panel, from the first of them in their stretch."""
        b, w, n = self.blocks, self.w, self.blocks.row_columns
        assert self.packed is not None
        packed = self.packed

        def copy(masked: bool) -> None:
            with w.loop("j", 0, b.vectors, "unroll") as j:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    slot = k.add(k.mul(j, b.lanes), v)
                    column = k.add(first, slot)
                    mask = k.compare("lt", column, n) if masked else None
                    value = self._rhs(batch, self._column(stretch, column), contracted, mask)
                    if mask is not None:
                        value = k.Call("where", (mask, value, number(0, self.dtype)), self.dtype)
                    w.write(k.Store(packed, k.add(row, slot), value))

        if n % b.columns == 0:
            copy(False)
        elif less(n, b.columns):
            copy(True)
        else:
            whole = w.let("whole", k.compare("le", k.add(first, b.columns), n))
            with w.when(whole):
                copy(False)
            with w.when(k.Call("not", (whole,), whole.dtype)):
                copy(True)

    def _pack_panel(self, batch: Index, block: k.Expr, panel: k.Expr) -> None:
        """Pack a panel of a depth block, to be read at once."""
        b, w = self.blocks, self.w
        stretch, first = self._stretch_of(panel, "first")
        if b.split is None:
            with w.loop("k", 0, self._depth(block)) as kk:
                at = k.add(self._low(block), kk)
                self._row(batch, at, stretch, first, w.let("row", k.mul(kk, b.columns)))
            return
        with self._outer_contracted(block) as place:
            if self.roles.rhs_unit == "k":
                self._pack_squares(batch, place, first)
                return
            with self._inner_contracted(place) as (kk, here):
                self._row(batch, here, stretch, first, w.let("row", k.mul(kk, b.columns)))

    def _pack_squares(
        self, batch: Index, place: tuple[k.Expr, Spot, k.Expr, k.Expr], first: k.Expr
    ) -> None:
        """Pack the innermost contracted run of a panel of columns by squares."""
        b, w, r = self.blocks, self.w, self.roles
        base, spot, start, stop = place
        last = r.runs["k"][-1]

        def at(i: k.Expr) -> Callable[[k.Expr], Place]:
            return lambda v: {**spot, **r.along(last, k.add(i, v))}

        def row(i: k.Expr) -> k.Expr:
            return w.let("row", k.mul(k.add(base, k.sub(i, start)), b.columns))

        end = r.n - 1 if r.n % b.columns else None
        length = w.let("length", k.sub(stop, start))
        middle = w.let("middle", k.add(start, k.mul(k.floordiv(length, b.lanes), b.lanes)))
        with w.loop("k", start, middle, step=b.lanes) as i:
            self._square(batch, at(i), first, row(i), end)
        known = k.const_int(length)
        if known is None:
            with w.loop("k", middle, stop) as i:
                here = {**spot, **r.along(last, i)}
                self._row(batch, here, {}, first, row(i))
        elif known % b.lanes:
            self._square(batch, at(middle), first, row(middle), end, known % b.lanes)

    def _low(self, block: k.Expr) -> k.Expr:
        """The first contracted element of a depth block."""
        b = self.blocks
        if b.pieces == 1:
            return k.mul(block, b.depth)
        piece = k.mul(k.mod(block, b.pieces), b.depth)
        return k.add(k.mul(k.floordiv(block, b.pieces), b.inner), piece)

    def _depth(self, block: k.Expr) -> k.Expr:
        """Contracted elements of a depth block."""
        b, total = self.blocks, self.roles.depth
        if b.pieces > 1:
            start = k.mul(k.mod(block, b.pieces), b.depth)
            return k.minimum(k.Const(b.depth), k.sub(b.inner, start))
        if b.depth_blocks * b.depth == total:
            return k.Const(b.depth)
        if b.depth_blocks == 1:
            return k.expr(total)
        return k.minimum(k.Const(b.depth), k.sub(total, k.mul(block, b.depth)))

    def _copy_lhs(self, batch: Index, low_row: k.Expr, rows: k.Expr, block: k.Expr) -> k.Buffer:
        """Copy the rows of a block, vectors along the operand's unit stride."""
        b, w, r = self.blocks, self.w, self.roles
        if b.split is not None and len(r.chains("k", "lhs")) > 1:
            self._copy_split_lhs(batch, low_row, rows, block)
            return self.block_buffer
        low = w.let("low", self._low(block))
        depth = w.let("depth", self._depth(block))
        if b.lhs_by_rows:
            with w.loop("m", 0, rows) as m:
                base = w.let("base", k.mul(m, b.lhs_stride))
                with w.loop("k", 0, depth, "vector", width=b.lanes) as kk:
                    value = self._lhs(batch, k.add(low_row, m), k.add(low, kk))
                    w.write(k.Store(self.block_buffer, k.add(base, kk), value))
        else:
            with w.loop("k", 0, depth) as kk:
                self._copy_column(batch, low_row, rows, k.add(low, kk), kk)
        return self.block_buffer

    def _copy_column(
        self, batch: Index, low_row: k.Expr, rows: k.Expr, contracted: Place, kk: k.Expr
    ) -> None:
        """Copy the elements of one contracted index, the ``kk``-th of its block, tile by tile.

        Whole vectors are copied where there are so many rows; what they bring beyond a tile's rows
        is written over by the next contracted index, or lies between the tiles.
        """
        b, w = self.blocks, self.w
        wide = ceil_div(b.rows, b.lanes) * b.lanes

        def tile(number: k.Expr, count: k.Expr | None) -> None:
            base = w.let("base", k.add(k.mul(number, b.lhs_stride), k.mul(kk, b.rows)))
            first = w.let("first", k.add(low_row, k.mul(number, b.rows)))
            if count is None:
                count = w.let("count", k.minimum(k.sub(k.add(low_row, rows), first), b.rows))
            with w.loop("m", 0, count, "vector", width=b.lanes) as m:
                value = self._lhs(batch, k.add(first, m), contracted)
                w.write(k.Store(self.block_buffer, k.add(base, m), value))

        inside = k.floordiv(k.sub(self.roles.m + b.rows - wide, low_row), b.rows)
        tiles = k.floordiv(k.add(rows, b.rows - 1), b.rows)
        whole = w.let("whole", k.maximum(k.minimum(inside, tiles), 0))
        with w.loop("i", 0, whole) as i:
            tile(i, k.Const(wide))
        with w.loop("i", whole, tiles) as i:
            tile(i, None)

    def _copy_split_lhs(
        self, batch: Index, low_row: k.Expr, rows: k.Expr, block: k.Expr
    ) -> None:
        """Copy the rows of a block whose contracted runs are walked in loops of their own."""
        b, w = self.blocks, self.w
        if not b.lhs_by_rows:
            with self._outer_contracted(block) as place:
                with self._inner_contracted(place) as (kk, here):
                    self._copy_column(batch, low_row, rows, here, kk)
            return
        with w.loop("m", 0, rows) as m:
            spot = self.roles.spread("m", k.add(low_row, m), "lhs")
            row = {label: w.let("o", e) for label, e in spot.items()}
            base = w.let("base", k.mul(m, b.lhs_stride))
            with self._outer_contracted(block) as place:
                with self._inner_contracted(place, vector=True) as (kk, here):
                    value = self._lhs(batch, row, here)
                    w.write(k.Store(self.block_buffer, k.add(base, kk), value))
