"""A program's launches as one captured graph, for addresses that come again.

A graph holds addresses, and one that is replayed costs about as much as one launch. Memory of a
device is handed out so that a program that runs again and again finds the same blocks: parameters
that are donated stay where they are, and what a step gives back the next one takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from tilewright.runtime.gpu.driver import Driver

FEWEST = 2
"""Launches of a program for which a graph is worth it."""

MOST_GRAPHS, MOST_MET = 8, 32


class Graphs:
    """The graphs of a program by the addresses that it runs on.

    captured, replayed  how many there were
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.captured = self.replayed = 0
        self._made: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._met: OrderedDict[tuple[int, ...], None] = OrderedDict()

    def run(self, addresses: tuple[int, ...], work: Callable[[], None]) -> None:
        """Do the launches, copies and fills that ``work`` asks for, always the same for the same
        addresses: one by one at first, as a graph where the addresses have come before.
        """
        graph = self._made.get(addresses)
        if graph is None:
            if addresses not in self._met:
                remember(self._met, addresses, None, MOST_MET)
                work()
                return
            graph = self.driver.capture(work)
            self.captured += 1
        remember(self._made, addresses, graph, MOST_GRAPHS)
        self.driver.replay(graph)
        self.replayed += 1


def remember(
    known: OrderedDict[tuple[int, ...], Any], key: tuple[int, ...], value: Any, most: int
) -> None:
    """Enter a value as the latest, and drop what was not used longest beyond so many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
