"""Functions on a GPU's schedules: kernels that keep the rules, their interpreter, the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tilewright as tw
from tilewright.codegen import gpu
from tilewright.codegen.gpu.program import GpuProgram
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.plan import Plan
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.verify import verify
from tilewright.ptxsim.simulator import Simulator
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import SimDriver

Arrays = Sequence[np.ndarray]

CLOSE = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""How far sums in another order may be apart, of the largest element of a result."""


def plan_of(graph: Graph, architecture: str = "sm_80", **hints: int) -> Plan:
    """The plan of a graph, whose kernels keep the rules."""
    plan = compile_graph(graph, gpu.named(f"sim:{architecture}"), hints=hints or None).plan
    for launch in plan.launches:
        verify(launch.kernel)
    return plan


def program_of(f: Callable[..., Any], *arrays: np.ndarray, architecture: str) -> GpuProgram:
    """The PTX of a function."""
    plan = plan_of(tw.jit(f).trace(*arrays), architecture)
    return gpu.build(plan, gpu.named(f"sim:{architecture}"))


def agree(f: Callable[..., Any], *arrays: np.ndarray, architecture: str = "sm_80") -> Plan:
    """A function's results are those of its graph: see :func:`graph_agrees`; returns the plan."""
    return graph_agrees(tw.jit(f).trace(*arrays), arrays, architecture)


def graph_agrees(
    graph: Graph, arrays: Arrays, architecture: str = "sm_80", interpreted: bool = True
) -> Plan:
    """The interpreter of kernels, which tells races, and the simulator give what the graph means.

    The bits are the same for warps in lockstep and in a random order.
    """
    plan = plan_of(graph, architecture)
    with np.errstate(all="ignore"):
        want = run_graph(graph, arrays)
    if interpreted:
        compare(run_plan(plan, arrays, 2), want)
    program = gpu.build(plan, gpu.named(f"sim:{architecture}"))
    first = None
    for order in (None, 1):
        got = gpu_executable(plan, program, SimDriver(Simulator(order)))(arrays)
        compare(got, want)
        for a, b in zip(first or got, got, strict=True):
            np.testing.assert_array_equal(a, b)
        first = got
    return plan


def compare(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> None:
    """Equal, floats up to the order of sums."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        close = CLOSE.get(b.dtype.name)
        if close is None:
            np.testing.assert_array_equal(a, b)
            continue
        wide = b.astype(np.float64)
        known = wide[np.isfinite(wide)]
        size = float(np.abs(known).max()) if known.size else 0.0
        np.testing.assert_allclose(a.astype(np.float64), wide, rtol=close, atol=close * size)
