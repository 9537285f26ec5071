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
    "linear_gradient(Tensor gradient, Tensor? x, Tensor? weight, bool bias) -> Tensor[]")

linear = torch.ops.tilewright.linear.default
"""The layer, of a contiguous result."""

gradient = torch.ops.tilewright.linear_gradient.default
"""The gradients by x, weight and bias, of which those come that are wanted.

That by x needs the weight, and that by the weight needs x, so the one that is given asks for the
other's gradient; ``bias`` asks for its own.
"""


# --- what they mean ---------------------------------------------------------------------
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias).contiguous()


def _gradient(
    given: Tensor, x: Tensor | None, weight: Tensor | None, bias: bool
) -> list[Tensor]:
    rows = given.reshape(-1, given.shape[-1])
    found = []
    if weight is not None:
        found.append((rows @ weight).reshape(*given.shape[:-1], weight.shape[1]))
    if x is not None:
        found.append(rows.t() @ x.reshape(-1, x.shape[-1]))
    return [*found, rows.sum(0)] if bias else found


def _linear_shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _gradient_shapes(
    given: Tensor, x: Tensor | None, weight: Tensor | None, bias: bool
) -> list[Tensor]:
    shapes: list[Sequence[Any]] = []
    if weight is not None:
        shapes.append((*given.shape[:-1], weight.shape[1]))
    if x is not None:
        shapes.append((given.shape[-1], x.shape[-1]))
    if bias:
        shapes.append(given.shape[-1:])
    return [given.new_empty(shape) for shape in shapes]


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
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return linear(x, weight, bias)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Any:
        wanted = ctx.needs_input_grad
        found = iter(gradient(given, *ctx.saved_tensors, wanted[2]))
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
