"""What a device must offer so that a compiled program can run on it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np


class Driver(Protocol):
    """One device. Memory is known by its address there; work is done in the order of the calls.

    name        as a target is written: ``sim``, ``cuda:0``
    capability  major and minor number of the compute capability
    ptx         the newest PTX that it reads, 78 for 7.8
    lock        held by the thread that works with the device
    """

    name: str
    capability: tuple[int, int]
    ptx: int
    lock: AbstractContextManager[object]

    def allocate(self, nbytes: int) -> int:
        """The address of fresh memory, 256-byte aligned. Raises ``MemoryError``."""

    def free(self, address: int) -> None:
        """Give memory back, after the work that was asked for before."""

    def discard(self, address: int) -> None:
        """Free memory before the next allocation; any thread may say so, at any time."""

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy a C-contiguous array to the device."""

    def read(self, address: int, array: np.ndarray) -> None:
        """Fill a C-contiguous array from the device, after the work that was asked for before."""

    def copy(self, address: int, source: int, nbytes: int) -> None:
        """Copy within the device."""

    def load(self, ptx: str) -> Any:
        """A module of kernels. Raises ``UserError`` if the device does not take it."""

    def launch(
        self, module: Any, kernel: str, blocks: int, threads: int, arguments: tuple[int, ...]
    ) -> None:
        """Run a kernel on ``blocks`` blocks of ``threads`` threads; all arguments have 64 bits.

        What goes wrong on the device is raised here or by a later :meth:`read`.
        """
