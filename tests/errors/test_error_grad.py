"""What the user reads when something cannot be differentiated."""

import re

import numpy as np
import pytest

from tilewright.errors import DTypeError, ShapeError, TraceError, UserError
from tilewright.frontend import api
from tilewright.frontend.trace import trace_function
from tilewright.frontend.transforms import grad, value_and_grad, vjp

assert api
X = np.ones((2, 3))


def message(error, f, *args):
    """The text of the error of tracing ``f``, with the place written as FILE:LINE."""
    with pytest.raises(error) as caught:
        trace_function(f, args, {})
    assert isinstance(caught.value, UserError)
    text = str(caught.value)
    return re.sub(re.escape(__file__) + r":\d+", "FILE:LINE", text)


def loss(params, x):
    return (params["w"] * x).sum() * params["n"]


def test_integer_argument():
    def step(params, x):
        return grad(loss)(params, x)
    assert message(DTypeError, step, {"w": X, "n": np.arange(3)}, X) == """\
argument params['n'] cannot be differentiated
  expected: a floating point array
  got:      i64[3]
  at:       FILE:LINE in step
            return grad(loss)(params, x)
  hint:     convert it with .astype, or leave it out of argnums"""


def test_bool_argument_of_vjp():
    def step(mask):
        return vjp(lambda m: m * 2.0, mask)[0]
    assert message(DTypeError, step, X > 0) == """\
argument m cannot be differentiated
  expected: a floating point array
  got:      bool[2, 3]
  at:       FILE:LINE in step
            return vjp(lambda m: m * 2.0, mask)[0]
  hint:     convert it with .astype, or leave it out of argnums"""


def test_result_with_axes():
    def rows(x):
        return x.sum(axis=1)
    assert message(ShapeError, grad(rows), X) == """\
rows does not return one number, so it has no gradient
  expected: a 0-d array
  got:      f64[2]
  at:       FILE:LINE in rows
            return x.sum(axis=1)
  hint:     reduce it with .sum() or .mean(), or use tw.vjp"""


def test_integer_result():
    def count(x):
        return np.argmax(x)
    assert message(DTypeError, grad(count), X) == """\
count does not return a floating point number, so it has no gradient
  expected: a floating point number
  got:      i64[]
  at:       FILE:LINE in count
            return np.argmax(x)"""


def test_result_that_is_a_tree():
    def pair(x):
        return x.sum(), x
    assert message(TraceError, value_and_grad(pair), X) == """\
pair does not return one number, so it has no gradient
  expected: a floating point number
  got:      tuple of 2
  at:       FILE:LINE in pair
            def pair(x):
  hint:     return (loss, aux) and pass has_aux=True"""


def test_aux_that_is_missing():
    def alone(x):
        return x.sum()
    assert message(TraceError, value_and_grad(alone, has_aux=True), X) == """\
alone with has_aux=True does not return a pair
  expected: (number, anything)
  got:      an array
  at:       FILE:LINE in alone
            def alone(x):"""


def test_argnums_out_of_range():
    def step(x):
        return grad(loss, argnums=2)(x, x)
    assert message(UserError, step, X) == """\
argnums=2 of the gradient of loss names no positional argument
  expected: numbers below 2, the positional arguments of this call
  got:      2
  at:       FILE:LINE in step
            return grad(loss, argnums=2)(x, x)
  hint:     pass the argument to differentiate by position, not by name"""


def test_cotangent_of_another_shape():
    def step(x):
        out, back = vjp(lambda x: {"y": x * 2}, x)
        return back({"y": out["y"].sum()})
    assert message(ShapeError, step, X) == """\
cotangents['y'] has another shape than the result
  expected: f64[2, 3]
  got:      f64[]
  at:       FILE:LINE in step
            return back({"y": out["y"].sum()})"""


def test_cotangent_of_another_type():
    def step(x):
        out, back = vjp(lambda x: x * 2, x)
        return back(out.astype(np.float32))
    assert message(DTypeError, step, X) == """\
cotangents has another element type than the result
  expected: f64[2, 3]
  got:      f32[2, 3]
  at:       FILE:LINE in step
            return back(out.astype(np.float32))
  hint:     convert it with .astype"""


def test_cotangents_of_another_structure():
    def step(x):
        out, back = vjp(lambda x: {"y": x * 2}, x)
        return back([out["y"]])
    assert message(TraceError, step, X).startswith(
        "the tree of cotangents has another structure\n  expected: dict with the keys ['y']\n"
        "  got:      list of 1\n  at:       FILE:LINE in step\n")
