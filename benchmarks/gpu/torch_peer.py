"""The cases in PyTorch on CUDA: eager (cuBLAS, cuDNN and its own kernels), or compiled by Inductor.

Inductor writes Triton; for products it is told to take no library, so that "triton" is Triton's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from cases import BF16, Case
from peers import torch_steps
from torch import Tensor

OPTIONS = {"max_autotune": True, "max_autotune_gemm_backends": "TRITON"}


def cross_entropy(x: Tensor, labels: Tensor, loss: Any = F.cross_entropy) -> Tensor:
    """The gradient by the scores."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(loss(x, labels), x)[0]


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "pointwise": lambda x, y, z: torch.tanh(x) * y + z,
    "softmax": lambda x: torch.softmax(x, -1),
    "layer_norm": lambda x, g, b: F.layer_norm(x, (x.shape[-1],), g, b),
    "cross_entropy": cross_entropy,
    "gemm": torch.matmul,
    "attention": lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None])[0],
}


def available() -> bool:
    """Whether PyTorch has a GPU."""
    return torch.cuda.is_available()


def tensor(array: np.ndarray) -> Tensor:
    """An array on the device that is PyTorch's default at the time."""
    if array.dtype == BF16:
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


class Torch:
    """PyTorch on a device; `name` is torch, for eager, or triton."""

    def __init__(self, name: str, device: str = "cuda") -> None:
        self.name, self.device = name, device

    @contextmanager
    def precision(self, case: Case) -> Iterator[None]:
        """The switch that a case needs, while it is compiled."""
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = case.precision == "tf32"
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def make(self, case: Case, inputs: tuple[Any, ...], copies: int) -> list[Callable[[], Any]]:
        """A call per copy of the inputs on the device; each gives the result that is checked."""
        torch_steps.setup("torch-compile" if self.name == "triton" else "torch-eager", 1)
        with torch.device(self.device):
            if case.truth is None:
                return [torch_steps.steps()[case.kind](*inputs)]
            sets = [tuple(map(tensor, inputs)) for _ in range(copies)]
        function = self.function(case.kind)
        return [lambda own=own: function(*own) for own in sets]

    def function(self, kind: str) -> Callable[..., Tensor]:
        """What is timed, compiled if that is the mode."""
        if self.name != "triton":
            return FUNCTIONS[kind]
        torch._dynamo.reset()
        if kind == "cross_entropy":
            return functools.partial(
                cross_entropy, loss=torch.compile(F.cross_entropy, options=OPTIONS))
        return torch.compile(FUNCTIONS[kind], options=OPTIONS)

    def numbers(self, result: Any) -> np.ndarray:
        """A result as a NumPy array; of a training step its loss."""
        while isinstance(result, tuple | list):
            result = result[0]
        found: np.ndarray = result.detach().float().cpu().numpy()
        return found

    def measure(self, calls: list[Callable[[], Any]], count: int) -> float:
        """Milliseconds per call of so many, one after another, by the device's clock."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for i in range(count):
            calls[i % len(calls)]()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / count
