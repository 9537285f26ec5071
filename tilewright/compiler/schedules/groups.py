"""Products of groups of rows: contractions with a range of rows that is read from memory.

In a product each block of the result has rows of one group, whose matrix is packed for them; how
many blocks there are follows from the ends of the groups. In an outer product a block has all rows
of its group as what it contracts. Rows of no group, and groups without rows, are contractions of
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.contraction import Contraction
from tilewright.compiler.schedules.contraction_blocks import Blocks, choose_blocks
from tilewright.compiler.schedules.contraction_shape import Roles, oriented, roles_of
from tilewright.compiler.schedules.group import Group, finish
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.groups import group_label, is_outer, row_label
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div, largest, product
from tilewright.ir.types import DType, bool_, i64

MOST = 512
"""Rows, and columns, of a block of the result."""

LEAST = 128
"""Columns of a block of the result that is cut so that all threads have some."""


def lower_groups(group: Group, target: Target) -> LoweredKernel:
    """One product of groups with its elementwise epilogue."""
    form = _Outer if is_outer(group.anchors[0].attrs) else _Product
    return form(group, target).lower()


class _Groups(Contraction):
    """What both forms share: where groups begin and end."""

    @property
    def ends(self) -> Node:
        return self.node.inputs[2]

    @property
    def rows(self) -> Dim:
        return self.roles.sizes[row_label(self.node.attrs)]

    def _per_group(self, roles: Roles) -> tuple[Roles, int]:
        """The roles as of one group of the average size, and that size."""
        row = row_label(self.node.attrs)
        each = ceil_div(estimate(roles.sizes[row]), max(1, estimate(self.ends.shape[0])))
        return replace(roles, sizes={**roles.sizes, row: max(1, each)}), max(1, each)

    def _register(self, name: str, value: k.ExprLike) -> k.Buffer:
        register = self.w.alloc(name, i64, 1, "register")
        self._set(register, value)
        return register

    def _set(self, register: k.Buffer, value: k.ExprLike) -> None:
        self.w.write(k.Store(register, k.Const(0), k.expr(value)))

    def _get(self, name: str, register: k.Buffer) -> k.Expr:
        return self.w.let(name, k.Load(register, k.Const(0)))


class _Product(_Groups):
    """Rows, each with the matrix of its group."""

    low_row: k.Expr
    last_row: k.Expr
    belongs: k.Expr
    """Whether the rows of the block belong to a group."""

    def _shape(self, values: Sequence[Node]) -> tuple[Roles, Blocks]:
        roles = oriented(self.node, values, self.w.is_leaf, flipped=False)
        one, _ = self._per_group(roles)
        return roles, _product_blocks(one, roles.m, choose_blocks(one, self.target, self.dtype))

    def lower(self) -> LoweredKernel:
        b, w = self.blocks, self.w
        # As many turns as there can be pieces; the pieces that there are, spread over them.
        most = self.rows // self._each + self.ends.shape[0] + 1
        with w.loop("p", 0, b.column_blocks * most, "parallel") as p:
            column_block, turn = (w.let("o", e) for e in unflatten(p, [b.column_blocks, most]))
            count = self._walk(lambda *_: None)
            unit = w.let("unit", k.floordiv(k.mul(count, turn), most))
            following = k.floordiv(k.mul(count, k.add(turn, 1)), most)
            with w.when(k.compare("gt", following, unit)):
                self._unit(unit, column_block)
        return finish(
            self.group, w, self.outputs, self.workspaces, inplace=self.outputs, offset=self.offset)

    @property
    def _each(self) -> int:
        """Rows of a piece of a group."""
        return self.blocks.block_tiles * self.blocks.rows

    def _unit(self, unit: k.Expr, column_block: k.Expr) -> None:
        """A block of columns of a piece of a group."""
        w, tile = self.w, self.blocks.rows
        self._find(unit)
        rows = w.let("rows", k.sub(self.last_row, self.low_row))
        tiles = w.let("tiles", k.floordiv(k.add(rows, tile - 1), tile))
        panels = self._panels_of(column_block)
        self._block_of((), (k.Const(0), tiles), panels, self.low_row, rows)

    def _walk(self, visit: Callable[[k.Expr, k.Expr, k.Expr, k.Expr, k.Expr], None]) -> k.Expr:
        """Go through the groups, and the rows behind them as one more; the number of their pieces.

        ``visit`` gets the group, its first row and the next one's, how many pieces groups before
        it have, and how many it has.
        """
        w, groups = self.w, self.ends.shape[0]
        end, before = self._register("end", 0), self._register("before", 0)
        with w.loop("g", 0, groups + 1) as g:
            low, done = self._get("low", end), self._get("done", before)
            inside = w.let("inside", k.compare("lt", g, groups))
            given = k.minimum(w.value(self.ends, (g,), inside), self.rows)
            stop = k.Call("where", (inside, given, k.expr(self.rows)), i64)
            high = w.let("high", k.maximum(low, stop))
            full = k.add(k.sub(high, low), self._each - 1)
            pieces = w.let("pieces", k.floordiv(full, self._each))
            visit(g, low, high, done, pieces)
            self._set(end, high)
            self._set(before, k.add(done, pieces))
        return self._get("count", before)

    def _find(self, unit: k.Expr) -> None:
        """Find the rows of a piece of a group, whose pieces have about as many tiles each."""
        b, w = self.blocks, self.w
        group, first, last = (self._register(name, 0) for name in ("group", "first", "last"))

        def visit(
            g: k.Expr, low: k.Expr, high: k.Expr, before: k.Expr, pieces: k.Expr
        ) -> None:
            piece = w.let("piece", k.sub(unit, before))
            here = (k.compare("ge", piece, 0), k.compare("lt", piece, pieces))
            with w.when(k.Call("and", here, bool_)):
                tiles = k.floordiv(k.add(k.sub(high, low), b.rows - 1), b.rows)
                for bound, number in ((first, piece), (last, k.add(piece, 1))):
                    tile = k.Call("floordiv", (k.mul(tiles, number), pieces), i64)
                    self._set(bound, k.minimum(k.add(low, k.mul(tile, b.rows)), high))
                self._set(group, g)

        self._walk(visit)
        here = self._get("group", group)
        self.fixed = {group_label(self.node.attrs): here}
        self.belongs = w.let("belongs", k.compare("lt", here, self.ends.shape[0]))
        self.low_row, self.last_row = self._get("row", first), self._get("row", last)

    def _first_row(self, tile: k.Expr) -> k.Expr:
        return k.add(self.low_row, k.mul(tile, self.blocks.rows))

    def _last_row(self) -> k.Expr:
        return self.last_row

    def _depth(self, block: k.Expr) -> k.Expr:
        return k.Call("where", (self.belongs, super()._depth(block), k.Const(0)), i64)


class _Outer(_Groups):
    """For each group, the products of its rows, added up."""

    start: k.Expr
    stop: k.Expr
    count: k.Expr
    """The number of depth blocks."""

    def _shape(self, values: Sequence[Node]) -> tuple[Roles, Blocks]:
        roles = roles_of(self.node, values, self.w.is_leaf)
        one, each = self._per_group(roles)
        found = choose_blocks(one, self.target, self.dtype)
        return roles, _outer_blocks(one, roles.depth, each, found, self.dtype)

    def lower(self) -> LoweredKernel:
        b, w = self.blocks, self.w
        # Each thread has a share of all groups, however unequal they are.
        sizes = [b.column_blocks, b.row_blocks, self.ends.shape[0]]
        with w.loop("p", 0, product(sizes), "parallel") as p:
            column_block, row_block, group = (w.let("o", e) for e in unflatten(p, sizes))
            self._range(group)
            self._block((), row_block, column_block)
        return finish(
            self.group, w, self.outputs, self.workspaces, inplace=self.outputs, offset=self.offset)

    def _range(self, group: k.Expr) -> None:
        """Find the rows of a group."""
        w, end = self.w, self._register("end", 0)
        with w.loop("g", 0, group) as g:
            given = w.value(self.ends, (g,))
            self._set(end, k.maximum(self._get("low", end), given))
        low = self._get("low", end)
        self.start = w.let("start", k.minimum(low, self.rows))
        high = k.maximum(low, w.value(self.ends, (group,)))
        self.stop = w.let("stop", k.minimum(high, self.rows))
        depth = self.blocks.depth
        whole = k.floordiv(k.add(k.sub(self.stop, self.start), depth - 1), depth)
        self.count = w.let("count", k.maximum(whole, 1))
        self.fixed = {group_label(self.node.attrs): group}

    def _low(self, block: k.Expr) -> k.Expr:
        return k.add(self.start, k.mul(block, self.blocks.depth))

    def _depth(self, block: k.Expr) -> k.Expr:
        return k.minimum(k.Const(self.blocks.depth), k.sub(self.stop, self._low(block)))

    def _depth_blocks(self) -> k.Expr:
        return self.count

    def _ragged(self, unroll: int) -> bool:
        return unroll > 1


def _product_blocks(one: Roles, rows: Dim, b: Blocks) -> Blocks:
    """Blocks of a product, from those of one group."""
    most = MOST if not isinstance(rows, int) else min(MOST, max(1, rows))
    column_blocks, block_panels = b.column_blocks, b.block_panels
    if isinstance(b.panels, int):
        column_blocks = _shares(b.panels, b.columns) if b.private_rhs or b.share_rhs else 1
        block_panels = ceil_div(b.panels, column_blocks)
    return replace(
        b, row_blocks=1, column_blocks=column_blocks, block_tiles=ceil_div(most, b.rows),
        block_panels=block_panels, direct_lhs=False, share_rhs=False,
        private_rhs=b.private_rhs or b.share_rhs)


def _shares(panels: int, columns: int) -> int:
    """Blocks of columns, an even number of them if they can be."""
    count = max(ceil_div(panels * columns, MOST), 2 if panels * columns >= 2 * LEAST else 1)
    return min(panels, ceil_div(count, 2) * 2 if count > 1 else 1)


def _outer_blocks(one: Roles, rows: Dim, each: int, b: Blocks, dtype: DType) -> Blocks:
    """Blocks of an outer product, from those of one group of ``each`` rows."""
    depth = min(4096 // dtype.itemsize, ceil_div(2 * each, 64) * 64)
    row_blocks, column_blocks = b.row_blocks, b.column_blocks
    block_tiles, block_panels = b.block_tiles, b.block_panels
    if isinstance(b.row_tiles, int) and isinstance(b.panels, int):
        row_blocks = ceil_div(b.row_tiles * b.rows, MOST)
        column_blocks = ceil_div(b.panels * b.columns, MOST)
        if row_blocks * column_blocks < 4:
            column_blocks = max(column_blocks, _shares(b.panels, b.columns))
        if row_blocks * column_blocks < 4 and b.row_tiles * b.rows >= 4 * LEAST:
            row_blocks *= 2
        block_tiles = ceil_div(b.row_tiles, row_blocks)
        block_panels = ceil_div(b.panels, column_blocks)
    return replace(
        b, depth=depth, depth_blocks=largest(2, ceil_div(rows, depth)), row_blocks=row_blocks,
        column_blocks=column_blocks, block_tiles=block_tiles, block_panels=block_panels,
        direct_lhs=False, share_rhs=False, private_rhs=b.private_rhs or b.share_rhs,
        lhs_stride=(depth if b.lhs_by_rows else depth * b.rows) + 64 // dtype.itemsize)
