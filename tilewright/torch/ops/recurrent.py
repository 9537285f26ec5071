"""Recurrent layers: a loop over compiled steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from tilewright.ir.graph import Node
from tilewright.ir.types import TensorType
from tilewright.torch import recurrent_calls  # noqa: F401 - it defines the operators
from tilewright.torch.recurrent_cells import CELLS, OnNodes, step, step_back
from tilewright.torch.steps import Steps, Tensor, loop_row


@loop_row(torch.ops.tilewright.recurrent_steps)
def recurrent_steps(
    steps: Steps, wanted: Collection[int], kind: str, backwards: bool, x: Tensor,
    states: Sequence[Tensor], weights: Sequence[Tensor],
) -> None:
    """The states are carried in the tensors that hold all of them."""
    steps.count, steps.backwards = x.type.shape[0], backwards
    before, after = (1, 0) if backwards else (0, 1)
    every = [
        steps.buffer(s.type.with_shape((steps.count + 1, *s.type.shape))) for s in states]
    for all_of_it, state in zip(every, states, strict=True):
        steps.begins(all_of_it, before, state)
    now, kept = step(
        OnNodes(), kind, steps.slice(x), tuple(steps.slice(s, before) for s in every),
        tuple(map(steps.whole, weights)))
    for all_of_it, value in zip(every, now, strict=True):
        steps.fill(all_of_it, value, after)
    steps.results |= {i: t.slot for i, t in enumerate(every)}
    for i, value in enumerate(kept, len(every)):
        if i in wanted:
            steps.results[i] = _all_of(steps, value)


@loop_row(torch.ops.tilewright.recurrent_gradient)
def recurrent_gradient(
    steps: Steps, wanted: Collection[int], kind: str, backwards: bool,
    gradients: Sequence[Tensor], saved: Sequence[Tensor], weights: Sequence[Tensor],
) -> None:
    """From the layer's last step to its first; what a step hands on has no tensor of its own."""
    states = CELLS[kind].states
    every, kept = saved[:states], saved[states:]
    steps.count, steps.backwards = saved[0].type.shape[0] - 1, not backwards
    before, after = (1, 0) if backwards else (0, 1)
    carried = [steps.carried(s.slice) for s in every]
    totals = tuple(
        value + steps.slice(g, after) for (_, value), g in zip(carried, gradients, strict=True))
    handed, found = step_back(
        OnNodes(), kind, totals, tuple(steps.slice(s, before) for s in every),
        tuple(steps.slice(s, after) for s in every), tuple(map(steps.slice, kept)),
        tuple(map(steps.whole, weights)))
    steps.results |= {
        i: steps.carry(ring, value)
        for i, ((ring, _), value) in enumerate(zip(carried, handed, strict=True))}
    steps.results |= {i: _all_of(steps, value) for i, value in enumerate(found, states)}


def _all_of(steps: Steps, value: Node) -> int:
    """A new tensor with this result of every step; its slot."""
    made = steps.buffer(TensorType(value.dtype, (steps.count, *value.shape)))
    steps.fill(made, value)
    return made.slot
