"""Random graphs as PTX, in the simulator: what the interpreter computes, in any order of warps."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import Bound, Case, cases
from random_sizes import SizedCase, sized_cases
from test_random_graphs import FOUND, SETTINGS, compare
from test_random_sizes import NUMBERS, USUAL, check

from tilewright.codegen import gpu
from tilewright.compiler.pipeline import compile_graph
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse, show
from tilewright.ptxsim.simulator import Simulator
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import SimDriver

ORDERS = (None, 1)


def on_device(case: Case, architecture: str, order: int | None) -> list[np.ndarray]:
    """The results of a case's graph."""
    target = gpu.named(f"sim:{architecture}")
    plan = compile_graph(case.graph, target).plan
    driver = SimDriver(Simulator(order))
    return gpu_executable(plan, gpu.build(plan, target), driver)(case.arrays())


@pytest.mark.parametrize("architecture, order", [("sm_50", None), ("sm_90a", 1)])
@settings(max_examples=25, **SETTINGS)
@given(cases())
def test_ptx_keeps_the_meaning(architecture: str, order: int | None, case: Case) -> None:
    hypothesis.note(show(case.graph))
    want = run_graph(case.graph, case.arrays())
    compare(case, on_device(case, architecture, order), want)


@settings(max_examples=15, **SETTINGS)
@given(sized_cases())
def test_ptx_serves_all_sizes(case: SizedCase) -> None:
    hypothesis.note(show(case.graph))
    target = gpu.named("sim")
    plan = compile_graph(case.graph, target, hints=USUAL).plan
    run = gpu_executable(plan, gpu.build(plan, target), SimDriver())
    for sizes in NUMBERS:
        check(case, run, sizes)


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.tw")), ids=lambda p: p.stem)
def test_what_was_found_before(path: Path) -> None:
    graph = parse(path.read_text())
    assert isinstance(graph, Graph)
    case = Case(graph, (Bound(),) * len(graph.outputs), 1)
    want = run_graph(graph, case.arrays())
    for order in ORDERS:
        compare(case, on_device(case, "sm_80", order), want)
