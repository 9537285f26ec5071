"""Factorisations of matrices, and determinants, inverses and solutions by them."""

from __future__ import annotations

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.types import as_number, f64, i32
from tilewright.torch.factors import (
    LU,
    MOST_TURNED,
    as_row,
    checked,
    columns,
    completed,
    decomposed,
    diagonal,
    empty,
    exchanged,
    first_where,
    flat_row,
    identity,
    lu_solved,
    product,
    reflected,
    rows,
    small,
    triangle,
    triangular,
    turned,
    with_lead,
)
from tilewright.torch.nodes import cast, number, reduce
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


# --- Cholesky -----------------------------------------------------------------------------
def _cholesky(x: Node, upper: bool) -> tuple[Node, Node]:
    n = as_number(x.shape[-1])
    packed = make("cholesky", (small(turned(x) if upper else x),))
    lower = rows(packed, 0, n)
    failed = cast(columns(rows(packed, n, n + 1), 0, min(n, 1)), i32)
    info = build.reshape(failed, x.shape[:-2]) if n else number(0, i32, x.shape[:-2])
    return turned(lower) if upper else lower, info


@row(aten.cholesky)
def cholesky(call: Call, x: Node, upper: bool = False) -> Node:
    factor, info = _cholesky(x, upper)
    checked(call, info, "cholesky")
    return factor


@row(aten.linalg_cholesky_ex.default)
def cholesky_ex(
    call: Call, x: Node, *, upper: bool = False, check_errors: bool = False
) -> list[Node | None]:
    factor, info = _cholesky(x, upper)
    checked(call, info, "linalg.cholesky_ex", check_errors)
    return [factor, info]


def _cholesky_solved(b: Node, factor: Node, upper: bool) -> Node:
    lower = turned(factor) if upper else factor
    return triangular(turned(lower), triangular(lower, b, False), True)


@row(aten.cholesky_solve)
def cholesky_solve(call: Call, b: Node, factor: Node, upper: bool = False) -> Node:
    lead = call.type.shape[:-2]
    return _cholesky_solved(with_lead(b, lead), with_lead(factor, lead), upper)


@row(aten.cholesky_inverse)
def cholesky_inverse(call: Call, factor: Node, upper: bool = False) -> Node:
    zeros = diagonal(small(factor))
    checked(call, first_where(make("eq", (zeros, number(0, zeros.dtype, zeros.shape)))),
            "cholesky_inverse")
    return _cholesky_solved(identity(factor, as_number(factor.shape[-1])), factor, upper)


# --- LU -----------------------------------------------------------------------------------
@row(aten.linalg_lu_factor_ex.default)
def lu_factor_ex(
    call: Call, x: Node, *, pivot: bool = True, check_errors: bool = False
) -> list[Node | None]:
    found = _pivoted(x, pivot)
    checked(call, found.info(), "torch.linalg.lu_factor_ex", check_errors)
    return [found.factors, found.numbers(), found.info()]


def _pivoted(x: Node, pivot: bool) -> LU:
    if not pivot:
        raise NotCompiled("a factorisation without exchanges")
    return LU(x)


@row(aten.linalg_lu.default)
def lu(call: Call, x: Node, *, pivot: bool = True) -> list[Node | None]:
    found = _pivoted(x, pivot)
    m, k = as_number(x.shape[-2]), found.count
    permutation = exchanged(identity(x, m), found.pivots, False)
    lower = triangle(columns(found.factors, 0, k), False, strict=True)
    upper = triangle(rows(found.factors, 0, k), True)
    return [permutation, lower + identity(x, m, k), upper]


def _in_memory(call: Call, x: Node) -> LU:
    """The factors of the matrix that column-major memory holds: PyTorch's gradients rely on it."""
    return LU(turned(x) if call.args[0].is_contiguous() else x)


@row(aten._linalg_det.default)
def det(call: Call, x: Node) -> list[Node | None]:
    found = _in_memory(call, x)
    axis = x.type.rank - 2
    product = reduce("prod", diagonal(found.factors), (axis,))
    return [build.where(found.odd(), -product, product), found.factors, found.numbers()]


@row(aten._linalg_slogdet.default)
def slogdet(call: Call, x: Node) -> list[Node | None]:
    found = _in_memory(call, x)
    axis, values = x.type.rank - 2, diagonal(found.factors)
    sign = reduce("prod", make("sign", (values,)), (axis,))
    size = reduce("sum", make("log", (make("abs", (values,)),)), (axis,))
    return [build.where(found.odd(), -sign, sign), size, found.factors, found.numbers()]


@row(aten.linalg_inv_ex.default)
def inv_ex(call: Call, x: Node, *, check_errors: bool = False) -> list[Node | None]:
    found = LU(x)
    checked(call, found.info(), "linalg.inv_ex", check_errors)
    unit = identity(x, as_number(x.shape[-1]))
    return [lu_solved(found.factors, found.pivots, unit, False), found.info()]


@row(aten._linalg_solve_ex.default)
def solve_ex(
    call: Call, a: Node, b: Node, *, left: bool = True, check_errors: bool = False
) -> list[Node | None]:
    found = LU(a)
    checked(call, found.info(), "torch.linalg.solve_ex", check_errors)
    vector = b.type.rank == 1 or (a.type.rank - 1 == b.type.rank and b.shape == a.shape[:-1])
    if vector:
        b = build.reshape(b, (*b.shape, 1))
    lead = call.out[0].shape[:-1 if vector else -2]
    x = _solved(with_lead(found.factors, lead), with_lead(found.pivots, lead),
                with_lead(b, lead), left, False)
    return [build.reshape(x, call.out[0].shape), found.factors, found.numbers(), found.info()]


def _solved(factors: Node, pivots: Node, b: Node, left: bool, adjoint: bool) -> Node:
    if left:
        return lu_solved(factors, pivots, b, adjoint)
    return turned(lu_solved(factors, pivots, turned(b), not adjoint))  # x a = b is a^T x^T = b^T


@row(aten.linalg_lu_solve)
def lu_solve(
    call: Call, factors: Node, pivots: Node, b: Node, *, left: bool = True, adjoint: bool = False
) -> Node:
    lead = call.type.shape[:-2]
    numbers = as_row(cast(pivots, small(factors).dtype))
    return _solved(with_lead(factors, lead), with_lead(numbers, lead), with_lead(b, lead),
                   left, adjoint)


@row(aten.lu_unpack)
def lu_unpack(
    call: Call, factors: Node, pivots: Node, unpack_data: bool = True, unpack_pivots: bool = True
) -> list[Node | None]:
    permutation, lower, upper = (empty(t) for t in call.out)
    if unpack_data:
        m, k = as_number(factors.shape[-2]), as_number(call.out[1].shape[-1])
        lower = triangle(columns(factors, 0, k), False, strict=True) + identity(factors, m, k)
        upper = triangle(rows(factors, 0, k), True)
    if unpack_pivots:
        numbers = as_row(cast(pivots, small(factors).dtype))
        permutation = exchanged(identity(factors, as_number(factors.shape[-2])), numbers, False)
    return [permutation, lower, upper]


# --- triangular systems -------------------------------------------------------------------
def _triangular_solved(a: Node, b: Node, upper: bool, left: bool, unit: bool) -> Node:
    if left:
        return triangular(a, b, upper, unit)
    return turned(triangular(turned(a), turned(b), not upper, unit))


@row(aten.linalg_solve_triangular)
def solve_triangular(
    call: Call, a: Node, b: Node, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Node:
    lead = call.type.shape[:-2]
    return _triangular_solved(with_lead(a, lead), with_lead(b, lead), upper, left, unitriangular)


@row(aten.triangular_solve)
def triangular_solve(
    call: Call, b: Node, a: Node, upper: bool = True, transpose: bool = False,
    unitriangular: bool = False,
) -> list[Node | None]:
    lead = call.out[0].shape[:-2]
    used, b = with_lead(a, lead), with_lead(b, lead)
    if transpose:
        return [triangular(turned(used), b, not upper, unitriangular), used]
    return [triangular(used, b, upper, unitriangular), used]


# --- QR -----------------------------------------------------------------------------------
@row(aten.geqrf.default)
def geqrf(call: Call, x: Node) -> list[Node | None]:
    m, n = as_number(x.shape[-2]), as_number(x.shape[-1])
    packed = make("qr", (small(x),))
    return [rows(packed, 0, m), flat_row(columns(rows(packed, m, m + 1), 0, min(m, n)))]


@row(aten.linalg_qr.default)
def qr(call: Call, x: Node, mode: str = "reduced") -> list[Node | None]:
    m, n = as_number(x.shape[-2]), as_number(x.shape[-1])
    packed = make("qr", (small(x),))
    width = m if mode == "complete" else min(m, n)
    q = reflected(packed, identity(x, m, width)) if mode != "r" else empty(call.out[0])
    return [q, triangle(rows(packed, 0, width), True)]


def _factor(vectors: Node, sizes: Node) -> Node:
    """What ``qr`` gives, of LAPACK's two parts of it."""
    count = as_number(sizes.shape[-1])
    return build.concat(
        [columns(small(vectors), 0, count), as_row(sizes)], vectors.type.rank - 2)


@row(aten.linalg_householder_product.default)
def householder_product(call: Call, vectors: Node, sizes: Node) -> Node:
    m, n = (as_number(d) for d in vectors.shape[-2:])
    return reflected(_factor(vectors, sizes), identity(vectors, m, n))


@row(aten.ormqr.default)
def ormqr(
    call: Call, vectors: Node, sizes: Node, x: Node, left: bool = True, transpose: bool = False
) -> Node:
    factor = _factor(vectors, sizes)
    if left:
        return reflected(factor, x, transpose)
    return turned(reflected(factor, turned(x), not transpose))


# --- eigenvalues and singular values ------------------------------------------------------
def _eigh(x: Node, upper: bool) -> tuple[Node, Node]:
    packed = make("eigh", (small(turned(x) if upper else x, MOST_TURNED),))
    n = as_number(x.shape[-1])
    return flat_row(rows(packed, 0, 1)), rows(packed, 1, n + 1)


@row(aten._linalg_eigh.default)
def eigh(call: Call, x: Node, uplo: str = "L", compute_v: bool = True) -> list[Node | None]:
    values, vectors = _eigh(x, uplo.upper() == "U")
    return [values, vectors if compute_v else empty(call.out[1])]


@row(aten._linalg_svd.default)
def svd(
    call: Call, x: Node, full_matrices: bool = False, compute_uv: bool = True, *,
    driver: str | None = None,
) -> list[Node | None]:
    u, s, vh = decomposed(x)
    if not compute_uv:
        return [empty(call.out[0]), s, empty(call.out[2])]
    m, n = as_number(x.shape[-2]), as_number(x.shape[-1])
    if full_matrices and m > n:
        u = completed(u, m)
    if full_matrices and n > m:
        vh = turned(completed(turned(vh), n))
    return [u, s, vh]


@row(aten.linalg_pinv.atol_rtol_tensor)
def pinv(
    call: Call, x: Node, *, atol: Node | None = None, rtol: Node | None = None,
    hermitian: bool = False,
) -> Node:
    if not x.type.size:
        return number(0, x.dtype, call.type.shape)
    if hermitian:
        s, u = _eigh(x, False)
        vh = turned(u)
    else:
        u, s, vh = decomposed(x)
    size = make("abs", (s,))
    limit = _limit(x, reduce("reduce_max", size, (s.type.rank - 1,), True), atol, rtol)
    kept = make("gt", (size, build.broadcast(limit, s.shape, range(s.type.rank))))
    inverse = build.where(kept, 1.0 / s, number(0, s.dtype, s.shape))
    scaled = turned(vh) * build.broadcast(
        as_row(inverse), turned(vh).shape, range(x.type.rank))
    return product(scaled, turned(u))


def _limit(x: Node, largest: Node, atol: Node | None, rtol: Node | None) -> Node:
    """What counts as zero beside the largest value of each matrix."""
    shape = largest.shape

    def wide(tolerance: Node) -> Node:
        v = cast(tolerance, x.dtype)
        v = build.reshape(v, (*v.shape, 1))
        return build.broadcast(v, shape, range(len(shape) - v.type.rank, len(shape)))

    zero = number(0, x.dtype, shape)
    absolute = zero if atol is None else wide(atol)
    if rtol is not None:
        relative = wide(rtol)
    else:
        eps = 2.0 ** -52 if x.dtype is f64 else 2.0 ** -23
        relative = number(eps * max(as_number(d) for d in x.shape[-2:]), x.dtype, shape)
        if atol is not None:
            relative = build.where(absolute > 0.0, zero, relative)
    return make("max", (absolute, relative * largest))


@row(aten.linalg_matrix_exp)
def matrix_exp(call: Call, x: Node) -> Node:
    return make("matrix_exp", (small(x, MOST_TURNED),))


# --- symmetric matrices -------------------------------------------------------------------
@row(aten.linalg_ldl_factor_ex.default)
def ldl_factor_ex(
    call: Call, x: Node, *, hermitian: bool = False, check_errors: bool = False
) -> list[Node | None]:
    n = as_number(x.shape[-1])
    packed = make("ldl", (small(x),))
    factors, pivots = rows(packed, 0, n), flat_row(rows(packed, n, n + 1))
    values = diagonal(factors)
    none = make("eq", (values, number(0, values.dtype, values.shape))) & (pivots > 0.0)
    info = first_where(none)
    checked(call, info, "torch.linalg.ldl_factor_ex", check_errors)
    return [triangle(factors, False), cast(pivots, i32), info]


@row(aten.linalg_ldl_solve.default)
def ldl_solve(
    call: Call, factors: Node, pivots: Node, b: Node, *, hermitian: bool = False
) -> Node:
    lead = call.type.shape[:-2]
    numbers = as_row(cast(pivots, small(factors).dtype))
    given = (with_lead(factors, lead), with_lead(numbers, lead), with_lead(b, lead))
    return make("ldl_solve", given)
