"""Contractions: a register tile inside cache blocks, as in GotoBLAS and BLIS.

K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008); F. Van Zee
and R. van de Geijn, "BLIS" (2015). What follows elementwise runs on the finished tile, still in the
cache.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.contraction_pack import Operands, Place
from tilewright.compiler.schedules.contraction_shape import Spot
from tilewright.compiler.schedules.group import Group, finish, flops
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import product

LINE = 64
"""Bytes of a line of the caches."""


def lower_contraction(group: Group, target: Target) -> LoweredKernel:
    """One contraction with its elementwise epilogue."""
    return Contraction(group, target).lower()


class Contraction(Operands):
    """The blocks and tiles of a contraction kernel."""

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

    # --- blocks and tiles ---------------------------------------------------------------

    def _block(self, batch: Index, row_block: k.Expr, column_block: k.Expr) -> None:
        """All depth blocks of one block of the result."""
        b, w, r = self.blocks, self.w, self.roles
        tile_low = w.let("tile", k.floordiv(k.mul(row_block, b.row_tiles), b.row_blocks))
        tile_high = w.let("tile", k.floordiv(k.mul(k.add(row_block, 1), b.row_tiles), b.row_blocks))
        panel_low, panel_high = self._panels_of(column_block)
        low_row = w.let("row", k.mul(tile_low, b.rows))
        rows = w.let("rows", k.sub(k.minimum(k.mul(tile_high, b.rows), r.m), low_row))
        self._block_of(batch, (tile_low, tile_high), (panel_low, panel_high), low_row, rows)

    def _panels_of(self, column_block: k.Expr) -> tuple[k.Expr, k.Expr]:
        """The first panel of a block of columns, and the next one's."""
        b, w = self.blocks, self.w
        panel_low = w.let("panel", k.floordiv(k.mul(column_block, b.panels), b.column_blocks))
        panel_high = w.let(
            "panel", k.floordiv(k.mul(k.add(column_block, 1), b.panels), b.column_blocks))
        return panel_low, panel_high

    def _block_of(
        self, batch: Index, tiles_from: tuple[k.Expr, k.Expr], panels: tuple[k.Expr, k.Expr],
        low_row: k.Expr, rows: k.Expr,
    ) -> None:
        """The block of these tiles and panels, which has so many rows from ``low_row`` on."""
        b, w = self.blocks, self.w
        (tile_low, tile_high), (panel_low, panel_high) = tiles_from, panels
        if not b.direct_lhs:
            count = b.block_tiles * b.rows if b.lhs_by_rows else b.block_tiles
            size = count * b.lhs_stride
            self.block_buffer = w.alloc("block", self.dtype, size, "stack")
        if b.private_rhs:
            size = (1 if b.at_once else b.block_panels) * b.depth * b.columns
            self.packed = w.alloc("panels", self.dtype, size, "stack")
        tiles = b.block_tiles * b.block_panels if b.depth_blocks != 1 else 1
        self.tile_buffer = w.alloc("tile", self.dtype, tiles * b.rows * b.columns, "stack")

        def depth_block(block: k.Expr) -> None:
            if not b.direct_lhs:
                self._copy_lhs(batch, low_row, rows, block)
            if b.private_rhs and not b.at_once:
                span = (k.Const(0), self._depth(block))
                self._pack(batch, block, k.Const(0), (panel_low, panel_high), span, panel_low)
            with w.loop("j", panel_low, panel_high) as j:
                panel_base: k.Expr = k.Const(0)
                if b.at_once and b.private_rhs:
                    self._pack_panel(batch, block, j)
                elif b.private_rhs:
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
            with w.loop("b", 0, self._depth_blocks()) as block:
                depth_block(block)

    def _tile(
        self, batch: Index, i: k.Expr, j: k.Expr, block: k.Expr, local_row: k.Expr,
        panel_base: k.Expr, tile_base: k.Expr,
    ) -> None:
        """One register tile over one depth block, then, after the last, the epilogue."""
        b, w = self.blocks, self.w
        tile = w.alloc("acc", self.dtype, b.rows * b.columns, "register")
        first_row = w.let("row", self._first_row(i))
        stretch, first_column = self._stretch_of(j, "column")
        self._start_tile(tile, block, tile_base)
        depth = w.let("depth", self._depth(block))
        low = w.let("low", self._low(block))
        self._prefetch(batch, first_row, stretch, first_column, block)

        def step(at: k.Expr, contracted: Place | None = None) -> None:
            here = k.add(low, at) if contracted is None else contracted
            self._multiply(
                tile, batch, first_row, stretch, first_column, local_row, at, here, panel_base)

        if self.packed is None and b.split is not None:
            with self._outer_contracted(block) as place:
                with self._inner_contracted(place) as (at, contracted):
                    step(at, contracted)
        else:
            self._depth_steps(depth, step)
        self._each_vector(lambda slot: w.write(
            k.Store(self.tile_buffer, k.add(tile_base, slot), k.Load(tile, slot))))
        rows = w.let("rows", k.minimum(k.sub(self._last_row(), first_row), b.rows))
        columns = w.let("columns", k.minimum(k.sub(b.row_columns, first_column), b.columns))
        if b.depth_blocks == 1:
            self._epilogue(batch, first_row, stretch, first_column, rows, columns, tile_base)
        else:
            with w.when(k.compare("eq", block, k.sub(self._depth_blocks(), 1))):
                self._epilogue(batch, first_row, stretch, first_column, rows, columns, tile_base)

    def _depth_steps(self, depth: k.Expr, step: Callable[[k.Expr], None]) -> None:
        """One step for each contracted element of a depth block, some written out at a time."""
        w, unroll = self.w, self.blocks.unroll
        known = k.const_int(depth)
        whole = k.mul(k.floordiv(depth, unroll), unroll)
        if known is None or known >= unroll:
            with w.loop("k", 0, w.let("whole", whole), step=unroll) as kk:
                with w.loop("u", 0, unroll, "unroll") as u:
                    step(k.add(kk, u))
        if self._ragged(unroll):
            with w.loop("k", whole, depth) as kk:
                step(kk)

    def _prefetch(
        self, batch: Index, first_row: k.Expr, stretch: Spot, first_column: k.Expr, block: k.Expr
    ) -> None:
        """Ask for what the epilogue will read and write, while products keep the processor busy.

        A small result is in the cache anyway.
        """
        b, w = self.blocks, self.w
        if estimate(self.node.type.size) * self.dtype.itemsize <= self.target.l1:
            return
        read = [w.input(n) for n in self._beside()]
        last = k.compare("eq", block, k.sub(self._depth_blocks(), 1))
        with w.when(last) if b.depth_blocks != 1 else nullcontext():
            with w.loop("i", 0, b.rows, "unroll") as i:
                row = k.add(first_row, i)
                for buffer in (*read, *self.outputs):
                    line = max(1, LINE // buffer.dtype.itemsize)
                    for c in range(0, b.columns, line):
                        index = self._index(batch, row, stretch, k.add(first_column, c))
                        w.write(k.Prefetch(buffer, flat(index, self.node.shape)))

    def _beside(self) -> list[Node]:
        """What is read at each element of the result, as it lies in memory."""
        found: dict[Node, None] = {}
        seen: set[Node] = {self.node}
        stack = [value for value, _ in self.group.stores]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if self.w.is_leaf(node):
                if node.shape == self.node.shape:
                    found[node] = None
            elif node.op.kind == "elementwise":
                stack += node.inputs
        return list(found)

    def _index(
        self, batch: Index, row: k.Expr, stretch: Spot, at: k.Expr
    ) -> Index:
        """An element of the result by its row and its column."""
        r = self.roles
        places = {**r.place("batch", batch), **self.fixed, **r.spread("m", row, "out"),
                  **self._spot("n", self._column(stretch, at), "out")}
        return tuple(places[label] for label in self.node.attrs.out)

    # --- what a product of groups has other answers to ---------------------------------------

    def _first_row(self, tile: k.Expr) -> k.Expr:
        """The first row of a tile."""
        return k.mul(tile, self.blocks.rows)

    def _last_row(self) -> k.Expr:
        """Where the rows of the block's tiles end."""
        return k.expr(self.roles.m)

    def _depth_blocks(self) -> k.Expr:
        """The number of depth blocks."""
        return k.expr(self.blocks.depth_blocks)

    def _ragged(self, unroll: int) -> bool:
        """Whether a depth block may have contracted elements beyond whole steps."""
        b = self.blocks
        return bool(self.roles.depth % unroll or b.depth % unroll or (
            b.pieces > 1 and b.inner % unroll))

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
        self, tile: k.Buffer, batch: Index, first_row: k.Expr, stretch: Spot,
        first_column: k.Expr, local_row: k.Expr, at: k.Expr, contracted: Place,
        panel_base: k.Expr,
    ) -> None:
        """tile[i, :] += lhs[i] * rhs[:] for one contracted index, the ``at``-th of its block."""
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
                    ragged = b.row_columns % b.columns != 0
                    mask = k.compare("lt", column, b.row_columns) if ragged else None
                    value = self._rhs(batch, self._column(stretch, column), contracted, mask)
                w.write(k.Store(vectors, slot, value))
        with w.loop("i", 0, b.rows, "unroll") as i:
            if b.direct_lhs:
                element = self._lhs(batch, k.add(first_row, i), contracted)
            else:
                if b.lhs_by_rows:
                    row = k.add(k.mul(local_row, b.rows), i)
                    here = k.add(k.mul(row, b.lhs_stride), at)
                else:
                    base = k.add(k.mul(local_row, b.lhs_stride), k.mul(at, b.rows))
                    here = k.add(base, i)
                element = k.Load(self.block_buffer, here)
            scalar = w.let("a", element)
            with w.loop("j", 0, b.vectors, "unroll") as j:
                with w.loop("v", 0, b.lanes, "vector", width=b.lanes) as v:
                    slot = k.add(k.mul(j, b.lanes), v)
                    product = k.Call("mul", (scalar, k.Load(vectors, slot)), self.dtype)
                    place = k.add(k.mul(i, b.columns), slot)
                    w.write(k.Accumulate(tile, place, "add", product))

    def _epilogue(
        self, batch: Index, first_row: k.Expr, stretch: Spot, first_column: k.Expr, rows: k.Expr,
        columns: k.Expr, tile_base: k.Expr,
    ) -> None:
        """Store the group's results for the tile's valid rows and columns."""
        b, w = self.blocks, self.w
        flying = b.vectors if self._heavy() else 1
        # Lanes store to different places, of which a single column has but one.
        kind: k.LoopKind = "serial" if self.roles.n == 1 else "vector"
        width = 1 if self.roles.n == 1 else b.lanes
        with w.loop("i", 0, rows) as i, w.loop(
            "c", 0, columns, kind, width=width, interleave=min(width, flying)
        ) as c:
            index = self._index(
                batch, k.add(first_row, i), stretch, k.add(first_column, c))
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

    def _heavy(self) -> bool:
        """Whether results follow by expressions so long that vectors in flight hide latency."""
        own = [n for n in self.group.members(self.w) if n.op.kind == "elementwise"]
        size = estimate(self.node.type.size)
        return estimate(flops(own)) > 12 * size
