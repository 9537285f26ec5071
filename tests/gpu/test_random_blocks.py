"""Random kernels for blocks of threads: their PTX against the interpreter, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from block_kernels import run
from random_blocks import DTYPES, SIZE, Writer

from tilewright.ir.interp import run_kernel
from tilewright.ir.text import parse
from tilewright.ir.types import DTYPES as TYPES
from tilewright.ir.verify import verify
from tilewright.ptxsim.simulator import Simulator

SEEDS = range(12)


def arrays(seed: int) -> list[np.ndarray]:
    """Small whole numbers, so that sums are exact."""
    random = np.random.default_rng(seed)
    found = []
    for name in DTYPES:
        dtype = TYPES[name].numpy
        low = 0 if name == "u8" else -20
        found += [random.integers(low, 20, SIZE).astype(dtype), np.zeros(SIZE // 2, dtype)]
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_ptx_does_what_the_interpreter_does(seed: int) -> None:
    text = Writer(seed).kernel()
    kernel = parse(text)
    verify(kernel)
    want = arrays(seed)
    run_kernel(kernel, want)
    architecture = ("sm_50", "sm_75", "sm_80", "sm_90a")[seed % 4]
    schedule = None if seed % 3 == 0 else seed
    got = run(text, arrays(seed), architecture, Simulator(schedule))
    for name, a, b in zip([d for d in DTYPES for _ in range(2)], got, want, strict=True):
        np.testing.assert_array_equal(
            a.astype(np.float64), b.astype(np.float64), f"{name}\n{text}")
