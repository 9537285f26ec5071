"""A program's launches as captured graphs.

A graph that is replayed costs about as much as one launch. It holds addresses, and where the
program finds others, those of its launches that are given them have to be told. Memory of a device
is handed out so that a program that runs again and again finds the same blocks: parameters that are
donated stay where they are, and what a step gives back the next one takes. Another batch each time
concerns the few launches that read it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.runtime.gpu.driver import Argument, Driver

FEWEST = 2
"""Launches of a program for which a graph is worth it."""

MOST_GRAPHS, MOST_MET = 8, 32

ALONE = 2
"""Calls whose launches are done one by one, where no addresses come again."""

Addresses = tuple[int, ...]


class Graphs:
    """The graphs of a program by the addresses that it runs on.

    readers   per address, the numbers of the launches that have it in their arguments
    launches  how many the program has
    captured, replayed, updated   how many graphs there were, and launches that were changed in them
    """

    def __init__(self, driver: Driver, readers: Sequence[Sequence[int]], launches: int) -> None:
        self.driver, self.readers, self.launches = driver, readers, launches
        self.captured = self.replayed = self.updated = 0
        self._made: OrderedDict[Addresses, Any] = OrderedDict()
        self._met: OrderedDict[Addresses, None] = OrderedDict()

    def run(
        self, addresses: Addresses, work: Callable[[], None],
        arguments: Callable[[int], tuple[Argument, ...]],
    ) -> None:
        """Do the launches, copies and fills that ``work`` asks for, always the same for the same
        addresses. ``arguments`` are those of a launch by its number.

        The first calls do them one by one; then they are a graph. Addresses that come again, or
        that change most launches of every graph, have one of their own, while there is room;
        others change one.
        """
        graph = self._made.get(addresses)
        if graph is None:
            again, nearest, changes = addresses in self._met, *self._nearest(addresses)
            remember(self._met, addresses, None, MOST_MET)
            if nearest is None and not again and len(self._met) <= ALONE:
                work()
                return
            room = len(self._made) < MOST_GRAPHS
            if nearest is None or room and (again or 2 * len(changes) > self.launches):
                graph = self.driver.capture(work)
                self.captured += 1
            else:
                graph = self._made.pop(nearest)
                for launch in changes:
                    self.driver.update(graph, launch, arguments(launch))
                self.updated += len(changes)
        remember(self._made, addresses, graph, MOST_GRAPHS)
        self.driver.replay(graph)
        self.replayed += 1

    def _nearest(self, addresses: Addresses) -> tuple[Addresses | None, Sequence[int]]:
        """The addresses of the graph of which the fewest launches are to be changed, and these."""
        nearest: Addresses | None = None
        fewest: Sequence[int] = ()
        for known in self._made:
            changes = self._changes(known, addresses)
            if nearest is None or len(changes) < len(fewest):
                nearest, fewest = known, changes
        return nearest, fewest

    def _changes(self, known: Addresses, addresses: Addresses) -> list[int]:
        """The launches that differ between addresses."""
        pairs = enumerate(zip(known, addresses, strict=True))
        return sorted({launch for i, (a, b) in pairs if a != b for launch in self.readers[i]})


def remember(
    known: OrderedDict[tuple[int, ...], Any], key: tuple[int, ...], value: Any, most: int
) -> None:
    """Enter a value as the latest, and drop what was not used longest beyond so many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
