"""The steps of a recurrent layer, and those of its gradient, as operators of a traced graph.

Each is one operator for all steps, so that what is traced and compiled does not grow with them.
The compiled form of both is in ``ops/recurrent.py``; what is here defines what they mean, and runs
where that form fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tilewright.torch.recurrent_cells import CELLS, OnTensors, projected, step, step_back

STEPS = "(str kind, bool backwards, Tensor x, Tensor[] states, Tensor[] weights) -> Tensor[]"
GRADIENT = (
    "(str kind, bool backwards, Tensor[] gradients, Tensor[] saved, Tensor[] weights) -> Tensor[]")


def numbers(steps: int, backwards: bool) -> range:
    """The steps in the order of a layer."""
    return range(steps)[::-1] if backwards else range(steps)


@torch.library.custom_op("tilewright::recurrent_steps", mutates_args=(), schema=STEPS)
def recurrent_steps(
    kind: str, backwards: bool, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """All steps of one direction of a layer.

    ``kind`` is the name of PyTorch's function, ``x`` (steps, batch, gates * width) what the inputs
    give to the gates, ``states`` (batch, width each) are those before the first step, ``weights``
    those of :func:`~tilewright.torch.recurrent_cells.step`. A layer that runs backwards begins with
    the last step.

    The results are, of each state, all of them (steps + 1, batch, width), and then, of each value
    that the gradient needs beside them, all of them (steps, batch, width). State i is that before
    step i and after step i - 1; if the layer runs backwards, the other way round.
    """
    cell, count = CELLS[kind], len(x)
    made = [t.zero_() for t in _shapes(kind, backwards, x, states, weights)]
    every, kept = made[:cell.states], made[cell.states:]
    for all_of_it, state in zip(every, states, strict=True):
        all_of_it[count if backwards else 0] = state
    for i in numbers(count, backwards):
        before, after = (i + 1, i) if backwards else (i, i + 1)
        now, needed = step(OnTensors(), kind, x[i], tuple(s[before] for s in every), weights)
        for place, value in zip(every, now, strict=True):
            place[after] = value
        for place, value in zip(kept, needed, strict=True):
            place[i] = value
    return made


@recurrent_steps.register_fake
def _shapes(
    kind: str, backwards: bool, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    cell, (count, batch, gates) = CELLS[kind], x.shape
    width, more = gates // cell.gates, projected(kind, weights)
    return [*(x.new_empty(count + 1, batch, s.shape[1]) for s in states),
            *(x.new_empty(count, batch, width) for _ in range(cell.kept + more))]


@torch.library.custom_op("tilewright::recurrent_gradient", mutates_args=(), schema=GRADIENT)
def recurrent_gradient(
    kind: str, backwards: bool, gradients: Sequence[Tensor], saved: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """The gradients of the steps of a layer, but for products over all steps.

    ``gradients`` are those of all states, ``saved`` the results of :func:`recurrent_steps`. The
    results are the gradients of the states before the first step, as far as they come from the
    steps, and then those of :func:`~tilewright.torch.recurrent_cells.step_back` at every step.
    """
    states = CELLS[kind].states
    every, kept = saved[:states], saved[states:]
    made = _gradient_shapes(kind, backwards, gradients, saved, weights)
    totals = [torch.zeros_like(t) for t in made[:states]]
    for i in numbers(len(kept[0]) if kept else len(every[0]) - 1, not backwards):
        before, after = (i + 1, i) if backwards else (i, i + 1)
        totals, wanted = step_back(  # type: ignore[assignment]
            OnTensors(), kind,
            tuple(t + g[after] for t, g in zip(totals, gradients, strict=True)),
            tuple(s[before] for s in every), tuple(s[after] for s in every),
            tuple(k[i] for k in kept), weights)
        for place, value in zip(made[states:], wanted, strict=True):
            place[i] = value
    return [*(t.contiguous() for t in totals), *made[states:]]


@recurrent_gradient.register_fake
def _gradient_shapes(
    kind: str, backwards: bool, gradients: Sequence[Tensor], saved: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    cell, first = CELLS[kind], saved[0]
    count, batch, width = first.shape[0] - 1, first.shape[1], weights[0].shape[0]
    made = [s.new_empty(s.shape[1:]) for s in saved[:cell.states]]
    made += [first.new_empty(count, batch, width) for _ in range(1 + cell.apart)]
    if projected(kind, weights):
        made.append(first.new_empty(count, batch, first.shape[2]))
    return made


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    kind, backwards, _, _, weights = inputs
    ctx.save_for_backward(*output, *weights)
    ctx.settings = kind, backwards, len(output)


def _backward(ctx: Any, gradients: Sequence[Tensor]) -> Any:
    kind, backwards, count = ctx.settings
    saved, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
    states = CELLS[kind].states
    given = list(gradients[:states])
    found = recurrent_gradient(kind, backwards, given, list(saved), list(weights))
    x, *more = found[states:]
    hidden = more[0] if CELLS[kind].apart else x
    before = saved[0][1:] if backwards else saved[0][:-1]
    of_weights = [_summed(hidden, before)]
    if projected(kind, weights):
        of_weights.append(_summed(more[-1], saved[-1]))
    elif len(weights) > 1:
        of_weights.append(hidden.sum((0, 1)))
    first = -1 if backwards else 0
    of_states = [f + g[first] for f, g in zip(found, given, strict=False)]
    return None, None, x, of_states, of_weights


def _summed(gradient: Tensor, operand: Tensor) -> Tensor:
    """The gradient of a weight: one product over all steps and rows."""
    return gradient.flatten(0, 1).t() @ operand.flatten(0, 1)


recurrent_steps.register_autograd(_backward, setup_context=_keep)
