"""The builders of scans, sorts and searches: conventions, ties, NaN, tensors without axes."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ir import ops, ordered
from tilewright.ir.graph import Graph, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.types import TensorType, dtype_of

assert ops
NAN = np.nan


def run(builder, *arrays):
    """The results of a builder on inputs that hold these arrays."""
    arrays = [np.asarray(a) for a in arrays]
    nodes = [input_node(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    found = builder(*nodes)
    found = found if isinstance(found, tuple) else (found,)
    results = run_graph(Graph(tuple(nodes), found), arrays)
    return results if len(results) > 1 else results[0]


def test_scans():
    x = np.array([[3, 1, 2], [0, 5, -1]], np.int32)
    assert np.array_equal(run(lambda n: ordered.scan("add", n, 1), x), np.cumsum(x, 1))
    assert np.array_equal(run(lambda n: ordered.scan("mul", n, -2), x), np.cumprod(x, 0))
    got = run(lambda n: ordered.scan("max", n, 1, reverse=True), x)
    assert np.array_equal(got, [[3, 2, 2], [5, 5, -1]])
    assert got.dtype == np.int32
    factors = np.array([2.0, 3.0, -1.0])
    got = run(lambda a, b: ordered.recurrence(a, b, 0), factors, np.array([1.0, 1.0, 1.0]))
    assert np.array_equal(got, [1, 4, -3])


def test_logcumsumexp_of_large_and_infinite_numbers():
    x = np.array([1000.0, 1000.0, -np.inf, 2000.0, np.inf, 3.0, NAN, 1.0])
    with np.errstate(all="ignore"):
        want = np.logaddexp.accumulate(x)
    np.testing.assert_allclose(run(lambda n: ordered.logcumsumexp(n, 0), x), want)
    x = np.array([-np.inf, -np.inf, 5.0])
    np.testing.assert_array_equal(run(lambda n: ordered.logcumsumexp(n, 0), x), x)


@pytest.mark.parametrize(("values", "best", "places"), [
    ([NAN, 1, NAN, 3], [NAN] * 4, [0, 0, 2, 2]),
    ([1, 1, 2, 2, 1], [1, 1, 2, 2, 2], [0, 1, 2, 3, 3]),
    ([2, NAN, 3], [2, NAN, NAN], [0, 1, 1]),
    ([], [], []),
])
def test_running_extreme(values, best, places):
    x = np.array(values, np.float64)
    got = run(lambda n: ordered.cumulative_extreme("max", n, 0), x)
    np.testing.assert_array_equal(got[0], best)
    np.testing.assert_array_equal(got[1], places)
    assert got[1].dtype == np.int64
    got = run(lambda n: ordered.cumulative_extreme("min", n, 0, reverse=True), -x[::-1])
    np.testing.assert_array_equal(got[0], -np.array(best)[::-1])
    np.testing.assert_array_equal(got[1], len(x) - 1 - np.array(places, int)[::-1])


def test_sort_is_stable_and_nan_is_largest():
    x = np.array([NAN, 1, -0.0, 3, 0.0, 1, NAN])
    values, places = run(lambda n: ordered.sort(n, 0), x)
    np.testing.assert_array_equal(values, [-0.0, 0, 1, 1, 3, NAN, NAN])
    np.testing.assert_array_equal(places, [2, 4, 1, 5, 3, 0, 6])
    assert np.signbit(values[:2]).tolist() == [True, False]
    places = run(lambda n: ordered.argsort(n, 0, descending=True), x)
    np.testing.assert_array_equal(places, [0, 6, 3, 1, 5, 2, 4])


def test_selections():
    x = np.array([[4.0, NAN, 1, 3], [7, 7, 2, 2]])
    values, places = run(lambda n: ordered.topk(n, 2, 1), x)
    np.testing.assert_array_equal(values, [[NAN, 4], [7, 7]])
    np.testing.assert_array_equal(places, [[1, 0], [0, 1]])
    values, places = run(lambda n: ordered.topk(n, 3, 1, largest=False), x)
    np.testing.assert_array_equal(values, [[1, 3, 4], [2, 2, 7]])
    np.testing.assert_array_equal(places, [[2, 3, 0], [2, 3, 0]])
    values, places = run(lambda n: ordered.kth_value(n, 1, 1), x)
    np.testing.assert_array_equal(values, [3, 2])
    np.testing.assert_array_equal(places, [3, 3])
    values, places = run(lambda n: ordered.median(n, 1), x)
    np.testing.assert_array_equal(values, [NAN, 2])
    np.testing.assert_array_equal(places, [1, 3])


def test_mode_is_the_smallest_of_the_most_frequent():
    x = np.array([[3, 1, 3, 1, 2], [0, 0, 5, 5, 5]], np.int8)
    values, places = run(lambda n: ordered.mode(n, 1), x)
    np.testing.assert_array_equal(values, [1, 5])
    np.testing.assert_array_equal(places, [3, 4])
    values, _ = run(lambda n: ordered.mode(n, 0), np.array([NAN, 2.0, NAN, 2.0]))
    assert values == 2


@pytest.mark.parametrize("builder", [
    lambda n: (ordered.scan("add", n, 0), ordered.scan("add", n, -1)),
    lambda n: ordered.cumulative_extreme("max", n, -1), lambda n: ordered.sort(n, 0),
    lambda n: ordered.topk(n, 1, 0), lambda n: ordered.kth_value(n, 0, 0),
    lambda n: ordered.median(n, 0), lambda n: ordered.mode(n, 0),
    lambda n: ordered.recurrence(n, n, 0), lambda n: ordered.logcumsumexp(n, 0),
])
def test_a_tensor_without_axes(builder):
    found = run(builder, np.float32(3))
    for result in found if isinstance(found, list) else [found]:
        assert np.shape(result) == () and result in (0, 3)


def test_searchsorted():
    rows, values = np.array([[1, 2, 2, 5], [0, 0, 0, 9]]), np.array([[2, 6], [0, -1]])
    left = run(lambda a, v: ordered.searchsorted(a, v), rows, values)
    right = run(lambda a, v: ordered.searchsorted(a, v, right=True), rows, values)
    np.testing.assert_array_equal(left, [[1, 4], [0, 0]])
    np.testing.assert_array_equal(right, [[3, 4], [3, 0]])
    got = run(ordered.searchsorted, np.array([1.0, NAN]), np.array([[NAN, 2], [1, 0]]))
    np.testing.assert_array_equal(got, [[1, 1], [0, 0]])


@pytest.mark.parametrize("wrong", [
    lambda n: ordered.scan("add", n, 2), lambda n: ordered.topk(n, 4, 1),
    lambda n: ordered.kth_value(n, 3, -1), lambda n: ordered.sort(n, -3),
])
def test_what_does_not_exist(wrong):
    node = input_node("x", TensorType(dtype_of(np.float32), (2, 3)))
    with pytest.raises(ValueError):
        wrong(node)
