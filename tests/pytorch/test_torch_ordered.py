"""Running results, sorting and bags of embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch_harness import check


def test_running_results() -> None:
    x = torch.randn(3, 7, requires_grad=True)
    check(lambda x: (x.cumsum(1), x.cumprod(0), x.logcumsumexp(1)), x)
    check(lambda x: (x.cummax(1), x.cummin(0)), torch.randint(0, 3, (4, 9)))
    check(lambda x: x.cumsum(-1), torch.rand(3, 5) < 0.5)


def test_sorting() -> None:
    x = torch.randn(3, 9, requires_grad=True)
    check(lambda x: (x.sort(1, True), x.sort(0), x.argsort(1)), x)
    check(lambda x: (x.topk(4), x.topk(2, 0, False)), x)
    check(lambda x: (x.kthvalue(3), x.median(0, True), x.median()), x)
    check(lambda x: x.mode(1), torch.randint(0, 3, (4, 9)))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("settings", [{}, {"padding_idx": 2}], ids=str)
def test_even_bags(mode: str, settings: dict[str, Any]) -> None:
    if mode == "max" and settings:
        pytest.skip("not compiled")
    table, places = torch.randn(7, 5, requires_grad=True), torch.randint(0, 7, (6, 4))
    check(lambda t: functional.embedding_bag(places, t, mode=mode, **settings), table)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize(
    "settings", [{}, {"padding_idx": 2}, {"include_last_offset": True}], ids=str)
def test_bags_of_different_sizes(mode: str, settings: dict[str, Any]) -> None:
    table, places = torch.randn(7, 5, requires_grad=True), torch.randint(0, 7, (12,))
    offsets = torch.tensor([0, 3, 3, 12 if "include_last_offset" in settings else 7])
    check(lambda t: functional.embedding_bag(places, t, offsets, mode=mode, **settings), table)


def test_weighted_bags() -> None:
    table, places = torch.randn(7, 5, requires_grad=True), torch.randint(0, 7, (6, 4))
    weights = torch.rand(6, 4, requires_grad=True)
    check(lambda t, w: functional.embedding_bag(places, t, mode="sum", per_sample_weights=w),
          table, weights)


@pytest.mark.parametrize("dim", [0, 2])
def test_weight_norm(dim: int) -> None:
    v, g = torch.randn(4, 3, 5), torch.rand(5 if dim else 4)
    shape = [1, 1, 5] if dim else [4, 1, 1]
    check(lambda v, g: torch._weight_norm(v, g.view(shape), dim), v.requires_grad_(),
          g.requires_grad_())
