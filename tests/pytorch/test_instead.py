"""Operators that ask for data while PyTorch traces them, as parts of one graph."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gaussian_nll_loss
from torch_harness import check, compiled

from tilewright.torch import backend

ROWS = torch.randn(3, 5, generator=torch.manual_seed(1))
COUNTS = torch.tensor([1, 2, 0, 3, 1])
WEIGHTS = torch.tensor([0.5, 0.25, 1.0, 2.0, 0.0])
MATRICES = torch.randn(2, 5, 3, generator=torch.manual_seed(2), dtype=torch.float64)
RIGHT = torch.randn(2, 5, 2, generator=torch.manual_seed(3), dtype=torch.float64)

CASES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "cov": (torch.cov, (ROWS,)),
    "cov, a method, divided by the count": (lambda x: x.cov(correction=0), (ROWS,)),
    "the variance of one row": (torch.cov, (ROWS[0],)),
    "cov of integers": (torch.cov, ((ROWS * 10).long(),)),
    "cov with both weights": (
        lambda x, f, a: torch.cov(x, fweights=f, aweights=a), (ROWS, COUNTS, WEIGHTS)),
    "cov with counts": (lambda x, f: torch.cov(x, correction=2, fweights=f), (ROWS, COUNTS)),
    "cov with weights": (lambda x, a: torch.cov(x, aweights=a), (ROWS, WEIGHTS)),
    "corrcoef": (torch.corrcoef, (ROWS,)), "corrcoef of a row": (torch.corrcoef, (ROWS[0],)),
    "pairs": (torch.combinations, (ROWS[0],)),
    "triples, again": (lambda x: torch.combinations(x, 3, True), (ROWS[0],)),
    "pairs of one": (torch.combinations, (ROWS[0, :1],)),
    "pairs of nothing, again": (
        lambda x: torch.combinations(x, 2, with_replacement=True), (ROWS[0, :0],)),
    **{f"least squares, {name}": (
        lambda a, b: torch.linalg.lstsq(a, b, driver="gels")[:2], (a, b)) for name, a, b in (
        ("tall", MATRICES, RIGHT), ("wide", MATRICES.mT, RIGHT[:, :3]),
        ("a vector", MATRICES[0], RIGHT[0, :, 0]), ("vectors", MATRICES, RIGHT[..., 0]),
        ("for one batch", MATRICES, RIGHT[:1]), ("square", MATRICES[:, :3], RIGHT[:, :3]))},
    "least squares of zeros": (
        lambda a, b: torch.linalg.lstsq(a, b, driver="gels").solution,
        (torch.stack([torch.eye(3), torch.zeros(3, 3)]).double(), RIGHT[:, :3])),
    "loss": (gaussian_nll_loss, (ROWS, ROWS.flip(0), ROWS.abs())),
    "loss of the least variance": (
        lambda x, y, v: gaussian_nll_loss(x, y, v, full=True, eps=0.7, reduction="sum"),
        (ROWS, ROWS.flip(0), ROWS.abs())),
    "loss of a variance per row": (
        lambda x, y, v: gaussian_nll_loss(x, y, v, reduction="none"),
        (ROWS, ROWS.flip(0), ROWS[:, 0].abs())),
    "loss of one variance": (lambda x, y: gaussian_nll_loss(x, y, 0.5), (ROWS, ROWS.flip(0))),
}


@pytest.mark.parametrize("name", CASES)
def test_one_graph_and_as_eager(name: str) -> None:
    function, inputs = CASES[name]
    check(function, *(x.clone().requires_grad_(x.is_floating_point()) for x in inputs))


def test_sizes_with_names() -> None:
    check(lambda x, f: torch.corrcoef(x) + torch.cov(x, fweights=f).sum(), ROWS, COUNTS,
          dynamic=True)


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "a negative count": (lambda x, f: torch.cov(x, fweights=f), (ROWS, COUNTS - 1)),
    "a negative weight": (lambda x, a: torch.cov(x, aweights=a), (ROWS, WEIGHTS - 1)),
    "no weight": (lambda x, a: torch.cov(x, aweights=a), (ROWS, 0 * WEIGHTS)),
    "a matrix of less than full rank": (
        lambda a, b: torch.linalg.lstsq(a, b, driver="gels").solution,
        (torch.diag(torch.tensor([1.0, 0, 2])), torch.ones(3, 1))),
    "two of them": (
        lambda a, b: torch.linalg.lstsq(a, b, driver="gels").solution,
        (torch.diag_embed(torch.tensor([[1.0, 2, 2], [3, 3, 0]])), torch.ones(2, 3, 1))),
    "a negative variance": (gaussian_nll_loss, (ROWS, ROWS, ROWS)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_those_of_eager(name: str) -> None:
    function, inputs = REFUSED[name]
    with pytest.raises((RuntimeError, ValueError)) as eager:
        function(*inputs)
    with pytest.raises(eager.type, match=re.escape(str(eager.value))):
        compiled(function)(*inputs)


def test_shapes_that_are_refused() -> None:
    for inputs in ((ROWS, COUNTS[:3]), (ROWS, WEIGHTS), (ROWS[None], COUNTS)):
        with pytest.raises(RuntimeError, match=r"cov\(\): expected"):
            torch.compile(lambda x, f: torch.cov(x, fweights=f), backend=backend)(*inputs)
    with pytest.raises(ValueError, match="var is of incorrect size"):
        torch.compile(gaussian_nll_loss, backend=backend)(ROWS, ROWS, torch.ones(2))


def test_no_degrees_of_freedom_are_warned_of() -> None:
    def weighted(x: Tensor, f: Tensor) -> Tensor:
        return torch.cov(x, correction=7, fweights=f)

    def plain(x: Tensor) -> Tensor:
        return torch.cov(x, correction=5)
    run = compiled(weighted)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        found = run(ROWS, COUNTS)
    torch.testing.assert_close(found, weighted(ROWS, COUNTS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(ROWS, COUNTS + 1)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        found = torch.compile(plain, backend=backend)(ROWS)
    torch.testing.assert_close(found, plain(ROWS))


def test_one_weighted_observation_is_cleared_as_in_eager() -> None:
    x, again = ROWS[:, :1].clone(), ROWS[:, :1].clone()
    expected = torch.cov(x, aweights=WEIGHTS[:1])
    found = torch.compile(
        lambda x: torch.cov(x, aweights=WEIGHTS[:1]), backend=backend)(again)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert torch.equal(again, x)


@pytest.mark.parametrize("function", (torch.cov, lambda x: gaussian_nll_loss(x, x, x.abs())))
def test_other_backends_are_as_they_were(function: Any) -> None:
    compiled(function)(ROWS)
    torch._dynamo.reset()
    with pytest.raises((torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        torch.compile(function, backend="aot_eager", fullgraph=True)(ROWS)


def test_transformed_functions_are_as_they_were() -> None:
    x = torch.stack([ROWS, ROWS.flip(1)])

    def loss(y: Tensor) -> Tensor:
        return torch.cov(y).sum() + gaussian_nll_loss(y, y * 2, y.abs())
    expected = torch.stack([torch.func.grad(loss)(y) for y in x])
    for function in (torch.func.grad(loss), torch.func.jacrev(loss)):
        run = torch.compile(function, backend=backend)
        torch.testing.assert_close(torch.stack([run(y) for y in x]), expected)


def test_drivers_that_find_a_rank_are_as_they_were() -> None:
    a, b = (x.clone().requires_grad_() for x in (MATRICES, RIGHT))
    found = torch.compile(torch.linalg.lstsq, backend=backend)(a, b)
    expected = torch.linalg.lstsq(a, b)
    torch.testing.assert_close(tuple(found), tuple(expected))
    torch.testing.assert_close(torch.autograd.grad(found[0].sum(), (a, b)),
                               torch.autograd.grad(expected[0].sum(), (a, b)))
