"""Covariances, combinations and a loss, of which PyTorch asks for data while it traces them."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from tilewright.torch.instead import inlined_instead_of, instead_of

aten = torch.ops.aten

MOST_PLACES = 1 << 16
"""Numbers of combinations that become a constant of a graph."""


# --- covariances ------------------------------------------------------------------------
@instead_of(aten.cov.default)
def cov(
    self: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """The covariances of rows (variables, observations), or the variance of one row.

    What PyTorch refuses for types and shapes is left to it; so is a single weighted observation,
    which it clears in place.
    """
    weights = [w for w in (fweights, aweights) if w is not None]
    x = self.view(1, -1) if self.ndim < 2 else self
    count = x.shape[-1]
    refused = self.ndim > 2 or self.dtype is torch.bool or self.is_complex() or any(
        w.ndim > 1 or w.numel() != count for w in weights)
    refused = refused or (fweights is not None and not _integral(fweights)) or (
        aweights is not None and not aweights.is_floating_point())
    if refused or count == 0 or (count == 1 and weights):
        return NotImplemented
    if not weights:
        if count <= correction:
            return NotImplemented  # for its warning
        centred = x - (x.sum(1) / count).unsqueeze(1)
        return (centred @ centred.t()).true_divide(count - correction).squeeze()
    for w, name in ((fweights, "fweights"), (aweights, "aweights")):
        if w is not None:
            _raises(w.min() < 0, f"cov(): {name} cannot be negative")
    return _weighted(x, correction, weights, aweights)


def _weighted(
    x: Tensor, correction: int, weights: list[Tensor], aweights: Tensor | None
) -> Tensor:
    w = math.prod(weights[1:], start=weights[0])
    total = w.sum()
    _raises(total == 0, "cov(): weights sum to zero, can't be normalized")
    lost = correction if aweights is None else correction * (w * aweights).sum() / total
    left = total if correction == 0 else total - lost
    torch.ops.tilewright.look(left <= 0, "UserWarning", (
        "cov(): degrees of freedom is <= 0. Correction should be strictly less than the number of "
        "observations."))
    left = torch.where(left <= 0, torch.zeros_like(left), left)
    centred = x - ((x * w).sum(1) / total).unsqueeze(1)
    return (centred @ (centred * w).t()).true_divide(left).squeeze()


def _integral(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype is torch.bool)


def _raises(truth: Tensor, message: str) -> None:
    torch.ops.tilewright.look(truth, "RuntimeError", message)


# --- combinations -----------------------------------------------------------------------
@instead_of(aten.combinations.default)
def combinations(self: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Combinations of the elements of a vector, in rows: how many there are follows from its size.

    Many of them are left to PyTorch, and so is a size with a name.
    """
    if self.ndim != 1 or r < 1 or not isinstance(self.shape[0], int):
        return NotImplemented
    n = self.shape[0]
    count = math.comb(n + r - 1, r) if with_replacement and n else math.comb(n, r)
    if count * r > MOST_PLACES:
        return NotImplemented
    choose = itertools.combinations_with_replacement if with_replacement else (
        itertools.combinations)
    places = torch.tensor(list(choose(range(n), r)), dtype=torch.int64, device=self.device)
    return self[places.reshape(count, r)]


# --- a loss -----------------------------------------------------------------------------
@inlined_instead_of(torch.nn.functional.gaussian_nll_loss)
def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """PyTorch's function of this name; a negative variance raises when the graph has run."""
    message = "var has negative entry/entries"
    if isinstance(var, float):
        if var < 0:
            raise ValueError(message)
        var = var * torch.ones_like(input)
    else:
        torch.ops.tilewright.look(var < 0, "ValueError", message)
    if var.size() != input.size():
        others = sum(y for x, y in zip(input.size(), var.size(), strict=False) if x != y)
        if input.size()[:-1] == var.size():
            var = var.unsqueeze(-1)
        elif input.ndim != var.ndim or others != 1:
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    var = var.clone()
    with torch.no_grad():  # a variance that is raised to the least one keeps its gradient
        var.clamp_(min=eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()
