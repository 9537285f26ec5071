"""How many threads this process may sensibly run at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """What limits the number of threads.

    affinity  hardware threads that the process may be scheduled on
    cores     cores that these belong to: two hardware threads of a core share its vector units
    quota     processors that the tightest control group around the process allows; None: no limit
    """

    affinity: int
    cores: int
    quota: float | None

    @property
    def available(self) -> int:
        """Threads that may sensibly run at once; at least 1."""
        allowed = self.cores if self.quota is None else min(self.cores, -int(-self.quota // 1))
        return max(1, allowed)


def find_cores(root: Path = Path("/")) -> Cores:
    """The limits of this process: its affinity mask and, on Linux, its control groups.

    ``root`` is where ``proc`` and ``sys`` are found.
    """
    if hasattr(os, "sched_getaffinity"):
        numbers = sorted(os.sched_getaffinity(0))
    else:
        numbers = list(range(os.cpu_count() or 1))
    quotas = _quotas(root) if sys.platform == "linux" else ()
    cores = {_core_of(root, number) for number in numbers}
    return Cores(len(numbers), len(cores), min(quotas, default=None))


def available_cores(root: Path = Path("/")) -> int:
    """The number of threads that this process may sensibly run at once."""
    return find_cores(root).available


def _core_of(root: Path, number: int) -> str:
    """A name that the hardware threads of one core share."""
    siblings = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
    return _read(siblings) or str(number)


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group around this process allows."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for group in _upwards(root / "sys/fs/cgroup", path):
                quota, _, period = _read(group / "cpu.max").partition(" ")
                yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for group in _upwards(root / "sys/fs/cgroup" / controllers, path):
                period = _read(group / "cpu.cfs_period_us")
                yield from _quota(_read(group / "cpu.cfs_quota_us"), period)


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """The control group's folder and those above it, down to ``base``.

    Inside a container the path may not exist under ``base``, which then is the container's group.
    """
    folder = base / path.strip("/")
    while folder != base and base in folder.parents:
        yield folder
        folder = folder.parent
    yield base


def _quota(quota: str, period: str) -> Iterator[float]:
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
