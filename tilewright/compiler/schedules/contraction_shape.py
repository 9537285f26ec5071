"""How a contraction is seen as a batched matrix product, and how it is cut into blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.domain import fixed_boundaries
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, Size, ceil_div, largest, product
from tilewright.ir.types import DType


@dataclass(frozen=True)
class Roles:
    """``result[batch, m, n] = sum over k of lhs[batch, m, k] * rhs[batch, k, n]``.

    A class of labels is a list of runs; the axes of a run are walked as one, because they stand
    next to each other wherever they occur.
    """

    lhs: Node
    rhs: Node
    lhs_labels: tuple[int, ...]
    rhs_labels: tuple[int, ...]
    runs: Mapping[str, tuple[tuple[int, ...], ...]]
    sizes: Mapping[int, Dim]
    lhs_unit: str
    """The class, 'm' or 'k', of the axis along which lhs is contiguous."""
    rhs_unit: str
    """Likewise 'n' or 'k' for rhs."""

    def extents(self, which: str) -> list[Dim]:
        """The sizes of a class's runs."""
        return [product(self.sizes[label] for label in run) for run in self.runs[which]]

    def size(self, which: str) -> Dim:
        return product(self.extents(which))

    @property
    def m(self) -> Dim:
        return self.size("m")

    @property
    def n(self) -> Dim:
        return self.size("n")

    @property
    def depth(self) -> Dim:
        return self.size("k")

    @property
    def batch_extents(self) -> list[Dim]:
        return self.extents("batch")

    @property
    def batch_size(self) -> Dim:
        return self.size("batch")

    def place(self, which: str, positions: Index) -> dict[int, k.Expr]:
        """Label -> index for positions on a class's runs: the innermost axis takes all of it."""
        result: dict[int, k.Expr] = {}
        for run, position in zip(self.runs[which], positions, strict=True):
            for label in run[:-1]:
                result[label] = k.Const(0)
            result[run[-1]] = position
        return result

    def spread(self, which: str, position: k.Expr) -> dict[int, k.Expr]:
        """Label -> index for one position on a class as a whole."""
        return self.place(which, unflatten(position, self.extents(which)))


def unit_axis(node: Node, is_leaf: Callable[[Node], bool]) -> int | None:
    """The axis along which neighbours in ``node`` are neighbours in memory, if views tell."""
    shape = node.shape
    last = next((i for i in reversed(range(len(shape))) if shape[i] != 1), None)
    op = node.op.name
    if is_leaf(node) or not node.inputs:
        return last
    source = node.inputs[0]
    if op == "reshape":
        return last
    inner = unit_axis(source, is_leaf)
    if inner is None:
        return None
    if op == "transpose":
        return tuple(node.attrs.perm).index(inner)
    if op == "broadcast":
        return int(node.attrs.axes[inner])
    if op in ("take", "take_along") and inner == node.attrs.axis:
        return None
    if op == "take" and inner > node.attrs.axis:
        return inner + node.inputs[1].type.rank - 1
    return inner


def roles_of(node: Node, values: Sequence[Node], is_leaf: Callable[[Node], bool]) -> Roles:
    """Which operand is broadcast and which is read as vectors, whichever needs less rearranging."""
    a = node.attrs
    options = []
    for flipped in (False, True):
        pair = [(node.inputs[0], a.lhs), (node.inputs[1], a.rhs)]
        (lhs, lhs_labels), (rhs, rhs_labels) = reversed(pair) if flipped else pair
        roles = _roles(node, lhs, lhs_labels, rhs, rhs_labels, values, is_leaf)
        # Cycles per element: vectors copied, squares transposed, elements scattered.
        m, n, depth = estimate(roles.m), estimate(roles.n), estimate(roles.depth)
        cost = depth * n * (0.2 if roles.rhs_unit == "n" else 0.4)
        last = next((x for x in reversed(a.out) if roles.sizes[x] != 1), None)
        if last is not None and not any(last in run for run in roles.runs["n"]):
            cost += 3.0 * m * n
        options.append((cost * estimate(roles.batch_size), roles))
    return min(options, key=lambda option: option[0])[1]


def _roles(
    node: Node, lhs: Node, lhs_labels: tuple[int, ...], rhs: Node, rhs_labels: tuple[int, ...],
    values: Sequence[Node], is_leaf: Callable[[Node], bool],
) -> Roles:
    out = node.attrs.out
    sizes = dict(zip(lhs_labels, lhs.shape, strict=True))
    sizes |= dict(zip(rhs_labels, rhs.shape, strict=True))
    both = set(lhs_labels) & set(rhs_labels)
    classes = {
        "batch": [x for x in out if x in both],
        "m": [x for x in out if x in lhs_labels and x not in both],
        "n": [x for x in out if x in rhs_labels and x not in both],
        "k": [x for x in rhs_labels if x in both and x not in out],
    }
    joined = _joinable(lhs, lhs_labels, is_leaf) & _joinable(rhs, rhs_labels, is_leaf)
    joined &= _joinable_out(out, values, node, is_leaf)
    runs = {}
    for name, labels in classes.items():
        chains: list[list[int]] = []
        for label in labels:
            if sizes[label] == 1:
                continue
            if chains and (chains[-1][-1], label) in joined:
                chains[-1].append(label)
            else:
                chains.append([label])
        ones = [label for label in labels if sizes[label] == 1]
        runs[name] = tuple(tuple(c) for c in chains) + tuple((x,) for x in ones)
    left, right = unit_axis(lhs, is_leaf), unit_axis(rhs, is_leaf)
    lhs_unit = "m" if left is not None and lhs_labels[left] in classes["m"] else "k"
    rhs_unit = "n" if right is not None and rhs_labels[right] in classes["n"] else "k"
    return Roles(lhs, rhs, lhs_labels, rhs_labels, runs, sizes, lhs_unit, rhs_unit)


class _Pairs:
    """Pairs of labels that a tensor lets us walk as one; a tensor without them has no objection."""

    def __init__(self, pairs: set[tuple[int, int]], present: set[int]) -> None:
        self.pairs, self.present = pairs, present

    def __and__(self, other: _Pairs) -> _Pairs:
        def allowed(tensor: _Pairs, pair: tuple[int, int]) -> bool:
            return pair in tensor.pairs or not set(pair) & tensor.present
        every = self.pairs | other.pairs
        kept = {p for p in every if allowed(self, p) and allowed(other, p)}
        return _Pairs(kept, self.present | other.present)

    def __contains__(self, pair: tuple[int, int]) -> bool:
        return pair in self.pairs


def _joinable(node: Node, labels: Sequence[int], is_leaf: Callable[[Node], bool]) -> _Pairs:
    fixed = fixed_boundaries([node], is_leaf, lambda n: False)
    pairs = {(labels[i], labels[i + 1]) for i in range(len(labels) - 1) if i not in fixed}
    return _Pairs(pairs, set(labels))


def _joinable_out(
    out: Sequence[int], values: Sequence[Node], node: Node, is_leaf: Callable[[Node], bool]
) -> _Pairs:
    fixed = fixed_boundaries(values, lambda n: n is node or is_leaf(n), lambda n: False)
    pairs = {(out[i], out[i + 1]) for i in range(len(out) - 1) if i not in fixed}
    return _Pairs(pairs, set(out))


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
    lhs_by_rows     the copy of lhs keeps rows together (else contracted indices); lhs_stride apart
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

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


SMALL = 48 ** 3
"""Products below which packing costs more than it gives."""


def register_tiles(target: Target) -> list[tuple[int, int]]:
    """(rows, vectors) that leave registers for a row of rhs and a broadcast element."""
    if target.registers >= 32:
        return [(14, 2), (12, 2), (13, 2), (10, 2), (8, 3), (9, 3), (7, 3), (8, 2), (6, 4), (5, 4),
                (16, 1), (8, 1), (4, 4), (4, 2), (4, 1), (2, 4), (2, 2), (2, 1), (1, 4), (1, 1)]
    return [(6, 2), (5, 2), (4, 2), (4, 3), (3, 3), (12, 1), (8, 1), (4, 1), (2, 4), (2, 2), (2, 1),
            (1, 4), (1, 2), (1, 1)]


def choose_tile(m: int, n: int, lanes: int, target: Target) -> tuple[int, int]:
    """The register tile with the least work: padding, and loads that do not hide behind FMAs."""
    def work(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        columns = vectors * lanes
        padded = ceil_div(m, rows) * rows * ceil_div(n, columns) * columns
        # FMAs, loads, the latency of a short chain; and what the panel costs on its way from L2.
        per_step = max(rows * vectors, 1.25 * (rows + vectors), 8.0) + 0.3 * vectors
        return padded * per_step / (rows * vectors)
    fitting = [t for t in register_tiles(target) if t[0] <= m] or [(1, 1)]
    return min(fitting, key=work)


def choose_blocks(roles: Roles, target: Target, dtype: DType) -> Blocks:
    """Cache blocks for the target: the lhs block and the result block in L2, a panel near L1."""
    lanes = target.lanes(dtype.itemsize)
    m, n, depth_total = estimate(roles.m), estimate(roles.n), max(1, estimate(roles.depth))
    rows, vectors = choose_tile(m, n, lanes, target)
    columns = vectors * lanes
    row_tiles, panels = ceil_div(m, rows), ceil_div(n, columns)
    unroll = 4 if depth_total >= 4 else 1
    products = m * n * depth_total
    small = products <= SMALL
    most_depth = 4096 // dtype.itemsize
    depth_blocks = 1 if small else ceil_div(depth_total, most_depth)
    depth = depth_total
    if depth_blocks > 1:
        depth = ceil_div(ceil_div(depth_total, depth_blocks), unroll) * unroll
        depth_blocks = ceil_div(depth_total, depth)
    batch = estimate(roles.batch_size)
    direct_lhs = small and roles.m % rows == 0
    direct_rhs = small and roles.rhs_unit == "n"
    if small:
        row_blocks = column_blocks = 1
        share = False
    elif m > 512 and batch == 1 and n > columns:
        row_blocks = _even(ceil_div(row_tiles, max(1, 224 // rows)), row_tiles)
        column_blocks = ceil_div(panels, max(1, 1024 // columns))
        share = True
    else:
        share = False
        wanted = max(ceil_div(panels, max(1, 512 // columns)), 4 if batch < 4 else 1)
        column_blocks = min(panels, wanted)
        if batch * column_blocks % 2:
            column_blocks = min(panels, column_blocks + 1)
        row_blocks = max(1, ceil_div(m, 512))
        if batch * column_blocks < 4:
            # Packing rhs again for every block of rows is the smaller evil.
            row_blocks = max(row_blocks, min(row_tiles, 4))
    block_tiles = ceil_div(row_tiles, row_blocks)
    by_rows = roles.lhs_unit == "k"
    pad = 64 // dtype.itemsize
    stride = depth + pad if by_rows else ceil_div(block_tiles * rows, lanes) * lanes
    blocks = Blocks(
        rows, vectors, lanes, depth, unroll, row_tiles, panels, depth_blocks, row_blocks,
        column_blocks, block_tiles, ceil_div(panels, column_blocks), direct_lhs, share,
        not share and not direct_rhs, by_rows, stride)
    if isinstance(roles.m * roles.n * roles.depth, int):
        return blocks
    return _blocks_of_sizes(roles, blocks, pad)


def _blocks_of_sizes(roles: Roles, b: Blocks, pad: int) -> Blocks:
    """Blocks for sizes that are known when the program runs, from those for their estimates.

    The blocks, whose copies need room, are numbers; how many there are is not.
    """
    depth, depth_blocks = b.depth, b.depth_blocks
    if isinstance(roles.depth, Size):
        depth = min(1024, ceil_div(2 * estimate(roles.depth), 64) * 64)
        depth_blocks = largest(1, ceil_div(roles.depth, depth))
    row_tiles, row_blocks, block_tiles = b.row_tiles, b.row_blocks, b.block_tiles
    if isinstance(roles.m, Size):
        block_tiles = max(block_tiles, 224 // b.rows)
        row_tiles = ceil_div(roles.m, b.rows)
        # Two threads share them evenly.
        row_blocks = 2 * ceil_div(row_tiles, 2 * block_tiles)
    panels, column_blocks, block_panels = b.panels, b.column_blocks, b.block_panels
    if isinstance(roles.n, Size):
        block_panels = max(block_panels, 4)
        panels = ceil_div(roles.n, b.columns)
        column_blocks = ceil_div(panels, block_panels)
    stride = depth + pad if b.lhs_by_rows else ceil_div(block_tiles * b.rows, b.lanes) * b.lanes
    return replace(
        b, depth=depth, row_tiles=row_tiles, panels=panels, depth_blocks=depth_blocks,
        row_blocks=row_blocks, column_blocks=column_blocks, block_tiles=block_tiles,
        block_panels=block_panels, lhs_stride=stride)


def _even(count: int, most: int) -> int:
    """A number of blocks that two or four threads share evenly, if there are tiles for it."""
    rounded = ceil_div(count, 4) * 4 if count > 4 else ceil_div(count, 2) * 2
    return max(1, min(rounded, most))
