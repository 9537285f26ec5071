"""The order of kernels that leaves the least in memory between them.

A list schedule in the manner of R. Sethi and J. D. Ullman ("The Generation of Optimal Code for
Arithmetic Expressions", 1970) for a graph of kernels: what lets go of at least as much memory as it
takes runs as soon as it can; of the rest, what most others are waiting for. So the gradient of a
weight is computed when both of its operands are there, and what is computed again for the backward
pass of a layer when that layer has its turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import Generic, TypeVar

from tilewright.compiler.topology import ordered

K = TypeVar("K")
V = TypeVar("V")


def launch_order(
    before: Mapping[K, Collection[K]], reads: Mapping[K, Collection[V]],
    makes: Mapping[K, Collection[V]], size: Mapping[V, int],
) -> list[K]:
    """The keys, each after those ``before`` it.

    ``reads`` and ``makes`` are the values that a kernel reads and stores; ``size`` has the bytes
    of those whose memory is used again once nobody reads them, which results' is not.
    Raises :class:`~tilewright.compiler.topology.Cycles` if there is no order.
    """
    return _Schedule(ordered(before), before, reads, makes, size).run()


class _Schedule(Generic[K, V]):
    """What is done, what is ready, and who still reads what."""

    def __init__(
        self, keys: Sequence[K], before: Mapping[K, Collection[K]],
        reads: Mapping[K, Collection[V]], makes: Mapping[K, Collection[V]],
        size: Mapping[V, int],
    ) -> None:
        self.reads = {k: [v for v in dict.fromkeys(reads[k]) if v in size] for k in keys}
        self.taken = {k: sum(size.get(v, 0) for v in makes[k]) for k in keys}
        self.size = size
        self.place = {k: i for i, k in enumerate(before)}
        self.after: dict[K, list[K]] = {k: [] for k in keys}
        for k in keys:
            for b in before[k]:
                self.after[b].append(k)
        self.waits = {k: len(before[k]) for k in keys}
        self.height = dict.fromkeys(keys, 0)
        for k in reversed(keys):
            self.height[k] = 1 + max((self.height[a] for a in self.after[k]), default=0)
        self.readers: dict[V, dict[K, None]] = {}
        for k in keys:
            for v in self.reads[k]:
                self.readers.setdefault(v, {})[k] = None
        self.done: set[K] = set()
        self.free: list[tuple[int, int, K]] = []
        self.rest: list[tuple[int, int, K]] = []

    def run(self) -> list[K]:
        """The keys in order."""
        result: list[K] = []
        for k, count in self.waits.items():
            if not count:
                self._offer(k)
        while self.free or self.rest:
            k = heapq.heappop(self.free or self.rest)[2]
            if k in self.done:
                continue
            self.done.add(k)
            result.append(k)
            for v in self.reads[k]:
                readers = self.readers[v]
                del readers[k]
                if len(readers) == 1:
                    (last,) = readers
                    if not self.waits[last]:
                        self._offer(last)
            for a in self.after[k]:
                self.waits[a] -= 1
                if not self.waits[a]:
                    self._offer(a)
        return result

    def _offer(self, k: K) -> None:
        """Enter a key that is ready; it may be entered twice."""
        freed = sum(self.size[v] for v in self.reads[k] if len(self.readers[v]) == 1)
        place = self.place[k]
        # Numbers of their own keep the heap from comparing keys.
        if self.taken[k] <= freed:
            heapq.heappush(self.free, (place, 0, k))
        heapq.heappush(self.rest, (-self.height[k], place, k))
