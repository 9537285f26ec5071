"""The threads of a block in NumPy.

They run in lockstep, each a lane of arrays, under a mask of those that are here. Lockstep hides a
missing barrier from the values. So each element of shared and global memory remembers who touched
it since the last barrier, and a race is an error, as is a barrier that some miss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.instructions import WARP
from tilewright.ir.interp_thread import RUN, Thread, lanewise
from tilewright.ir.loops import (
    Accumulate,
    Barrier,
    Buffer,
    Check,
    For,
    If,
    Instruction,
    Load,
    Shuffle,
    Stmt,
    Store,
)
from tilewright.ir.races import Track

Array = NDArray[Any]

DONE = object()


@dataclass
class Grid:
    """What the blocks of a kernel share.

    epoch    a number that each barrier and each block raises
    section  the stretch of the kernel that runs, and ``began`` its first epoch
    """

    tracks: dict[str, Track] = field(default_factory=dict)
    epoch: int = 0
    began: int = 0
    section: Sequence[Stmt] = ()

    def enter(self, section: Sequence[Stmt]) -> None:
        """All threads have left the section before."""
        if section is not self.section:
            self.epoch += 1
            self.section, self.began = section, self.epoch


class Lanes(Thread):
    """The threads of a block. A value is one for all or an array with one for each of them.

    What can wait for other threads is a generator, which yields while it waits.

    present  the threads that are here; None: all
    steps    how many statements were run
    """

    def __init__(self, member: Thread, loop: For, grid: Grid) -> None:
        super().__init__(member.kernel, dict(member.memory), member.tid, member.threads)
        self.loop, self.grid, self.steps = loop, grid, 0
        self.first = self.grid.epoch
        self.variables = dict(member.variables)
        self.count = int(self.value(loop.stop))
        self.lanes = self.count
        self.ids = np.arange(self.count)
        self.variables[loop.var.name] = self.ids
        self.present: Array | None = None

    def run_all(self, member: Thread) -> None:
        """Run the body of the thread loop for a thread of the team."""
        for _ in self.go(self.loop.body):
            raise self.bug("threads wait for an mbarrier, and none is left to complete it")
        self.finish()
        member.failed = member.failed or self.failed

    def finish(self) -> None:
        """What must hold when the threads end."""

    # --- control flow -------------------------------------------------------------------
    def masked(self, mask: Any) -> Any:
        """Only threads that are here access memory."""
        if self.present is None:
            return mask
        return self.present if mask is None else self.present & self.spread(mask)

    def go(self, body: Sequence[Stmt]) -> Iterator[None]:
        """Run statements in order."""
        for s in body:
            if isinstance(s, If):
                yield from self.go_if(s)
            elif isinstance(s, For):
                yield from self.go_for(s)
            elif isinstance(s, Instruction):
                yield from self.go_instruction(s)
            else:
                getattr(self, RUN[type(s)])(s)
            self.steps += 1

    def go_instruction(self, s: Instruction) -> Iterator[None]:
        """An instruction."""
        raise NotImplementedError

    def under(self, mask: Array, body: Sequence[Stmt]) -> Iterator[None]:
        """Run statements in the threads of ``mask`` that are here, on names of their own."""
        outside = self.present, self.variables
        inside = (mask if self.present is None else mask & self.present), dict(self.variables)
        if not inside[0].any():
            return
        self.present, self.variables = inside
        for _ in self.go(body):
            inside = self.present, self.variables
            self.present, self.variables = outside
            yield
            self.present, self.variables = inside
        self.present, self.variables = outside

    def go_if(self, s: If) -> Iterator[None]:
        """Both branches, each in the threads that take it; where one waits the other goes on."""
        condition = self.value(s.condition)
        if not lanewise(condition):
            yield from self.go(s.body if condition else s.orelse)
            return
        branches = [self.under(condition, s.body), self.under(~condition, s.orelse)]
        while True:
            before = self.steps
            branches = [b for b in branches if next(b, DONE) is not DONE]
            if not branches:
                return
            if self.steps == before:
                yield

    def go_for(self, s: For) -> Iterator[None]:
        """Iteration by iteration, in the threads that still have one; so vector loops too."""
        start, stop = self.value(s.start), self.value(s.stop)
        if not lanewise(start) and not lanewise(stop):
            for i in range(int(start), int(stop), s.step):
                self.variables[s.var.name] = i
                yield from self.go(s.body)
            return
        at = self.spread(start)
        while np.any((at < stop) if self.present is None else (at < stop) & self.present):
            self.variables[s.var.name] = at
            yield from self.under(self.spread(at < stop), s.body)
            at = at + s.step

    def run_check(self, s: Check) -> None:
        """Note the first code whose condition fails in a thread that is here."""
        holds = self.spread(self.value(s.condition))
        if not self.failed and not np.all(holds if self.present is None else holds[self.present]):
            self.failed = s.code

    def run_barrier(self, s: Barrier) -> None:
        """All threads, or it is an error; what was touched before is free again."""
        if self.present is not None and not self.present.all():
            raise self.bug(f"{self.present.sum()} of {self.count} threads arrive at a barrier")
        self.grid.epoch += 1

    def groups(self, threads: int, what: str) -> list[slice]:
        """The groups of so many threads that are here. Raises if only a part of one is."""
        here = np.ones(self.count, bool) if self.present is None else self.present
        if self.count % threads:
            raise self.bug(f"{what} of {threads} threads in a block of {self.count}")
        parts = here.reshape(-1, threads)
        if np.any(parts.any(axis=1) != parts.all(axis=1)):
            raise self.bug(f"a part of {threads} threads arrives at {what}")
        return [slice(i * threads, (i + 1) * threads) for i in np.flatnonzero(parts.all(axis=1))]

    def run_shuffle(self, s: Shuffle) -> None:
        """Exchange within each warp."""
        values = self.spread(self.value(s.value))
        by = self.spread(self.value(s.lane))
        self.groups(WARP, "a shuffle")
        own = self.ids % WARP
        other = {"xor": own ^ by, "up": own - by, "down": own + by, "lane": by}[s.mode]
        if s.mode in ("up", "down"):
            other = np.where((other < 0) | (other >= WARP), own, other)
        elif np.any((other < 0) | (other >= WARP)):
            raise self.bug(f"a shuffle from thread {other.max()} of {WARP}")
        self.variables[s.var.name] = values[self.ids - own + other]

    # --- memory -------------------------------------------------------------------------
    def load(self, e: Load) -> Any:
        """As of one thread, and remembered."""
        if tracked(e.buffer):
            self.touch(e.buffer, *self.place(e.buffer, e.index, e.mask), write=False)
        return super().load(e)

    def run_store(self, s: Store) -> None:
        """As of one thread, and remembered."""
        if tracked(s.buffer):
            self.touch(s.buffer, *self.place(s.buffer, s.index, s.mask), write=True)
        super().run_store(s)

    def run_accumulate(self, s: Accumulate) -> None:
        """As of one thread, and remembered: two threads that add to one place race."""
        if tracked(s.buffer):
            self.touch(s.buffer, *self.place(s.buffer, s.index, s.mask), write=True)
        super().run_accumulate(s)

    def touch(self, buffer: Buffer, index: Any, mask: Any, write: bool) -> None:
        """Note an access by the threads of a mask, one element each."""
        threads, index, _ = self.active(index, self.ids, mask)
        self.note(buffer, index, threads, write)

    def note(self, buffer: Buffer, index: Array, threads: Array, write: bool) -> None:
        """Raises ``CompilerBug`` if another thread touched an element since the last barrier, or
        another block in this section, and one of both writes.
        """
        track = self.grid.tracks.setdefault(
            buffer.name, Track(len(self.memory[buffer.name])))
        other = self.elsewhere(track.wrote[index])
        if write:
            other = other | self.elsewhere(track.read[index])
        if other.any():
            place = index[np.flatnonzero(other)[0]]
            raise self.bug(f"a race: two blocks access {buffer.name}[{place}]")
        found = track.note(index, threads, self.grid.epoch, write)
        if found is not None:
            who = f"thread {found.other}" if found.other >= 0 else "another"
            raise self.bug(
                f"a race: thread {found.thread} and {who} access {buffer.name}[{found.place}], and "
                "no barrier is between them")

    def elsewhere(self, epochs: Array) -> Array:
        """Whether an access was by another block since the section began."""
        return np.asarray((epochs >= self.grid.began) & (epochs < self.first))


def tracked(b: Buffer) -> bool:
    """Whether several threads can touch the buffer and one of them can write it."""
    return b.space == "shared" or (b.space == "global" and b.access != "in")
