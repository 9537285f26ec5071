"""Random graphs with named sizes: one program computes what the interpreter does, for any sizes."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, given, settings
from random_graphs import assert_same
from random_sizes import NUMBERS, USUAL, SizedCase, sized_cases

from tilewright.codegen.cpu import build, host_target
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.target import Target
from tilewright.errors import OutOfBounds, ShapeError
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.sizes import evaluate
from tilewright.ir.symbolic import specialise
from tilewright.ir.text import parse, show
from tilewright.ir.verify import verify
from tilewright.runtime.executable import SizedExecutable

SETTINGS: dict[str, Any] = {
    "deadline": None, "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
NARROW = Target(
    "narrow", 16, 16, 1 << 15, 1 << 18, 1 << 22, "", "", "", masked=False, fma=False)


def meaning(case: SizedCase, sizes: dict[str, int]) -> list[np.ndarray] | None:
    """The results for these sizes; None where the graph makes no sense for them."""
    try:
        return run_graph(specialise(case.graph, sizes), case.arrays(sizes))
    except (ValueError, IndexError):
        return None


def compare(case: SizedCase, got: list[np.ndarray], want: list[np.ndarray]) -> None:
    for a, b, node, bound in zip(got, want, case.graph.outputs, case.bounds, strict=True):
        assert_same(a, b, node.dtype, bound)


def check(case: SizedCase, run: Any, sizes: dict[str, int]) -> None:
    """The results agree, or neither has any."""
    if any(evaluate(d, sizes) < 0 for node in case.graph.inputs for d in node.shape):
        return
    want = meaning(case, sizes)
    arrays = case.arrays(sizes)
    hypothesis.note(f"{sizes}\n{show(case.graph)}")
    if want is None:
        # An index outside its axis is no error where nothing is made of it.
        with contextlib.suppress(ShapeError, OutOfBounds, IndexError):
            assert any(not a.size for a in run(arrays))
    else:
        compare(case, run(arrays), want)


@settings(max_examples=60, **SETTINGS)
@given(sized_cases())
def test_plans_serve_all_sizes(case: SizedCase) -> None:
    hypothesis.note(show(case.graph))
    verify(case.graph)
    assert parse(show(case.graph)).outputs == case.graph.outputs  # type: ignore[union-attr]
    compiled = compile_graph(case.graph, NARROW, hints=USUAL)
    verify(compiled.optimized)
    for lowered in compiled.kernels:
        verify(lowered.kernel)
    for number, sizes in enumerate(NUMBERS[:4]):
        check(case, lambda a, n=number: run_plan(compiled.plan, a, 2, n % 2 == 0), sizes)


@settings(max_examples=60, **SETTINGS)
@given(sized_cases())
def test_machine_code_serves_all_sizes(case: SizedCase) -> None:
    hypothesis.note(show(case.graph))
    target = host_target()
    plan = compile_graph(case.graph, target, hints=USUAL).plan
    run = SizedExecutable(plan, build(plan, target))
    for sizes in NUMBERS:
        check(case, run, sizes)


def test_graphs_are_not_trivial() -> None:
    """The strategy draws reductions, contractions and views of named sizes."""
    seen: set[str] = set()

    @settings(max_examples=500, database=None, **SETTINGS)
    @given(sized_cases())
    def collect(case: SizedCase) -> None:
        assert isinstance(case.graph, Graph)
        seen.update(node.op.name for node in case.graph.nodes())

    collect()
    assert {"sum", "contract", "reshape", "slice", "pad", "concat", "take", "exp"} <= seen
