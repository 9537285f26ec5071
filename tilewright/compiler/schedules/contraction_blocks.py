"""How a contraction is cut into blocks for the caches and tiles for the registers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.compiler.schedules.contraction_shape import Roles
from tilewright.compiler.target import Target
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, Size, ceil_div, largest, product
from tilewright.ir.types import DType


@dataclass(frozen=True)
class Blocks:
    """How the iteration space is cut.

    rows, columns   the register tile, in elements; columns = vectors * lanes
    depth           contracted elements of a depth block
    row_tiles, panels, depth_blocks    how many of each there are
    row_blocks, column_blocks          blocks of the result that are shared among the threads
    block_tiles, block_panels          the most tiles and panels of one block
    direct_lhs      lhs is read where it is; else copied per block
    share_rhs       rhs is packed once by the team; private_rhs: per block; neither: not packed
    lhs_by_rows     the copy of lhs keeps rows; else tiles of rows, in each of which the rows of one
                    contracted index stand together
    lhs_stride      from one row, or tile of rows, of the copy of lhs to the next
    row_columns     a panel does not cross from one stretch of so many columns to the next
    split           contracted runs from this one on are walked in loops of their own; None: as one
    inner           contracted elements of these runs
    pieces          depth blocks that they are cut into; if 1, a block has several of them whole
    at_once         a panel of rhs is packed when it is needed, into one place
    """

    rows: int
    vectors: int
    lanes: int
    depth: int
    unroll: int
    row_tiles: Dim
    panels: Dim
    depth_blocks: Dim
    row_blocks: Dim
    column_blocks: Dim
    block_tiles: int
    block_panels: int
    direct_lhs: bool
    share_rhs: bool
    private_rhs: bool
    lhs_by_rows: bool
    lhs_stride: int
    row_columns: Dim
    split: int | None
    inner: int
    pieces: int
    at_once: bool

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


MOST_ROWS_UNPACKED = 6
"""Rows up to which windows are read where they are."""

SMALL = 48 ** 3
"""Products below which packing costs more than it gives."""


def register_tiles(target: Target) -> list[tuple[int, int]]:
    """(rows, vectors) that leave registers for a row of rhs and a broadcast element."""
    if target.registers >= 32:
        return [(14, 2), (12, 2), (13, 2), (10, 2), (8, 3), (9, 3), (7, 3), (8, 2), (6, 4), (5, 4),
                (16, 1), (8, 1), (4, 4), (4, 2), (4, 1), (2, 4), (2, 2), (2, 1), (1, 4), (1, 1)]
    return [(6, 2), (5, 2), (4, 2), (4, 3), (3, 3), (12, 1), (8, 1), (4, 1), (2, 4), (2, 2), (2, 1),
            (1, 4), (1, 2), (1, 1)]


def choose_tile(
    m: int, n: int, lanes: int, target: Target, stretches: int = 1
) -> tuple[int, int]:
    """The register tile with the least work: padding, and loads that do not hide behind FMAs.

    ``n`` is the length of a stretch of columns, which tiles do not leave.
    """
    def work(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        columns = vectors * lanes
        padded = ceil_div(m, rows) * rows * ceil_div(n, columns) * columns * stretches
        # FMAs, loads, the latency of a short chain; and what the panel costs on its way from L2.
        per_step = max(rows * vectors, 1.25 * (rows + vectors), 8.0) + 0.3 * vectors
        return padded * per_step / (rows * vectors)
    fitting = [t for t in register_tiles(target) if t[0] <= m] or [(1, 1)]
    return min(fitting, key=work)


def stretch(roles: Roles, lanes: int) -> Dim:
    """The columns that panels do not cross: all, or the innermost run if rhs is read along it.

    A vector across its end would gather its elements, each by an index of its own; one that stops
    there has lanes that do nothing.
    """
    runs = [run for run in roles.runs["n"] if roles.size_of(run) != 1]
    if len(runs) < 2 or roles.rhs_unit != "n" or len(roles.chains("n", "rhs")) == 1:
        return roles.n
    inner = roles.size_of(runs[-1])
    if runs[-1][-1] != roles.rhs_unit_label or not isinstance(inner, int) or roles.n == 0:
        return roles.n
    # Cycles per element of rhs: FMAs with a row of lhs each, and packing it.
    row = estimate(roles.m) / (2 * lanes)
    whole, crossing = row * (ceil_div(inner, lanes) * lanes / inner) + 0.2, row + 3.0
    return inner if whole <= crossing else roles.n


@dataclass(frozen=True)
class Depth:
    """How the contracted elements are cut: see :class:`Blocks`."""

    depth: int
    blocks: Dim
    split: int | None = None
    inner: int = 1
    pieces: int = 1


def choose_depth(roles: Roles, most: int, unroll: int, small: bool) -> Depth:
    """Depth blocks of up to ``most`` elements."""
    split = split_depth(roles, most)
    inner = None if split is None else product(roles.extents("k")[split:])
    if split is None or not isinstance(inner, int):
        total = max(1, estimate(roles.depth))
        if small or total <= most:
            return Depth(total, 1)
        depth = ceil_div(ceil_div(total, ceil_div(total, most)), unroll) * unroll
        return Depth(depth, ceil_div(total, depth))
    outer = product(roles.extents("k")[:split])
    if small and isinstance(outer, int):
        return Depth(outer * inner, 1, split, inner)
    if inner <= most:
        repeats = ceil_div(estimate(outer), ceil_div(estimate(outer), most // inner))
        return Depth(repeats * inner, largest(1, ceil_div(outer, repeats)), split, inner)
    depth = ceil_div(ceil_div(inner, ceil_div(inner, most)), unroll) * unroll
    pieces = ceil_div(inner, depth)
    return Depth(depth, outer * pieces, split, inner, pieces)


def split_depth(roles: Roles, most: int) -> int | None:
    """The first contracted run that is walked in a loop of its own; None if there is only one."""
    extents = roles.extents("k")
    wide = [i for i, d in enumerate(extents) if d != 1]
    if len(wide) < 2 or roles.depth == 0:
        return None
    behind = product(extents[1:])
    taps = roles.rhs_unit == "n" and isinstance(behind, int) and behind <= most
    return 1 if taps else wide[-1]


def choose_blocks(roles: Roles, target: Target, dtype: DType) -> Blocks:
    """Cache blocks for the target: the lhs block and the result block in L2, a panel near L1."""
    lanes = target.lanes(dtype.itemsize)
    m, n, depth_total = estimate(roles.m), estimate(roles.n), max(1, estimate(roles.depth))
    row_columns = stretch(roles, lanes)
    row = estimate(row_columns)
    stretches = n // max(1, row)
    rows, vectors = choose_tile(m, row, lanes, target, stretches)
    columns = vectors * lanes
    row_tiles, panels = ceil_div(m, rows), ceil_div(row, columns) * stretches
    unroll = 4 if depth_total >= 4 else 1
    small = m * n * depth_total <= SMALL
    cut = choose_depth(roles, 4096 // dtype.itemsize, unroll, small)
    at_once = row_columns != roles.n or cut.split is not None
    batch = estimate(roles.batch_size)
    direct_lhs = small and roles.m % rows == 0 and not at_once
    # What one tile of rows reads once need not be packed for it.
    few_rows = at_once and m <= MOST_ROWS_UNPACKED
    direct_rhs = roles.rhs_unit == "n" and (few_rows or small and not at_once)
    if small:
        row_blocks = column_blocks = 1
        share = False
    elif m > 512 and batch == 1 and n > columns and not at_once:
        row_blocks = _even(ceil_div(row_tiles, max(1, 224 // rows)), row_tiles)
        column_blocks = ceil_div(panels, max(1, 1024 // columns))
        share = True
    else:
        share = False
        row_blocks, column_blocks = own_blocks(roles, row_tiles, panels, columns, lanes)
    block_tiles = ceil_div(row_tiles, row_blocks)
    by_rows = roles.lhs_unit == "k"
    pad = 64 // dtype.itemsize
    # Tiles, too, are apart by more than a multiple of a page: they are written side by side.
    lhs_stride = (cut.depth if by_rows else cut.depth * rows) + pad
    blocks = Blocks(
        rows, vectors, lanes, cut.depth, unroll, row_tiles, panels, cut.blocks, row_blocks,
        column_blocks, block_tiles, ceil_div(panels, column_blocks), direct_lhs, share,
        not share and not direct_rhs, by_rows, lhs_stride, row_columns, cut.split, cut.inner,
        cut.pieces, at_once)
    if isinstance(roles.m * roles.n * roles.depth, int):
        return blocks
    return _blocks_of_sizes(roles, blocks, pad)


COPY, PACK, TURN = 0.4, 0.2, 0.4
"""Cycles for an element of lhs that is copied, of rhs that is copied, and turned on the way."""


def own_blocks(
    roles: Roles, row_tiles: int, panels: int, columns: int, lanes: int
) -> tuple[int, int]:
    """Blocks of rows and of columns where each packs what it needs for itself.

    There are four at least, for the threads. More blocks of columns copy lhs more often, more
    blocks of rows pack rhs again: which is less is chosen.
    """
    batch, m, n = estimate(roles.batch_size), estimate(roles.m), estimate(roles.n)
    least = max(1, ceil_div(m, 512))

    def rows_beside(column_blocks: int) -> int:
        shared = batch * column_blocks
        wanted = max(least, ceil_div(4, shared))
        return min(row_tiles, wanted + (shared * wanted) % 2)

    def copied(column_blocks: int) -> float:
        pack = PACK if roles.rhs_unit == "n" else TURN
        return column_blocks * m * COPY + rows_beside(column_blocks) * n * pack

    few = ceil_div(panels, max(1, 512 // columns))
    usual = min(panels, max(few, 4 if batch < 4 else 1))
    if batch * usual % 2:
        usual = min(panels, usual + 1)
    enough = min(4, batch * usual * rows_beside(usual))
    best = min((c for c in range(min(few, usual), usual + 1)
                if batch * c * rows_beside(c) >= enough), key=copied)
    if copied(usual) - copied(best) < 0.04 * m * n / (2 * lanes):
        best = usual
    return rows_beside(best), best


def _blocks_of_sizes(roles: Roles, b: Blocks, pad: int) -> Blocks:
    """Blocks for sizes that are known when the program runs, from those for their estimates.

    The blocks, whose copies need room, are numbers; how many there are is not.
    """
    depth, depth_blocks = b.depth, b.depth_blocks
    if isinstance(roles.depth, Size) and b.split is None:
        depth = min(1024, ceil_div(2 * estimate(roles.depth), 64) * 64)
        depth_blocks = largest(1, ceil_div(roles.depth, depth))
    row_tiles, row_blocks, block_tiles = b.row_tiles, b.row_blocks, b.block_tiles
    if isinstance(roles.m, Size):
        if not b.share_rhs:
            # Each block packs rhs, for the rows of many sizes.
            block_tiles = max(block_tiles, 224 // b.rows)
        row_tiles = ceil_div(roles.m, b.rows)
        # Two threads share them evenly.
        row_blocks = 2 * ceil_div(row_tiles, 2 * block_tiles)
    panels, column_blocks, block_panels = b.panels, b.column_blocks, b.block_panels
    if isinstance(roles.n, Size):
        block_panels = max(block_panels, 4)
        stretches = 1 if b.row_columns == roles.n else roles.n // b.row_columns
        panels = ceil_div(b.row_columns, b.columns) * stretches
        column_blocks = ceil_div(panels, block_panels)
    stride = (depth if b.lhs_by_rows else depth * b.rows) + pad
    return replace(
        b, depth=depth, row_tiles=row_tiles, panels=panels, depth_blocks=depth_blocks,
        row_blocks=row_blocks, column_blocks=column_blocks, block_tiles=block_tiles,
        block_panels=block_panels, lhs_stride=stride)


def _even(count: int, most: int) -> int:
    """A number of blocks that two or four threads share evenly, if there are tiles for it."""
    rounded = ceil_div(count, 4) * 4 if count > 4 else ceil_div(count, 2) * 2
    return max(1, min(rounded, most))
