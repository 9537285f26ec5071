"""Complex tensors and Fourier transforms: layouts, conjugates, corners and gradients as eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import opinfo
import pytest
import torch

from tilewright.torch.ops.fourier import LONGEST
from tilewright.torch.recipe import Recipe

Z = torch.randn(3, 4, 6, dtype=torch.complex64, generator=torch.manual_seed(5))
W = torch.randn(3, 4, 6, dtype=torch.complex64, generator=torch.manual_seed(6))
CORNERS = torch.tensor([0, 1, -1, 1j, -2j, 1e20 + 1e20j, 1e-30j, 3 - 4j])


def ours(function: Callable[..., Any], *inputs: torch.Tensor, fallbacks: int = 0) -> Any:
    """The function compiled; so many operators ran in PyTorch."""
    found: list[Recipe] = []
    result = opinfo.compiled(function, found)(*inputs)
    assert len([f for r in found for f in r.fallbacks]) == fallbacks, found
    return result


def same(function: Callable[..., Any], *inputs: torch.Tensor) -> None:
    got, want = ours(function, *inputs), function(*inputs)
    torch.testing.assert_close(got, want, equal_nan=True)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda z, w: (z + 2 * w) * w.conj() - (1 - 3j) / z + z / (w + 1),
    "with real tensors": lambda z, w: z.real * w + z / (1 + w.imag ** 2) + (2 - z),
    "parts": lambda z, w: (z.abs(), z.angle(), w.sgn(), z.real, w.imag),
    "views": lambda z, w: (z.mT[1:, :, ::2], w[..., None, 1].expand(3, 4, 5), z.flip(0)),
    "put together": lambda z, w: (torch.cat([z, w], 1), torch.stack([z, w]), z.roll(1, 2)),
    "written in place": lambda z, w: z.clone().index_fill_(0, torch.tensor([0, 2]), 1j)[1],
    "chosen": lambda z, w: torch.where(z.real > 0, z, w).masked_fill(w.imag > 0, 2j),
    "products": lambda z, w: (z @ w.mT, z[0] @ w[1].mH, torch.einsum("bij,bkj->bik", z, w)),
    "sums": lambda z, w: (z.sum(1), w.mean(), z.cumsum(0)),
    "types": lambda z, w: (z.to(torch.complex128) * 2, z.real.to(torch.complex64), w.exp()),
    "made": lambda z, w: (torch.polar(z.abs(), z.real), torch.complex(z.real, w.imag)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators(name: str) -> None:
    same(FUNCTIONS[name], Z, W)
    same(FUNCTIONS[name], Z.conj(), W.transpose(0, 1).contiguous().transpose(0, 1))


@pytest.mark.parametrize("function", [
    torch.abs, torch.angle, torch.sgn, lambda z: 1 / z[1:], lambda z: z / z.roll(3)[:, None],
    lambda z: z.reshape(2, 4)[:0] * 2, lambda z: z[0] + 1,
])
def test_corners(function: Any) -> None:
    same(function, CORNERS)


def test_gradients() -> None:
    def run(function: Callable[..., Any]) -> list[torch.Tensor]:
        z, w = (t.detach().requires_grad_() for t in (Z, W))
        result = function(z, w)
        return list(torch.autograd.grad([result], [z, w], torch.ones_like(result)))

    def function(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (torch.fft.ifft(torch.fft.fft(z, n=8) * torch.fft.fft(w, n=8)) / (1 + w.abs().sum())
                ).mT @ (w * 2j).conj()

    recipes: list[Recipe] = []
    torch.testing.assert_close(run(opinfo.compiled(function, recipes)), run(function))
    assert not any(r.fallbacks for r in recipes)


def test_an_argument_that_is_changed() -> None:
    def step(z: torch.Tensor) -> torch.Tensor:
        z.mul_(1j)
        return z.mT

    ours_, theirs = Z.clone(), Z.clone()
    torch.testing.assert_close(ours(step, ours_), step(theirs))
    torch.testing.assert_close(ours_, theirs)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 32, 61, 63, 64])
def test_lengths(n: int) -> None:
    real = torch.randn(2, n, generator=torch.manual_seed(n), dtype=torch.float64)
    spectrum = torch.fft.rfft(real)
    same(torch.fft.rfft, real)
    same(lambda x: torch.fft.irfft(x, n=n), spectrum)
    same(lambda x: torch.fft.ifft(x, norm="ortho", dim=0), spectrum)
    same(torch.fft.fft, spectrum)


def test_long_axes_stay_with_pytorch() -> None:
    x = torch.randn(2, LONGEST + 1)
    torch.testing.assert_close(ours(torch.fft.rfft, x, fallbacks=1), torch.fft.rfft(x))


@pytest.mark.parametrize("function", [
    lambda x: torch.fft.fft2(x), lambda x: torch.fft.rfftn(x, dim=(0, 2)),
    lambda x: torch.fft.irfft2(torch.fft.rfft2(x)), lambda x: torch.fft.hfft(x, norm="ortho"),
    lambda x: torch.fft.ihfft(x), lambda x: torch.fft.fftn(x, s=(5, 8), dim=(1, 2)),
    lambda x: torch.stft(x[0], 4, return_complex=True, window=torch.ones(4)),
])
def test_several_axes(function: Any) -> None:
    same(function, Z.real)


def test_sizes_that_are_not_compiled_in() -> None:
    @torch.compile(backend="tilewright", dynamic=True, options={"fallback": False})
    def filtered(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(x)
        return torch.fft.irfft(spectrum * spectrum.abs(), n=x.shape[-1])

    for rows, n in ((2, 8), (3, 8), (5, 12)):
        x = torch.randn(rows, n)
        spectrum = torch.fft.rfft(x)
        torch.testing.assert_close(
            filtered(x), torch.fft.irfft(spectrum * spectrum.abs(), n=n), rtol=1e-4, atol=1e-4)


def test_half_precision() -> None:
    same(lambda z: (z.mT, z[1:], z.to(torch.complex64) * 2), Z.to(torch.chalf))


def test_back_from_short_transforms() -> None:
    """Its window's sum is spread over a batch that it does not have."""
    spectrum = torch.randn(3, 5, 4, dtype=torch.complex64, generator=torch.manual_seed(9))
    function = torch.compile(
        lambda z: torch.istft(z, 8, window=torch.ones(8)), backend="tilewright")
    torch.testing.assert_close(
        function(spectrum), torch.istft(spectrum, 8, window=torch.ones(8)))
