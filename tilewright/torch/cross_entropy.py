"""PyTorch's cross entropy of a linear layer in chunks of the batch, taken apart.

``torch.nn.functional.linear_cross_entropy`` has operators of its own for it, so that no more than
the logits of one chunk are in memory. So it is here, chunk by chunk.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST = 16
"""Chunks that are written out, each of which is compiled; of more, each is a larger one."""


@dataclass(frozen=True)
class Chunk:
    """A part of the batch.

    x         (rows, width)
    target    (rows,), zeros where it is ignored
    weights   (rows,), of each row in the loss, in the type that sums are accumulated in
    shifted   logits less their largest of the row (rows, classes), in that type
    powers    their exponentials
    total     the sums of those (rows,)
    """

    x: Tensor
    target: Tensor
    weights: Tensor
    shifted: Tensor
    powers: Tensor
    total: Tensor

    def losses(self) -> Tensor:
        """The loss of every row (rows,)."""
        own = self.shifted.gather(1, self.target[:, None])[:, 0]
        return (self.total.log() - own) * self.weights

    def gradient(self) -> Tensor:
        """Of the sum of the losses by the logits, in the type of x."""
        own = torch.arange(self.shifted.shape[1]) == self.target[:, None]
        given = torch.where(own, self.weights[:, None], 0)
        return (self.powers * (self.weights / self.total)[:, None] - given).to(self.x.dtype)


def _weights(
    target: Tensor, weight: Tensor | None, ignored: int, mean: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The classes, zero where they are ignored, and the weight that each row has in the loss."""
    none = target == ignored
    classes = torch.where(none, 0, target)
    each = torch.ones_like(target, dtype=dtype) if weight is None else weight[classes].to(dtype)
    each = torch.where(none, 0, each)
    if mean:
        total = each.sum()
        each = each / torch.where(total == 0, math.nan, total)
    return classes, each


def _chunks(
    x: Tensor, matrix: Tensor, bias: Tensor | None, target: Tensor, weights: Tensor, size: int
) -> Iterator[Chunk]:
    rows = x.shape[0]
    # A batch of any size is one chunk: how many there are would be compiled in.
    step = max(1, size, -(-rows // MOST)) if isinstance(rows, int) else rows
    for start in range(0, rows, step) if isinstance(rows, int) else (0,):
        part = slice(start, start + step)
        logits = torch.nn.functional.linear(x[part], matrix, bias).to(weights.dtype)
        shifted = logits - logits.amax(1, keepdim=True)
        powers = shifted.exp()
        yield Chunk(x[part], target[part], weights[part], shifted, powers, powers.sum(1))


def chunked(
    x: Tensor, matrix: Tensor, target: Tensor, bias: Tensor | None, weight: Tensor | None,
    reduction: str, ignore_index: int, label_smoothing: float, size: int, policy: str,
    dtype: torch.dtype, retain: bool, of_x: bool, of_matrix: bool, of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and its gradients by x, matrix and bias, empty where they are not asked for."""
    mean = reduction == "mean"
    target, weights = _weights(target, weight, ignore_index, mean, dtype)
    matrix, bias = matrix.to(x.dtype), None if bias is None else bias.to(x.dtype)
    losses, by_x, by_matrix, by_bias = [], [], [], []
    for chunk in _chunks(x, matrix, bias, target, weights, size):
        losses.append(chunk.losses().sum())
        if of_x or of_matrix or of_bias:
            gradient = chunk.gradient()
            by_x.append(gradient @ matrix)
            by_matrix.append(gradient.T @ chunk.x)
            by_bias.append(gradient.sum(0))
    nothing = math.nan if mean else 0.0
    loss = sum(losses[1:], losses[0]) if losses else weights.new_full((), nothing)
    return (
        loss.to(x.dtype),
        torch.cat(by_x or [x]) if of_x else x.new_empty((0, 0)),
        sum(by_matrix, torch.zeros_like(matrix)) if of_matrix else x.new_empty((0, 0)),
        sum(by_bias, x.new_zeros(matrix.shape[:1])) if of_bias else x.new_empty((0,)))


def each_row(
    x: Tensor, matrix: Tensor, target: Tensor, bias: Tensor | None, weight: Tensor | None,
    ignore_index: int, size: int, policy: str, dtype: torch.dtype,
) -> Tensor:
    """The loss of every row (rows,)."""
    target, weights = _weights(target, weight, ignore_index, False, dtype)
    matrix, bias = matrix.to(x.dtype), None if bias is None else bias.to(x.dtype)
    found = [c.losses() for c in _chunks(x, matrix, bias, target, weights, size)]
    return torch.cat(found or [weights]).to(x.dtype)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Of the operators, once a program has used the function: PyTorch enters them then."""
    name, found = "_linear_cross_entropy_batch_chunked", {}
    if "torch.nn.modules.linear_cross_entropy" in sys.modules:
        for ending, function in (("", chunked), ("_no_reduction", each_row)):
            found[getattr(torch.ops.torch_nn, name + ending).default] = function
    return found
