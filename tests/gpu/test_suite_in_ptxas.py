"""The workloads of the benchmarks at their real sizes: what ptxas makes of their kernels.

Some of them: benchmarks/gpu/ptxas_sweep.py goes through all.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contractions import einsum

import tilewright as tw
from tilewright.ir.graph import Graph

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import ptxas_sweep as sweep

NAMES = {
    "sm_75": ("linear_2048x2048x2048_float32", "softmax_4096x1024", "column_sum_4096x4096"),
    "sm_80": ("mlp_train", "layer_norm_gelu_residual", "batched_matmul_96x256x64"),
    "sm_90a": ("linear_64x4096x1024_float32", "cross_entropy_grad_1024x8192", "gemv_4096",
               "matmul_1024_float64", "black_scholes_4M"),
    "sm_120": ("digits_step", "embedding_grad_32k", "shifted_difference_256"),
}


def perceptron(x: Any, w: Any, b: Any) -> Any:
    """A layer of a transformer with tanh's gelu, and what its gradient needs of it."""
    t = x @ w + b
    half, square = t * 0.5, t * t
    u = np.tanh((t + square * t * 0.044715) * 0.7978846)
    return half, u + 1, half * (u + 1), 1 - u * u, square * 3


def layer() -> Graph:
    """The perceptron of gpt_train."""
    arrays = (np.zeros(shape, np.float32) for shape in ((1020, 512), (512, 2048), (2048,)))
    return tw.jit(perceptron).trace(*arrays)


def weights() -> Graph:
    """A layer's weights after a step of mlp_train, whose rows do not fill the last block."""
    return einsum("km,kn->mn", {"m": 784, "n": 1024, "k": 256}, epilogue="residual")


def shared_sums() -> Graph:
    """The gradient of gpt_train's attention weights: blocks share sums of a length of 1020."""
    return einsum("km,kn->mn", {"m": 512, "n": 1536, "k": 1020})


def output_layer() -> Graph:
    """The projection to four times fewer columns of gpt_forward."""
    return einsum("mk,kn->mn", {"m": 1024, "n": 512, "k": 2048})


TIGHT = [
    (weights, "sm_75"), (weights, "sm_90a"), (layer, "sm_75"), (layer, "sm_80"), (layer, "sm_90a"),
    (shared_sums, "sm_80"), (output_layer, "sm_90a"),
]


def clean(graph: Graph, architecture: str, most: int = 255) -> None:
    """Nothing is spilled, nothing is on the stack, there is no warning."""
    found = list(sweep.swept(graph, architecture, sweep.Known(None)))
    told = "\n".join(map(str, found))
    assert found and all(f.clean and f.report.registers <= most for f in found), told


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture, name", [(a, n) for a in NAMES for n in NAMES[a]])
def test_nothing_is_spilled(architecture: str, name: str) -> None:
    clean(sweep.graph_of(name), architecture)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("graph, architecture", TIGHT)
def test_the_sums_fill_half_of_the_registers(graph: Any, architecture: str) -> None:
    """64 sums of a thread, operands on their way and an epilogue: what was short of registers."""
    clean(graph(), architecture, 144)


def test_a_sweep_tells_what_is_spilled() -> None:
    spilled = sweep.Report("f", 255, 0, 16, 8, 8)
    assert not sweep.Found("f", 128, 0, spilled, ()).clean
    assert not sweep.Found("f", 128, 0, sweep.Report("f", 32), ("C7510 waits",)).clean
    assert sweep.Found("f", 128, 0, sweep.Report("f", 255), ()).clean
    assert "255 registers" in str(sweep.Found("f", 128, 0, spilled, ()))
