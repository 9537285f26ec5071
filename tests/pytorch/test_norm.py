"""Layer normalisation, which stays one operator forward and one backward in PyTorch's graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional
from torch_harness import check, compiled


def normalised(shape: tuple[int, ...], weight: bool, bias: bool) -> Callable[..., torch.Tensor]:
    def f(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        given = iter(parameters)
        return functional.layer_norm(
            x, shape, next(given) if weight else None, next(given) if bias else None, 1e-3)
    return f


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "last"),
    [((4, 5, 6), 1), ((4, 5, 6), 2), ((6,), 1), ((0, 6), 1), ((2, 3, 0), 1)], ids=str)
def test_gradients(shape: tuple[int, ...], last: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inner = shape[-last:]
    for weight, bias in ((True, True), (True, False), (False, True), (False, False)):
        parameters = [torch.randn(inner, dtype=dtype) for _ in range(weight + bias)]
        check(normalised(inner, weight, bias),
              *(t.requires_grad_() for t in (torch.randn(shape, dtype=dtype), *parameters)))


def test_parameters_alone_are_trained() -> None:
    torch.manual_seed(0)
    weight, bias = (torch.randn(6, requires_grad=True) for _ in range(2))
    check(normalised((6,), True, True), torch.randn(3, 6), weight, bias)


def test_a_batch_of_any_size() -> None:
    torch.manual_seed(0)
    f = normalised((6,), True, True)
    for n in (3, 5):
        check(f, *(torch.randn(s, requires_grad=True) for s in ((n, 6), (6,), (6,))),
              dynamic=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sums_of_halves_are_as_exact_as_in_eager(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    f = normalised((32,), True, True)
    given = [torch.randn(s, dtype=dtype) for s in ((64, 32), (32,), (32,))]
    towards = torch.randn(64, 32, dtype=dtype)

    def results(function: Callable[..., torch.Tensor], wide: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.to(wide, copy=True).requires_grad_() for t in given]
        result = function(*leaves)
        (result * towards.to(wide)).sum().backward()
        found = [result, *(t.grad for t in leaves)]
        return [t.detach().double() for t in found if t is not None]

    exact, eager, ours = (
        results(*way) for way in ((f, torch.float64), (f, dtype), (compiled(f), dtype)))
    for true, theirs, found in zip(exact, eager, ours, strict=True):
        off, allowed = ((t - true).square().mean().sqrt() for t in (found, theirs))
        assert off <= 1.2 * allowed
