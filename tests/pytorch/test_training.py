"""Small models train as they do in eager PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_harness import check, compiled, losses


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(16),
        nn.Linear(16, 4),
    )


def squared_error(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(model(x), y)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_mlp_trains_as_in_eager(optimizer: type) -> None:
    model = mlp()
    batches = [(torch.randn(32, 8), torch.randn(32, 4)) for _ in range(20)]
    eager = losses(model, batches, squared_error, False, optimizer, lr=1e-2)
    ours = losses(model, batches, squared_error, True, optimizer, lr=1e-2)
    torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


def test_buffers_follow() -> None:
    first, second = mlp(), mlp()
    second.load_state_dict(first.state_dict())
    run = compiled(second)
    for _ in range(3):
        x = torch.randn(32, 8)
        torch.manual_seed(1)
        expected = first(x)
        torch.manual_seed(1)
        torch.testing.assert_close(run(x), expected)
    for (name, a), (_, b) in zip(first.named_buffers(), second.named_buffers(), strict=True):
        torch.testing.assert_close(b, a, msg=name)


def test_views_of_inputs_share_their_memory() -> None:
    x = torch.randn(4, 6)
    f = compiled(lambda x: (x.t(), x + 1))
    view, _ = f(x)
    assert view.data_ptr() == x.data_ptr()
    assert view.stride() == (1, 6)


@pytest.mark.parametrize("strided", [
    lambda x: x.t(), lambda x: x[::2], lambda x: x[:, 1:5], lambda x: x[:, ::3],
    lambda x: x[:1].expand(5, 12), lambda x: x.unfold(1, 4, 2), lambda x: x[1:, 3],
])
def test_strided_inputs(strided: object) -> None:
    x = strided(torch.randn(8, 12))  # type: ignore[operator]
    f = compiled(lambda x: (x * 2, x.sum(0)))
    made, expected = f(x), (x * 2, x.sum(0))
    torch.testing.assert_close(made, expected)


def test_inputs_change_in_place() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        y.t().add_(1)
        return x + y
    x, y = torch.randn(6, 6), torch.randn(6, 6)
    a, b = x.clone(), y.clone()
    torch.testing.assert_close(compiled(f)(x, y), f(a, b))
    torch.testing.assert_close((x, y), (a, b))


def test_gradients_of_expand_and_permute() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    check(lambda x: x.t().unsqueeze(0).expand(2, 4, 3) * 2, x)
    check(lambda x: x.sum(), x)


def test_dropout_draws_in_the_order_of_memory() -> None:
    x = torch.randn(3, 4, 5, requires_grad=True)
    check(lambda x: functional.dropout(x.transpose(1, 2), 0.4) + 0, x)
    check(lambda x: functional.dropout(x[:1].expand(3, 4, 5), 0.4) + 0, x)


def test_every_dropout_draws() -> None:
    x = torch.randn(3, 40, requires_grad=True)
    check(lambda x: functional.dropout(functional.dropout(x + 1, 0.4) * 2, 0.4), x)
    check(lambda x: functional.dropout(x, 0.4) + functional.dropout(x, 0.4), x)


def test_results_of_pytorch_get_the_strides_that_tracing_foretold() -> None:
    from tilewright.torch.program import _eager
    from tilewright.torch.recipe import Eager, Slot

    x = torch.arange(6.0).reshape(2, 3)
    call = Eager(torch.ops.aten.t.default, ((Slot(0),), {}), (1,), False, ((2, 1),))
    slots = [x, None]
    _eager(call)(slots)
    assert slots[1].stride() == (2, 1)  # type: ignore[attr-defined]
    torch.testing.assert_close(slots[1], x.t())
