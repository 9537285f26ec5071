"""Bulk copies under way: groups that a thread waits for, mbarriers that count their bytes.

Hardware may perform a copy at any time between its issue and the end of the wait for it. The
simulator knows two extremes: eager copies happen at issue; lazy ones read their source and write
their target as late as a wait allows, and poison a target in shared memory at issue, so that a
missing or wrong wait shows in the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Data = NDArray[Any]


@dataclass
class Transfer:
    """One copy: `source` reads, `target` writes and tells an mbarrier; each happens once.

    told  what a wait for it tells the thread that waits, if races are watched
    """

    source: Callable[[], Data]
    target: Callable[[Data], None]
    what: str
    told: Any = None
    data: Data | None = None
    written: bool = False

    def read(self) -> Data:
        """Take the source as it is now, if that was not done before."""
        if self.data is None:
            self.data = self.source()
        return self.data

    def write(self) -> None:
        """Write the target, if that was not done before."""
        if not self.written:
            self.written = True
            self.target(self.read())


Group = list[Transfer]


class BulkCopies:
    """The bulk copies of one block, by the thread whose group or the mbarrier that waits."""

    def __init__(self, lazy: bool) -> None:
        self.lazy = lazy
        self.open: dict[int, Group] = defaultdict(list)
        self.committed: dict[int, list[Group]] = defaultdict(list)
        self.at_barrier: dict[int, Group] = defaultdict(list)

    def count_at_barrier(self, address: int, transfer: Transfer) -> None:
        """Start a copy whose bytes the mbarrier at `address` counts."""
        self._start(transfer)
        if self.lazy:
            self.at_barrier[address].append(transfer)

    def put_in_group(self, thread: int, transfer: Transfer) -> None:
        """Start a copy that belongs to the next group that `thread` commits."""
        self._start(transfer)
        self.open[thread].append(transfer)

    def _start(self, transfer: Transfer) -> None:
        if not self.lazy:
            transfer.write()

    def deliver(self, address: int) -> None:
        """Perform what the mbarrier at `address` counts: somebody waits there."""
        for transfer in self.at_barrier.pop(address, ()):
            transfer.write()

    def commit(self, threads: Iterable[int]) -> None:
        """`cp.async.bulk.commit_group`: an empty group counts too."""
        for thread in threads:
            self.committed[thread].append(self.open.pop(thread, []))

    def wait(self, threads: Iterable[int], most: int, reads: bool) -> list[Transfer]:
        """Finish all but the `most` youngest groups of each thread; `reads`: only their reads."""
        finished = []
        for thread in threads:
            groups = self.committed[thread]
            finished += [t for group in groups[: max(0, len(groups) - most)] for t in group]
            if not reads and len(groups) > most:
                del groups[: len(groups) - most]
        for transfer in finished:
            transfer.read() if reads else transfer.write()
        return finished

    def unread(self) -> list[str]:
        """Copies from shared memory that no wait has seen: their block must not end yet."""
        waiting = [*self.open.values(), *(g for gs in self.committed.values() for g in gs)]
        return [t.what for group in waiting for t in group if t.data is None]

    def finish(self) -> None:
        """The end of the block: all writes happen."""
        groups = [g for gs in self.committed.values() for g in gs]
        for group in (*groups, *self.open.values(), *self.at_barrier.values()):
            for transfer in group:
                transfer.write()
