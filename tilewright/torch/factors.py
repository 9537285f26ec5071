"""Factorisations of small matrices, and what follows from them.

Larger ones run in PyTorch, which calls LAPACK. Results are LAPACK's, but for the signs of
eigenvectors and singular vectors, which it leaves open too.
"""

from __future__ import annotations

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.routines import ExchangeAttrs, ReflectAttrs, TriangleAttrs
from tilewright.ir.types import Shape, TensorType, as_number, f32, f64, i32, i64
from tilewright.torch.looks import CHECK_ERRORS
from tilewright.torch.nodes import cast, iota, number, reduce
from tilewright.torch.table import Call, Check, NotCompiled

MOST = 32
"""Rows and columns up to which a matrix is factorised here."""

MOST_TURNED = 12
"""Columns up to which rotations, and powers, take few enough steps."""

MOST_TALL = 64
"""Rows of a matrix of so few columns, whose number makes the work of a rotation alone."""


def small(x: Node, columns: int = MOST, rows: int = MOST) -> Node:
    """A matrix that is factorised here. Raises ``NotCompiled`` for others."""
    if x.dtype not in (f32, f64):
        raise NotCompiled(f"a matrix of {x.dtype}")
    if as_number(x.shape[-2]) > rows or as_number(x.shape[-1]) > columns:
        raise NotCompiled(f"a matrix of more than {rows} rows or {columns} columns")
    return x


def rows(x: Node, start: int, stop: int) -> Node:
    """Some rows of every matrix."""
    rank = x.type.rank
    lead = x.shape[:-2]
    return build.part(x, [0] * (rank - 2) + [start, 0], [*lead, stop, x.shape[-1]], [1] * rank)


def columns(x: Node, start: int, stop: int) -> Node:
    """Some columns of every matrix."""
    return turned(rows(turned(x), start, stop))


def turned(x: Node) -> Node:
    """The transpose of every matrix."""
    rank = x.type.rank
    return build.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def flat_row(x: Node) -> Node:
    """The only row of every matrix."""
    return build.reshape(x, (*x.shape[:-2], x.shape[-1]))


def as_row(x: Node) -> Node:
    """Vectors as matrices of one row."""
    return build.reshape(x, (*x.shape[:-1], 1, x.shape[-1]))


def with_lead(x: Node, lead: Shape) -> Node:
    """Matrices repeated for a batch."""
    shape = (*lead, *x.shape[-2:])
    return build.broadcast(x, shape, range(len(shape) - x.type.rank, len(shape)))


def places(x: Node) -> tuple[Node, Node]:
    """The row and the column of every element."""
    rank = x.type.rank
    return iota(x.shape, rank - 2), iota(x.shape, rank - 1)


def triangle(x: Node, upper: bool, strict: bool = False) -> Node:
    """Zeros on the other side of the diagonal, and on it if ``strict``."""
    i, j = places(x)
    other = make(("ge" if strict else "gt") if upper else ("le" if strict else "lt"), (i, j))
    return build.where(other, number(0, x.dtype, x.shape), x)


def identity(like: Node, size: int, width: int | None = None) -> Node:
    """A unit matrix, or the first columns of it, for each matrix of a batch."""
    shape = (*like.shape[:-2], size, size if width is None else width)
    rank = len(shape)
    return cast(make("eq", (iota(shape, rank - 2), iota(shape, rank - 1))), like.dtype)


def diagonal(x: Node) -> Node:
    """The diagonal of every matrix."""
    i, j = places(x)
    count = min(as_number(x.shape[-2]), as_number(x.shape[-1]))
    chosen = build.where(make("eq", (i, j)), x, number(0, x.dtype, x.shape))
    return flat_row(columns(as_row(reduce("sum", chosen, (x.type.rank - 2,))), 0, count))


def first_where(truth: Node) -> Node:
    """The number, counted from 1, of the first element that holds along the last axis; or 0."""
    axis = truth.type.rank - 1
    size = as_number(truth.shape[-1])
    if not size:
        return number(0, i32, truth.shape[:-1])
    shape = truth.shape
    found = build.where(truth, iota(shape, axis) + 1, number(size + 1, i64, shape))
    least = reduce("reduce_min", found, (axis,))
    none = make("gt", (least, number(size, i64, least.shape)))
    return cast(build.where(none, number(0, i64, least.shape), least), i32)


# --- LU -----------------------------------------------------------------------------------
class LU:
    """The factors of a matrix with rows exchanged.

    factors  L below the diagonal and U
    pivots   a row: what each row was exchanged with, counted from 1, as numbers of the type
    """

    def __init__(self, x: Node) -> None:
        m, n = as_number(x.shape[-2]), as_number(x.shape[-1])
        packed = make("lu", (small(x),))
        self.factors, self.count = rows(packed, 0, m), min(m, n)
        self.pivots = columns(rows(packed, m, m + 1), 0, self.count)

    def numbers(self) -> Node:
        """The exchanges as integers."""
        return cast(flat_row(self.pivots), i32)

    def info(self) -> Node:
        """The number of the first zero on the diagonal of U, or 0."""
        found = diagonal(self.factors)
        return first_where(make("eq", (found, number(0, found.dtype, found.shape))))

    def odd(self) -> Node:
        """Whether an odd number of rows was exchanged."""
        row = cast(flat_row(self.pivots), i64)
        moved = cast(make("ne", (row, iota(row.shape, row.type.rank - 1) + 1)), i64)
        count = reduce("sum", moved, (row.type.rank - 1,))
        return make("ne", (make("mod", (count, number(2, i64, count.shape))),
                           number(0, i64, count.shape)))


def exchanged(x: Node, pivots: Node, forward: bool) -> Node:
    """Matrices with their rows exchanged, in the order of the pivots or back."""
    return make("exchange", (x, pivots), ExchangeAttrs(forward))


def triangular(a: Node, b: Node, upper: bool, unit: bool = False) -> Node:
    """x with a x = b."""
    return make("triangular_solve", (small(a), b), TriangleAttrs(upper, unit))


def lu_solved(factors: Node, pivots: Node, b: Node, adjoint: bool) -> Node:
    """x with a x = b, or a^T x = b, of the factors of a."""
    if adjoint:
        other = turned(factors)
        found = triangular(other, triangular(other, b, False), True, True)
        return exchanged(found, pivots, False)
    moved = exchanged(b, pivots, True)
    return triangular(factors, triangular(factors, moved, False, True), True)


# --- QR, eigenvalues and singular values --------------------------------------------------
def reflected(factor: Node, x: Node, forward: bool = False) -> Node:
    """Q x, or Q^T x if ``forward``, of what ``qr`` gives."""
    return make("reflect", (factor, x), ReflectAttrs(forward))


def decomposed(x: Node) -> tuple[Node, Node, Node]:
    """U, the singular values and V^T; U as wide as there are values."""
    m, n = as_number(x.shape[-2]), as_number(x.shape[-1])
    if m < n:
        u, s, vh = decomposed(turned(x))
        return turned(vh), s, turned(u)
    packed = make("svd", (small(x, MOST_TURNED, MOST_TALL),))
    s, u, v = rows(packed, 0, 1), rows(packed, 1, m + 1), rows(packed, m + 1, m + 1 + n)
    return completed(u, n), flat_row(s), turned(v)


def completed(u: Node, width: int) -> Node:
    """So many orthonormal columns, of which those of ``u`` that are not zero are the first."""
    m, n = as_number(u.shape[-2]), as_number(u.shape[-1])
    packed = make("qr", (u,))
    whole = reflected(packed, identity(u, m, width))
    sign = as_row(diagonal(rows(packed, 0, m)))
    if width > n:
        ones = number(1, u.dtype, (*sign.shape[:-1], width - n))
        sign = build.concat([sign, ones], sign.type.rank - 1)
    flipped = build.broadcast(sign, whole.shape, range(whole.type.rank))
    return build.where(flipped < 0.0, -whole, whole)


def empty(type: TensorType | None) -> Node | None:
    """A result without elements, or none."""
    return None if type is None else number(0, type.dtype, type.shape)


def checked(call: Call, info: Node, name: str, wanted: bool = True) -> None:
    """After the part has run PyTorch looks at ``info`` and raises what it raises."""
    if wanted:
        call.checks.append(Check(
            CHECK_ERRORS, info, (name,),
            {"is_matrix": info.type.rank == 0}))


def product(a: Node, b: Node) -> Node:
    """The matrix products of two batches."""
    lead = tuple(range(a.type.rank - 2))
    i, j, p = (len(lead) + c for c in range(3))
    return build.contract(a, b, (*lead, i, p), (*lead, p, j), (*lead, i, j))
