"""Pointwise kernels with transposed operands: a tile in shared memory is read along the rows of the
operand and used along those of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.contraction_shape import unit_axis
from tilewright.compiler.schedules.domain import Domain
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import hold
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import ceil_div, product

SIDE = 32
"""Rows and columns of a tile."""

PITCH = SIDE + 1
"""Elements from one row of a tile to the next: a column, too, lies in different banks."""

DOWN = 8
"""Rows of a tile that a block's threads work on at once."""


def turned(group: Group, domain: Domain, across: int) -> list[Node]:
    """The operands that are contiguous along merged axis number ``across``."""
    w = group.writer()
    run = domain.runs[across]
    return [
        n for n in group.members(w)
        if n.op.name == "transpose" and n.shape == group.shape and unit_axis(n, w.is_leaf) in run]


def lower_tiles(group: Group, domain: Domain, across: int) -> LoweredKernel:
    """Tiles of the innermost merged axis and number ``across``, a block for each."""
    w, outputs = group.writer(), output_buffers(group)
    nodes = turned(group, domain, across)
    *outer, inner = domain.extents
    tiles = ceil_div(outer[across], SIDE), ceil_div(inner, SIDE)
    sizes = [*outer[:across], tiles[0], *outer[across + 1:], tiles[1]]
    with w.loop("b", 0, product(sizes), "block") as b:
        place = [w.let("o", e) for e in unflatten(b, sizes)]
        left = w.let("left", k.mul(place.pop(), SIDE))
        top = w.let("top", k.mul(place[across], SIDE))
        buffers = {n: w.alloc("tile", n.dtype, SIDE * PITCH, "shared") for n in nodes}

        @contextmanager
        def element(row: k.Expr, column: k.Expr) -> Iterator[Index]:
            """What is done for an element, if there is one."""
            inside = k.both(
                k.compare("lt", row, k.expr(outer[across])),
                k.compare("lt", column, k.expr(inner)))
            assert inside is not None
            with w.when(inside):
                row, column = w.let("row", row, own=True), w.let("column", column, own=True)
                yield domain.index([*place[:across], row, *place[across + 1:], column])

        with w.loop("t", 0, SIDE * DOWN, "thread") as t:
            x, y = w.let("x", k.mod(t, SIDE)), w.let("y", k.floordiv(t, SIDE))
            with w.loop("u", 0, SIDE, "unroll", step=DOWN) as u:
                down = k.add(y, u)
                with element(k.add(top, x), k.add(left, down)) as at:
                    for node, tile in buffers.items():
                        where = k.add(k.mul(down, PITCH), x)
                        w.write(k.Store(tile, where, w.value(node, at)))
            w.write(k.Barrier())
            with w.loop("u", 0, SIDE, "unroll", step=DOWN) as u:
                down = k.add(y, u)
                with element(k.add(top, down), k.add(left, x)) as at:
                    for node, tile in buffers.items():
                        hold(w, node, k.Load(tile, k.add(k.mul(x, PITCH), down)), at)
                    store_all(group, w, outputs, at)
                    for node in nodes:
                        w.bound.pop(node)
    return finish(group, w, outputs)
