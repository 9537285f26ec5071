"""Blocks of threads in NumPy: what ``block`` and ``thread`` loops, shuffles and instructions mean.

The threads of a block run in lockstep, each a lane of arrays, under a mask of those that are here.
Lockstep hides a missing barrier from the values. So each element of shared and global memory
remembers who touched it since the last barrier, and a race is an error, as is a barrier that some
miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.instructions import INSTRUCTIONS, PIECE, WARP, Place, Row
from tilewright.ir.interp_thread import Thread, lanewise, poison
from tilewright.ir.loops import (
    Accumulate,
    Alloc,
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
from tilewright.ir.types import as_number

Array = NDArray[Any]

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


class Member(Thread):
    """A thread of the team that also runs its share of the blocks of a grid."""

    grid: Grid

    def run_section(self, section: Sequence[Stmt]) -> None:
        self.grid.enter(section)
        self.run(section)

    def run_for(self, s: For) -> None:
        if s.kind == "thread":
            Lanes(self, s).run_all()
        elif s.kind == "block":
            start, stop = self.value(s.start), self.value(s.stop)
            steps = range(int(start), int(stop), s.step)
            n = len(steps)
            for i in steps[n * self.tid // self.threads:n * (self.tid + 1) // self.threads]:
                self.grid.epoch += 1
                self.variables[s.var.name] = i
                self.run(s.body)
        else:
            super().run_for(s)

    def run_alloc(self, s: Alloc) -> None:
        super().run_alloc(s)
        if s.buffer.space == "shared":
            self.grid.tracks[s.buffer.name] = Track(as_number(s.buffer.size))


def team_of(
    kernel: str, memory: Mapping[str, Array], threads: int, sizes: Mapping[str, int] | None = None
) -> list[Member]:
    """The threads of a team that run a kernel on these arrays."""
    team = [Member(kernel, dict(memory), tid, threads, sizes) for tid in range(threads)]
    grid = Grid()
    for member in team:
        member.grid = grid
    return team


@dataclass
class Copies:
    """What one ``async_copy`` has under way.

    places   [threads, elements] that are written; ``values`` what they will hold
    groups   which of its thread's groups each is in
    """

    buffer: Buffer
    threads: Array
    places: Array
    values: Array
    groups: Array


class Lanes(Thread):
    """The threads of a block. A value is one for all or an array with one for each of them.

    present  the threads that are here; None: all
    commits  groups of asynchronous copies that each thread has closed
    """

    def __init__(self, member: Member, loop: For) -> None:
        super().__init__(member.kernel, dict(member.memory), member.tid, member.threads)
        self.member, self.loop, self.grid = member, loop, member.grid
        self.first = self.grid.epoch
        self.variables = dict(member.variables)
        self.count = int(self.value(loop.stop))
        self.lanes = self.count
        self.ids = np.arange(self.count)
        self.variables[loop.var.name] = self.ids
        self.present: Array | None = None
        self.commits = np.zeros(self.count, np.int64)
        self.copies: list[Copies] = []

    def run_all(self) -> None:
        """Run the body of the thread loop."""
        self.run(self.loop.body)
        if self.copies:
            raise self.bug("an asynchronous copy is still under way when its thread ends")
        self.member.failed = self.member.failed or self.failed

    # --- control flow -------------------------------------------------------------------
    def masked(self, mask: Any) -> Any:
        """Only threads that are here access memory."""
        if self.present is None:
            return mask
        return self.present if mask is None else self.present & self.spread(mask)

    def under(self, mask: Array, body: Sequence[Stmt]) -> None:
        """Run statements in the threads of ``mask`` that are here."""
        before = self.present
        self.present = mask if before is None else mask & before
        if self.present.any():
            self.run(body)
        self.present = before

    def run_if(self, s: If) -> None:
        """Both branches, each in the threads that take it."""
        condition = self.value(s.condition)
        if not lanewise(condition):
            self.run(s.body if condition else s.orelse)
            return
        self.under(condition, s.body)
        self.under(~condition, s.orelse)

    def run_for(self, s: For) -> None:
        """Iteration by iteration, in the threads that still have one; so vector loops too."""
        start, stop = self.value(s.start), self.value(s.stop)
        if not lanewise(start) and not lanewise(stop):
            for i in range(int(start), int(stop), s.step):
                self.variables[s.var.name] = i
                self.run(s.body)
            return
        at = self.spread(start)
        while np.any((at < stop) if self.present is None else (at < stop) & self.present):
            self.variables[s.var.name] = at
            self.under(self.spread(at < stop), s.body)
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

    # --- instructions -------------------------------------------------------------------
    def run_instruction(self, s: Instruction) -> None:
        """By the kind of the row."""
        row = INSTRUCTIONS[s.name]
        groups = self.groups(row.threads, s.name)
        if row.kind == "matrix":
            self.matrix(row, s, groups)
        elif row.kind == "async_copy":
            self.copy(s)
        elif row.kind == "async_commit":
            self.commits += np.ones(self.count, bool) if self.present is None else self.present
        elif row.kind == "async_wait":
            self.land(int(self.value(s.operands[0])))

    def matrix(self, row: Row, s: Instruction, groups: list[slice]) -> None:
        """Compute the contents of the places that are written, group by group."""
        for group in groups:
            given: list[Any] = []
            for operand, e in zip(row.operands, s.operands, strict=True):
                assert isinstance(operand, Place) and isinstance(e, Load)
                if operand.access != "out":
                    given += self.contents(operand, e, group)
            assert row.meaning is not None
            result = row.meaning(*given)
            target = s.operands[0]
            assert isinstance(target, Load)
            first = int(self.value(target.index))
            memory = self.memory[target.buffer.name]
            memory[first:first + result.shape[1], group] = result.T.astype(memory.dtype)

    def contents(self, operand: Place, e: Load, group: slice) -> list[Any]:
        """What a place holds: [threads, elements], or a whole buffer and an index."""
        memory, index = self.memory[e.buffer.name], self.value(e.index)
        if operand.space == "register":
            return [memory[int(index):int(index) + as_number(operand.count or 0), group].T]
        if operand.count is None:
            mine = self.spread(index)[group]
            if np.any(mine != mine[0]):
                raise self.bug(f"threads differ on the place in {e.buffer.name}")
            return [memory, int(mine[0])]
        places = self.spread(index)[group][:, None] + np.arange(operand.count)
        self.inside(e.buffer, places)
        self.note(e.buffer, *several(places, self.ids[group]), write=False)
        return [memory[places]]

    def inside(self, buffer: Buffer, places: Array) -> None:
        """Raises ``CompilerBug`` for places outside of a buffer."""
        size = len(self.memory[buffer.name])
        if places.size and (places.min() < 0 or places.max() >= size):
            worst = places.min() if places.min() < 0 else places.max()
            raise self.bug(f"{buffer.name}[{worst}] is outside its {size} elements")

    def copy(self, s: Instruction) -> None:
        """Begin a copy: the target is undefined until it lands."""
        to, source, whether = s.operands
        assert isinstance(to, Load) and isinstance(source, Load)
        here = self.ids if self.present is None else self.ids[self.present]
        piece = np.arange(PIECE // to.dtype.itemsize)
        places = self.spread(self.value(to.index))[here][:, None] + piece
        origin = self.spread(self.value(source.index))[here][:, None] + piece
        valid = self.spread(self.value(whether))[here]
        if np.any(places[:, 0] % len(piece)) or np.any(origin[valid][:, 0] % len(piece)):
            raise self.bug(f"a copy from {source.buffer.name} that is not aligned to 16 bytes")
        self.inside(to.buffer, places)
        self.inside(source.buffer, origin[valid])
        self.note(to.buffer, *several(places, here), write=True)
        if tracked(source.buffer):
            self.note(source.buffer, *several(origin[valid], here[valid]), write=False)
        values = np.zeros(places.shape, to.dtype.numpy)
        values[valid] = self.memory[source.buffer.name][origin[valid]]
        self.memory[to.buffer.name][places] = poison(to.dtype)
        self.copies.append(Copies(to.buffer, here, places, values, self.commits[here]))

    def land(self, pending: int) -> None:
        """Finish the copies of all but the last ``pending`` groups of the threads that are here."""
        here = np.ones(self.count, bool) if self.present is None else self.present
        left: list[Copies] = []
        for c in self.copies:
            done = here[c.threads] & (c.groups < self.commits[c.threads] - pending)
            self.note(c.buffer, *several(c.places[done], c.threads[done]), write=True)
            self.memory[c.buffer.name][c.places[done]] = c.values[done]
            if not done.all():
                left.append(Copies(
                    c.buffer, c.threads[~done], c.places[~done], c.values[~done], c.groups[~done]))
        self.copies = left


def tracked(b: Buffer) -> bool:
    """Whether several threads can touch the buffer and one of them can write it."""
    return b.space == "shared" or (b.space == "global" and b.access != "in")


def several(places: Array, threads: Array) -> tuple[Array, Array]:
    """Places [threads, elements] and whose they are, flat."""
    return places.reshape(-1), np.repeat(threads, places.shape[1])
