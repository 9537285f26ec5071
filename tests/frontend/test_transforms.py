"""Derivatives of Python functions in a trace, run by the interpreter."""

import dataclasses
from collections import namedtuple

import numpy as np
import pytest

from tilewright.frontend import api, tree
from tilewright.frontend.trace import trace_function
from tilewright.frontend.transforms import grad, stop_gradient, value_and_grad, vjp
from tilewright.ir.interp import run_graph

assert api
RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 3))
W = RNG.normal(size=(3, 5))


def run(f, *args, **kwargs):
    """``f`` traced and interpreted."""
    traced = trace_function(f, args, kwargs)
    arrays = [np.asarray(leaf) for leaf in tree.leaves((args, kwargs))]
    with np.errstate(all="ignore"):
        return tree.unflatten(traced.out_tree, run_graph(traced.graph, arrays))


def slopes(f, x, step=1e-6):
    """Finite differences of a scalar function of one f64 array."""
    result = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        at = np.zeros_like(x)
        at[place] = step
        result[place] = (f(x + at) - f(x - at)) / (2 * step)
    return result


def close(got, want, rtol=1e-6):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6)


FUNCTIONS = {
    "tanh layer": lambda x: np.sum(np.tanh(x @ W)),
    "mean of squares": lambda x: ((x - x.mean(axis=0)) ** 2).mean(),
    "variance": lambda x: np.var(x, axis=1).sum(),
    "standard deviation": lambda x: x.std(),
    "softmax": lambda x: np.sum(
        np.exp(x - x.max(axis=1, keepdims=True))[:, 0]
        / np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1)),
    "log of sum of exp": lambda x: np.log(np.exp(x).sum(axis=-1)).sum(),
    "slices": lambda x: (x[1:] * x[:-1])[::2, ::-1].sum(),
    "single elements": lambda x: x[0, 1] * x[-1, 2] + x[2, 0] ** 3,
    "gather": lambda x: (x[np.array([0, 2, 2])] ** 2).sum(),
    "take along": lambda x: np.take_along_axis(
        x, np.array([[0], [2], [1], [1]]), axis=1).prod(),
    "concatenate": lambda x: (np.concatenate([x, 2 * x[:2]]) ** 2).sum(),
    "stack": lambda x: (np.stack([x, np.sin(x)], axis=1) * np.arange(3.0)).sum(),
    "pad": lambda x: np.prod(np.pad(x, ((1, 0), (0, 2)), constant_values=1.5), axis=1).sum(),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x).sum() + np.einsum("ij,ij->", x, x),
    "tensordot": lambda x: np.tensordot(x, W, axes=1).max(),
    "matmul of both": lambda x: np.sum((x @ x.T) ** 2),
    "dot": lambda x: x[0] @ x[1],
    "where": lambda x: np.where(x > 0, x, np.exp(x) - 1).sum(),
    "clip": lambda x: (np.clip(x, -0.5, 0.5) * x).sum(),
    "reshape, transpose": lambda x: (x.reshape(2, 6).T * np.arange(12.0).reshape(6, 2)).sum(),
    "repeated use": lambda x: (x * np.sin(x) + x / (1 + x * x)).sum(),
    "product": lambda x: x.prod(axis=0).sum(),
    "largest": lambda x: x.max(axis=0).sum() - x.min(),
    "absolute": lambda x: np.abs(x).sum(),
    "python loop": lambda x: sum((x**k).sum() / k for k in range(1, 5)),
    "remainder": lambda x: np.remainder(3 * x, 2.5).sum(),
    "power": lambda x: (np.abs(x) ** x).sum(),
    "hypot and atan2": lambda x: (np.hypot(x, 2) + np.arctan2(x, x * x + 1)).sum(),
    "logaddexp": lambda x: np.logaddexp(x, -x).sum(),
    "cumulated by hand": lambda x: (np.tril(np.ones((4, 4))) @ x).prod(axis=0).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name):
    f = FUNCTIONS[name]
    value, found = run(value_and_grad(f), X)
    close(value, f(X), 1e-12)
    close(found, slopes(f, X))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_of_gradient(name):
    f = FUNCTIONS[name]

    def slope_along(x):
        return (grad(f)(x) * np.cos(np.arange(12.0)).reshape(4, 3)).sum()
    close(run(grad(slope_along), X), slopes(lambda x: run(slope_along, x), X), 1e-5)


def test_third_order():
    third = grad(grad(grad(lambda x: np.sin(x) * x**3)))
    close(run(third, 0.7), (6 - 9 * 0.49) * np.sin(0.7) + (18 * 0.7 - 0.7**3) * np.cos(0.7))


def test_argnums():
    def f(a, b, c):
        return (a * b * c).sum()
    a, b, c = (RNG.normal(size=3) for _ in range(3))
    close(run(grad(f, 1), a, b, c), a * c)
    close(run(grad(f, -1), a, b, c), a * b)
    found = run(grad(f, (2, 0)), a, b, c)
    close(found[0], a * b)
    close(found[1], b * c)


def test_equal_arguments_are_told_apart():
    def outer(x):
        return grad(lambda a, b: (a * b * b).sum())(x, x)
    close(run(outer, X), X * X)


def test_closed_over_values_are_constant():
    def outer(x):
        return grad(lambda y: (x * y).sum())(x)
    close(run(outer, X), X)


def test_gradient_through_a_gradient_of_closed_over_values():
    def outer(x):
        return grad(lambda y: (x * y * y).sum())(x).sum()
    close(run(grad(outer), X), 4 * X)


def test_aux():
    def f(x):
        return (x * x).sum(), {"mean": x.mean(), "sign": x > 0}
    (value, aux), found = run(value_and_grad(f, has_aux=True), X)
    close(value, (X * X).sum())
    close(found, 2 * X)
    close(aux["mean"], X.mean())
    assert aux["sign"].tolist() == (X > 0).tolist()
    found, aux = run(grad(f, has_aux=True), X)
    close(found, 2 * X)
    assert set(aux) == {"mean", "sign"}


Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Layer:
    weight: object
    bias: object
    name: str = dataclasses.field(default="", metadata={"static": True})


def test_trees():
    params = {"a": [X, Pair(X[0], 2.0)], "b": Layer(W, W[0], "layer")}

    def f(params):
        one, (two, three) = params["a"]
        layer = params["b"]
        assert layer.name == "layer"
        return (np.tanh(one @ layer.weight + layer.bias).sum() + (two * three).sum())
    found = run(grad(f), params)
    assert tree.structure(found) == tree.structure(params)
    close(found["a"][1].first, np.full(3, 2.0))
    close(found["a"][1].second, X[0].sum())
    close(found["b"].bias, (1 - np.tanh(X @ W + W[0]) ** 2).sum(axis=0))


def test_unused_argument_has_zero_gradient():
    found = run(grad(lambda a, b: a.sum(), (0, 1)), X, W)
    assert found[1].shape == W.shape and not found[1].any()


def test_keyword_arguments_are_constant():
    close(run(lambda x, s: grad(lambda x, scale: (x * scale).sum())(x, scale=s), X, 3.0),
          np.full(X.shape, 3.0))


def test_element_type_is_kept():
    for dtype in (np.float16, np.float32):
        value, found = run(value_and_grad(lambda x: (x * x).sum()), X.astype(dtype))
        assert value.dtype == dtype and found.dtype == dtype


def test_python_number():
    close(run(grad(lambda x: x**2 + 3 * x), 2.0), 7.0)


def test_vjp():
    def f(x, w):
        return {"y": x @ w, "n": x.sum(axis=0)}

    def outer(x, w, ct):
        out, back = vjp(f, x, w)
        return out, back(ct)
    ct = {"y": RNG.normal(size=(4, 5)), "n": RNG.normal(size=3)}
    out, (dx, dw) = run(outer, X, W, ct)
    close(out["y"], X @ W)
    close(dx, ct["y"] @ W.T + ct["n"])
    close(dw, X.T @ ct["y"])


def test_vjp_ignores_cotangents_of_integers():
    def outer(x):
        (values, count), back = vjp(lambda x: (x * 2, np.argmax(x)), x)
        return back((values, count))
    close(run(outer, X)[0], 4 * X)


def test_vjp_of_vjp():
    def outer(x):
        def inner(x):
            out, back = vjp(lambda y: y**3, x)
            return back(out)[0]
        out, back = vjp(inner, x)
        return back(np.ones((4, 3)))[0]
    close(run(outer, X), 15 * X**4)


def test_stop_gradient():
    close(run(grad(lambda x: (stop_gradient(x) * x).sum()), X), X)
    trees = run(grad(lambda t: (stop_gradient(t)["a"] * t["a"]).sum()), {"a": X})
    close(trees["a"], X)
    assert stop_gradient({"a": X})["a"] is X


def test_gradients_are_the_same_graph_each_time():
    graphs = [trace_function(grad(FUNCTIONS["softmax"]), (X,), {}).graph for _ in range(2)]
    assert [n.op.name for n in graphs[0].nodes()] == [n.op.name for n in graphs[1].nodes()]
