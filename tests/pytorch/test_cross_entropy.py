"""The cross entropy of a linear layer in chunks of the batch, as PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_harness import check, compiled

import tilewright as tw
from tilewright.torch import cross_entropy

if not hasattr(functional, "linear_cross_entropy"):
    pytest.skip("this PyTorch has no linear_cross_entropy", allow_module_level=True)

Options = torch.nn.LinearCrossEntropyOptions
WEIGHT = torch.linspace(0.5, 2, 5)


def batch(rows: int = 7) -> list[Tensor]:
    """Inputs (rows, 3), a matrix (5, 3), a bias (5,) and classes, one of which is ignored."""
    target = torch.arange(rows) % 5
    target[1:2] = -100
    return [torch.randn(rows, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True),
            torch.randn(5, requires_grad=True), target]


def loss(x: Tensor, matrix: Tensor, bias: Tensor | None, target: Tensor, **more: Any) -> Tensor:
    chunks = Options(batch_chunk_size=2, allow_retain_graph=True)
    found: Tensor = functional.linear_cross_entropy(
        x, matrix, target, linear_bias=bias, options=chunks, **more)
    return found


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_as_eager(reduction: str, weight: Tensor | None) -> None:
    check(lambda *a: loss(*a, reduction=reduction, weight=weight), *batch())


def test_without_bias_or_some_gradients() -> None:
    x, matrix, _, target = batch()
    check(lambda x, m, t: loss(x, m, None, t), x.detach(), matrix, target)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nothing_counts(reduction: str) -> None:
    """All rows are ignored."""
    *tensors, target = batch()
    check(lambda *a: loss(*a, reduction=reduction), *tensors, torch.full_like(target, -100))


def test_many_chunks_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "MOST", 2)
    check(loss, *batch(9))


def test_classes_that_are_not_there_are_an_error() -> None:
    *tensors, target = batch()
    target[3] = 5
    with pytest.raises(tw.OutOfBounds, match="outside an axis of size 5"):
        compiled(loss)(*tensors, target)


def test_batches_of_any_size() -> None:
    run = torch.compile(loss, backend="tilewright", dynamic=True, fullgraph=True,
                        options={"fallback": False})
    for rows in (7, 9, 4):
        tensors = batch(rows)
        torch.testing.assert_close(run(*tensors), loss(*tensors))
