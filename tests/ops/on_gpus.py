"""Graphs on GPUs: in the simulator, and on that of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tilewright.codegen import gpu
from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import DeviceError
from tilewright.ir.graph import Graph
from tilewright.runtime.gpu.drivers import driver_named, target_of
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import SimDriver

Executor = Callable[[Graph, Sequence[np.ndarray]], list[np.ndarray]]


def on_gpu(architecture: str) -> Executor:
    """PTX for an architecture, in the simulator."""
    target = gpu.named(f"sim:{architecture}")

    def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        plan = compile_graph(graph, target).plan
        return gpu_executable(plan, gpu.build(plan, target), SimDriver())(arrays)
    return run


def on_hardware() -> Executor:
    """Code for the GPU of this machine, run there. Skips the test where there is none."""
    try:
        target, driver = target_of("cuda"), driver_named("cuda")
    except DeviceError as error:
        pytest.skip(error.what)

    def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        plan = compile_graph(graph, target).plan
        return gpu_executable(plan, gpu.build(plan, target), driver)(arrays)
    return run
