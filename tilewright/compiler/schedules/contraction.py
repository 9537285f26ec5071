"""Contractions: a register tile inside cache blocks, as in GotoBLAS and BLIS.

K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008); F. Van Zee
and R. van de Geijn, "BLIS" (2015). The operand whose elements are broadcast (``lhs``) is copied,
in its own order, to a compact block; the operand read as vectors (``rhs``) is packed into panels
as wide as the register tile. What follows elementwise runs on the finished tile, still in the
cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.contraction_shape import Blocks, Roles, choose_blocks, roles_of
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, ceil_div, less, product
from tilewright.ir.types import DType, accumulator, i32

PACK_ROWS = 16
"""Rows of rhs that one thread packs at a time."""


def lower_contraction(group: Group, target: Target) -> LoweredKernel:
    """One contraction with its elementwise epilogue."""
    return _Contraction(group, target).lower()


class _Contraction:
    """The state of a contraction kernel under construction."""

    def __init__(self, group: Group, target: Target) -> None:
        self.group, self.w = group, group.writer()
        self.node: Node = group.anchors[0]
        self.outputs = output_buffers(group)
        self.dtype: DType = accumulator(self.node.dtype) if self.node.dtype.kind != "b" else i32
        values = [value for value, _ in group.stores]
        self.roles: Roles = roles_of(self.node, values, self.w.is_leaf)
        self.blocks: Blocks = choose_blocks(self.roles, target, self.dtype)
        self.workspaces: list[tuple[k.Buffer, Dim]] = []
        self.packed: k.Buffer | None = None
        self.offset: k.Expr | None = None

    def lower(self) -> LoweredKernel:
        b, w = self.blocks, self.w
        if b.share_rhs:
            self._pack_shared()
        # Neighbours in this order share a block of columns of rhs.
        sizes = [*self.roles.batch_extents, b.column_blocks, b.row_blocks]
        with w.loop("p", 0, product(sizes), "parallel") as p:
            *batch, column_block, row_block = (w.let("o", e) for e in unflatten(p, sizes))
            self._block(tuple(batch), row_block, column_block)
        return finish(
            self.group, w, self.outputs, self.workspaces, inplace=self.outputs, offset=self.offset)

    # --- elements of the operands and of the result -------------------------------------

    def _operand(
        self, node: Node, labels: Sequence[int], batch: Index, free: k.Expr, free_class: str,
        contracted: k.Expr, mask: k.Expr | None = None,
    ) -> k.Expr:
        places = {**self.roles.place("batch", batch), **self.roles.spread(free_class, free),
                  **self.roles.spread("k", contracted)}
        index = tuple(places[label] for label in labels)
        return converted(self.w.value(node, index, mask), self.dtype)

    def _lhs(self, batch: Index, row: k.Expr, contracted: k.Expr) -> k.Expr:
        r = self.roles
        return self._operand(r.lhs, r.lhs_labels, batch, row, "m", contracted)

    def _rhs(self, batch: Index, column: k.Expr, contracted: k.Expr, mask: k.Expr | None) -> k.Expr:
        r = self.roles
        return self._operand(r.rhs, r.rhs_labels, batch, column, "n", contracted, mask)

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
        low = w.let("low", k.mul(block, b.depth))

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
        b, w = self.blocks, self.w
        assert self.packed is not None
        first = w.let("first", k.mul(panel, b.columns))
        with w.loop("j", 0, b.vectors, "unroll") as j:
            square = w.alloc("square", self.dtype, b.lanes * b.lanes, "register")
            column = k.add(first, k.mul(j, b.lanes))
            with w.loop("n", 0, b.lanes, "unroll") as n:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    value = self._rhs(batch, k.add(column, n), k.add(contracted, v), None)
                    w.write(k.Store(square, k.add(k.mul(n, b.lanes), v), value))
            with w.loop("u", 0, b.lanes, "unroll") as u:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    place = k.add(k.add(row, k.mul(u, b.columns)), k.add(k.mul(j, b.lanes), v))
                    across = k.Load(square, k.add(k.mul(v, b.lanes), u))
                    w.write(k.Store(self.packed, place, across))

    def _pack_row(self, batch: Index, contracted: k.Expr, panel: k.Expr, row: k.Expr) -> None:
        """Copy one panel's elements for one contracted index, zeros beyond the last column."""
        b, w, n = self.blocks, self.w, self.roles.n
        first = w.let("first", k.mul(panel, b.columns))
        assert self.packed is not None
        packed = self.packed

        def copy(masked: bool) -> None:
            with w.loop("j", 0, b.vectors, "unroll") as j:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    slot = k.add(k.mul(j, b.lanes), v)
                    column = k.add(first, slot)
                    mask = k.compare("lt", column, n) if masked else None
                    value = self._rhs(batch, column, contracted, mask)
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

    def _depth(self, block: k.Expr) -> k.Expr:
        """Contracted elements of a depth block."""
        b, total = self.blocks, self.roles.depth
        if b.depth_blocks * b.depth == total:
            return k.Const(b.depth)
        if b.depth_blocks == 1:
            return k.expr(total)
        return k.minimum(k.Const(b.depth), k.sub(total, k.mul(block, b.depth)))

    def _copy_lhs(self, batch: Index, low_row: k.Expr, rows: k.Expr, block: k.Expr) -> k.Buffer:
        """Copy the rows of a block in the operand's own order, vectors along its unit stride."""
        b, w = self.blocks, self.w
        low = w.let("low", k.mul(block, b.depth))
        depth = w.let("depth", self._depth(block))
        if b.lhs_by_rows:
            with w.loop("m", 0, rows) as m:
                base = w.let("base", k.mul(m, b.lhs_stride))
                with w.loop("k", 0, depth, "vector", width=b.lanes) as kk:
                    value = self._lhs(batch, k.add(low_row, m), k.add(low, kk))
                    w.write(k.Store(self.block_buffer, k.add(base, kk), value))
        else:
            with w.loop("k", 0, depth) as kk:
                base = w.let("base", k.mul(kk, b.lhs_stride))
                with w.loop("m", 0, rows, "vector", width=b.lanes) as m:
                    value = self._lhs(batch, k.add(low_row, m), k.add(low, kk))
                    w.write(k.Store(self.block_buffer, k.add(base, m), value))
        return self.block_buffer

    # --- blocks and tiles ---------------------------------------------------------------

    def _block(self, batch: Index, row_block: k.Expr, column_block: k.Expr) -> None:
        """All depth blocks of one block of the result."""
        b, w, r = self.blocks, self.w, self.roles
        tile_low = w.let("tile", k.floordiv(k.mul(row_block, b.row_tiles), b.row_blocks))
        tile_high = w.let("tile", k.floordiv(k.mul(k.add(row_block, 1), b.row_tiles), b.row_blocks))
        panel_low = w.let("panel", k.floordiv(k.mul(column_block, b.panels), b.column_blocks))
        panel_high = w.let(
            "panel", k.floordiv(k.mul(k.add(column_block, 1), b.panels), b.column_blocks))
        low_row = w.let("row", k.mul(tile_low, b.rows))
        rows = w.let("rows", k.sub(k.minimum(k.mul(tile_high, b.rows), r.m), low_row))
        if not b.direct_lhs:
            count = b.block_tiles * b.rows if b.lhs_by_rows else b.depth
            size = count * b.lhs_stride
            self.block_buffer = w.alloc("block", self.dtype, size, "stack")
        if b.private_rhs:
            size = b.block_panels * b.depth * b.columns
            self.packed = w.alloc("panels", self.dtype, size, "stack")
        tiles = b.block_tiles * b.block_panels if b.depth_blocks != 1 else 1
        self.tile_buffer = w.alloc("tile", self.dtype, tiles * b.rows * b.columns, "stack")

        def depth_block(block: k.Expr) -> None:
            if not b.direct_lhs:
                self._copy_lhs(batch, low_row, rows, block)
            if b.private_rhs:
                span = (k.Const(0), self._depth(block))
                self._pack(batch, block, k.Const(0), (panel_low, panel_high), span, panel_low)
            with w.loop("j", panel_low, panel_high) as j:
                panel_base: k.Expr = k.Const(0)
                if b.private_rhs:
                    panel_base = k.mul(k.sub(j, panel_low), b.depth * b.columns)
                elif b.share_rhs:
                    panel_base = self._panel(batch, j, block)
                panel_base = w.let("base", panel_base)
                with w.loop("i", tile_low, tile_high) as i:
                    local = k.add(
                        k.mul(k.sub(j, panel_low), b.block_tiles), k.sub(i, tile_low))
                    tile_base = k.mul(local, b.rows * b.columns) if tiles > 1 else k.Const(0)
                    self._tile(batch, i, j, block, k.sub(i, tile_low), panel_base,
                               w.let("at", tile_base))

        if b.depth_blocks == 1:
            depth_block(k.Const(0))
        else:
            with w.loop("b", 0, b.depth_blocks) as block:
                depth_block(block)

    def _tile(
        self, batch: Index, i: k.Expr, j: k.Expr, block: k.Expr, local_row: k.Expr,
        panel_base: k.Expr, tile_base: k.Expr,
    ) -> None:
        """One register tile over one depth block, then, after the last, the epilogue."""
        b, w, r = self.blocks, self.w, self.roles
        tile = w.alloc("acc", self.dtype, b.rows * b.columns, "register")
        first_row = w.let("row", k.mul(i, b.rows))
        first_column = w.let("column", k.mul(j, b.columns))
        self._start_tile(tile, block, tile_base)
        depth = w.let("depth", self._depth(block))
        low = w.let("low", k.mul(block, b.depth))

        def step(at: k.Expr) -> None:
            self._multiply(tile, batch, first_row, first_column, local_row, low, at, panel_base)

        known = k.const_int(depth)
        unroll = b.unroll
        whole = k.mul(k.floordiv(depth, unroll), unroll)
        if known is None or known >= unroll:
            with w.loop("k", 0, w.let("whole", whole), step=unroll) as kk:
                with w.loop("u", 0, unroll, "unroll") as u:
                    step(k.add(kk, u))
        if self.roles.depth % unroll or b.depth % unroll:
            with w.loop("k", whole, depth) as kk:
                step(kk)
        self._each_vector(lambda slot: w.write(
            k.Store(self.tile_buffer, k.add(tile_base, slot), k.Load(tile, slot))))
        rows = w.let("rows", k.minimum(k.sub(r.m, first_row), b.rows))
        columns = w.let("columns", k.minimum(k.sub(r.n, first_column), b.columns))
        if b.depth_blocks == 1:
            self._epilogue(batch, first_row, first_column, rows, columns, tile_base)
        else:
            with w.when(k.compare("eq", block, b.depth_blocks - 1)):
                self._epilogue(batch, first_row, first_column, rows, columns, tile_base)

    def _each_vector(self, body: object) -> None:
        """Run ``body(slot)`` for every vector of a tile."""
        b, w = self.blocks, self.w
        with w.loop("i", 0, b.rows, "unroll") as i, w.loop("j", 0, b.vectors, "unroll") as j:
            with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                slot = k.add(k.add(k.mul(i, b.columns), k.mul(j, b.lanes)), v)
                body(slot)  # type: ignore[operator]

    def _start_tile(self, tile: k.Buffer, block: k.Expr, tile_base: k.Expr) -> None:
        w = self.w
        zero = number(0, self.dtype)
        self._each_vector(lambda slot: w.write(k.Store(tile, slot, zero)))
        if self.blocks.depth_blocks != 1:
            with w.when(k.compare("gt", block, 0)):
                self._each_vector(lambda slot: w.write(
                    k.Store(tile, slot, k.Load(self.tile_buffer, k.add(tile_base, slot)))))

    def _multiply(
        self, tile: k.Buffer, batch: Index, first_row: k.Expr, first_column: k.Expr,
        local_row: k.Expr, low: k.Expr, at: k.Expr, panel_base: k.Expr,
    ) -> None:
        """tile[i, :] += lhs[i] * rhs[:] for one contracted index."""
        b, w = self.blocks, self.w
        vectors = w.alloc("b", self.dtype, b.columns, "register")
        with w.loop("j", 0, b.vectors, "unroll") as j:
            with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                slot = k.add(k.mul(j, b.lanes), v)
                if self.packed is not None:
                    offset = k.add(k.add(panel_base, k.mul(at, b.columns)), slot)
                    value: k.Expr = k.Load(self.packed, offset)
                else:
                    column = k.add(first_column, slot)
                    ragged = self.roles.n % b.columns != 0
                    mask = k.compare("lt", column, self.roles.n) if ragged else None
                    value = self._rhs(batch, column, k.add(low, at), mask)
                w.write(k.Store(vectors, slot, value))
        with w.loop("i", 0, b.rows, "unroll") as i:
            if b.direct_lhs:
                element = self._lhs(batch, k.add(first_row, i), k.add(low, at))
            else:
                row = k.add(k.mul(local_row, b.rows), i)
                here = (
                    k.add(k.mul(row, b.lhs_stride), at) if b.lhs_by_rows
                    else k.add(k.mul(at, b.lhs_stride), row)
                )
                element = k.Load(self.block_buffer, here)
            scalar = w.let("a", element)
            with w.loop("j", 0, b.vectors, "unroll") as j:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    slot = k.add(k.mul(j, b.lanes), v)
                    product = k.Call("mul", (scalar, k.Load(vectors, slot)), self.dtype)
                    place = k.add(k.mul(i, b.columns), slot)
                    w.write(k.Accumulate(tile, place, "add", product))

    def _epilogue(
        self, batch: Index, first_row: k.Expr, first_column: k.Expr, rows: k.Expr,
        columns: k.Expr, tile_base: k.Expr,
    ) -> None:
        """Store the group's results for the tile's valid rows and columns."""
        b, w, r = self.blocks, self.w, self.roles
        labels = self.node.attrs.out
        with w.loop("i", 0, rows) as i, w.loop("c", 0, columns, "vector", width=b.lanes) as c:
            places = {**r.place("batch", batch), **r.spread("m", k.add(first_row, i)),
                      **r.spread("n", k.add(first_column, c))}
            index = tuple(places[label] for label in labels)
            slot = k.add(k.add(tile_base, k.mul(i, b.columns)), c)
            total = converted(k.Load(self.tile_buffer, slot), self.node.dtype)
            hold(w, self.node, w.let("r", total), index)
            values = [w.let("v", w.value(value, index)) for value, _ in self.group.stores]
            for (value, _), buffer, v in zip(
                self.group.stores, self.outputs, values, strict=True
            ):
                self.offset = flat(index, value.shape)
                w.write(k.Store(buffer, self.offset, v))
        w.bound.pop(self.node)
