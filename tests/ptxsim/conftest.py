"""Simulators of every schedule, and tensor maps of arrays in their memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.ptxsim.simulator import Simulator

sys.path.insert(0, str(Path(__file__).parent))

from on_device import OnDevice  # noqa: E402

DATA = Path(__file__).parent / "data"
WAYS = {
    f"{'lockstep' if seed is None else f'seed{seed}'}-{copies}": (seed, copies)
    for seed in (None, 1, 2) for copies in ("eager", "lazy")
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def simulator(request: Any) -> Simulator:
    """A simulator, of every schedule and way of copying in turn."""
    seed, copies = request.param
    return Simulator(seed, copies)


@pytest.fixture
def cuda() -> Callable[[str], str]:
    """The PTX that nvcc made of a file in data/."""
    return lambda name: (DATA / f"{name}.ptx").read_text()


@pytest.fixture
def on_device(simulator: Simulator) -> Callable[[np.ndarray], OnDevice]:
    """Put an array into the simulator's memory."""
    return lambda array: OnDevice(simulator, array)
