"""Arrays on the simulator and elsewhere, and what its driver is asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.frontend.array import Array
from tilewright.runtime.gpu.device import device_of
from tilewright.runtime.gpu.sim import SimDriver, sim_driver

RANDOM = np.random.default_rng(11)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def on_sim(x: Any) -> Array:
    found: Array = tw.to_device(x, "sim")
    return found


def elsewhere(x: np.ndarray) -> Array:
    """An array on another device."""
    driver = SimDriver()
    driver.name = "other"
    return Array(device_of(driver).place(x))


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what the driver of the simulator is asked for."""
    found: Counter[str] = Counter()

    def count(name: str) -> None:
        inner = getattr(sim_driver(), name)

        def call(*args: Any, **options: Any) -> Any:
            found[name] += 1
            return inner(*args, **options)
        monkeypatch.setattr(sim_driver(), name, call)

    for name in ("allocate", "free", "write", "read", "load", "launch", "capture", "replay"):
        count(name)
    return found
