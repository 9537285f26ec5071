"""What the simulator runs, on the GPU of this machine: the corpus and the benchmarks' workloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_here import hardware
from test_suite_on_gpus import CASES

import tilewright as tw
from tilewright.codegen import gpu
from tilewright.compiler.pipeline import compile_graph
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse
from tilewright.runtime.gpu.drivers import target_of
from tilewright.runtime.gpu.executable import gpu_executable

pytestmark = pytest.mark.gpu
CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.tw"))


def on_device(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    driver, target = hardware(), target_of("cuda")
    plan = compile_graph(graph, target).plan
    run = gpu_executable(plan, gpu.build(plan, target), driver)
    first = [np.array(r) for r in run(arrays)]
    for again, result in zip(run(arrays), first, strict=True):
        np.testing.assert_array_equal(again, result)  # sums have one order
    return first


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)
def test_the_corpus(path: Path) -> None:
    hardware()
    graph = parse(path.read_text())
    assert isinstance(graph, Graph)
    random = np.random.default_rng(0)
    arrays = [
        random.integers(1, 9, n.shape).astype(n.dtype.numpy) if n.dtype.is_int
        else random.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    for got, want in zip(on_device(graph, arrays), run_graph(graph, arrays), strict=True):
        close = 2e-2 if got.dtype == np.float16 else 2e-5
        np.testing.assert_allclose(got, want, rtol=close, atol=close * (1 + np.abs(want).max()))


@pytest.mark.parametrize("name", CASES)
def test_the_workloads_of_the_benchmarks(name: str) -> None:
    hardware()
    function, inputs = CASES[name]
    graph = tw.jit(function).trace(*inputs)
    arrays = [np.ascontiguousarray(a) for a in tw.tree.leaves(inputs)]
    for got, want in zip(on_device(graph, arrays), run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
