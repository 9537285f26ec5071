"""PyTorch's OpenMP threads, which go on spinning for a while after each of its operators.

On a machine whose cores are all in use, a thread that spins takes one of them away from our team:
a step that alternates between a compiled program and PyTorch's optimiser is a third slower. OpenMP
5.0 has a call that ends a thread pool's threads; the next parallel region starts new ones.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch

SOFT = 1
"""``omp_pause_soft``: what the program set stays as it is."""

NAMES = ("libgomp*", "libiomp5*", "libomp*")


@functools.cache
def _pause() -> Callable[[int], int] | None:
    """OpenMP's function in the library that PyTorch brought along; None if there is none."""
    folder = Path(torch.__file__).parent / "lib"
    for path in (p for name in NAMES for p in sorted(folder.glob(name))):
        try:
            found: Callable[[int], int] = ctypes.CDLL(str(path)).omp_pause_resource_all
        except (OSError, AttributeError):  # another system's file, or OpenMP before 5.0
            continue
        return found
    return None


def release_threads() -> bool:
    """End the OpenMP threads that wait for work of the calling thread; False where that is not
    possible.
    """
    pause = _pause()
    return pause is not None and pause(SOFT) == 0
