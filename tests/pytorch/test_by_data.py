"""Graphs with sizes and numbers that depend on data: what has them is called, the rest compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tilewright.errors import Unsupported
from tilewright.torch import backend, report


def masked(x: Tensor) -> Tensor:
    y = x.sin()
    return y[y > 0].exp().sum() + y.cos().sum()


def scaled(x: Tensor) -> Tensor:
    return (x * x).sum().item() * x.tanh() + 1


def cut(x: Tensor) -> Tensor:
    start = int(x.argmax().item()) % 2
    torch._check(start >= 0)
    torch._check(start <= x.shape[0] - 3)
    return x.exp().narrow(0, start, 3) * 2


def filled(x: Tensor) -> Tensor:
    y = x * 2
    y[y > 0] = y[y > 0] * 3
    return y


CASES: tuple[Callable[..., Any], ...] = (
    masked, scaled, cut, filled,
    lambda x: (x.detach() * 2).round().unique().sum() + x,
    lambda x: ((x > 0).nonzero() + 1, x.sum().item()))


def run(function: Callable[..., Any], **options: Any) -> Any:
    """The function in one graph, without a warning of ours."""
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, **options)


@pytest.mark.filterwarnings("error::tilewright.torch.faults.BackendWarning")
@pytest.mark.parametrize(("function", "dynamic"), [(f, f is masked) for f in CASES])
def test_as_eager_for_whatever_size_it_is(function: Callable[..., Any], dynamic: bool) -> None:
    made = run(function, dynamic=dynamic)
    for seed in range(2):
        x = torch.randn(6, generator=torch.manual_seed(seed), requires_grad=True)
        results, gradients = [], []
        for f in (function, made):
            results.append(f(x))
            tensor = isinstance(results[-1], Tensor)
            gradients.append(torch.autograd.grad(results[-1].sum(), x) if tensor else ())
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*gradients)
    assert not report(made).breaks


def test_none_are_left_of_a_mask_that_holds_nowhere() -> None:
    made = run(masked)
    x = -torch.rand(6, requires_grad=True)
    torch.testing.assert_close(made(x), masked(x))


def test_what_is_called_is_said() -> None:
    made = run(masked)
    made(torch.ones(6))
    found = report(made).fallbacks
    assert {f.target for f in found} == {
        "aten.index.Tensor", "aten.exp.default", "aten.sum.default"}
    assert {f.reason for f in found} == {"a size or number that depends on data"}
    with pytest.raises(Exception, match="depends on data") as raised:
        run(masked, options={"fallback": False})(torch.ones(6))
    assert isinstance(raised.value.__cause__ or raised.value, Unsupported | RuntimeError)


def test_assertions_hold_or_raise() -> None:
    def asserted(x: Tensor) -> Tensor:
        torch._assert_async(x.sum() > 0, "not above zero")
        return x * 2

    def checked(x: Tensor) -> Tensor:
        n = int(x.sum().item())
        torch._check(n < 5)
        return x * n
    for function, wrong in ((asserted, -1.0), (checked, 3.0)):
        made = run(function)
        torch.testing.assert_close(made(torch.ones(2)), function(torch.ones(2)))
        with pytest.raises(RuntimeError):
            made(torch.full((2,), wrong))
    with pytest.raises(RuntimeError, match="not above zero"):
        run(asserted)(-torch.ones(2))
