"""What derivatives are where there is none, or where a branch that is not taken is infinite."""

import numpy as np
import pytest

from tilewright.ir import ops
from tilewright.ir.attrs import CastAttrs, PadAttrs, ReduceAttrs
from tilewright.ir.autodiff import pullback, vjp_graph
from tilewright.ir.graph import Graph, apply, full, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.types import DTYPES, TensorType, f16, f32, f64, i32

assert ops
INF, NAN = np.inf, np.nan


def slopes(build, *columns, cotangent=1.0, dtype=f64):
    """The cotangents of the inputs of ``build(*nodes)`` at these points."""
    arrays = [np.array(c, dtype.numpy) for c in columns]
    inputs = [input_node(f"x{i}", TensorType(dtype, a.shape)) for i, a in enumerate(arrays)]
    graph = Graph(tuple(inputs), (build(*inputs),))
    seed = np.full(graph.outputs[0].shape, cotangent, dtype.numpy)
    with np.errstate(all="ignore"):
        return [r.tolist() for r in run_graph(vjp_graph(graph), [*arrays, seed])[1:]]


def op(name):
    return lambda *nodes: apply(name, *nodes)


@pytest.mark.parametrize("name", ["max", "min", "fmax", "fmin"])
def test_equal_inputs_share(name):
    first, second = slopes(op(name), [1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    wins = [0.5, 0.0, 1.0] if "max" in name else [0.5, 1.0, 0.0]
    assert first == wins and second == [1 - w for w in wins]


def test_loser_gets_nothing_of_an_infinite_cotangent():
    assert slopes(op("max"), [1.0, -1.0], [0.0, 0.0], cotangent=INF) == [[INF, 0.0], [0.0, INF]]


def test_abs_is_flat_at_zero():
    assert slopes(op("abs"), [-2.0, 0.0, -0.0, 3.0]) == [[-1.0, 0.0, 0.0, 1.0]]


def test_power_of_zero():
    assert slopes(op("pow"), [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]) == [
        [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("exponent", "slope", "curvature"), [
    (0, 0.0, 0.0), (1, 1.0, 0.0), (2, 0.0, 2.0), (3, 0.0, 0.0)])
def test_constant_power_of_zero(exponent, slope, curvature):
    def power(x):
        return apply("pow", x, full(x.type, exponent))

    def derivative(x):
        (found,) = pullback([power(x)], [full(x.type, 1)], [x])
        return full(x.type, 0) if found is None else found

    assert slopes(power, [0.0]) == [[slope]]
    assert slopes(derivative, [0.0]) == [[curvature]]


def test_where_guards_the_other_branch():
    def safe_log(x):
        positive = x > 0
        inner = apply("where", positive, x, 1)
        return apply("where", positive, apply("log", inner), 0)
    assert slopes(safe_log, [0.0, 2.0, -1.0]) == [[0.0, 0.5, 0.0]]


def test_hypot_at_the_origin():
    assert slopes(op("hypot"), [0.0, 3.0], [0.0, 4.0]) == [[0.0, 0.6], [0.0, 0.8]]


def test_logaddexp_of_infinities():
    first, second = slopes(op("logaddexp"), [-INF, -INF, INF, 0.0], [-INF, 0.0, 0.0, 0.0])
    assert first == [1.0, 0.0, 1.0, 0.5] and second == [1.0, 1.0, 0.0, 0.5]


def test_logaddexp_curvature_of_equal_inputs():
    def slope(x, y):
        return pullback([apply("logaddexp", x, y)], [full(x.type, 1)], [x])[0]
    np.testing.assert_allclose(slopes(slope, [1.0], [1.0]), [[0.25], [-0.25]], rtol=1e-14)


def test_sinc_at_zero():
    def slope(x):
        return pullback([apply("sinc", x)], [full(x.type, 1)], [x])[0]
    assert slopes(op("sinc"), [0.0]) == [[0.0]]
    assert np.allclose(slopes(slope, [0.0, 1e-8]), -np.pi**2 / 3)


def test_clip_is_flat_outside():
    low, high = [0.0] * 3, [1.0] * 3
    assert slopes(op("clip"), [-1.0, 0.5, 2.0], low, high)[0] == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "rint", "sign", "stop_gradient"])
def test_flat(name):
    assert slopes(op(name), [-1.5, 0.0, 2.5]) == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min"])
def test_equal_extremes_share(name):
    sign = 1 if name == "reduce_max" else -1
    x = [[sign * 3.0, 1.0 * sign, sign * 3.0], [sign * 2.0, 0.0, 0.0]]
    found = slopes(lambda n: make(name, [n], ReduceAttrs((1,))), x)
    assert found == [[[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]]


def test_equal_extremes_are_counted_beyond_half_precision():
    x = np.zeros(4096)
    found = slopes(lambda n: make("reduce_max", [n], ReduceAttrs((0,))), x, dtype=f16)
    assert found == [[1 / 4096] * 4096]


def test_pad_value_gets_the_border():
    attrs = PadAttrs((1,), (2,), (1,))
    found = slopes(lambda x, v: make("pad", [x, v], attrs), [5.0, 6.0], 7.0)
    assert found == [[1.0, 1.0], 4.0]


def test_casts_to_integers_are_constant():
    x = input_node("x", TensorType(f64, (3,)))
    rounded = make("cast", [make("cast", [x], CastAttrs(i32))], CastAttrs(f64))
    assert pullback([rounded], [full(x.type, 1)], [x]) == [None]


@pytest.mark.parametrize("name", ["f16", "bf16", "f32"])
def test_casts_between_floats_pass_the_cotangent(name):
    x = input_node("x", TensorType(f64, (3,)))
    narrow = make("cast", [x], CastAttrs(DTYPES[name]))
    (found,) = pullback([narrow], [full(narrow.type, 2)], [x])
    assert found.type == x.type
    assert run_graph(Graph((x,), (found,)), [np.zeros(3)])[0].tolist() == [2.0, 2.0, 2.0]


def test_unused_inputs_have_no_cotangent():
    x, y = (input_node(n, TensorType(f32, (2,))) for n in "xy")
    assert pullback([x * 2], [full(x.type, 1)], [y]) == [None]


def test_integer_input_is_refused():
    x = input_node("n", TensorType(i32, (2,)))
    with pytest.raises(TypeError, match="input n has element type i32, not a float"):
        vjp_graph(Graph((x,), (x,)), [0])


def test_an_input_that_is_a_result():
    x = input_node("x", TensorType(f64, (2,)))
    backward = vjp_graph(Graph((x,), (x, x * x)))
    ones = np.ones(2)
    assert run_graph(backward, [3 * ones, ones, ones])[2].tolist() == [7.0, 7.0]


def test_backward_nodes_have_the_line_of_forward_nodes():
    from tilewright.errors import Location

    x = input_node("x", TensorType(f64, (11,)))
    here = Location("user.py", 7, "f")
    out = make("tanh", [make("sin", [x], loc=Location("user.py", 6, "f"))], loc=here)
    (found,) = pullback([out], [full(x.type, 1)], [x])
    lines = {n.op.name: n.loc.line for n in Graph((x,), (found,)).nodes() if n.loc is not None}
    assert lines["cos"] == 6 and lines["sub"] == 7


def test_order_of_addition_is_stable():
    from tilewright.ir.text import show

    def build():
        x = input_node("x", TensorType(f64, (3,)))
        return show(vjp_graph(Graph((x,), (apply("sin", x) * x + apply("exp", x) / x,))))
    assert build() == build()
