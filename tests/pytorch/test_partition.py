"""Equal operators of a traced graph are one, unless each has a result of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch_harness import check

from tilewright.torch.partition import merge_equal


def twice(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: (f(x) * f(x)).sum()


def filled(x: Tensor) -> Tensor:
    before = x.sin().sum()
    x.add_(1)
    return before + x.sin().sum()


def left(f: Callable[..., Any], mode: str = "fake") -> list[str]:
    """The operators of a function of a matrix after equal ones were merged; values as before."""
    x = torch.randn(3, 4)
    module = make_fx(f, tracing_mode=mode)(x.clone())
    merge_equal(module.graph)
    module.graph.lint()
    module.recompile()
    torch.manual_seed(0)
    expected = f(x.clone())
    torch.manual_seed(0)
    torch.testing.assert_close(module(x.clone()), expected)
    return [n.target.overloadpacket.__name__ for n in module.graph.nodes
            if isinstance(n.target, torch._ops.OpOverload)]


def test_equal_operators_are_one() -> None:
    assert left(twice(lambda x: x.sin().exp())) == ["sin", "exp", "mul", "sum"]
    assert left(twice(lambda x: x.max(0)[0])) == ["max", "mul", "sum"]
    assert left(twice(lambda x: x.reshape(4, 3))) == ["view", "mul", "sum"]
    assert left(twice(lambda x: torch.cat([x, x], 1))) == ["cat", "mul", "sum"]


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1, 1.0), (1, True)])
def test_numbers_are_told_apart(one: Any, other: Any) -> None:
    assert left(lambda x: (x * one).sum() + (x * other).sum()).count("mul") == 2


@pytest.mark.parametrize("draw", [torch.rand_like, torch.bernoulli])
def test_draws_are_left(draw: Callable[[Tensor], Tensor]) -> None:
    found = left(lambda x: draw(x.sigmoid()).sum() - draw(x.sigmoid()).sum())
    assert found.count(draw.__name__) == 2 and found.count("sigmoid") == 1


def test_results_are_tensors_of_their_own() -> None:
    assert left(lambda x: (x.sin(), x.sin())) == ["sin", "sin"]
    assert left(lambda x: (x.sin().view(-1), x.sin())) == ["sin", "view", "sin"]


def test_what_changes_an_argument_stands_between() -> None:
    assert left(filled).count("sin") == 2


def test_sizes_with_names() -> None:
    found = left(twice(lambda x: x.reshape(x.shape[0] * x.shape[1])), "symbolic")
    assert found.count("view") == found.count("mul") == 1


def test_gradients() -> None:
    torch.manual_seed(0)
    check(twice(lambda x: x.sin().exp()), torch.randn(3, 4).requires_grad_())
