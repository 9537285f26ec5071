"""Scatters, scans and windows on a GPU."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from on_sim import agree, graph_agrees

import tilewright as tw
from tilewright.compiler.schedules.gpu import scatter
from tilewright.ir.build import broadcast, put, put_along
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.loops import For
from tilewright.ir.types import TensorType, dtype_of

RANDOM = np.random.default_rng(14)
MODES: list[Any] = ["set", "add", "mul", "max", "min"]


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for several columns and several places for a block, as large arrays have them."""
    monkeypatch.setattr(scatter, "BLOCKS", 4)


def graph_of(make: Any, arrays: list[np.ndarray]) -> Graph:
    nodes = [input_node(f"x{n}", TensorType(dtype_of(a), a.shape)) for n, a in enumerate(arrays)]
    result: Node = make(*nodes)
    return Graph(tuple(nodes), (result,))


@pytest.mark.parametrize("rows, size, columns, count", [
    ((), 20, (768,), 30), ((), 50, (), 270), ((2,), 9, (10,), 20), ((), 5, (33,), 3),
    ((3,), 4, (), 5), ((), 30, (4,), 1), ((2,), 3, (2, 2), 0),
])
def test_put(rows: Any, size: int, columns: Any, count: int) -> None:
    modes = MODES[2:] if size == 4 else MODES[:2]
    for mode in modes:
        x, index = f32(*rows, size, *columns), RANDOM.integers(-size, size, count)
        arrays = [x, index, f32(*rows, count, *columns)]
        graph = graph_of(lambda x, i, v, m=mode: put(x, i, v, len(rows), m), arrays)
        graph_agrees(graph, arrays)
        if columns != (768,):
            arrays[1] = RANDOM.integers(0, size, (*rows, count, *columns)).astype(np.int32)
            graph = graph_of(lambda x, i, v, m=mode: put_along(x, i, v, len(rows), m), arrays)
            graph_agrees(graph, arrays)


def test_values_that_are_the_same_for_all_indices() -> None:
    """They are read once, by threads that own a column and by the others of the block."""
    arrays = [f32(5, 9), RANDOM.integers(0, 5, 20), f32(9)]
    graph = graph_of(
        lambda x, i, v: put(x, i, broadcast(v, (20, 9), (1,)), 0, "add"), arrays)
    graph_agrees(graph, arrays)
    graph = graph_of(
        lambda x, i, v: put(
            broadcast(v, (5, 9), (1,)), i, broadcast(v, (20, 9), (1,)), 0, "max"), arrays)
    graph_agrees(graph, arrays)


@pytest.mark.parametrize("mode", ["add", "min"])
def test_copies_for_many_indices(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few places: blocks take shares of the indices."""
    monkeypatch.setattr(scatter, "SHARE", 200)
    arrays = [f32(2), RANDOM.integers(0, 2, 601), f32(601)]
    graph = graph_of(lambda x, i, v: put(x, i, v, 0, mode), arrays)
    plan = graph_agrees(graph, arrays)
    assert len([s for s in plan.launches[0].kernel.body if isinstance(s, For)]) == 2


def test_the_gradient_of_an_embedding() -> None:
    def loss(table: Any, words: Any) -> Any:
        return np.tanh(table[words]).sum()

    table = f32(40, 20)
    agree(lambda t, w: tw.grad(loss)(t, w), table, RANDOM.integers(0, 40, (3, 11)))
    half = table.astype(ml_dtypes.bfloat16)
    agree(lambda t, w: tw.grad(loss)(t, w), half, np.arange(30) % 40)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 33), (2, 300), (40, 3), (2, 500)], ids=str)
def test_scans(shape: tuple[int, int]) -> None:
    x = f32(*shape)
    for axis in (0, 1):
        agree(lambda x, a=axis: (np.cumsum(x, axis=a) * 2, x.argmax(axis=a)), x)
    agree(lambda x: tw.grad(lambda x: (np.cumprod(x, axis=1) ** 2).sum())(x), x[:, :40])


def test_windows() -> None:
    agree(lambda x: (tw.nn.max_pool(x, 2), tw.nn.avg_pool(x, 3, 1)), f32(2, 3, 9, 10))
