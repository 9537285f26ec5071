"""How long a program will roughly take, and so on how many threads it is worth running."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler.plan import Plan
from tilewright.ir.types import as_number

FLOPS_PER_SECOND = 30e9
BYTES_PER_SECOND = 20e9
LAUNCH_SECONDS = 50e-9
"""Of one core, cautiously: rough is enough, the decisions below are about orders of magnitude."""

HOLD_LOCK_BELOW = 10e-6
"""Seconds below which handing the interpreter lock over costs more than others gain from it."""
ALONE_BELOW = 20e-6
"""Seconds below which waking and joining a team costs more than it gives."""
WAKE_FROM = 100e-6
"""Seconds from which it pays to wait until workers that sleep have woken up."""
SHARE = 5e-6
"""Seconds of work that one more thread must find."""


@dataclass(frozen=True, slots=True)
class Work:
    """How to run a program.

    mode  0: on the calling thread with the interpreter lock held, 1: there without the lock,
          2: on a team of up to ``most_threads``, without the lock, of workers that are awake,
          3: the same, and workers that sleep are woken
    """

    seconds: float
    mode: int
    most_threads: int


def estimate(plan: Plan) -> Work:
    """The work of one run of a plan on one core, and how to run it."""
    seconds = sum(
        LAUNCH_SECONDS
        + max(
            as_number(launch.flops) / FLOPS_PER_SECOND, as_number(launch.bytes) / BYTES_PER_SECOND)
        for launch in plan.launches
    )
    if seconds < HOLD_LOCK_BELOW:
        return Work(seconds, 0, 1)
    if seconds < ALONE_BELOW:
        return Work(seconds, 1, 1)
    return Work(seconds, 2 if seconds < WAKE_FROM else 3, int(seconds / SHARE))
