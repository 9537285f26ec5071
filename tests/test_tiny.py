"""The smallest thing that must work, in a few seconds: `make smoke`."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x ** 3)))


def loss(params: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    hidden = gelu(x @ params["w"] + params["b"])
    return ((hidden - hidden.mean(axis=1, keepdims=True)) ** 2).sum()


@pytest.fixture
def inputs() -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(0)
    params = {"w": random.standard_normal((7, 19)), "b": random.standard_normal(19)}
    return params, random.standard_normal((5, 7))


def test_jit_gives_what_numpy_gives(inputs) -> None:
    result = tw.jit(loss)(*inputs)
    np.testing.assert_allclose(result, loss(*inputs), rtol=1e-12)


def test_single_precision_stays_single(inputs) -> None:
    params, x = inputs
    single = {k: v.astype(np.float32) for k, v in params.items()}
    result = tw.jit(loss)(single, x.astype(np.float32))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, loss(params, x), rtol=1e-5)


def test_gradient_is_the_slope(inputs) -> None:
    params, x = inputs
    grads = tw.jit(tw.grad(loss))(params, x)
    for name, value in params.items():
        direction = np.random.default_rng(1).standard_normal(value.shape)
        near = [loss({**params, name: value + h * direction}, x) for h in (1e-5, -1e-5)]
        slope = (near[0] - near[1]) / 2e-5
        np.testing.assert_allclose((grads[name] * direction).sum(), slope, rtol=1e-6)


def test_a_second_call_compiles_nothing(inputs) -> None:
    traced = []

    @tw.jit
    def double(x: np.ndarray) -> np.ndarray:
        traced.append(x)
        return x + x

    x = inputs[1]
    for _ in range(3):
        np.testing.assert_array_equal(double(x), 2 * x)
    assert len(traced) == 1


def test_every_stage_has_text(inputs) -> None:
    lowered = tw.jit(loss).lower(*inputs)
    assert "contract" in lowered.as_text("graph")
    assert "parallel" in lowered.as_text("loops")
