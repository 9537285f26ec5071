"""Compiling does not depend on how deep a network is: equal layers are equal work, done once."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler import pipeline
from tilewright.compiler.collector import collector_at_rest
from tilewright.compiler.order import Interval, place
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.pipeline import GRAPH, compile_graph
from tilewright.compiler.schedules import lower, lower_afresh
from tilewright.compiler.schedules.alike import form_of
from tilewright.compiler.target import Target
from tilewright.compiler.topology import Cycles, components, ordered
from tilewright.ir.graph import Graph, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.types import TensorType, f32

TARGET = Target("test", 64, 32, 1 << 15, 1 << 20, 1 << 25, "", "", "")
WIDTH = 32


def block(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """A residual block with a layer norm and an attention over rows."""
    mean = x.mean(-1, keepdims=True)
    h = (x - mean) / np.sqrt(np.square(x - mean).mean(-1, keepdims=True) + 1e-5) * p["g"]
    scores = np.exp((h @ p["q"]) @ h.T / 8)
    return x + (scores / scores.sum(-1, keepdims=True)) @ np.tanh(h @ p["w"] + p["b"])


def step(params: list[dict[str, np.ndarray]], x: np.ndarray) -> object:
    """A step of gradient descent."""
    def loss(params: list[dict[str, np.ndarray]], x: np.ndarray) -> np.ndarray:
        for p in params:
            x = block(x, p)
        return np.square(x).mean()
    value, grads = tw.value_and_grad(loss)(params, x)
    return value, tw.tree.map(lambda p, g: p - 0.1 * g, params, grads)


def graph_of(depth: int) -> Graph:
    square, row = np.zeros((WIDTH, WIDTH), np.float32), np.ones(WIDTH, np.float32)
    params = [{"q": square, "w": square, "g": row, "b": row} for _ in range(depth)]
    x = np.zeros((16, WIDTH), np.float32)
    return tw.jit(step).lower(params, x).graph


def optimized(graph: Graph) -> Graph:
    for transform in GRAPH:
        graph = transform(graph, TARGET)
    return graph


def test_equal_layers_have_equal_kernels() -> None:
    plans = [compile_graph(graph_of(n), TARGET).plan for n in (12, 24)]
    shallow, deep = ({launch.kernel.name for launch in plan.launches} for plan in plans)
    assert shallow == deep
    assert len(plans[1].launches) == 2 * len(plans[0].launches)


def test_a_group_like_another_has_the_kernels_that_it_would_have_alone() -> None:
    groups = fuse(optimized(graph_of(4)), TARGET)
    forms = set()
    for group in groups:
        forms.add(form_of(group).key)
        for shared, own in zip(lower(group, TARGET), lower_afresh(group, TARGET), strict=True):
            assert shared.kernel == own.kernel
            values = [a for a in own.args if hasattr(a, "op")]
            assert [a for a in shared.args if hasattr(a, "op")] == values
            assert len(shared.args) == len(own.args)
            assert (shared.flops, shared.bytes, shared.checks, shared.inplace) == (
                own.flops, own.bytes, own.checks, own.inplace)
    assert len(forms) < len(groups)


def test_groups_with_other_lines_of_checks_are_not_alike() -> None:
    def twice(x: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.exp(np.take(x, i))
        return first.sum(), np.exp(np.take(x, j)).sum()

    arguments = np.ones(50, np.float32), np.arange(40), np.arange(40)[::-1].copy()
    plan = compile_graph(tw.jit(twice).lower(*arguments).graph, TARGET).plan
    lines = {info.loc.line for info in plan.checks.values() if info.loc}
    assert len(lines) == 2


def test_a_graph_may_be_deeper_than_the_call_stack() -> None:
    x = input_node("x", TensorType(f32, (8,)))
    y = x
    for n in range(3000):
        y = y * 0.999 + (x if n % 2 else y)
    graph = Graph((x,), (y,))
    plan = compile_graph(graph, TARGET).plan
    assert plan.launches
    arrays = [np.ones(8, np.float32)]
    (want,) = run_graph(graph, arrays)
    (got,) = run_graph(optimized(graph), arrays)
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_ordered_puts_what_is_rested_on_first() -> None:
    assert ordered({"c": ["b"], "b": ["a"], "a": []}) == ["a", "b", "c"]


def test_ordered_names_all_that_stand_on_cycles() -> None:
    with pytest.raises(Cycles) as caught:
        ordered({1: [2], 2: [1], 3: [1], 4: [5], 5: [6], 6: [4], 7: [], 8: [8]})
    assert set(caught.value.members) == {1, 2, 4, 5, 6, 8}


def test_components_are_found_without_recursion() -> None:
    n = 5000
    ring: dict[int, list[int]] = {i: [(i + 1) % n] for i in range(n)}
    assert [len(part) for part in components(ring)] == [n]


@pytest.mark.parametrize("seed", range(20))
def test_buffers_in_use_together_do_not_overlap(seed: int) -> None:
    random = np.random.default_rng(seed)
    intervals = []
    for _ in range(60):
        first = int(random.integers(0, 40))
        nbytes = int(random.integers(0, 5000))
        intervals.append(Interval(nbytes, first, first + int(random.integers(0, 12))))
    offsets, total = place(intervals)
    for i, (a, at) in enumerate(zip(intervals, offsets, strict=True)):
        assert at % 64 == 0
        assert at + a.nbytes <= total
        for b, other in list(zip(intervals, offsets, strict=True))[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = at + a.nbytes <= other or other + b.nbytes <= at
            assert apart or not together or not (a.nbytes and b.nbytes)


def test_the_collector_rests_while_compiling_and_never_after() -> None:
    seen = []

    def transform(graph: Graph, target: Target) -> Graph:
        seen.append(gc.isenabled())
        return graph

    x = input_node("x", TensorType(f32, (8,)))
    graph = Graph((x,), (x + 1.0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "GRAPH", (transform,))
        compile_graph(graph, TARGET)
        assert (seen, gc.isenabled()) == ([False], True)
        gc.disable()
        try:
            compile_graph(graph, TARGET)
            assert not gc.isenabled()
        finally:
            gc.enable()
    with pytest.raises(ZeroDivisionError), collector_at_rest(), collector_at_rest():
        raise ZeroDivisionError
    assert gc.isenabled()
