"""Derivatives of every row against finite differences in f64, first and second order."""

import numpy as np
import pytest
from op_harness import (
    STRUCTURED,
    elementwise_rows,
    graph_of,
    input_dtypes,
    interpreted,
    random_values,
    rng_of,
    structured_inputs,
)

from tilewright.ir.attrs import ScanAttrs
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.graph import OPS, Graph
from tilewright.ir.types import f64

DIFFERENTIABLE = [
    op.name for op in elementwise_rows(f64)
    if op.name != "stop_gradient" and not op.infer.__qualname__.startswith("truth.")
]


def difference(before, after):
    """after - before, 0 for equal infinities (the extremes of an empty axis)."""
    same = before == after
    return np.where(same, 0, after) - np.where(same, 0, before)


def check(graph, arrays, order=1):
    """Compare the cotangents with differences of the results, and theirs again up to ``order``."""
    rng = rng_of(graph.outputs[0].op.name, order, len(arrays))
    cotangents = [rng.normal(size=n.shape) for n in graph.outputs if n.dtype.is_float]
    backward = vjp_graph(graph)
    count = len(graph.outputs)
    got = interpreted(backward, [*arrays, *cotangents])[count:]
    floats = [i for i, n in enumerate(graph.inputs) if n.dtype.is_float]
    for i, cotangent in zip(floats, got, strict=True):
        direction = rng.normal(size=arrays[i].shape)
        step = 1e-6
        before, after = (
            interpreted(graph, [*arrays[:i], arrays[i] + s * direction, *arrays[i + 1:]])
            for s in (-step, step)
        )
        slope = sum(
            np.sum(w * difference(a, b)) / (2 * step)
            for w, a, b in zip(cotangents, before, after, strict=True)
        )
        along = np.sum(cotangent * direction)
        scale = 1 + abs(slope) + np.sum(np.abs(cotangent * direction))
        assert abs(along - slope) < 1e-6 * scale, f"input {i}: {along} is not {slope}"
    if order > 1:
        again = Graph(backward.inputs, backward.outputs[count:])
        check(again, [*arrays, *cotangents], order - 1)


def check_elements(graph, arrays):
    """Compare the cotangents one element at a time: elementwise rows only."""
    cotangent = rng_of(graph.outputs[0].op.name).normal(size=graph.outputs[0].shape)
    got = interpreted(vjp_graph(graph), [*arrays, cotangent])[1:]
    floats = [i for i, n in enumerate(graph.inputs) if n.dtype.is_float]
    for i, found in zip(floats, got, strict=True):
        before, after = (
            interpreted(graph, [*arrays[:i], arrays[i] + s, *arrays[i + 1:]])[0]
            for s in (-1e-6, 1e-6)
        )
        slope = cotangent * (after - before) / 2e-6
        np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_elementwise(name):
    op = OPS[name]
    rng = rng_of(name)
    arrays = [random_values(d, (9,), rng, op) for d in input_dtypes(op, f64)]
    graph = graph_of(op, None, arrays)
    check_elements(graph, arrays)
    check(graph, arrays, 2)


PLACES = ("iota", "argcummax", "argcummin", "argsort", "searchsorted")
"""Rows whose results are integers."""


@pytest.mark.parametrize("name", [n for n in STRUCTURED if n not in PLACES])
def test_structured(name):
    op = OPS[name]
    for attrs, shapes in STRUCTURED[name]:
        arrays = structured_inputs(op, attrs, shapes, f64)
        check(graph_of(op, attrs, arrays), arrays, 2)


@pytest.mark.parametrize("name", PLACES[1:])
def test_integers_have_no_derivative(name):
    op = OPS[name]
    attrs, shapes = STRUCTURED[name][0]
    arrays = structured_inputs(op, attrs, shapes, f64)
    graph = vjp_graph(graph_of(op, attrs, arrays))
    assert len(graph.inputs) == len(arrays)
    for found, array in zip(interpreted(graph, arrays)[1:], arrays, strict=True):
        np.testing.assert_array_equal(found, np.zeros_like(array))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("zeros", [(), (2,), (1, 3), (0, 1, 2, 3, 4)])
def test_running_product_with_zeros(zeros, reverse):
    """Differences are exact for a polynomial of this degree in each single element."""
    op = OPS["cumprod"]
    x = rng_of("cumprod", zeros).normal(size=5)
    x[list(zeros)] = 0
    graph = graph_of(op, ScanAttrs(0, reverse), [x])
    check(graph, [x], 3)
    found = interpreted(vjp_graph(graph), [x, np.ones(5)])[1]
    step = 1e-3
    for i in range(5):
        ends = [x + s * np.eye(5)[i] for s in (-step, step)]
        low, high = (interpreted(graph, [end])[0].sum() for end in ends)
        np.testing.assert_allclose(found[i], (high - low) / (2 * step), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("zeros", [(), (2,), (1, 3), (0, 1, 2, 3, 4)])
def test_product_with_zeros(zeros):
    """Differences are exact for a polynomial of this degree in each single element."""
    op = OPS["prod"]
    attrs, shapes = STRUCTURED["prod"][0]
    arrays = structured_inputs(op, attrs, shapes, f64)
    arrays[0][list(zeros)] = 0
    check(graph_of(op, attrs, arrays), arrays, 3)
    found = interpreted(vjp_graph(graph_of(op, attrs, arrays)), [*arrays, np.array(1.0)])[1]
    others = [np.prod(np.delete(arrays[0], i)) for i in range(5)]
    np.testing.assert_allclose(found, others, rtol=1e-12, atol=0)
