"""Linear systems of small triangular matrices, written out row by row.

Larger ones run in PyTorch, which calls LAPACK.
"""

from __future__ import annotations

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.types import Shape, as_number, broadcast_shapes, i64
from tilewright.torch.nodes import cast, iota, number, reduce, wide
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

MOST_ROWS = 8
"""Rows up to which a system is written out."""


def _turned(x: Node) -> Node:
    rank = x.type.rank
    return build.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def _with_lead(x: Node, lead: Shape) -> Node:
    shape = (*lead, *x.shape[-2:])
    return build.broadcast(x, shape, range(len(shape) - x.type.rank, len(shape)))


def _common(a: Node, b: Node) -> tuple[Node, Node]:
    """Both with the batches that they broadcast to."""
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = as_number(a.shape[-1])
    if rows > MOST_ROWS:
        raise NotCompiled(f"a system of more than {MOST_ROWS} rows")
    return _with_lead(a, lead), _with_lead(b, lead)


def _element(a: Node, i: int, j: int, columns: Shape) -> Node:
    """One element of every matrix, repeated along the columns of the right sides."""
    rank = a.type.rank
    lead = a.shape[:-2]
    found = build.part(a, [0] * (rank - 2) + [i, j], [*lead, i + 1, j + 1], [1] * rank)
    return build.broadcast(build.reshape(found, lead), (*lead, *columns), range(rank - 2))


def substituted(a: Node, b: Node, upper: bool, unit: bool) -> Node:
    """x with a x = b for a triangular ``a`` [..., n, n] and ``b`` [..., n, k], by substitution."""
    n, rank = as_number(a.shape[-1]), b.type.rank
    lead, columns = b.shape[:-2], b.shape[-1:]
    found: dict[int, Node] = {}
    for i in reversed(range(n)) if upper else range(n):
        part = build.part(b, [0] * (rank - 2) + [i, 0], [*lead, i + 1, *columns], [1] * rank)
        value = build.reshape(part, (*lead, *columns))
        for j, x in found.items():
            value = value - _element(a, i, j, columns) * x
        found[i] = value if unit else value / _element(a, i, i, columns)
    rows = [build.reshape(found[i], (*lead, 1, *columns)) for i in range(n)]
    return build.concat(rows, rank - 2)


def solved(a: Node, b: Node, upper: bool, left: bool, unit: bool) -> Node:
    """x with a x = b, or x a = b if not ``left``."""
    if not left:
        return _turned(solved(_turned(a), _turned(b), not upper, True, unit))
    a, b = _common(a, b)
    return substituted(a, b, upper, unit)


@row(aten.linalg_solve_triangular)
def solve_triangular(
    call: Call, a: Node, b: Node, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Node:
    if not call.type.size:
        return number(0, call.type.dtype, call.type.shape)
    dtype = wide(call.type.dtype)
    return solved(cast(a, dtype), cast(b, dtype), upper, left, unitriangular)


@row(aten.triangular_solve)
def triangular_solve(
    call: Call, b: Node, a: Node, upper: bool = True, transpose: bool = False,
    unitriangular: bool = False,
) -> list[Node]:
    x, whole = call.out
    used = _with_lead(a, whole.shape[:-2])
    if not x.size:
        return [number(0, x.dtype, x.shape), used]
    if transpose:
        return [solved(_turned(a), b, not upper, True, unitriangular), used]
    return [solved(a, b, upper, True, unitriangular), used]


def _order(pivots: Node, rows: int) -> Node:
    """The order of rows after LAPACK's exchanges: row i with row pivots[i], counted from 1."""
    count, rank = as_number(pivots.shape[-1]), pivots.type.rank
    if count > MOST_ROWS:
        raise NotCompiled(f"exchanges of more than {MOST_ROWS} rows")
    lead = pivots.shape[:-1]
    shape = (*lead, rows)
    places = iota(shape, rank - 1)

    def column(x: Node, i: int) -> Node:
        found = build.part(x, [0] * (rank - 1) + [i], [*lead, i + 1], [1] * rank)
        return build.broadcast(found, shape, range(rank))

    order = places
    for i in range(count):
        at_other = make("eq", (places, column(cast(pivots, i64), i) - 1))
        at_this = make("eq", (places, number(i, i64, shape)))
        chosen = build.where(at_other, order, number(0, i64, shape))
        value = build.broadcast(reduce("sum", chosen, (rank - 1,), True), shape, range(rank))
        order = build.where(at_this, value, build.where(at_other, column(order, i), order))
    return order


@row(aten.lu_unpack)
def lu_unpack(
    call: Call, lu: Node, pivots: Node, unpack_data: bool = True, unpack_pivots: bool = True
) -> list[Node]:
    permutation, lower, upper = (number(0, t.dtype, t.shape) for t in call.out)
    rank, lead = lu.type.rank, lu.shape[:-2]
    if unpack_data and lu.type.size:
        count = as_number(lower.shape[-1])
        zeros = [0] * rank
        left = build.part(lu, zeros, [*lead, lu.shape[-2], count], [1] * rank)
        right = build.part(lu, zeros, [*lead, count, lu.shape[-1]], [1] * rank)
        i, j = iota(left.shape, rank - 2), iota(left.shape, rank - 1)
        unit = cast(make("eq", (i, j)), lu.dtype)
        lower = build.where(make("gt", (i, j)), left, unit)
        below = make("gt", (iota(right.shape, rank - 2), iota(right.shape, rank - 1)))
        upper = build.where(below, number(0, lu.dtype, right.shape), right)
    if unpack_pivots and permutation.type.size:
        shape = permutation.shape
        order = build.broadcast(
            _order(pivots, as_number(shape[-1])), shape, [*range(rank - 2), rank - 1])
        permutation = make("eq", (iota(shape, rank - 2), order))
    return [permutation, lower, upper]


@row(aten.linalg_lu_solve)
def lu_solve(
    call: Call, lu: Node, pivots: Node, b: Node, *, left: bool = True, adjoint: bool = False
) -> Node:
    if not call.type.size:
        return number(0, call.type.dtype, call.type.shape)
    if not left:  # x a = b is a^T x^T = b^T
        return _turned(_lu_solved(lu, pivots, _turned(b), not adjoint))
    return _lu_solved(lu, pivots, b, adjoint)


def _lu_solved(lu: Node, pivots: Node, b: Node, adjoint: bool) -> Node:
    lu, b = _common(lu, b)
    rank = b.type.rank
    rows = build.broadcast(pivots, b.shape[:-1], range(rank - 1 - pivots.type.rank, rank - 1))
    order = build.broadcast(
        _order(rows, as_number(rows.shape[-1])), b.shape, range(rank - 1))
    if adjoint:
        turned = _turned(lu)
        found = substituted(turned, substituted(turned, b, False, False), True, True)
        return build.put_along(number(0, b.dtype, b.shape), order, found, rank - 2, "set")
    moved = build.take_along(b, order, rank - 2)
    return substituted(lu, substituted(lu, moved, False, True), True, False)
