"""What named sizes may well be: guesses for decisions that are right for every number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from tilewright.ir.sizes import Dim, evaluate, names_of

UNKNOWN_HINT = 64
"""What :func:`estimate` takes a name for that has no hint."""

_hints: ContextVar[Mapping[str, int] | None] = ContextVar("tilewright_hints", default=None)


@contextmanager
def hints(values: Mapping[str, int]) -> Iterator[None]:
    """Inside of it, :func:`estimate` takes the names for these numbers."""
    token = _hints.set(values)
    try:
        yield
    finally:
        _hints.reset(token)


def hinted() -> frozenset[str]:
    """The names of the graph that is being compiled."""
    known = _hints.get()
    return frozenset(known) if known else frozenset()


def hint_values() -> tuple[tuple[str, int], ...]:
    """The names of the graph that is being compiled, and what they are taken for."""
    return tuple(sorted((_hints.get() or {}).items()))


def estimate(dim: Dim) -> int:
    """A number that the size may well have, for decisions that are right for every number."""
    if isinstance(dim, int):
        return dim
    known = _hints.get() or {}
    values = {name: known.get(name, UNKNOWN_HINT) for name in names_of((dim,))}
    return max(1, evaluate(dim, values))
