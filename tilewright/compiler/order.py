"""Which launches must wait for earlier ones, and which buffers may share memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.ir.sizes import Dim
from tilewright.ir.types import as_number

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Access:
    """A launch touches bytes ``start`` to ``stop`` of a piece of memory."""

    space: Hashable
    start: int
    stop: int
    writes: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What one launch touches; ``inner`` if the whole team meets inside its kernel."""

    accesses: tuple[Access, ...]
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A buffer's bytes and the epochs, first and last, in which it is touched."""

    nbytes: Dim
    first: int
    last: int


def barriers(steps: Sequence[Step]) -> list[bool]:
    """Per launch: must the team meet before it?

    It must if the launch touches bytes that a launch since the last meeting wrote, or writes bytes
    that one of them read. A kernel with a barrier inside is a meeting too, but only for the
    launches before it: what the kernel itself touches stays in flight.
    """
    result = []
    in_flight: dict[Hashable, list[Access]] = {}
    for step in steps:
        wait = any(
            (a.writes or b.writes) and a.start < b.stop and b.start < a.stop
            for a in step.accesses for b in in_flight.get(a.space, ())
        )
        result.append(wait)
        if wait or step.inner:
            in_flight = {}
        for access in step.accesses:
            in_flight.setdefault(access.space, []).append(access)
    return result


def epochs(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Per launch: how many times the team has met when it begins, and when it ends."""
    result = []
    now = 0
    for step, wait in zip(steps, barriers(steps), strict=True):
        now += wait
        result.append((now, now + step.inner))
        now += step.inner
    return result


def place(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """A byte offset for each interval, and the total; those alive in a common epoch never overlap.

    The largest are placed first, each in the smallest gap that holds it, at multiples of 64 bytes.
    Raises ``TypeError`` for an interval whose size is no number.
    """
    sizes = [as_number(i.nbytes) for i in intervals]
    offsets = [0] * len(intervals)
    # First and last epoch, first and last byte of what is placed, in the order of first bytes.
    placed = np.empty((4, 0), np.int64)
    for i in sorted(range(len(intervals)), key=lambda i: (-sizes[i], i)):
        interval = intervals[i]
        size = -(-sizes[i] // ALIGNMENT) * ALIGNMENT
        first, last, start, stop = placed
        together = (first <= interval.last) & (last >= interval.first)
        offset = offsets[i] = best_gap(start[together], stop[together], size)
        here = int(np.searchsorted(start, offset))
        placed = np.insert(
            placed, here, (interval.first, interval.last, offset, offset + size), axis=1)
    return offsets, int(placed[3].max(initial=0))


def best_gap(starts: np.ndarray, stops: np.ndarray, size: int) -> int:
    """The start of the smallest gap between blocks, in the order of their starts, that fits."""
    if not len(starts):
        return 0
    ends = np.maximum.accumulate(stops)
    before = np.concatenate(([0], ends[:-1]))
    gaps = starts - before
    fitting = np.flatnonzero(gaps >= size)
    if not len(fitting):
        return int(ends[-1])
    return int(before[fitting[np.argmin(gaps[fitting])]])
