"""Which memory results lie in, and who notices that it changes: as in eager PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch_harness import compiled, same

Function = Callable[..., torch.Tensor]


@pytest.mark.parametrize("size", [3, 1 << 19])
def test_a_result_that_the_backward_needs_may_not_change(size: int) -> None:
    x = torch.randn(size, requires_grad=True)
    y = compiled(lambda x: x.exp())(x)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_view_of_a_result_that_the_backward_needs_may_not_change() -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.exp()
        return y, y[1:] * y[1:].detach()
    x = torch.randn(4, requires_grad=True)
    y, z = compiled(f)(x)
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("size", [3, 1 << 19])
def test_a_result_that_nobody_needs_may_change(size: int) -> None:
    x = torch.randn(size, requires_grad=True)
    y = compiled(lambda x: x * 3)(x)
    assert not y._is_view()
    y.mul_(2)
    y.sum().backward()
    same(x.grad, torch.full_like(x, 6))


def test_results_that_are_views_of_one_value_share_its_memory() -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        return y[1:], y[:, 0], y.t(), y.view(12)
    x = torch.randn(3, 4)
    rows, column, turned, flat = compiled(f)(x)
    same((rows, column, turned, flat), f(x))
    rows[0] = 7
    assert column[1] == turned[0, 1] == flat[4] == 7


def test_contents_that_are_not_read_are_replaced() -> None:
    def f(x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        kept.copy_(x.mean(0))
        return x + 1
    x, kept = torch.randn(5, 3), torch.zeros(3)
    same(compiled(f)(x, kept), x + 1)
    same(kept, x.mean(0))


@pytest.mark.parametrize("view", [
    lambda z: z.conj().imag, lambda z: z.conj(), lambda z: z[:, ::2].conj(),
    lambda z: z[:1].conj().imag.expand(3, 4), lambda z: z.t().conj().imag,
])
def test_memory_that_stands_for_negatives_and_conjugates(view: Function) -> None:
    x = view(torch.randn(3, 4, dtype=torch.complex64))
    torch.testing.assert_close(compiled(lambda x: x * 2 + 1)(x), x * 2 + 1)


@pytest.mark.parametrize("view", [lambda z: z.conj().imag, lambda z: z.conj()])
def test_changes_of_negatives_and_conjugates(view: Function) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        x[1:].mul_(3)
        return x.sum()
    z = torch.randn(3, 4, dtype=torch.complex64)
    other = z.clone()
    torch.testing.assert_close(compiled(f)(view(z)), f(view(other)))
    torch.testing.assert_close(z, other)


def test_gradients_do_not_share_memory() -> None:
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(12, requires_grad=True)
    (compiled(lambda x, y: x + y.view(3, 4))(x, y) * torch.randn(3, 4)).sum().backward()
    assert x.grad is not None and y.grad is not None
    y.grad.copy_(x.grad.view(12) * 2)
    same(y.grad, x.grad.view(12) * 2)


def test_nested_tensors() -> None:
    parts = [torch.randn(n, 3) for n in (2, 4)]
    x = torch.nested.nested_tensor(parts, layout=torch.jagged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = torch.compile(lambda x: x * 2 + 1, backend="tilewright")(x)
    same(y.values(), x.values() * 2 + 1)
