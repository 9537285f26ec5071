"""Derivatives as machine code, inside and outside of a jitted function."""

import numpy as np
import pytest
from test_transforms import FUNCTIONS, W, X, close, run

from tilewright.frontend.jit import jit
from tilewright.frontend.transforms import grad, stop_gradient, value_and_grad, vjp


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_gradient(name):
    value, found = jit(value_and_grad(FUNCTIONS[name]))(X)
    want = run(value_and_grad(FUNCTIONS[name]), X)
    close(value, want[0], 1e-10)
    close(found, want[1], 1e-10)


@pytest.mark.parametrize("name", ["tanh layer", "variance", "softmax", "einsum", "product"])
def test_compiled_gradient_of_gradient(name):
    def curvature(x):
        return grad(lambda y: (grad(FUNCTIONS[name])(y) ** 2).sum())(x)
    close(jit(curvature)(X), run(curvature, X), 1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_types(dtype):
    x, w = X.astype(dtype), W.astype(dtype)
    value, found = jit(value_and_grad(lambda x: np.tanh(x @ w).mean()))(x)
    want = run(value_and_grad(lambda x: np.tanh(x @ W).mean()), X)
    assert value.dtype == dtype and found.dtype == dtype
    rough = 1e-5 if dtype is np.float32 else 1e-2
    np.testing.assert_allclose(value, want[0], rtol=rough, atol=rough)
    np.testing.assert_allclose(found, want[1], rtol=rough, atol=rough)


def test_outside_of_a_jitted_function():
    value, found = value_and_grad(lambda x: (x * x).sum())(X)
    assert isinstance(value, np.ndarray) and isinstance(found, np.ndarray)
    close(value, (X * X).sum())
    close(found, 2 * X)
    close(grad(grad(lambda x: x**3))(2.0), 12.0)


def test_outside_traces_once_per_signature():
    traced = []

    def f(x, scale, square=False):
        traced.append(x.shape)
        return (x * x if square else x).sum() * scale
    gradient = grad(f)
    for _ in range(3):
        close(gradient(X, 2.0), np.full(X.shape, 2.0))
    assert len(traced) == 1
    close(gradient(X, 3.0, square=True), 6 * X)
    assert len(traced) == 2
    gradient(X[:2], 2.0)
    assert len(traced) == 3


def test_flags_and_functions_are_static_outside():
    def f(x, activation, mode):
        return activation(x).sum() if mode == "sum" else activation(x).mean()
    close(grad(f)(X, np.sin, "sum"), np.cos(X))
    close(grad(f)(X, np.tanh, "mean"), (1 - np.tanh(X) ** 2) / X.size)


def test_vjp_outside_of_a_jitted_function():
    out, back = vjp(lambda x, w: {"y": x @ w}, X, W)
    close(out["y"], X @ W)
    ct = np.cos(X @ W)
    dx, dw = back({"y": ct})
    close(dx, ct @ W.T)
    close(dw, X.T @ ct)


def test_stop_gradient_in_machine_code():
    close(jit(grad(lambda x: (stop_gradient(np.exp(x)) * x).sum()))(X), np.exp(X))


def test_training_step():
    """A hand-written gradient of a two-layer network with cross entropy agrees."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(16, 3)).astype("f4"), rng.integers(0, 5, 16)
    params = [(rng.normal(size=s).astype("f4"), np.zeros(s[1], "f4")) for s in ((3, 7), (7, 5))]

    def loss(params, x, y):
        (w1, b1), (w2, b2) = params
        logits = np.maximum(x @ w1 + b1, 0) @ w2 + b2
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -np.take_along_axis(log_p, y[:, None], axis=1).mean()

    value, ((dw1, db1), (dw2, db2)) = jit(value_and_grad(loss))(params, x, y)
    (w1, b1), (w2, b2) = params
    hidden = np.maximum(x @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(value, -np.log(p[np.arange(16), y]).mean(), rtol=1e-5)
    slope = (p - np.eye(5)[y]) / 16
    below = (slope @ w2.T) * (hidden > 0)
    for got, want in ((dw2, hidden.T @ slope), (db2, slope.sum(0)),
                      (dw1, x.T @ below), (db1, below.sum(0))):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
