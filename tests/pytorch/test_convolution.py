"""Convolutions and pooling, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_harness import check

SETTINGS: list[dict[str, Any]] = [
    {}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"stride": 2, "padding": 2, "dilation": 2},
    {"groups": 2}, {"groups": 4, "padding": 1, "stride": 2}, {"bias": False},
]


TRANSPOSED = [*SETTINGS, {"stride": 2, "output_padding": 1, "padding": 1}]


def convolve(kind: str, dims: int, settings: dict[str, Any]) -> None:
    """In f64: the sums are long, and rounded in another order."""
    layer = getattr(nn, f"{kind}{dims}d")(4, 8, 3, **settings).double()
    x = torch.randn(2, 4, *([7, 6, 5][:dims]), dtype=torch.float64, requires_grad=True)
    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    run = getattr(functional, f"{kind.replace('Transpose', '_transpose').lower()}{dims}d")
    given = {k: v for k, v in settings.items() if k != "bias"}
    check(lambda x, *p: run(x, *p, **given), x, *parameters)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_convolution(settings: dict[str, Any]) -> None:
    convolve("Conv", 2, settings)


@pytest.mark.parametrize("settings", TRANSPOSED, ids=str)
def test_transposed_convolution(settings: dict[str, Any]) -> None:
    convolve("ConvTranspose", 2, settings)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("dims", [1, 3])
def test_other_axes_of_space(kind: str, dims: int) -> None:
    convolve(kind, dims, {"padding": 1, "groups": 2})


def test_channels_last_stays() -> None:
    x = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(8, 4, 3, 3, requires_grad=True)
    check(lambda x, w: functional.conv2d(x, w, padding=1), x, w)


def test_only_the_weights_have_gradients() -> None:
    w = torch.randn(8, 4, 3, 3, requires_grad=True)
    check(functional.conv2d, torch.randn(2, 4, 6, 5), w)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("settings", [
    {"stride": 1}, {"padding": 1}, {"ceil_mode": True}, {"stride": 3, "ceil_mode": True}],
    ids=str)
def test_pooling(dims: int, settings: dict[str, Any]) -> None:
    x = torch.randn(2, 3, *([7, 6, 8][:dims]), requires_grad=True)
    for name in ("max_pool", "avg_pool"):
        pool = getattr(functional, f"{name}{dims}d")
        check(lambda x, pool=pool: pool(x, 2, **settings), x)


def test_places_of_the_largest() -> None:
    x = torch.randint(0, 3, (2, 3, 7, 6)).float()
    x[0, 0, 2, 3] = torch.nan
    check(lambda x: functional.max_pool2d(x, 3, 2, 1, 1, return_indices=True), x)
    check(lambda x: functional.max_pool2d(x, 2, 2, 0, 2, return_indices=True), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 7)])
def test_adaptive_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 8, 6, requires_grad=True)
    check(lambda x: functional.adaptive_avg_pool2d(x, size), x)
    check(lambda x: functional.adaptive_max_pool2d(x, size), x)


def test_average_without_padding_or_with_a_divisor() -> None:
    x = torch.randn(2, 3, 8, 6, requires_grad=True)
    check(lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False), x)
    check(lambda x: functional.avg_pool2d(x, 3, 2, 1, divisor_override=5), x)
