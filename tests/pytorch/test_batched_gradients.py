"""Batches that autograd's own functions make, through functions and through compiled models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.functional import hessian, jacobian
from torch_harness import compiled

import tilewright as tw
from tilewright.torch import backend


def f(x: Any, w: Any) -> Any:
    return np.sin(x @ w) * x.sum()


def reference(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.sin(x @ w) * x.sum()


def arguments() -> tuple[torch.Tensor, torch.Tensor]:
    x, w = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4, 2)))
    return x, w


lifted = tw.torch.function(f)


@pytest.mark.parametrize("kind", ["function", "jit", "model", "sizes"])
def test_batches_of_cotangents(kind: str) -> None:
    made = {"function": lifted, "jit": tw.jit(f), "model": compiled(reference),
            "sizes": torch.compile(reference, backend=backend, dynamic=True)}[kind]
    x, w = arguments()
    for count in (1, 3):
        cotangents = torch.randn(count, 3, 2, dtype=torch.float64)
        found, right = (torch.autograd.grad(g(x, w), (x, w), cotangents, is_grads_batched=True)
                        for g in (made, reference))
        torch.testing.assert_close(found, right)
    torch.testing.assert_close(
        jacobian(made, (x, w), vectorize=True), jacobian(reference, (x, w)))


def test_a_batch_for_one_of_two_results() -> None:
    def two(x: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sin() * n, x.exp()
    x = arguments()[0]
    cotangents = torch.randn(2, 3, 4, dtype=torch.float64)
    found, right = (torch.autograd.grad(g(x, 3)[0], x, cotangents, is_grads_batched=True)
                    for g in (compiled(two), two))
    torch.testing.assert_close(found, right)


def test_jacobians_in_both_modes() -> None:
    x, w = arguments()
    torch.testing.assert_close(
        jacobian(lifted, (x, w), vectorize=True, strategy="forward-mode"),
        jacobian(reference, (x, w)))

    def total(g: Any) -> Any:
        return lambda x, w: g(x, w).sum()
    right = hessian(total(reference), (x, w))
    for strategy in ("reverse-mode", "forward-mode"):
        torch.testing.assert_close(
            hessian(total(lifted), (x, w), vectorize=True, outer_jacobian_strategy=strategy), right)


def test_checks_of_pytorch() -> None:
    x, w = arguments()
    assert gradcheck(lifted, (x, w), check_batched_grad=True, check_forward_ad=True,
                     check_batched_forward_grad=True)
    assert gradgradcheck(lifted, (x, w), check_batched_grad=True, check_fwd_over_rev=True)


def test_tangents_without_required_gradients() -> None:
    x, w = (t.detach() for t in arguments())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        found, right = (
            forward_ad.unpack_dual(g(dual, w)).tangent for g in (tw.jit(f), reference))
        torch.testing.assert_close(found, right)
        assert found is not None


def test_tangents_of_cotangents() -> None:
    x, w = arguments()
    results = [g(x, w) for g in (lifted, reference)]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.randn(3, 2, dtype=torch.float64),
                                    torch.randn(3, 2, dtype=torch.float64))
        found, right = (
            forward_ad.unpack_dual(torch.autograd.grad(y, x, dual)[0]).tangent for y in results)
        torch.testing.assert_close(found, right)
        assert found is not None
