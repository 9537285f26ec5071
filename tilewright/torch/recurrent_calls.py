"""Recurrent layers over many steps, as operators of their own: PyTorch runs them.

Writing the steps out costs compile time for each of them. Where that would be minutes, a layer is
one call of PyTorch between compiled parts; its backward runs the layer once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey

from tilewright.torch.table import Call, NotCompiled, row

LAYER = "(str kind, Tensor x, Tensor[] states, Tensor[] weights, bool biased) -> Tensor[]"
BACKWARD = (
    "(str kind, Tensor[] gradients, Tensor x, Tensor[] states, Tensor[] weights, bool biased)"
    " -> Tensor[]")

RECORDING = (
    DispatchKey.AutogradCPU, DispatchKey.AutogradFunctionality, DispatchKey.ADInplaceOrView)
"""What is switched off inside of an operator, and has to be on to differentiate there."""


def _run(
    kind: str, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], biased: bool
) -> list[Tensor]:
    function: Callable[..., Any] = getattr(torch, kind)
    before: Any = [s.unsqueeze(0) for s in states]
    out, *last = function(
        x, before if kind == "lstm" else before[0], weights, biased, 1, 0.0, False, False, False)
    return [out, *(s.squeeze(0) for s in last)]


@torch.library.custom_op("tilewright::recurrent_layer", mutates_args=(), schema=LAYER)
def recurrent_layer(
    kind: str, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], biased: bool
) -> list[Tensor]:
    """Outputs (steps, batch, width) of one direction of a layer, and its last states.

    ``kind`` is the name of PyTorch's function, ``states`` those before the first step.
    """
    return [t.clone() for t in _run(kind, x, states, weights, biased)]


@recurrent_layer.register_fake
def _shapes(
    kind: str, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], biased: bool
) -> list[Tensor]:
    out = x.new_empty(*x.shape[:2], states[0].shape[-1])
    return [out, *(torch.empty_like(s, memory_format=torch.contiguous_format) for s in states)]


@torch.library.custom_op("tilewright::recurrent_layer_backward", mutates_args=(), schema=BACKWARD)
def recurrent_layer_backward(
    kind: str, gradients: Sequence[Tensor], x: Tensor, states: Sequence[Tensor],
    weights: Sequence[Tensor], biased: bool,
) -> list[Tensor]:
    """The gradients of x, of the states and of the weights of :func:`recurrent_layer`."""
    with contextlib.ExitStack() as stack:
        for key in RECORDING:
            stack.enter_context(torch._C._SetExcludeDispatchKeyGuard(key, False))
        stack.enter_context(torch.enable_grad())
        given = [t.detach().requires_grad_() for t in (x, *states, *weights)]
        here, count = given[1:], len(states)
        results = _run(kind, given[0], here[:count], here[count:], biased)
        found = torch.autograd.grad(results, given, list(gradients))
    return [t.clone(memory_format=torch.contiguous_format) for t in found]


@recurrent_layer_backward.register_fake
def _gradient_shapes(
    kind: str, gradients: Sequence[Tensor], x: Tensor, states: Sequence[Tensor],
    weights: Sequence[Tensor], biased: bool,
) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format)
            for t in (x, *states, *weights)]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    kind, x, states, weights, biased = inputs
    ctx.save_for_backward(x, *states, *weights)
    ctx.settings = kind, len(states), biased


def _backward(ctx: Any, gradients: Sequence[Tensor]) -> Any:
    kind, count, biased = ctx.settings
    x, *rest = ctx.saved_tensors
    found = recurrent_layer_backward(
        kind, list(gradients), x, rest[:count], rest[count:], biased)
    return None, found[0], found[1:1 + count], found[1 + count:], None


recurrent_layer.register_autograd(_backward, setup_context=_keep)


@row(torch.ops.tilewright.recurrent_layer, torch.ops.tilewright.recurrent_layer_backward)
def called(call: Call, *args: Any) -> None:
    """Not compiled: that is what these operators are for."""
    raise NotCompiled("its steps are too many to be written out")
