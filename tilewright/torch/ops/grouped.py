"""Products of groups of rows with a matrix each, as of experts: where a group ends is data.

The rows are laid out in blocks that belong to one group each, the last of a group filled up with
zeros. Their number is known: as many as full ones and one per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.types import bool_, i64
from tilewright.torch.nodes import cast, expand, iota, number, reduce, wide
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

LEAST, MOST = 8, 64
"""Rows of a block."""


@dataclass(frozen=True)
class Blocks:
    """How rows are laid out in blocks.

    group  of each block (blocks,)
    row    that stands at each place (blocks * size,)
    used   whether a row stands there
    place  of each row
    """

    size: int
    group: Node
    row: Node
    used: Node
    place: Node


def blocks_of(rows: int, ends: Node) -> Blocks:
    """Blocks for these rows, whose groups end at ``ends`` (groups,)."""
    groups: Any = ends.shape[0]
    size = max(LEAST, min(MOST, rows // groups // 2))
    count = rows // size + groups
    ends = cast(ends, i64)
    starts = build.shifted(ends, 0, 1, 0)
    full = _blocks_in(ends - starts + (size - 1), size)
    last = _sums(full)
    first = last - full
    group = _clipped(_passed(last, iota((count,), 0)), groups)
    place = iota((count * size,), 0)
    block = _blocks_in(place, size)
    of = build.take(group, block, 0)
    found = build.take(starts, of, 0) + place - build.take(first, of, 0) * size
    used = make("lt", (found, build.take(ends, of, 0)))
    own = _clipped(_passed(ends, iota((rows,), 0)), groups)
    at = build.take(first, own, 0) * size + iota((rows,), 0) - build.take(starts, own, 0)
    return Blocks(size, group, _clipped(found, rows), used, at)


def _sums(x: Node) -> Node:
    """Running sums of a short vector."""
    n: Any = x.shape[0]
    before = make("le", (iota((n, n), 1), iota((n, n), 0)))
    return reduce("sum", build.where(before, expand(x, (n, n)), number(0, i64, (n, n))), (1,))


def _passed(ends: Node, at: Node) -> Node:
    """How many ends are at or before each place."""
    shape = (at.shape[0], ends.shape[0])
    passed = make("le", (
        build.broadcast(ends, shape, (1,)), build.broadcast(at, shape, (0,))))
    return reduce("sum", cast(passed, i64), (1,))


def _blocks_in(rows: Node, size: int) -> Node:
    return make("floordiv", (rows, number(size, i64, rows.shape)))


def _clipped(x: Node, size: Any) -> Node:
    return make("min", (x, number(size - 1, i64, x.shape)))


def laid_out(x: Node, blocks: Blocks) -> Node:
    """Rows (rows, width) in blocks (blocks, size, width)."""
    width = x.shape[1]
    found = build.take(x, blocks.row, 0)
    used = build.broadcast(blocks.used, found.shape, (0,))
    found = build.where(used, found, number(0, x.dtype, found.shape))
    return build.reshape(found, (blocks.group.shape[0], blocks.size, width))


def product(x: Node, weights: Node, blocks: Blocks) -> Node:
    """Each row (rows, k) by the matrix of its group, of (groups, k, n)."""
    own = build.take(weights, blocks.group, 0)
    made = build.contract(laid_out(x, blocks), own, (0, 1, 2), (0, 2, 3), (0, 1, 3))
    flat = build.reshape(made, (made.shape[0] * blocks.size, made.shape[2]))
    return build.take(flat, blocks.place, 0)


def outer(x: Node, y: Node, blocks: Blocks, groups: Any) -> Node:
    """Per group, x (rows, k) transposed by y (rows, n): (groups, k, n)."""
    made = build.contract(
        laid_out(x, blocks), laid_out(y, blocks), (0, 1, 2), (0, 1, 3), (0, 2, 3))
    made = cast(made, wide(made.dtype))
    zero = number(0, made.dtype, (groups, *made.shape[1:]))
    return build.put(zero, blocks.group, made, 0, "add")


@row("transformers::grouped_mm_fallback")
def grouped_mm(call: Call, x: Node, weights: Node, ends: Node) -> Node:
    return product(x, weights, _blocks(x, ends))


@row("transformers::grouped_mm_fallback_backward")
def grouped_mm_backward(
    call: Call, x: Node, weights: Node, ends: Node, gradient: Node
) -> list[Node]:
    blocks = _blocks(x, ends)
    back = build.transpose(weights, (0, 2, 1))
    return [product(gradient, back, blocks), outer(x, gradient, blocks, ends.shape[0])]


def _blocks(x: Node, ends: Node) -> Blocks:
    rows = x.shape[0]
    if not isinstance(rows, int) or not rows or ends.dtype is bool_:
        raise NotCompiled("a number of rows that is not known, or none")
    return blocks_of(rows, ends)
