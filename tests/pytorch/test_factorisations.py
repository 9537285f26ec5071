"""Factorisations of matrices: shapes, batches, errors and gradients as in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import opinfo
import pytest
import torch

from tilewright.torch.factors import MOST, MOST_TALL, MOST_TURNED
from tilewright.torch.recipe import Recipe

SQUARE = torch.randn(2, 3, 4, 4, generator=torch.manual_seed(1), dtype=torch.float64)
POSITIVE = SQUARE @ SQUARE.mT + torch.eye(4)
SINGULAR = torch.outer(torch.arange(4.0), torch.arange(1.0, 5)).double()
TALL, WIDE = SQUARE[..., :2], SQUARE[..., :2, :]
RIGHT = SQUARE[0, 0, :, :2]

CASES: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "cholesky of the upper triangle": (
        lambda x: torch.linalg.cholesky(x, upper=True), [POSITIVE + SQUARE.tril(-1)]),
    "one minor is not positive": (
        lambda x: torch.linalg.cholesky_ex(x).info, [torch.diag(torch.tensor([1.0, 2, -1, 3]))]),
    "cholesky_solve of a broadcast factor": (
        lambda b, x: torch.cholesky_solve(b, x), [SQUARE[..., :1], POSITIVE[0, 0]]),
    "cholesky_inverse": (lambda x: torch.cholesky_inverse(x, upper=True), [POSITIVE]),
    "lu of wide matrices": (torch.linalg.lu, [WIDE]),
    "lu of tall matrices": (torch.linalg.lu, [TALL]),
    "lu_factor_ex of a singular matrix": (torch.linalg.lu_factor_ex, [0 * SINGULAR]),
    "det of zeros": (torch.det, [0 * SQUARE]), "det of nothing": (torch.det, [SQUARE[..., :0, :0]]),
    "slogdet": (torch.linalg.slogdet, [SQUARE]),
    "slogdet of a singular matrix": (torch.linalg.slogdet, [0 * SINGULAR]),
    "inverse of many": (torch.linalg.inv, [SQUARE]),
    "solve with vectors": (torch.linalg.solve, [SQUARE, SQUARE[..., 0]]),
    "solve broadcast": (torch.linalg.solve, [SQUARE, RIGHT]),
    "solve from the right": (
        lambda a, b: torch.linalg.solve(a, b, left=False), [SQUARE, RIGHT.mT.contiguous()]),
    "solve one vector": (torch.linalg.solve, [SQUARE[0, 0], RIGHT[:, 0]]),
    "qr, complete": (lambda x: torch.linalg.qr(x, "complete"), [TALL]),
    "qr, r alone": (lambda x: torch.linalg.qr(x, "r").R, [WIDE]),
    "qr of nothing": (torch.linalg.qr, [SQUARE[..., :0]]),
    "ormqr from the right": (
        lambda x: torch.ormqr(*torch.geqrf(x), x.mT, left=False, transpose=True), [TALL]),
    "ldl of blocks of two": (
        lambda x: torch.linalg.ldl_factor(x * (1 - torch.eye(4))), [SQUARE + SQUARE.mT]),
    "ldl_solve broadcast": (
        lambda x, b: torch.linalg.ldl_solve(*torch.linalg.ldl_factor(x), b),
        [SQUARE + SQUARE.mT, RIGHT]),
    "ldl of zeros": (torch.linalg.ldl_factor_ex, [0 * SQUARE]),
    "eigvalsh of the upper triangle": (lambda x: torch.linalg.eigvalsh(x, "U"), [SQUARE]),
    "singular values of wide matrices": (torch.linalg.svdvals, [WIDE]),
    "projector of a rank": (lambda x: x @ torch.linalg.pinv(x), [SINGULAR]),
    "pinv with tolerances": (
        lambda x: torch.linalg.pinv(x, atol=torch.tensor([0.1, 2.0, 5.0])), [SQUARE]),
    "pinv of nothing": (torch.linalg.pinv, [SQUARE[..., :0]]),
    "rank": (torch.linalg.matrix_rank, [SINGULAR]),
    "exponential of large numbers": (torch.matrix_exp, [10 * SQUARE]),
    "triangular system of a broadcast matrix": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), [RIGHT[:2], WIDE]),
}


def ours(function: Callable[..., Any], *inputs: torch.Tensor, fallbacks: int = 0) -> Any:
    """The function compiled; so many operators ran in PyTorch."""
    found: list[Recipe] = []
    result = opinfo.compiled(function, found)(*inputs)
    assert len([f.target for r in found for f in r.fallbacks]) == fallbacks
    return result


@pytest.mark.parametrize("name", CASES)
def test_as_eager(name: str) -> None:
    function, inputs = CASES[name]
    torch.testing.assert_close(ours(function, *inputs), function(*inputs))


GRADIENTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "det": torch.det, "slogdet": lambda x: torch.linalg.slogdet(x).logabsdet,
    "inv": torch.linalg.inv, "solve": lambda x: torch.linalg.solve(x, x.new_ones(4, 2)),
    "solve from the right": lambda x: torch.linalg.solve(x, x.new_ones(2, 4), left=False),
    "lu": lambda x: torch.linalg.lu(x)[1:], "qr": torch.linalg.qr,
    "cholesky": lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(4)),
    "eigvalsh": torch.linalg.eigvalsh, "svdvals": torch.linalg.svdvals,
    "pinv": torch.linalg.pinv, "matrix_exp": torch.matrix_exp,
    "projector": lambda x: (lambda v: v[..., 1:] @ v[..., 1:].mT)(torch.linalg.eigh(x)[1]),
    "triangular": lambda x: torch.linalg.solve_triangular(x, x.new_ones(4, 2), upper=False),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, turned: bool) -> None:
    """Whichever way a matrix lies in memory."""
    x = SQUARE.mT.contiguous().mT if turned else SQUARE.contiguous()

    def gradient(function: Callable[..., Any]) -> torch.Tensor:
        leaf = x.detach().requires_grad_()
        results = function(leaf)
        results = [results] if isinstance(results, torch.Tensor) else list(results)
        weights = [torch.arange(r.numel()).reshape(r.shape).sin() for r in results]
        found: torch.Tensor
        (found,) = torch.autograd.grad(results, [leaf], weights)
        return found

    recipes: list[Recipe] = []
    got = gradient(opinfo.compiled(GRADIENTS[name], recipes))
    assert not any(r.fallbacks for r in recipes)
    torch.testing.assert_close(got, gradient(GRADIENTS[name]))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("x", [TALL, WIDE, SINGULAR, 0 * SQUARE, torch.ones(3, 2).double()])
def test_singular_vectors_are_orthonormal(x: torch.Tensor, full: bool) -> None:
    u, s, vh = ours(lambda t: torch.linalg.svd(t, full_matrices=full), x)
    want = torch.linalg.svd(x, full_matrices=full)
    torch.testing.assert_close(s, want.S)
    assert (u.shape, vh.shape) == (want.U.shape, want.Vh.shape)
    k = s.shape[-1]
    torch.testing.assert_close(u[..., :k] * s[..., None, :] @ vh[..., :k, :], x)
    for q in (u, vh.mT):
        torch.testing.assert_close(q.mT @ q, torch.eye(q.shape[-1]).double().expand_as(q.mT @ q))


@pytest.mark.parametrize(("function", "x"), [
    (torch.linalg.cholesky, -POSITIVE[0, 0]), (torch.cholesky, -POSITIVE),
    (torch.linalg.inv, 0 * SQUARE[0, 0]), (lambda x: torch.linalg.solve(x, x), 0 * SQUARE),
    (lambda x: torch.linalg.cholesky_ex(x, check_errors=True), -POSITIVE),
    (torch.cholesky_inverse, 0 * SQUARE[0, 0]),
])
def test_errors_are_those_of_eager(function: Any, x: torch.Tensor) -> None:
    with pytest.raises(torch.linalg.LinAlgError) as eager:
        function(x)
    with pytest.raises(torch.linalg.LinAlgError) as compiled:
        ours(function, x)
    assert str(compiled.value) == str(eager.value)


def test_an_error_does_not_depend_on_whether_the_result_is_used() -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        torch.compile(lambda x: torch.linalg.cholesky(x) * 0, backend="tilewright",
                      options={"fallback": False})(-POSITIVE)


def test_large_matrices_stay_with_lapack() -> None:
    x = torch.eye(MOST + 1)
    torch.testing.assert_close(ours(torch.linalg.inv, x, fallbacks=1), x)
    x = torch.randn(MOST, MOST, generator=torch.manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(ours(torch.linalg.inv, x), torch.linalg.inv(x))
    x = x[:, :MOST_TURNED + 1]
    torch.testing.assert_close(ours(torch.linalg.svdvals, x, fallbacks=1), torch.linalg.svdvals(x))
    x = x[:, :MOST_TURNED]
    torch.testing.assert_close(ours(torch.linalg.svdvals, x), torch.linalg.svdvals(x))
    x = torch.cat([x, x.sin(), x])[:MOST_TALL + 1]
    torch.testing.assert_close(ours(torch.linalg.svdvals, x, fallbacks=1), torch.linalg.svdvals(x))
    x = x[:MOST_TALL]
    torch.testing.assert_close(ours(torch.linalg.pinv, x), torch.linalg.pinv(x))
    x = x[:MOST] @ x[:MOST].mT
    torch.testing.assert_close(
        ours(torch.linalg.eigvalsh, x[:12, :12]), torch.linalg.eigvalsh(x[:12, :12]))
