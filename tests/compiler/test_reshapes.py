"""Reshapes between neighbours do not keep them from sharing a kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tilewright as tw

B, T, D, H = 2, 12, 16, 4


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As PyTorch writes a linear layer: on the rows of a matrix."""
    return ((x.reshape(B * T, D) @ w) + b).reshape(B, T, w.shape[1])


def tanh(x: np.ndarray) -> np.ndarray:
    """Of a polynomial, as in the approximation of GELU, of rows that form batches."""
    x = x.reshape(B, T, D)
    return np.tanh(0.8 * (x + 0.04 * (x * x * x)))


def scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Heads side by side for one batched product, then taken apart."""
    products = q.reshape(B * H, T, D) @ k.reshape(B * H, T, D).swapaxes(1, 2)
    return softmax(products.reshape(B, H, T, T) * 0.25)


CASES: dict[str, tuple[Callable[..., np.ndarray], list[tuple[int, ...]], int]] = {
    "linear, activation and residual": (
        lambda x, w, b, r: np.tanh(linear(x, w, b)) + r,
        [(B, T, D), (D, D), (D,), (B, T, D)], 1),
    "two linear layers": (
        lambda x, w, b: linear(np.maximum(linear(x, w, b), 0), w, b), [(B, T, D), (D, D), (D,)], 2),
    "gradient of a long activation": (
        lambda g, w, x: (g.reshape(B * T, D) @ w).reshape(B, T, D) * (
            0.5 * (1 + tanh(x)) + x.reshape(B, T, D) * (0.5 * (1 - tanh(x) ** 2))),
        [(B, T, D), (D, D), (B * T, D)], 1),
    "softmax of scores": (scores, [(B, H, T, D), (B, H, T, D)], 2),
    "layer norm after a linear layer": (
        lambda x, w, b: linear(x, w, b) / np.sqrt(linear(x, w, b).var(-1, keepdims=True) + 1),
        [(B, T, D), (D, D), (D,)], 2),
    "sum over the rows of a matrix": (
        lambda x, g: ((x * g).reshape(B * T, D).sum(0), (x * x * g).sum((0, 1))),
        [(B, T, D), (B, T, D)], 1),
    "update of weights that were used in parts": (
        lambda w, m, x, g: w - 0.1 * np.sqrt(
            0.9 * m + 0.1 * ((x * 2).reshape(B * T, D).T @ (g * 2).reshape(B * T, H, 4).reshape(
                B * T, D)).reshape(D, H, 4).reshape(D, D) ** 2),
        [(D, D), (D, D), (B, T, D), (B, T, D)], 3),
    "gradient of weights": (
        lambda x, g: np.tanh(x).reshape(B * T, D).T @ (g * 2).reshape(B * T, D),
        [(B, T, D), (B, T, D)], 3),
}


@pytest.mark.parametrize("name", CASES)
def test_number_of_kernels(name: str) -> None:
    function, shapes, most = CASES[name]
    random = np.random.default_rng(0)
    arrays = [np.abs(random.standard_normal(s, dtype=np.float32)) for s in shapes]
    compiled = tw.jit(function).compile(*arrays)
    found, expected = compiled(arrays), function(*arrays)
    for f, e in zip(found, expected if isinstance(expected, tuple) else [expected], strict=True):
        np.testing.assert_allclose(f, e, rtol=2e-5, atol=2e-5)
    assert len(compiled.plan.launches) <= most, compiled.as_text("kernels")
