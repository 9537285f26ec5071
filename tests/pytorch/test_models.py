"""Whole networks train as in eager PyTorch: in one graph, with every operator compiled."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from model_cases import TINY, Batch, Case
from plain_cases import PLAIN
from torch_harness import compiled

STEPS = 20
Trained = tuple[list[float], dict[str, torch.Tensor]]


def trains(case: Case) -> None:
    """Losses of 20 steps, and parameters and buffers after the last, as eager's.

    Where eager's own rounding takes an element to the other side of a rectifier, its losses leave
    those of exact numbers by far more than a rounding. Then ours have to be those of eager in f64.
    """
    model = case.build(TINY)
    batches = [case.batch(TINY) for _ in range(STEPS)]
    expected = case.train(copy.deepcopy(model), batches, lambda m: m)
    ours = case.train(copy.deepcopy(model), batches, compiled)
    try:
        agree(ours, expected)
    except AssertionError:
        exact = case.train(copy.deepcopy(model).double(), [wide(b) for b in batches], lambda m: m)
        apart = max(abs(x - y) for x, y in zip(expected[0], exact[0], strict=True))
        if apart < max(abs(x - y) for x, y in zip(ours[0], exact[0], strict=True)):
            raise
        agree(ours, exact)


def wide(batch: Batch) -> Batch:
    """A batch in f64."""
    return tuple(t.double() if t.is_floating_point() else t for t in batch)


def agree(ours: Trained, expected: Trained) -> None:
    """Losses, parameters and buffers are close."""
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-4, atol=1e-5)
    for name, value in expected[1].items():
        torch.testing.assert_close(
            ours[1][name], value, rtol=1e-3, atol=1e-4, check_dtype=False,
            msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", PLAIN)
def test_plain(name: str) -> None:
    trains(PLAIN[name])


if importlib.util.find_spec("transformers"):
    from transformers_cases import TRANSFORMERS

    @pytest.mark.parametrize("name", TRANSFORMERS)
    def test_transformers(name: str) -> None:
        trains(TRANSFORMERS[name])
