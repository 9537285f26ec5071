"""What has no elements: results as eager PyTorch's, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch_harness import check


@pytest.mark.parametrize("f", [
    torch.max, torch.min, lambda x: x.max(0), lambda x: x.min(0, keepdim=True),
])
def test_there_is_no_extreme(f: Callable[..., Any]) -> None:
    x = torch.randn(0, 3)
    with pytest.raises((RuntimeError, IndexError)) as expected:
        f(x)
    with pytest.raises((RuntimeError, IndexError)) as found:
        torch.compile(f, backend="tilewright")(x)
    assert str(found.value) == str(expected.value)


def test_extremes_along_another_axis() -> None:
    check(lambda x: (x.max(1), x.min(1), x.amax(1)), torch.randn(0, 3))


@pytest.mark.parametrize("loss", [
    functional.mse_loss, functional.smooth_l1_loss, functional.huber_loss, functional.l1_loss,
])
def test_losses(loss: Callable[..., Any]) -> None:
    x = torch.randn(0, 3, requires_grad=True)
    check(lambda x: loss(x, x.detach() + 1), x)
