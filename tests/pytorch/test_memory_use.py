"""Training does not grow, and what a step saves is freed with it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch_harness import compiled

from tilewright.runtime.pool import pool
from tilewright.torch import parts, program
from tilewright.torch.records import regions


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 640), nn.GELU(), nn.LayerNorm(640), nn.Dropout(0.1), nn.Linear(640, 64))


def test_steps_take_no_new_memory() -> None:
    """Results of a megabyte and more come from the pool, whose blocks are counted."""
    run = compiled(network())
    steps = torch.optim.Adam(run.parameters())
    x = torch.randn(512, 64)

    def step() -> None:
        steps.zero_grad()
        run(x).square().mean().backward()
        steps.step()
    for _ in range(5):
        step()
    gc.collect()
    fresh, reused, objects = pool().fresh, pool().reused, len(gc.get_objects())
    for _ in range(50):
        step()
    assert pool().fresh == fresh
    assert pool().reused > reused + 50
    gc.collect()
    assert len(gc.get_objects()) < objects + 50


def test_saved_tensors_are_freed_while_the_backward_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's list of arguments is its own: nobody else holds what the forward kept."""
    alive: list[Any] = []
    make = parts.reinterpret

    def noted(*args: Any) -> torch.Tensor:
        made = make(*args)
        alive.append(weakref.ref(made.untyped_storage()))
        return made
    run = compiled(network())
    x = torch.randn(512, 64)
    monkeypatch.setattr(parts, "reinterpret", noted)  # what large results are made with
    loss = run(x).square().mean()
    kept = [r for r in alive if r() is not None]
    loss.backward()
    assert kept, "the forward keeps large values"
    del loss
    gc.collect()
    assert all(r() is None for r in kept)


def test_boxed_arguments_are_dropped() -> None:
    f = compiled(lambda x, y: x * 2 + y)
    f(torch.ones(3), torch.ones(3))
    (found,) = [p for r in regions() for record in r.records for p in record.programs][-1:]
    assert isinstance(found, program.Program) and found._boxed_call
    args = [torch.ones(3), torch.ones(3)]
    found(args)
    assert args == []


def test_a_model_that_is_dropped_takes_its_programs_along() -> None:
    before = len(regions())
    run = compiled(network())
    run(torch.randn(4, 64)).sum().backward()
    programs = [weakref.ref(p) for r in regions()[before:]
                for record in r.records for p in record.programs]
    assert len(programs) == 2
    del run
    torch._dynamo.reset()
    gc.collect()
    assert all(p() is None for p in programs)
