"""Tensors on NVIDIA's GPUs: read where they are, in the order of PyTorch's current stream.

Results are tensors from PyTorch's own allocator, and so is what a donated tensor becomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tilewright.errors import UserError
from tilewright.frontend.devices import target_on
from tilewright.ir.types import dtype_of
from tilewright.runtime.gpu.device import Resident
from tilewright.runtime.gpu.guests import Guest, array_of
from tilewright.torch.arrays import to_numpy, to_torch
from tilewright.torch.dtypes import OURS, THEIRS
from tilewright.torch.lines import user_line


def _number(tensor: torch.Tensor) -> int | None:
    return tensor.device.index or 0 if tensor.is_cuda else None


def _packed(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return (tensor.resolve_neg() if tensor.is_neg() else tensor).contiguous()


def _empty(dtype: np.dtype, shape: tuple[int, ...], number: int) -> torch.Tensor:
    return torch.empty(shape, dtype=THEIRS[dtype_of(dtype)], device=torch.device("cuda", number))


def _stream(number: int) -> int:
    return int(torch.cuda.current_stream(number).cuda_stream)


GUEST = Guest(
    number=_number, packed=_packed, address=lambda t: int(t.data_ptr()),
    dtype=lambda t: OURS[t.dtype].numpy, empty=_empty, stream=_stream)


def on_gpu(value: Any) -> bool:
    """Whether a value is a tensor on one of NVIDIA's GPUs."""
    return isinstance(value, torch.Tensor) and value.is_cuda


def device_name(tensor: torch.Tensor) -> str | None:
    """Our name of the device that a tensor is on; None: the CPU."""
    number = _number(tensor)
    return None if number is None else f"cuda:{number}"


def target_for(
    asked: str | None, leaves: Sequence[Any], paths: Sequence[str], function: str
) -> str | None:
    """The target for tensors among these leaves: that of their device, else ``asked``.

    Raises ``UserError`` for tensors of several devices (numbers of the CPU, 0-d tensors, go
    anywhere), and for another device than was asked for.
    """
    placed = [
        (path, device_name(leaf)) for leaf, path in zip(leaves, paths, strict=True)
        if isinstance(leaf, torch.Tensor)]
    gpus = [(path, device) for path, device in placed if device is not None]
    if not gpus:
        return asked
    for leaf, path in zip(leaves, paths, strict=True):
        if isinstance(leaf, torch.Tensor) and not leaf.is_cuda and leaf.ndim:
            raise UserError(
                f"the arguments of {function} are on several devices",
                expected=f"all on {gpus[0][1]}, where {gpus[0][0]} is", got=f"{path} on the CPU",
                loc=user_line(), hint=f"move it: {path}.to({gpus[0][1]!r})")
    return target_on(asked, gpus, function, user_line())


def run(executable: Any, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The results of a program on these tensors, where they are."""
    given = [GUEST.resident(t) if t.is_cuda else to_numpy(t) for t in tensors]
    first = next((r for r in given if isinstance(r, Resident)), None)
    if first is None:
        return [to_torch(a) for a in executable(given)]
    with GUEST.calls(first.device):
        results = executable(given)
    return [array_of(r) for r in results]

