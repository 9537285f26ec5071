"""Random graphs: whatever the compiler makes of them computes what the interpreter computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import Bound, Case, assert_same, cases

from tilewright import config
from tilewright.codegen.cpu import TIERS, build, host_target
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import GRAPH, compile_graph
from tilewright.compiler.target import Target
from tilewright.errors import UserError
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse, show
from tilewright.runtime.executable import Executable

TARGETS = (
    Target("wide", 64, 32, 1 << 15, 1 << 20, 1 << 25, "", "", ""),
    Target("narrow", 16, 16, 1 << 15, 1 << 18, 1 << 22, "", "", "", masked=False, fma=False),
)
FOUND = Path(__file__).parent / "found"
"""Graphs that were once compiled wrongly."""
SETTINGS: dict[str, Any] = {
    "deadline": None, "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


def compare(case: Case, got: list[np.ndarray], want: list[np.ndarray]) -> None:
    """All results agree."""
    for a, b, node, bound in zip(got, want, case.graph.outputs, case.bounds, strict=True):
        assert_same(a, b, node.dtype, bound)


@settings(max_examples=150, **SETTINGS)
@given(cases())
def test_passes_keep_the_meaning(case: Case) -> None:
    arrays = case.arrays()
    want = run_graph(case.graph, arrays)
    hypothesis.note(show(case.graph))
    graph = case.graph
    for transform in GRAPH:
        graph = transform(graph, TARGETS[0])
        hypothesis.note(f"{transform.__name__}:\n{show(graph)}")
        compare(case, run_graph(graph, arrays), want)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@settings(max_examples=60, **SETTINGS)
@given(cases())
def test_plans_keep_the_meaning(target: Target, case: Case) -> None:
    arrays = case.arrays()
    want = run_graph(case.graph, arrays)
    hypothesis.note(show(case.graph))
    with config.override(verify=1):
        compiled = compile_graph(case.graph, target)
    for threads, backwards in ((1, False), (2, True)):
        compare(case, run_plan(compiled.plan, arrays, threads, backwards), want)


def host_tiers() -> list[str]:
    """The CPU tiers that this machine can run."""
    names = []
    for name in TIERS:
        try:
            names.append(host_target(name).name)
        except UserError:
            continue
    return names


@pytest.mark.parametrize("tier", host_tiers())
@settings(max_examples=40, **SETTINGS)
@given(cases())
def test_machine_code_keeps_the_meaning(tier: str, case: Case) -> None:
    arrays = case.arrays()
    want = run_graph(case.graph, arrays)
    hypothesis.note(show(case.graph))
    target = host_target(tier)
    plan = compile_graph(case.graph, target).plan
    compare(case, Executable(plan, build(plan, target))(arrays), want)


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.tw")), ids=lambda p: p.stem)
def test_what_was_found_before(path: Path) -> None:
    graph = parse(path.read_text())
    assert isinstance(graph, Graph)
    case = Case(graph, (Bound(),) * len(graph.outputs), 1)
    arrays = case.arrays()
    want = run_graph(graph, arrays)
    with config.override(verify=1):
        for target in TARGETS:
            compare(case, run_plan(compile_graph(graph, target).plan, arrays, 2, True), want)
    for tier in host_tiers():
        target = host_target(tier)
        plan = compile_graph(graph, target).plan
        compare(case, Executable(plan, build(plan, target))(arrays), want)
