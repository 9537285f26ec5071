"""The simulator as a device: the PTX runs here, on NumPy."""

from __future__ import annotations

import functools
import threading
from collections import deque
from contextlib import AbstractContextManager

import numpy as np

from tilewright.errors import CompilerBug
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.simulator import Program, Simulator


class SimDriver:
    """A device that any machine has; slow, and strict: see :mod:`tilewright.ptxsim`."""

    def __init__(self, simulator: Simulator | None = None) -> None:
        from tilewright.codegen.gpu.architectures import NEWEST_PTX

        self.name, self.capability, self.ptx = "sim", (9, 0), NEWEST_PTX
        self.simulator = simulator or Simulator()
        self.lock: AbstractContextManager[object] = threading.RLock()
        self._discarded: deque[int] = deque()

    def allocate(self, nbytes: int) -> int:
        while self._discarded:
            self.free(self._discarded.popleft())
        return self.simulator.memory.allocate(max(nbytes, 1))

    def free(self, address: int) -> None:
        self.simulator.memory.free(address)

    def discard(self, address: int) -> None:
        self._discarded.append(address)

    def write(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self.simulator.memory.put(address, array.reshape(-1).view(np.uint8))

    def read(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            raw = self.simulator.memory.get(address, array.nbytes)
            array.reshape(-1).view(np.uint8)[...] = raw

    def copy(self, address: int, source: int, nbytes: int) -> None:
        if nbytes:
            self.simulator.memory.put(address, self.simulator.memory.get(source, nbytes).copy())

    def load(self, ptx: str) -> Program:
        return self.simulator.load(ptx)

    def launch(
        self, module: Program, kernel: str, blocks: int, threads: int, arguments: tuple[int, ...]
    ) -> None:
        try:
            self.simulator.launch(module, kernel, (blocks,), (threads,), arguments)
        except Fault as fault:
            raise CompilerBug(f"the code for a GPU is wrong: {fault}") from fault


@functools.cache
def sim_driver() -> SimDriver:
    """The simulator that programs run on unless they are given one."""
    return SimDriver()
