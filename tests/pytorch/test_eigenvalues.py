"""Eigenvalues of matrices that are not symmetric, and what complex systems have to do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import opinfo
import pytest
import torch
from torch import Tensor

from tilewright.torch.factors import MOST_TURNED
from tilewright.torch.recipe import Recipe

X = torch.randn(2, 3, 5, 5, generator=torch.manual_seed(1), dtype=torch.float64)
Z = torch.complex(X, X.flip(-1))


def ours(function: Callable[..., Any], *inputs: Tensor, fallbacks: int = 0) -> Any:
    """The function compiled; so many operators ran in PyTorch."""
    found: list[Recipe] = []
    result = opinfo.compiled(function, found)(*inputs)
    assert len([f.target for r in found for f in r.fallbacks]) == fallbacks
    return result


def invariant(x: Tensor) -> list[Tensor]:
    """What does not depend on the order of eigenvalues, nor on the phase of eigenvectors."""
    values, vectors = torch.linalg.eig(x)
    sizes, radii = vectors.abs(), values.abs()
    return [(values * values * values).sum(-1).real, radii.sum(-1),
            (sizes * radii[..., None, :]).square().sum(-1)]


@pytest.mark.parametrize("x", [X, X[..., :0, :0], X[:0], X[0, 0, :1, :1], X.mT, X[0, 0].float()])
def test_they_are_those_of_the_matrix(x: Tensor) -> None:
    values, vectors = ours(torch.linalg.eig, x)
    want = torch.linalg.eig(x)
    assert (values.dtype, values.shape) == (want.eigenvalues.dtype, want.eigenvalues.shape)
    assert vectors.stride() == want.eigenvectors.stride()
    torch.testing.assert_close(x.to(values.dtype) @ vectors, vectors * values[..., None, :],
                               atol=1e-5 if x.dtype is torch.float32 else 1e-12, rtol=0)
    torch.testing.assert_close(ours(torch.linalg.eigvals, x), values)
    torch.testing.assert_close(values.sum(-1).real, want.eigenvalues.sum(-1).real)


def test_gradients() -> None:
    def gradient(function: Callable[..., Any]) -> Tensor:
        leaf = X.detach().requires_grad_()
        results = function(leaf)
        weights = [torch.arange(r.numel()).reshape(r.shape).cos() for r in results]
        return torch.autograd.grad(results, [leaf], weights)[0]
    recipes: list[Recipe] = []
    found = gradient(opinfo.compiled(invariant, recipes))
    assert not any(r.fallbacks for r in recipes)
    torch.testing.assert_close(found, gradient(invariant))


@pytest.mark.parametrize(("function", "inputs"), [
    (torch.linalg.solve, (Z, Z[..., :2])), (torch.linalg.solve, (Z, Z[..., 0])),
    (torch.linalg.solve, (Z[0, 0], X[0, 0, :, 0].to(Z.dtype))),
    (lambda a, b: torch.linalg.solve(a, b, left=False), (Z, Z[0, 0, :2])),
    (torch.ops.aten._linalg_solve_ex, (Z, Z[..., :1])),
    (torch.ops.aten._linalg_solve_ex, (Z * torch.eye(5).tril(-1), Z[..., :1])),
])
def test_complex_systems(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours(function, *inputs), function(*inputs), equal_nan=True)


@pytest.mark.parametrize(("function", "x"), [
    (lambda z: torch.linalg.solve(z, z), 0 * Z), (lambda z: torch.linalg.solve(z, z), 0 * Z[0, 0]),
    (torch.linalg.eig, X / 0), (torch.linalg.eig, X[0, 0] * torch.nan),
])
def test_errors_are_those_of_eager(function: Any, x: Tensor) -> None:
    with pytest.raises(RuntimeError) as eager:
        function(x)
    with pytest.raises(RuntimeError) as compiled:
        ours(function, x)
    assert str(compiled.value) == str(eager.value)
    assert compiled.type is eager.type


def test_what_is_not_finite_has_no_eigenvalues() -> None:
    assert ours(torch.linalg.eigvals, X * torch.tensor([1, torch.nan])[:, None, None, None])[
        1].isnan().all()


def test_large_and_complex_matrices_stay_with_lapack() -> None:
    x = torch.diag(torch.arange(MOST_TURNED + 1.0))
    torch.testing.assert_close(
        ours(torch.linalg.eigvals, x, fallbacks=1), torch.linalg.eigvals(x))
    torch.testing.assert_close(
        ours(torch.linalg.eigvals, Z, fallbacks=1), torch.linalg.eigvals(Z))
