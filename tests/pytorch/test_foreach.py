"""Operators on lists of tensors are those on each of them, in one graph."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch_harness import check, compiled, same

import tilewright.torch

Tensors = list[torch.Tensor]


@pytest.mark.parametrize("optimizer, settings", [
    (torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.Adagrad, {}), (torch.optim.RMSprop, {"centered": True}),
])
def test_steps_of_optimizers(optimizer: type, settings: dict[str, Any]) -> None:
    first = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    second = copy.deepcopy(first)
    eager = optimizer(first.parameters(), lr=0.1, foreach=True, **settings)
    ours = optimizer(second.parameters(), lr=0.1, foreach=True, **settings)
    step = torch.compile(ours.step, backend="tilewright")
    for _ in range(3):
        for p, q in zip(first.parameters(), second.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        eager.step()
        step()
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(q, p)
    found = tilewright.torch.report(step)
    assert found.graphs and not found.fallbacks


def test_gradients_are_clipped() -> None:
    def clip(tensors: Tensors) -> torch.Tensor:
        return nn.utils.clip_grad_norm_(tensors, 0.1, foreach=True)
    first = [torch.randn(3, 4), torch.randn(5)]
    second = [t.clone() for t in first]
    for a, b in zip(first, second, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    same(compiled(clip)(second), clip(first))
    same([b.grad for b in second], [a.grad for a in first])


def test_every_form() -> None:
    def f(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> Tensors:
        xs, ys = [a, b], [c, d]
        return [
            *torch._foreach_add(xs, ys, alpha=2), *torch._foreach_add(xs, [1.0, 2.0]),
            *torch._foreach_add(xs, torch.tensor(3.0)), *torch._foreach_sub(xs, ys, alpha=0.5),
            *torch._foreach_div(xs, 4), *torch._foreach_addcdiv(xs, ys, ys, value=0.3),
            *torch._foreach_addcmul(xs, xs, ys, [0.3, 0.2]), *torch._foreach_lerp(xs, ys, 0.2),
            *torch._foreach_lerp(xs, ys, ys), *torch._foreach_pow(2.0, xs),
            *torch._foreach_pow(xs, [2.0, 3.0]), *torch._foreach_maximum(xs, ys),
            *torch._foreach_minimum(xs, 0.1), *torch._foreach_norm(xs, 1),
            *torch._foreach_sign(xs),
        ]
    check(f, torch.randn(3), torch.randn(2, 2), torch.randn(3), torch.randn(2, 2))


def test_lists_change_in_place() -> None:
    def f(xs: Tensors, ys: Tensors) -> None:
        torch._foreach_copy_(xs, ys)
        torch._foreach_mul_(xs, 3.0)
        torch._foreach_zero_(ys)
    xs, ys = [torch.zeros(3)], [torch.randn(3)]
    expected = ys[0] * 3
    compiled(f)(xs, ys)
    same((xs[0], ys[0]), (expected, torch.zeros(3)))
