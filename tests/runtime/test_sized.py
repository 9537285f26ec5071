"""One program for every size: results, errors, memory, and what is worked out once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tilewright.codegen.cpu import build, host_target
from tilewright.compiler.bind import bind
from tilewright.compiler.pipeline import Compiled, compile_graph
from tilewright.errors import ShapeError
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.symbolic import specialise
from tilewright.ir.text import parse
from tilewright.runtime.executable import SizedExecutable

LAYER = """\
graph layer(%x: f32[n, 24], %w: f32[24, 40], %y: f32[n, 40]) -> (f32[n, 40], f32[24, 40], f32[]) {
  %0 = contract(%x, %w) [lhs=(0, 1), rhs=(1, 2), out=(0, 2)] : f32[n, 40]
  %1 = tanh(%0) : f32[n, 40]
  %2 = sub(%1, %y) : f32[n, 40]
  %3 = contract(%x, %2) [lhs=(1, 0), rhs=(1, 2), out=(0, 2)] : f32[24, 40]
  %4 = mul(%2, %2) : f32[n, 40]
  %5 = sum(%4) [axes=(0, 1)] : f32[]
  return %1, %3, %5
}
"""


def made(
    text: str, donated: tuple[int, ...] = (), **hints: int
) -> tuple[Compiled, SizedExecutable]:
    graph = parse(text)
    assert isinstance(graph, Graph)
    target = host_target()
    compiled = compile_graph(graph, target, donated, hints)
    return compiled, SizedExecutable(compiled.plan, build(compiled.plan, target))


def arguments(n: int) -> list[np.ndarray]:
    random = np.random.default_rng(n)
    return [random.normal(size=s).astype(np.float32) for s in ((n, 24), (24, 40), (n, 40))]


@pytest.mark.parametrize("hint", [1, 16, 3000])
def test_results_do_not_depend_on_the_hint(hint: int) -> None:
    compiled, run = made(LAYER, n=hint)
    for n in (0, 1, 3, 16, 100, 1025):
        arrays = arguments(n)
        want = run_graph(specialise(compiled.graph, {"n": n}), arrays)
        for got, expected in zip(run(arrays), want, strict=True):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-3)


def test_what_a_size_needs_is_worked_out_once() -> None:
    _, run = made(LAYER)
    shapes = [a.shape for a in arguments(5)]
    assert run.at(shapes) is run.at(shapes)
    run(arguments(5))
    run(arguments(5))
    assert len(run._made) == 1
    for n in range(run.most + 10):
        run(arguments(n))
    assert len(run._made) == len(run._by_shapes) == run.most


def test_a_bound_plan_has_an_arena_and_words() -> None:
    compiled, _ = made(LAYER)
    small, large = (bind(compiled.plan, {"n": n}) for n in (10, 1000))
    assert small.arena < large.arena
    assert small.words[0] == 10 and len(small.words) == 1 + len(compiled.plan.blocks)
    assert compiled.plan.arena == 0
    assert compiled.cost().flops == bind(compiled.plan, {"n": 64}).flops


def test_sizes_that_no_input_has() -> None:
    compiled, run = made("""\
graph f(%x: f32[4]) -> (f32[n, 4]) {
  %0 = broadcast(%x) [shape=(n, 4), axes=(1,)] : f32[n, 4]
  return %0
}
""")
    assert compiled.plan.sizes == ("n",)
    x = np.arange(4, dtype=np.float32)
    for n in (0, 3, 50):
        assert np.array_equal(run.bound((n,))([x])[0], np.broadcast_to(x, (n, 4)))
    with pytest.raises(ValueError, match="no input has the size n"):
        run([x])


def test_sizes_that_differ_are_an_error_that_names_both() -> None:
    _, run = made(LAYER)
    x, w, y = arguments(5)
    with pytest.raises(ShapeError) as error:
        run([x, w, y[:4]])
    assert str(error.value) == """\
axis 0 of input 2 does not go with the other arguments
  expected: n, with n = 5 in axis 0 of input 0
  got:      4 in the shape (4, 40)"""
    with pytest.raises(ShapeError, match="input 1 has the wrong shape"):
        run([x, w[:, :3], y])
    with pytest.raises(ShapeError, match="input 0 has the wrong shape"):
        run([x[0], w, y])


def test_what_the_graph_takes_for_granted_is_checked() -> None:
    _, run = made("""\
graph f(%x: f32[n, 4]) -> (f32[floordiv(n, 2), 8]) {
  %0 = reshape(%x) [shape=(floordiv(n, 2), 8)] : f32[floordiv(n, 2), 8]
  %1 = add(%0, 1.0) : f32[floordiv(n, 2), 8]
  return %1
}
""")
    assert np.array_equal(run([np.zeros((6, 4), np.float32)])[0], np.ones((3, 8)))
    with pytest.raises(ShapeError, match="reshape .* is not possible for these sizes"):
        run([np.zeros((5, 4), np.float32)])


SOFTMAX = """\
graph softmax(%x: f32[n, m]) -> (f32[n, m]) {
  %0 = reduce_max(%x) [axes=(1,)] : f32[n]
  %1 = broadcast(%0) [shape=(n, m), axes=(0,)] : f32[n, m]
  %2 = sub(%x, %1) : f32[n, m]
  %3 = exp(%2) : f32[n, m]
  %4 = sum(%3) [axes=(1,)] : f32[n]
  %5 = broadcast(%4) [shape=(n, m), axes=(0,)] : f32[n, m]
  %6 = div(%3, %5) : f32[n, m]
  return %6
}
"""


@pytest.mark.parametrize("hint", [8, 100_000])
def test_rows_longer_than_expected(hint: int) -> None:
    compiled, run = made(SOFTMAX, m=hint)
    for m in (5, 32, 33, 500, 70_000):
        x = np.random.default_rng(m).normal(size=(3, m)).astype(np.float32)
        want = run_graph(specialise(compiled.graph, {"n": 3, "m": m}), [x])[0]
        np.testing.assert_allclose(run([x])[0], want, rtol=1e-4, atol=1e-7)


def test_donated_memory_and_copies() -> None:
    _, run = made("""\
graph f(%x: f32[n], %y: f32[n]) -> (f32[n], f32[n], f32[n]) {
  %0 = add(%x, %y) : f32[n]
  return %0, %0, %y
}
""", donated=(0,))
    for n in (3, 70, 5000):
        x, y = np.arange(n, dtype=np.float32), np.ones(n, np.float32)
        a, b, c = run([x, y])
        assert np.array_equal(a, np.arange(n) + 1) and np.array_equal(b, a)
        assert np.array_equal(c, y) and c is not y


def test_threads_call_with_different_sizes() -> None:
    _, run = made(LAYER)
    expected = {n: run(arguments(n)) for n in (4, 50, 300)}
    wrong: list[int] = []

    def call(n: int) -> None:
        for _ in range(20):
            if not all(map(np.array_equal, run(arguments(n)), expected[n])):
                wrong.append(n)

    workers = [threading.Thread(target=call, args=(n,)) for n in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
