"""The workloads of the benchmarks at their real sizes: what ptxas makes of their kernels."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest

import tilewright as tw
from tilewright.codegen import gpu
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.assembler import assemble
from tilewright.compiler.pipeline import compile_graph
from tilewright.ir.graph import Graph

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import tilewright_steps as steps
import workloads

NAMES = {
    "sm_75": ("linear_2048x2048x2048_float32", "softmax_4096x1024", "column_sum_4096x4096"),
    "sm_80": ("mlp_train", "layer_norm_gelu_residual", "batched_matmul_96x256x64"),
    "sm_90a": ("linear_64x4096x1024_float32", "cross_entropy_grad_1024x8192", "gemv_4096",
               "matmul_1024_float64", "black_scholes_4M"),
    "sm_120": ("digits_step", "embedding_grad_32k", "shifted_difference_256"),
}

class Traced(Exception):
    """The graph of the function that was about to run."""


def graph_of(name: str) -> Graph:
    """What a workload compiles."""
    jit = tw.jit

    def tracing(function: Any, **options: Any) -> Any:
        def call(*inputs: Any) -> NoReturn:
            raise Traced(jit(function, **options).trace(*inputs))
        return call

    with mock.patch.object(tw, "jit", tracing), pytest.raises(Traced) as found:
        steps.steps()[workloads.WORKLOADS[name].kind](*workloads.inputs_of(name))()
    return found.value.args[0]


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture, name", [(a, n) for a in NAMES for n in NAMES[a]])
def test_nothing_is_spilled(architecture: str, name: str) -> None:
    target = gpu_target(architecture)
    program = gpu.build(compile_graph(graph_of(name), target).plan, target)
    found = assemble(program.text, architecture)
    assert not found.warnings
    for report in found.reports.values():
        assert report.stack == report.spill_stores == report.spill_loads == 0, report
