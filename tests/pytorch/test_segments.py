"""Reductions of segments, histograms, places of what is not zero, hashes: corners as in eager."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import opinfo
import pytest
import torch

from tilewright.torch.recipe import Recipe

aten = torch.ops.aten
DATA = torch.tensor([2.0, -1, 0, 3, 0, 0, math.nan, 5, 1.5, 4])
LENGTHS = torch.tensor([0, 2, 2, 2, 3, 0, 1])
WIDE = torch.randn(10, 3, generator=torch.manual_seed(0))
NUMBERS = torch.tensor([0.5, 1, 1, 2.25, -3, 9, 4, 4])


def ours(function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
    """The function compiled; nothing of it ran in PyTorch."""
    found: list[Recipe] = []
    result = opinfo.compiled(function, found)(*inputs)
    assert [f for r in found for f in r.fallbacks] == []
    return result


def same(function: Callable[..., Any], *inputs: torch.Tensor) -> None:
    torch.testing.assert_close(
        ours(function, *inputs), function(*inputs), equal_nan=True)


@pytest.mark.parametrize("initial", [None, 1.5])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "max", "min"])
def test_segments(reduce: str, initial: float | None) -> None:
    """Empty ones, zeros and NaNs among them, and their gradients."""
    def by_offsets(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(x, reduce, offsets=offsets, initial=initial)

    same(by_offsets, DATA, torch.tensor([0, 3, 3, 10]))
    same(by_offsets, WIDE, torch.tensor([0, 3, 4, 10]))
    for data in (DATA, WIDE):
        leaf = data.clone().requires_grad_()
        found: list[Recipe] = []
        made = opinfo.compiled(
            lambda x, n: torch.segment_reduce(x, reduce, lengths=n, initial=initial), found)(
                leaf, LENGTHS)
        (gradient,) = torch.autograd.grad(made, leaf, torch.ones_like(made))
        expected = torch.segment_reduce(leaf, reduce, lengths=LENGTHS, initial=initial)
        (wanted,) = torch.autograd.grad(expected, leaf, torch.ones_like(made))
        assert not any(r.fallbacks for r in found)
        torch.testing.assert_close((made, gradient), (expected, wanted), equal_nan=True)


@pytest.mark.parametrize("density", [False, True])
def test_histograms(density: bool) -> None:
    weight = torch.arange(8.0)
    same(lambda x: torch.histogram(x, 4, density=density), NUMBERS)
    same(lambda x, w: torch.histogram(x, 3, range=(0, 4), weight=w, density=density),
         torch.cat([NUMBERS[:7], torch.tensor([math.nan])]), weight)
    same(lambda x, e: torch.histogram(x, e, density=density), NUMBERS,
         torch.tensor([-3.0, 1, 1, 4]))
    same(lambda x: torch.histogramdd(x, [3, 2], range=[0, 4, -1, 1], density=density).hist,
         torch.randn(20, 2, generator=torch.manual_seed(1)))
    same(lambda x: torch.histogram(x, 3), torch.tensor([2.0, 2, 2]))
    same(lambda x: torch.histogram(x, 3), torch.zeros(0))


def test_a_histogram_of_infinity_is_an_error() -> None:
    x = torch.tensor([1, math.inf])
    for run in (torch.histogram, lambda x, n: ours(lambda t: torch.histogram(t, n), x)):
        with pytest.raises(RuntimeError, match="is not finite"):
            run(x, 3)


@pytest.mark.parametrize("x", [torch.tensor([[1.0, 0, 2], [0, 0, math.nan]]), torch.zeros(0, 3),
                               torch.tensor(1.0), torch.tensor([True, False])])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_places(x: torch.Tensor, size: int) -> None:
    same(lambda t: torch.nonzero_static(t, size=size, fill_value=7), x)


@pytest.mark.parametrize("x", [WIDE, WIDE.double(), LENGTHS.int()[None], torch.tensor([True, True]),
                               torch.tensor([-1, 5], dtype=torch.int8)])
def test_hashes(x: torch.Tensor) -> None:
    same(lambda t: (torch.hash_tensor(t), torch.hash_tensor(t, -1, keepdim=True)), x)


def test_fractional_windows_take_nans() -> None:
    x = torch.randn(2, 3, 7, 6, generator=torch.manual_seed(2))
    x[1, 1, 3] = math.nan
    samples = torch.rand(2, 3, 2, generator=torch.manual_seed(3))
    same(lambda t, s: aten.fractional_max_pool2d(t, [2, 3], [3, 1], s), x, samples)
