"""Whole networks train as in eager PyTorch: in one graph, with every operator compiled."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from model_cases import TINY, Case
from plain_cases import PLAIN
from torch_harness import compiled

STEPS = 20


def trains(case: Case) -> None:
    """Losses of 20 steps, and parameters and buffers after the last, as eager's."""
    model = case.build(TINY)
    batches = [case.batch(TINY) for _ in range(STEPS)]
    losses, state = case.train(copy.deepcopy(model), batches, lambda m: m)
    ours, made = case.train(copy.deepcopy(model), batches, compiled)
    torch.testing.assert_close(ours, losses, rtol=1e-4, atol=1e-5)
    for name, expected in state.items():
        torch.testing.assert_close(
            made[name], expected, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", PLAIN)
def test_plain(name: str) -> None:
    trains(PLAIN[name])


if importlib.util.find_spec("transformers"):
    from transformers_cases import TRANSFORMERS

    @pytest.mark.parametrize("name", TRANSFORMERS)
    def test_transformers(name: str) -> None:
        trains(TRANSFORMERS[name])
