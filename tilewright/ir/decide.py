"""Who answers questions about sizes whose answers depend on the numbers of names: who traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from tilewright.errors import UnsupportedSize


class Undecided(UnsupportedSize):
    """A comparison of sizes whose answer depends on the values of names."""


class Decider(Protocol):
    """Who answers questions that depend on the values of names, and remembers the answers."""

    def __call__(self, a: Any, relation: str, b: Any) -> bool:
        """Whether ``a < b``, or whatever ``relation`` says."""

    def number(self, size: Any) -> int:
        """The number that a size has."""


_decider: ContextVar[Decider | None] = ContextVar("tilewright_decider", default=None)


@contextmanager
def deciding(decider: Decider) -> Iterator[None]:
    """Inside of it, ``decider`` answers what the arithmetic of sizes leaves open."""
    token = _decider.set(decider)
    try:
        yield
    finally:
        _decider.reset(token)


def decide(a: Any, relation: str, b: Any) -> bool | None:
    """The decider's answer, if there is one."""
    decider = _decider.get()
    return None if decider is None else decider(a, relation, b)


def number_of(size: Any) -> int:
    """The number of a size, from the decider. Raises ``UnsupportedSize`` if there is none."""
    decider = _decider.get()
    if decider is None:
        raise UnsupportedSize(f"the size {size} is known when the program runs")
    return decider.number(size)
