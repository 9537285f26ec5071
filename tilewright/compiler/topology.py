"""Orders of things that rest on each other, and the cycles that make one impossible."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

T = TypeVar("T")


class Cycles(ValueError):  # noqa: N818 - not an error but a finding, for whoever can part them
    """There is no order. ``members`` are all that stand on a cycle."""

    def __init__(self, members: Collection[Any]) -> None:
        super().__init__(f"{len(members)} rest on themselves")
        self.members = members


def ordered(before: Mapping[T, Collection[T]]) -> list[T]:
    """The keys, each after those ``before`` it. Raises :class:`Cycles` if there is no order."""
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError:
        on_cycle = [m for part in components(before) if len(part) > 1 for m in part]
        raise Cycles(on_cycle + [m for m in before if m in before[m]]) from None


def components(before: Mapping[T, Collection[T]]) -> Iterator[list[T]]:
    """The strongly connected components (R. Tarjan, 1972), without recursion."""
    number: dict[T, int] = {}
    lowest: dict[T, int] = {}
    path: list[T] = []
    done: set[T] = set()
    for root in before:
        stack = [] if root in number else [(root, iter(before[root]))]
        while stack:
            node, rest = stack[-1]
            if node not in number:
                number[node] = lowest[node] = len(number)
                path.append(node)
            below = next(rest, None)
            if below is None:
                stack.pop()
                if stack:
                    parent = stack[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[node])
                if lowest[node] == number[node]:
                    part = path[path.index(node):]
                    del path[-len(part):]
                    done.update(part)
                    yield part
            elif below not in number:
                stack.append((below, iter(before.get(below, ()))))
            elif below not in done:
                lowest[node] = min(lowest[node], number[below])
