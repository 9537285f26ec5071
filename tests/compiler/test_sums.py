"""Sums that follow from other sums: fewer reductions, the same values."""

import numpy as np
import pytest

from tilewright.compiler.passes.sums import sums
from tilewright.ir import ops
from tilewright.ir.attrs import IndexAttrs, IotaAttrs
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.build import broadcast, reduce, where
from tilewright.ir.graph import Graph, apply, full, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.text import show
from tilewright.ir.types import TensorType, f32, f64, i32, i64

assert ops
X = input_node("x", TensorType(f64, (3, 5)))
V = input_node("v", TensorType(f64, (3,)))
W = broadcast(V, (3, 5), (0,))
BASE = reduce("sum", X, (1,))


def count(graph):
    return sum(n.op.name == "sum" for n in graph.nodes())


def same(before, after):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 3, n.shape) if n.dtype.is_int
        else rng.normal(size=n.shape).astype(n.dtype.numpy)
        for n in before.inputs
    ]
    for a, b in zip(run_graph(before, arrays), run_graph(after, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def softmax_gradient():
    x = input_node("x", TensorType(f32, (4, 8)))
    top = broadcast(reduce("reduce_max", x, (1,)), x.shape, (0,))
    powers = apply("exp", x - top)
    total = broadcast(reduce("sum", powers, (1,)), x.shape, (0,))
    return vjp_graph(Graph((x,), (powers / total,), "softmax"))


def test_golden(golden):
    after = sums(softmax_gradient())
    golden("sums/softmax", show(after))
    same(softmax_gradient(), after)


@pytest.mark.parametrize("operand", [
    -X, X * W, W * X, X / W, X + W, X - 2, X * 3 - X / W, W * W, X * apply("exp", W),
])
def test_follows(operand):
    before = Graph((X, V), (BASE, reduce("sum", operand, (1,))))
    after = sums(before)
    assert count(after) == 1
    same(before, after)


@pytest.mark.parametrize("operand", [
    X * X, W / X, apply("exp", X), X + apply("sin", X),
])
def test_does_not_follow(operand):
    before = Graph((X, V), (BASE, reduce("sum", operand, (1,))))
    assert count(sums(before)) == 2


def test_other_axes_do_not_help():
    before = Graph((X,), (BASE, reduce("sum", X * 2, (0,))))
    assert count(sums(before)) == 2


def test_integers_stay():
    x = input_node("x", TensorType(i64, (3, 5)))
    before = Graph((x,), (reduce("sum", x, (1,)), reduce("sum", x * 2, (1,))))
    assert sums(before).outputs == before.outputs


def chosen(index):
    counter = make("iota", (), IotaAttrs(1), type=TensorType(i32, (3, 5)))
    return where(apply("eq", counter, broadcast(index, (3, 5), (0,))), W, 0)


def test_one_place_of_a_row():
    labels = input_node("labels", TensorType(i64, (3,)))
    numbers = make("iota", (), IotaAttrs(0), type=TensorType(i32, (5,)))
    index = make("take", (numbers, labels), IndexAttrs(0))
    before = Graph((labels, V), (reduce("sum", chosen(index), (1,)),))
    after = sums(before)
    assert count(after) == 0
    same(before, after)


def test_a_place_that_may_be_outside_is_summed():
    index = input_node("index", TensorType(i32, (3,)))
    before = Graph((index, V), (reduce("sum", chosen(index), (1,)),))
    assert count(sums(before)) == 1


def test_long_expressions_are_left_alone():
    operand = X
    for _ in range(100):
        operand = operand * W + full(X.type, 1)
    before = Graph((X, V), (BASE, reduce("sum", operand, (1,))))
    assert count(sums(before)) == 2
