"""Compiled convolutions and pools, of sizes that reach every way of walking them."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codegen.cpu import TIERS, build, host_target
from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import UserError
from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.build import contract, reduce, window
from tilewright.ir.convolve import (
    Convolution,
    convolution,
    convolution_input_grad,
    convolution_weight_grad,
    settings,
)
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_grad,
    adaptive_max_pool,
    avg_pool,
    avg_pool_grad,
    max_pool_grad,
    max_pool_indices,
    pooling,
)
from tilewright.ir.text import show
from tilewright.ir.types import DTYPES, TensorType, dtype_of
from tilewright.runtime.executable import Executable

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Convolution]] = {
    "small": ((1, 2, 5, 5), (3, 2, 3, 3), settings(2, 1, 1)),
    "rows that end within a vector": ((2, 5, 6, 21), (30, 5, 3, 3), settings(2, 1, 1)),
    "several depth blocks": ((1, 200, 3, 20), (20, 200, 3, 3), settings(2, 1, 1)),
    "short rows": ((2, 8, 7, 7), (96, 8, 3, 3), settings(2, 1, 1)),
    "long rows": ((2, 3, 2502), (8, 3, 3), settings(1)),
    "strided": ((2, 9, 15, 40), (17, 9, 3, 3), settings(2, 2, 1)),
    "one tap, strided": ((2, 40, 12, 14), (50, 40, 1, 1), settings(2, 2)),
    "groups": ((2, 12, 9, 33), (18, 4, 3, 3), settings(2, 1, 1, 1, 3)),
    "depthwise": ((2, 6, 9, 35), (6, 1, 3, 3), settings(2, 1, 1, 1, 6)),
    "depthwise, two each": ((1, 6, 9, 35), (12, 1, 7, 7), settings(2, 2, 3, 1, 6)),
    "patches": ((2, 3, 32, 32), (40, 3, 8, 8), settings(2, 8)),
    "dilated": ((1, 7, 12, 40), (20, 7, 3, 3), settings(2, 1, 2, 2)),
    "3d": ((1, 4, 5, 6, 20), (10, 4, 3, 3, 3), settings(3, 1, 1)),
    "few channels": ((5, 4, 13, 30), (6, 4, 5, 5), settings(2, 1, 2)),
    "one channel": ((6, 1, 14, 14), (5, 1, 5, 5), settings(2)),
    "few channels, several depth blocks": ((2, 6, 9, 21), (80, 6, 5, 5), settings(2, 1, 1)),
    "few channels of signals": ((3, 2, 700), (6, 2, 9), settings(1, 1, 4)),
    "many rows": ((1, 3, 6, 20), (600, 3, 3, 3), settings(2)),
}


def tiers() -> list[str]:
    """The CPU tiers that this machine can run."""
    names = []
    for name in TIERS:
        try:
            names.append(host_target(name).name)
        except UserError:
            continue
    return names


def inputs_of(*arrays: np.ndarray) -> list[Node]:
    """Parameters that fit these arrays."""
    return [
        input_node(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]


def agree(
    tier: str, inputs: list[Node], outputs: list[Node], arrays: list[np.ndarray], rtol: float
) -> None:
    """The compiled graph gives what the interpreter gives."""
    graph = Graph(tuple(inputs), tuple(outputs))
    target = host_target(tier)
    plan = compile_graph(graph, target).plan
    got = Executable(plan, build(plan, target))(arrays)
    for a, b in zip(got, run_graph(graph, arrays), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if b.dtype.kind in "iu":
            np.testing.assert_array_equal(a, b)
            continue
        room = rtol * max(1.0, float(np.nanmax(np.abs(b.astype("f8")), initial=0)))
        np.testing.assert_allclose(a.astype("f8"), b.astype("f8"), rtol=rtol, atol=room)


def sample(name: str, dtype: str) -> tuple[list[np.ndarray], Convolution]:
    """Data, weights, and a cotangent of the result."""
    x_shape, w_shape, c = CASES[name]
    rng = np.random.default_rng(len(name))
    kind = DTYPES[dtype].numpy
    size = c.output_space(x_shape[2:], w_shape[2:])
    shapes = (x_shape, w_shape, (x_shape[0], w_shape[0], *size))
    return [rng.integers(-3, 4, s).astype(kind) for s in shapes], c


def both_ways(tier: str, name: str, dtype: str, rtol: float) -> None:
    arrays, c = sample(name, dtype)
    x, w, grad = inputs_of(*arrays)
    agree(tier, [x, w, grad], [
        convolution(x, w, c), convolution_input_grad(grad, w, x.shape, c),
        convolution_weight_grad(grad, x, w.shape, c)], arrays, rtol)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tier", tiers())
def test_convolutions(tier: str, name: str) -> None:
    both_ways(tier, name, "f32", 1e-6)


@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16", "i32", "i8"])
@pytest.mark.parametrize(
    "name", ["rows that end within a vector", "short rows", "depthwise", "few channels"])
def test_element_types(name: str, dtype: str) -> None:
    rtol = {"f64": 1e-12, "bf16": 1e-2, "f16": 1e-3}.get(dtype, 0)
    both_ways(tiers()[0], name, dtype, rtol)


def test_few_channels_are_read_where_they_are() -> None:
    """Padding is not asked for at every product, and what is read once is not packed first."""
    arrays, c = sample("few channels", "f32")
    x, w, _ = inputs_of(*arrays)
    plan = compile_graph(Graph((x, w), (convolution(x, w, c),)), host_target(tiers()[0])).plan
    padding, products = (launch.kernel for launch in plan.launches)
    assert padding.name.startswith("pointwise") and products.name.startswith("contraction")
    text = show(products)
    assert "inside" not in text and "panels" not in text


POOLS = {
    "plain": ((2, 3, 8, 40), pooling([2, 2])),
    "overlapping": ((1, 3, 15, 37), pooling([3, 3], [2, 2], [1, 1])),
    "one apart": ((2, 9, 35), pooling([3, 5], [1, 1], [1, 2])),
    "large": ((1, 2, 20, 50), pooling([9, 11], [1, 3])),
    "ceil": ((2, 7, 50), pooling([3, 3], [2, 3], [1, 1], None, True)),
    "1d": ((3, 100), pooling([4], [3])),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("tier", tiers())
def test_pools(tier: str, name: str) -> None:
    shape, p = POOLS[name]
    rng = np.random.default_rng(len(name))
    x = np.round(rng.normal(size=shape) * 4).astype("f4")
    x.flat[rng.integers(0, x.size, 5)] = np.nan
    (node,) = inputs_of(x)
    value, places = max_pool_indices(node, p)
    grad = rng.normal(size=value.shape).astype("f4")
    given = input_node("grad", TensorType(DTYPES["f32"], grad.shape))
    agree(tier, [node, given], [
        value, places, max_pool_grad(given, places, shape, p)], [x, grad], 1e-6)
    finite = np.nan_to_num(x)
    agree(tier, [node, given], [
        avg_pool(node, p), avg_pool(node, p, False), avg_pool_grad(given, shape, p)],
        [finite, grad], 1e-6)


@pytest.mark.parametrize("out", [(3, 7), (1, 1), (5, 20), (7, 40)])
@pytest.mark.parametrize("tier", tiers())
def test_adaptive_pools(tier: str, out: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 3, 7, 33)).astype("f4")
    grad = rng.normal(size=(2, 3, *out)).astype("f4")
    node, given = inputs_of(x, grad)
    agree(tier, [node, given], [
        adaptive_avg_pool(node, out), adaptive_avg_pool_grad(given, x.shape),
        *adaptive_max_pool(node, out)], [x, grad], 1e-5)


@pytest.mark.parametrize("tier", tiers())
def test_contractions_of_windows_of_any_order(tier: str) -> None:
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(9, 4, 40)).astype("f4"), rng.normal(size=(3, 30, 4, 5)).astype("f4")
    a, b = inputs_of(x, w)
    seen = window(a, (0, 2), (3, 5), (1, 2), (2, 1))  # rows, channels, columns, taps
    agree(tier, [a, b], [
        contract(seen, b, (0, 1, 2, 3, 4), (3, 5, 1, 4), (0, 2, 5)),
        contract(b, seen, (3, 5, 1, 4), (0, 1, 2, 3, 4), (5, 2, 0)),
        contract(seen, b, (0, 1, 2, 3, 4), (3, 5, 1, 4), (0, 2, 1, 5)),
        reduce("sum", seen, (0, 3)), reduce("sum", seen, (0, 1, 2)), reduce("sum", seen, range(5)),
        reduce("reduce_max", seen, (4,)), reduce("reduce_min", seen, (1, 3, 4)),
    ], [x, w], 1e-5)
