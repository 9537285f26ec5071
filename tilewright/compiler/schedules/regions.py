"""Regions of an axis in which it is known what pads and concats take their elements from.

    concat(a, b) of 3 and 5 elements:  for i in 0 .. 3: a[i];  for i in 3 .. 8: b[i - 3]

Without them every element asks of every part whether it lies in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.ir import loops as k

MOST_REGIONS = 64
"""Regions of an axis: each is a copy of the code."""

MOST_PLACES = 1 << 20
"""Places of an axis times questions that are answered at compile time."""

OPS: Mapping[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide,
    "mod": np.mod, "min": np.minimum, "max": np.maximum, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
}


@dataclass(frozen=True)
class Region:
    """The places ``start``, ``start + step`` ... of an axis, ``count`` of them."""

    start: int
    count: int
    step: int = 1

    @property
    def stop(self) -> int:
        """Behind the last place."""
        return self.start + (self.count - 1) * self.step + 1

    @property
    def places(self) -> np.ndarray:
        """All of them."""
        return np.arange(self.start, self.stop, self.step)


class Places:
    """What is known of loop variables: the places that each of them takes."""

    def __init__(self) -> None:
        self.of: dict[str, np.ndarray] = {}

    def settle(self, condition: k.Expr) -> bool | None:
        """Whether a condition holds at all places; None if it does not at some, or nobody knows."""
        found = evaluate(condition, self.of)
        if found is None:
            return None
        return True if np.all(found) else None if np.any(found) else False


def evaluate(e: k.Expr, of: Mapping[str, np.ndarray]) -> Any:
    """The values of an index expression at all places of the one variable that it depends on; None
    if it depends on anything else.
    """
    if isinstance(e, k.Const):
        return e.value
    if isinstance(e, k.Var):
        return of.get(e.name)
    if not isinstance(e, k.Call) or e.op not in OPS or len(variables(e)) > 1:
        return None
    args = [evaluate(a, of) for a in e.args]
    return None if any(a is None for a in args) else OPS[e.op](*args)


def variables(e: k.Expr) -> set[str]:
    """The names in an expression."""
    if isinstance(e, k.Var):
        return {e.name}
    parts: Sequence[k.Expr] = e.args if isinstance(e, k.Call) else ()
    return {name for a in parts for name in variables(a)}


class Asked:
    """Notes the conditions that a writer asks about, without an answer."""

    def __init__(self) -> None:
        self.conditions: dict[k.Expr, None] = {}

    def settle(self, condition: k.Expr) -> bool | None:
        """Nothing is known."""
        self.conditions[condition] = None
        return None

    def of(self, name: str) -> list[k.Expr]:
        """The conditions that depend on this variable alone."""
        return [c for c in self.conditions if variables(c) == {name}]


def regions_of(conditions: Sequence[k.Expr], name: str, size: int) -> list[Region] | None:
    """An axis cut into regions in which each condition always or never holds; None if there are too
    many, or one is all of it.
    """
    if not conditions or size * len(conditions) > MOST_PLACES:
        return None
    places = {name: np.arange(size)}
    answers = [evaluate(c, places) for c in conditions]
    if any(a is None for a in answers):
        return None
    table = np.stack([np.broadcast_to(np.asarray(a, bool), size) for a in answers])
    _, kinds = np.unique(table, axis=1, return_inverse=True)
    kinds = kinds.reshape(-1)
    found = [r for kind in range(kinds.max() + 1) for r in _runs(np.flatnonzero(kinds == kind))]
    return sorted(found, key=lambda r: r.start) if 1 < len(found) <= MOST_REGIONS else None


def _runs(places: np.ndarray) -> Iterable[Region]:
    """Ascending places as regions, each as long as it can be from its start on."""
    at = 0
    while at < len(places):
        rest = places[at:]
        if len(rest) == 1:
            yield Region(int(rest[0]), 1)
            return
        steps = np.diff(rest)
        other = np.flatnonzero(steps != steps[0])
        count = int(other[0]) + 1 if len(other) else len(rest)
        # Two places far apart are no beginning of a row of places.
        if count == 2 and len(rest) > 2:
            count = 1
        yield Region(int(rest[0]), count, int(steps[0]) if count > 1 else 1)
        at += count
