"""Gradients of slices: the bits of eager PyTorch, and one term for each element."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_harness import compiled, same

from tilewright.ir.text import show
from tilewright.torch.records import regions_of


def steps(x: Tensor, w: Tensor) -> Tensor:
    """A loop over an axis."""
    state = w
    for t in range(x.shape[1]):
        state = state * x[:, t]
    return state


def packed(x: Tensor, w: Tensor) -> Tensor:
    """The projections of queries, keys and values of one tensor."""
    p = x.unflatten(-1, (3, -1)).unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
    return p[0] * w[:, None] - p[1] * p[2]


def turned(x: Tensor, w: Tensor) -> Tensor:
    """Halves, and every second element."""
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1) * x + (x[..., ::2] * x[..., 1::2] * w[0, 0]).repeat(1, 1, 2)


def left_out(x: Tensor, w: Tensor) -> Tensor:
    """Parts, one of which nobody reads."""
    a, _, c = x.split([2, 3, 3], 1)
    return a.sum() * w.sum() - (c * c).sum()


CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "steps": (steps, 48), "packed": (packed, 16), "turned": (turned, 48),
    "left_out": (left_out, 48)}


def gradients(
    f: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor, ct: Tensor
) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in (x, w)]
    result = f(*leaves)
    result.backward(ct)
    return [t.grad for t in leaves]  # type: ignore[misc]


@pytest.mark.parametrize("numerics", ["default", "strict"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_have_the_bits_of_eager(name: str, numerics: str) -> None:
    f, width = CASES[name]
    torch.manual_seed(0)
    x, w = torch.randn(4, 8, 48), torch.randn(4, width)
    x[torch.rand_like(x) < 0.3] = -0.0
    ct = torch.randn_like(f(x, w))
    ct = torch.where(torch.rand_like(ct) < 0.3, torch.tensor(-0.0), ct)
    made = gradients(compiled(f, numerics=numerics), x, w, ct)
    for a, b in zip(made, gradients(f, x, w, ct), strict=True):
        same(a, b)
    if numerics == "strict":
        bits = [t.view(torch.int32) for t in (made[0], gradients(f, x, w, ct)[0])]
        assert torch.equal(*bits)


def test_a_term_for_each_element() -> None:
    """No kernel of the gradient of 16 steps asks an element which step it belongs to."""
    f = compiled(steps)
    x, w = torch.randn(4, 16, 32, requires_grad=True), torch.randn(4, 32, requires_grad=True)
    f(x, w).sum().backward()
    (region,) = regions_of(f)
    programs = [p for r in region.records for p in r.programs]
    kernels = [show(n.kernel) for p in programs for part in p.parts
               for n in part.program.plan.launches]
    assert any("out0[" in text for text in kernels)
    assert not any("where(" in text for text in kernels), kernels
