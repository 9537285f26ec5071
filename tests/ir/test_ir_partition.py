"""A graph and its gradient as two graphs give what the one graph of both gives."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.partition import split
from tilewright.ir.verify import verify


def softmax_block(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    y = x @ w
    e = np.exp(y - y.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def several(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    y = np.sin(x) @ w
    return y, y.sum(axis=0), (x > 0).sum(axis=0)


def plain(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.tanh(x) * x + w.sum()


@pytest.mark.parametrize("function", [softmax_block, several, plain])
@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
def test_parts_agree_with_the_whole(function: object, wrt: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    inputs = [random.standard_normal((4, 4)), random.standard_normal((4, 4))]
    graph: Graph = tw.jit(function).trace(*inputs)  # type: ignore[call-overload]
    whole = vjp_graph(graph, wrt)
    cotangents = [
        random.standard_normal(n.shape) for n in graph.outputs if n.dtype.is_float]
    expected = run_graph(whole, [*inputs, *cotangents])
    parts = split(graph, wrt)
    for part in (parts.forward, parts.backward):
        verify(part)
    made = run_graph(parts.forward, inputs)
    count = len(graph.outputs)
    kept = [made[i] for i in parts.kept]
    found = run_graph(parts.backward, [*inputs, *kept, *cotangents])
    for a, b in zip([*made[:count], *found], expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_result_that_is_kept_is_no_second_result() -> None:
    graph = tw.jit(lambda x, w: np.exp((x @ w).sum(axis=0))).trace(np.ones((3, 3)), np.ones((3, 3)))
    parts = split(graph, (0,))
    assert len(parts.forward.outputs) == len(set(parts.forward.outputs))
    whole = tw.jit(lambda x: x.sum()).trace(np.ones(3))
    assert split(whole, (0,)).kept == ()
