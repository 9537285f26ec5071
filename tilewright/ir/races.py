"""Races that can be decided before a kernel runs: its loops' first iterations, by all threads.

What a place is depends on loop variables, sizes and loaded values. With each loop at its first
iteration (and once more at the next two, after what comes at the end of the one before) and with
large sizes, the places of all threads are numbers, unless they were loaded: then nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.bounds import Range
from tilewright.ir.graph import OPS
from tilewright.ir.loops import Buffer, Call, Const, Expr, For, Load, Var
from tilewright.ir.types import TensorType

Array = NDArray[Any]

LARGE = 1 << 20
"""What each size of a kernel is taken to be."""

NOBODY, MANY = -1, -2


class Conflict(NamedTuple):
    """An element, and two threads that touch it; ``MANY``: one of several."""

    place: int
    thread: int
    other: int


class Track:
    """Who touched the elements of a buffer: epoch and thread of the last write and read."""

    def __init__(self, size: int) -> None:
        self.wrote, self.writer = np.full(size, -1, np.int64), np.full(size, NOBODY, np.int32)
        self.read, self.reader = np.full(size, -1, np.int64), np.full(size, NOBODY, np.int32)

    def note(self, places: Array, threads: Array, epoch: int, write: bool) -> Conflict | None:
        """Remember an access, one element for each thread; what it conflicts with in this epoch."""
        found = clash(places, threads, (self.wrote[places] == epoch), self.writer[places])
        if not write:
            again = self.read[places] == epoch
            who = np.where(again & (self.reader[places] != threads), MANY, threads)
            self.read[places], self.reader[places] = epoch, who
            self.reader[places[self.reader[places] != who]] = MANY
            return found
        found = found or clash(places, threads, (self.read[places] == epoch), self.reader[places])
        self.wrote[places], self.writer[places] = epoch, threads
        return found or clash(places, threads, np.True_, self.writer[places])


def clash(places: Array, threads: Array, now: Any, who: Array) -> Conflict | None:
    """The first place that ``now`` belongs to another thread."""
    bad = np.flatnonzero(now & (who != threads))
    if not len(bad):
        return None
    first = bad[0]
    return Conflict(int(places[first]), int(threads[first]), int(who[first]))


@dataclass(frozen=True)
class Touch:
    """An access by the threads of a block.

    conditions  under which a thread comes here: the expression, and what it must be
    count       elements from the index on
    facts       values of the names at this place
    """

    line: int
    buffer: Buffer
    index: Expr
    count: int
    write: bool
    conditions: tuple[tuple[Expr, bool], ...]
    facts: Mapping[str, Range | Expr]


@dataclass
class Watch:
    """The accesses of a thread loop since its last barriers.

    threads  of the block
    values   the numbers that names are taken to have
    events   touches in order; None is a barrier
    """

    threads: int
    values: dict[str, Any]
    tracks: dict[str, Track] = field(default_factory=dict)
    epoch: int = 0
    events: list[Touch | None] = field(default_factory=list)
    found: list[tuple[int, str]] = field(default_factory=list)
    seen: set[tuple[int, str]] = field(default_factory=set)

    def barrier(self) -> None:
        """What was touched before is free again."""
        self.epoch += 1
        self.events.append(None)

    def enter(self, loop: For, facts: Mapping[str, Range | Expr]) -> None:
        """The first iteration of a loop."""
        self.values[loop.var.name] = self.number(loop.start, facts, self.values)

    def touch(self, touch: Touch) -> None:
        """The next access."""
        self.events.append(touch)
        self.note(touch, self.values)

    def again(self, loop: For, facts: Mapping[str, Range | Expr], first: int) -> None:
        """The end of a loop's body, whose events begin at ``first``, and its next iteration."""
        events = self.events[first:]
        start = self.number(loop.start, facts, self.values)
        stop = self.number(loop.stop, facts, self.values)
        if start is None or stop is None:
            return
        cuts = [i for i, e in enumerate(events) if e is None]
        head, tail = (events[:cuts[0]], events[cuts[-1] + 1:]) if cuts else (events, events)
        name, first_values = loop.var.name, self.values
        def replay(part: list[Touch | None], at: Any) -> None:
            for touch in part:
                if touch is not None:
                    self.note(touch, {**first_values, name: at})

        for here, after in ((0, loop.step), (loop.step, 2 * loop.step)):
            if np.all(np.add(start, after) < stop):
                self.epoch += 1
                replay(tail, np.add(start, here))
                replay(head, np.add(start, after))
        if cuts and np.all(np.less(start, stop)):
            # What follows the loop meets the end of its last iteration alone.
            self.epoch += 1
            count = np.floor_divide(np.subtract(stop, start) - 1, loop.step)
            replay(tail, np.add(start, count * loop.step))

    def note(self, touch: Touch, values: Mapping[str, Any]) -> None:
        """Complain if the access conflicts with one that no barrier separates."""
        index = self.number(touch.index, touch.facts, values)
        here = np.ones(self.threads, bool)
        for condition, wanted in touch.conditions:
            holds = self.number(condition, touch.facts, values)
            if holds is None:
                return
            here = here & (np.asarray(holds, bool) == wanted)
        size = touch.buffer.size
        if index is None or not isinstance(size, int):
            return
        threads = np.flatnonzero(here)
        places = np.broadcast_to(index, here.shape)[threads][:, None] + np.arange(touch.count)
        threads, flat = np.repeat(threads, touch.count), places.reshape(-1)
        inside = (flat >= 0) & (flat < size)
        track = self.tracks.setdefault(touch.buffer.name, Track(size))
        found = track.note(flat[inside], threads[inside], self.epoch, touch.write)
        key = (touch.line, touch.buffer.name)
        if found is not None and key not in self.seen:
            self.seen.add(key)
            who = f"threads {found.thread} and {found.other}" if found.other >= 0 else (
                f"thread {found.thread} and another")
            self.found.append((touch.line, f"a race: {who} access {touch.buffer.name}"
                               f"[{found.place}], and no barrier is between them"))

    def number(self, e: Expr, facts: Mapping[str, Range | Expr], values: Mapping[str, Any]) -> Any:
        """The value of an expression for each thread, or for all; None if it is not known."""
        return Numbers(facts, values).of(e)


class Numbers:
    """Values of expressions, for each thread or for all, given those of names.

    facts   what names stand for that have no value
    values  by name
    """

    def __init__(self, facts: Mapping[str, Range | Expr], values: Mapping[str, Any]) -> None:
        self.facts, self.values = facts, values
        # A name may stand in many that follow it: without these, each path to it would be walked.
        self.found: dict[str, Any] = {}

    def of(self, e: Expr) -> Any:
        """The value of an expression; None if it is not known."""
        if isinstance(e, Const):
            return e.value
        if isinstance(e, Var):
            return self.named(e.name)
        if isinstance(e, Load):
            return None
        return self.computed(e, [self.of(a) for a in e.args])

    def named(self, name: str) -> Any:
        """The value of a name."""
        if name in self.values:
            return self.values[name]
        if name not in self.found:
            fact = self.facts.get(name)
            self.found[name] = None if fact is None or isinstance(fact, Range) else self.of(fact)
        return self.found[name]

    def computed(self, e: Call, args: list[Any]) -> Any:
        """The value of a call, by the op table; None if an argument is not known."""
        if any(a is None for a in args):
            return None
        arrays = [np.asarray(v, a.dtype.numpy) for v, a in zip(args, e.args, strict=True)]
        return OPS[e.op].numpy(None, TensorType(e.dtype, ()), *arrays)
