"""Kernels of data/blocks.cu, by CUB and the CUDA headers: right in every schedule, no races."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.simulator import Simulator

RNG = np.random.default_rng(8)
N = 128
VALUES = RNG.integers(-99, 99, (6, N)).astype(np.int32)
KEYS = RNG.integers(0, 256, 2 * N).astype(np.int32)


def run(simulator: Simulator, text: str, kernel: str, source: np.ndarray, size: int,
        *more: int, blocks: int = 1) -> np.ndarray:
    out = np.zeros(size, np.int32)
    simulator.run(text, kernel, (blocks,), (N,), [source, out, *more])
    return out


@pytest.mark.parametrize("kernel", ["reduce_raking", "reduce_warps"])
def test_sums(simulator: Simulator, cuda, kernel: str) -> None:
    out = run(simulator, cuda("blocks"), kernel, VALUES, 3, blocks=3)
    assert np.array_equal(out, VALUES[:3].sum(1))


@pytest.mark.parametrize("kernel", ["scan_raking", "scan_warps"])
def test_two_scans_in_one_memory(simulator: Simulator, cuda, kernel: str) -> None:
    out = run(simulator, cuda("blocks"), kernel, VALUES, 2 * N, blocks=2)
    assert np.array_equal(out.reshape(2, N), 2 * VALUES[:2].cumsum(1) - VALUES[:2])


@pytest.mark.parametrize("kernel", ["radix_sort", "merge_sort"])
def test_sorts(simulator: Simulator, cuda, kernel: str) -> None:
    assert np.array_equal(run(simulator, cuda("blocks"), kernel, KEYS, 2 * N), np.sort(KEYS))


def test_parts_of_a_warp_meet(simulator: Simulator, cuda) -> None:
    out = run(simulator, cuda("blocks"), "tiles", VALUES, N)
    t = np.arange(N)
    odd = t % 2 * ((t ^ 2) % 32 // 2)
    assert np.array_equal(out, VALUES[0].reshape(-1, 8).sum(1)[t // 8] + odd)


def test_a_pipeline_that_all_fill(simulator: Simulator, cuda) -> None:
    out = run(simulator, cuda("blocks"), "pipeline_of_all", VALUES, N, 6)
    assert np.array_equal(out, VALUES[:, ::-1].sum(0))


def test_a_pipeline_that_one_warp_fills(simulator: Simulator, cuda) -> None:
    out = run(simulator, cuda("blocks"), "pipeline_of_roles", VALUES, N, 6)
    assert np.array_equal(out[32:], VALUES[:, ::-1].sum(0)[32:])
