"""Tensors as NumPy arrays and back, on the same memory."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from tilewright.errors import DTypeError, Unsupported
from tilewright.torch.dtypes import OURS
from tilewright.torch.lines import user_line

BF16 = np.dtype(ml_dtypes.bfloat16)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The array on a tensor's memory. The tensor must pass :func:`check`."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    try:
        found: np.ndarray = tensor.numpy()
        return found
    except (RuntimeError, TypeError):  # it is a lazy negation, or bf16
        tensor = tensor.resolve_neg()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(BF16)
    return tensor.numpy()


def to_torch(array: np.ndarray) -> torch.Tensor:
    """The tensor on an array's memory."""
    if array.dtype == BF16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def check(tensor: torch.Tensor, path: str) -> None:
    """Raise ``DTypeError`` or ``Unsupported``, with this path, if we cannot run on a tensor."""
    if tensor.device.type not in ("cpu", "cuda"):
        raise Unsupported(
            f"the argument {path} is a tensor on {tensor.device}",
            expected="a tensor on the CPU or a CUDA device",
            got=str(tensor.device), loc=user_line(), hint="move it with .cpu()")
    if tensor.layout is not torch.strided:
        raise Unsupported(
            f"the argument {path} is a tensor of the layout {tensor.layout}",
            expected="torch.strided", got=str(tensor.layout), loc=user_line(),
            hint="make it dense with .to_dense()")
    if tensor.dtype not in OURS:
        names = ", ".join(str(d).removeprefix("torch.") for d in OURS)
        raise DTypeError(
            f"the argument {path} has an element type that is not supported",
            expected=f"a tensor of one of {names}", got=str(tensor.dtype), loc=user_line(),
            hint="convert it with .to")


