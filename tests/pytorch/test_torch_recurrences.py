"""Functions of two arguments that are loops: corners and types as in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import opinfo
import pytest
import torch

from tilewright.torch.recipe import Recipe

POLYNOMIALS = [
    *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
    "hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l",
    "legendre_polynomial_p",
]
CORNERS = [0.0, -0.0, 1, -1, 0.5, -0.75, 2, -3, 1.0001, 1e20, float("inf"), -float("inf")]


def ours(function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
    """The function compiled; nothing of it ran in PyTorch."""
    found: list[Recipe] = []
    result = opinfo.compiled(function, found)(*inputs)
    assert [f.target for r in found for f in r.fallbacks] == []
    return result


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str) -> None:
    f = getattr(torch.special, name)
    x = torch.tensor(CORNERS)[:, None]
    degree = torch.tensor([-3.0, -0.5, 0, 0.9, 1, 2, 3, 6, 9, 30, 129])
    for first, second in ((x, degree), (x.double(), degree), (x, 3), (0.25, degree),
                          (degree.int()[:, None], degree.int()), (x[:0], degree)):
        tensors = [t for t in (first, second) if isinstance(t, torch.Tensor)]

        def call(*given: torch.Tensor, first: Any = first, second: Any = second) -> Any:
            rest = list(given)
            return f(*(rest.pop(0) if isinstance(v, torch.Tensor) else v for v in (first, second)))
        torch.testing.assert_close(
            ours(call, *tensors), call(*tensors), equal_nan=True, rtol=1e-4, atol=1e-4)


def test_a_recurrence_that_leaves_its_range_ends() -> None:
    x, degree = torch.tensor([-3.0, float("nan")]), torch.tensor([1e15, 1e15])
    got = ours(torch.special.laguerre_polynomial_l, x, degree)
    assert got.isnan().all()


@pytest.mark.parametrize("f", [torch.special.gammainc, torch.special.gammaincc])
def test_incomplete_gamma(f: Any) -> None:
    values = torch.tensor([0, 1e-5, 0.3, 1, 1.5, 8, 30, 250, 1e4, 3e6, 1e9, float("inf"), -1,
                           float("nan")])
    for dtype in (torch.float32, torch.float64):
        a, x = values.to(dtype)[:, None], (values * 1.01).to(dtype)
        torch.testing.assert_close(ours(f, a, x), f(a, x), equal_nan=True)


def test_zeta() -> None:
    x = torch.tensor([-1, 0.5, 1, 1.5, 2, 3, 40, float("nan"), float("inf")])[:, None]
    q = torch.tensor([-20.5, -1, 0, 0.25, 1, 7, 1e5, float("nan")])
    torch.testing.assert_close(
        ours(torch.special.zeta, x, q), torch.special.zeta(x, q), equal_nan=True)
    torch.testing.assert_close(
        ours(lambda t: torch.special.zeta(t, 2), x), torch.special.zeta(x, 2), equal_nan=True)
