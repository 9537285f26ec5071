"""The cases in tilewright, on a device, timed by its events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tilewright_steps
from cases import Case

import tilewright as tw
from tilewright import config
from tilewright.runtime.gpu.devices import device_named

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "pointwise": lambda x, y, z: np.tanh(x) * y + z,
    "softmax": tilewright_steps.softmax,
    "layer_norm": tilewright_steps.layer_norm,
    "cross_entropy": tw.grad(tw.nn.cross_entropy),
    "gemm": lambda a, b: a @ b,
    "attention": lambda q, k, v: tilewright_steps.softmax(
        (q @ k.swapaxes(1, 2)).astype(np.float32) * q.shape[-1] ** -0.5).astype(q.dtype) @ v,
}
"""By the kind of case; training steps are those of ``benchmarks/tilewright_steps.py``."""


class Ours:
    """tilewright on one device."""

    name = "tilewright"

    def __init__(self, device: str) -> None:
        self.device = device_named(device)
        self.driver = self.device.driver

    def precision(self, case: Case) -> AbstractContextManager[None]:
        """The switch that a case needs, while it is compiled."""
        return config.override(tf32=1) if case.precision == "tf32" else nullcontext()

    def make(self, case: Case, inputs: tuple[Any, ...], copies: int) -> list[Callable[[], Any]]:
        """A call per copy of the inputs on the device; each gives the result that is checked."""
        if case.truth is None:
            steps = tilewright_steps.steps()[case.kind]
            return [steps(*tw.to_device(inputs, self.driver.name))]
        compiled = tw.jit(FUNCTIONS[case.kind])
        sets = [tw.to_device(inputs, self.driver.name) for _ in range(copies)]
        return [lambda own=own: compiled(*own) for own in sets]

    def numbers(self, result: Any) -> np.ndarray:
        """A result as a NumPy array; of a training step its loss."""
        while isinstance(result, tuple | list):
            result = result[0]
        return np.asarray(result)

    def measure(self, calls: list[Callable[[], Any]], count: int) -> float:
        """Milliseconds per call of so many, one after another, by the device's clock."""
        with self.driver.lock:
            start = self.driver.record()
        for i in range(count):
            calls[i % len(calls)]()
        with self.driver.lock:
            end = self.driver.record()
            self.driver.synchronise()
            return self.driver.elapsed(start, end) / count

    def copy_rate(self, nbytes: int = 1 << 29, times: int = 20) -> float:
        """Bytes per second that the device copies, read and written counted."""
        driver = self.driver
        with driver.lock:
            source, target = driver.allocate(nbytes), driver.allocate(nbytes)
            driver.fill(source, 1, nbytes)
            driver.copy(target, source, nbytes)
            start = driver.record()
            for _ in range(times):
                driver.copy(target, source, nbytes)
            end = driver.record()
            driver.synchronise()
            seconds = driver.elapsed(start, end) / 1e3
            driver.free(source)
            driver.free(target)
        return 2 * nbytes * times / seconds
