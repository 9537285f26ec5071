"""Eigenvalues of any small real matrix, and complex systems, which their gradients solve."""

from __future__ import annotations

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.routines import ExchangeAttrs, TriangleAttrs
from tilewright.ir.types import Shape, as_number, i32
from tilewright.torch.factors import (
    MOST_TURNED,
    checked,
    columns,
    diagonal,
    first_where,
    flat_row,
    rows,
    small,
    turned,
    with_lead,
)
from tilewright.torch.instead import instead_of
from tilewright.torch.looks import look
from tilewright.torch.nodes import cast, number, reduce
from tilewright.torch.pairs import Pair, pair_of, pair_row
from tilewright.torch.table import Call, Check, NotCompiled

aten = torch.ops.aten


# --- eigenvalues --------------------------------------------------------------------------
def _eigen(x: Node | Pair) -> list[Pair]:
    """The eigenvalues and the eigenvectors."""
    if isinstance(x, Pair):
        raise NotCompiled("complex numbers")
    n = as_number(small(x, MOST_TURNED).shape[-1])
    packed = make("eig", (x,))
    values = Pair(*(flat_row(rows(packed, i, i + 1)) for i in range(2)))
    return [values, Pair(rows(packed, 2, n + 2), rows(packed, n + 2, 2 * n + 2))]


@pair_row(aten.linalg_eig)
def eig(call: Call, x: Node | Pair) -> list[Pair]:
    """Numbers that are not finite raise, as in PyTorch."""
    found = _eigen(x)
    if isinstance(x, Node):
        infinite = number(float("inf"), x.dtype, x.shape)
        wrong = cast(~make("lt", (make("abs", (x,)), infinite)), i32)
        call.checks.append(Check(
            look, reduce("sum", wrong, tuple(range(x.type.rank))),
            ("RuntimeError", "torch.linalg.eig: input tensor should not contain infs or NaNs.")))
    return found


@instead_of(aten.linalg_eigvals.default)
def without_vectors(self: torch.Tensor) -> torch.Tensor:
    """Where no gradient needs eigenvectors they are not asked for, as in eager: other numbers than
    finite ones are then no error.
    """
    if torch.is_grad_enabled() and self.requires_grad:
        return NotImplemented
    return aten._linalg_eigvals(self)  # type: ignore[no-any-return]


@pair_row(aten._linalg_eigvals, aten.linalg_eigvals)
def eigvals(call: Call, x: Node | Pair) -> Pair:
    return _eigen(x)[0]


# --- systems ------------------------------------------------------------------------------
def _stacked(x: Pair) -> Node:
    """The parts of every matrix, the real one above."""
    return build.concat([x.re, x.im], x.re.type.rank - 2)


def _apart(x: Node) -> Pair:
    half = as_number(x.shape[-2]) // 2
    return Pair(rows(x, 0, half), rows(x, half, 2 * half))


class _LU:
    """The factors of complex matrices with rows exchanged, as ``LU`` of real ones."""

    def __init__(self, x: Pair) -> None:
        n = as_number(x.shape[-1])
        small(x.re)
        packed = make("complex_lu", (_stacked(x),))
        self.factors = _apart(rows(packed, 0, 2 * n))
        self.pivots = rows(packed, 2 * n, 2 * n + 1)

    def info(self) -> Node:
        """The number of the first zero on the diagonal of U, or 0."""
        found = self.factors.each(diagonal)
        size = make("abs", (found.re,)) + make("abs", (found.im,))
        return first_where(make("eq", (size, number(0, size.dtype, size.shape))))

    def solved(self, b: Pair, lead: Shape) -> Pair:
        """x with a x = b, for a batch."""
        pivots = with_lead(self.pivots, lead)
        factors = _stacked(self.factors.each(lambda part: with_lead(part, lead)))
        moved = b.each(
            lambda part: make("exchange", (with_lead(part, lead), pivots), ExchangeAttrs(True)))
        x = _stacked(moved)
        for attrs in (TriangleAttrs(False, True), TriangleAttrs(True, False)):
            x = make("complex_triangular_solve", (factors, x), attrs)
        return _apart(x)


@pair_row(aten._linalg_solve_ex)
def solve_ex(
    call: Call, a: Node | Pair, b: Node | Pair, *, left: bool = True, check_errors: bool = False
) -> list[Pair | Node]:
    dtype = call.out[0].dtype
    a, b = pair_of(a, dtype, a.shape), pair_of(b, dtype, b.shape)
    found = _LU(a)
    checked(call, found.info(), "torch.linalg.solve_ex", check_errors)
    vector = b.type.rank == 1 or (a.type.rank - 1 == b.type.rank and b.shape == a.shape[:-1])
    if vector:
        b = b.each(lambda part: build.reshape(part, (*part.shape, 1)))
    lead = call.out[0].shape[:-1 if vector else -2]
    if left:
        x = found.solved(b, lead)
    else:  # x a = b is a^T x^T = b^T
        x = _LU(a.each(turned)).solved(b.each(turned), lead).each(turned)
    n = as_number(a.shape[-1])
    numbers = cast(flat_row(columns(found.pivots, 0, n)), i32)
    shaped = x.each(lambda part: build.reshape(part, call.out[0].shape))
    return [shaped, found.factors, numbers, found.info()]
