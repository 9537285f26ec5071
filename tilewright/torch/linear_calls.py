"""Linear layers and their gradients as one operator each of a traced graph.

PyTorch traces a linear layer as a product between views, and its gradient as ten operators more:
to trace, to divide and to convert them was a large share of a first step. Here they are two. The
compiled form of both is in ``ops/linear.py``; what is here defines what they mean, and runs where
that form fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import mm_flop, register_flop_formula

from tilewright.torch.instead import instead_of, ours

aten = torch.ops.aten

_library = torch.library.Library("tilewright", "FRAGMENT")
_library.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_library.define(
    "linear_gradient(Tensor gradient, Tensor x, Tensor weight, bool[3] wanted) -> Tensor[]")

linear = torch.ops.tilewright.linear.default
"""The layer, of a contiguous result."""

gradient = torch.ops.tilewright.linear_gradient.default
"""The gradients by x, weight and bias, of which those come that are wanted."""


# --- what they mean ---------------------------------------------------------------------
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias).contiguous()


def _gradient(
    given: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> list[Tensor]:
    rows = given.reshape(-1, given.shape[-1])
    makes = (
        lambda: (rows @ weight).reshape(x.shape),
        lambda: rows.t() @ x.reshape(-1, x.shape[-1]),
        lambda: rows.sum(0),
    )
    return [make() for make, wants in zip(makes, wanted, strict=True) if wants]


def _linear_shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _gradient_shapes(
    given: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> list[Tensor]:
    shapes = x.shape, weight.shape, weight.shape[:1]
    return [x.new_empty(shape) for shape, wants in zip(shapes, wanted, strict=True) if wants]


_library.impl("linear", _linear, "CPU")
_library.impl("linear_gradient", _gradient, "CPU")
_library.impl("linear", _linear_shape, "Meta")
_library.impl("linear_gradient", _gradient_shapes, "Meta")


@register_flop_formula(torch.ops.tilewright.linear)  # type: ignore[untyped-decorator]
def _linear_work(x: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
    """PyTorch weighs by it what to keep for the backward, if it is given a budget of memory."""
    return int(mm_flop((x.numel() // x[-1], x[-1]), weight[::-1]))


# --- where it stands for PyTorch's ------------------------------------------------------
class _Linear(torch.autograd.Function):
    """The layer as autograd sees it while AOTAutograd traces."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad)
        found = iter(gradient(given, x, weight, wanted))
        return tuple(next(found) if wants else None for wants in wanted)


TRACING = (FunctionalTensorMode, FakeTensorMode, ProxyTorchDispatchMode)
"""The modes of AOTAutograd. Any other one, as that of selective checkpointing, is to see PyTorch's
operators.
"""


@instead_of(aten.linear.default)
def _one_operator(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer over rows, of which PyTorch's form rounds no more than the compiled one."""
    given = (x, weight) if bias is None else (x, weight, bias)
    if not ours() or any(type(t) is not FunctionalTensor for t in given):
        return NotImplemented
    plain = x.ndim >= 2 and weight.ndim == 2 and (bias is None or bias.ndim == 1) and all(
        t.dtype is x.dtype and t.layout is torch.strided and t.device.type == "cpu" for t in given)
    plain = plain and x.dtype in (torch.float32, torch.float64) and all(
        isinstance(n, int) and n for t in given for n in t.shape)
    if not plain or any(type(m) not in TRACING for m in _get_current_dispatch_mode_stack()):
        return NotImplemented
    return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return,no-untyped-call]
