"""Races: accesses of one word by two threads, at least one a write, that nothing orders.

Shared memory is watched at the size of a kernel's smallest access, exactly for every kind of
barrier; so is global memory that a kernel may store to, within a block as far as the last two
readers of a word tell, and between the blocks of a launch if the kernel has no fences, by which
blocks can order themselves. A race is a fault under every schedule, whoever came first.

Not seen: strong (volatile, atomic ...) reads before a weak write; in kernels with fences, or with
atomics that acquire or release, what an atomic comes between: every one of them is taken to order
its thread after all those of the block that were executed before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.faults import Race
from tilewright.ptxsim.memory import FIRST, Memory, Span
from tilewright.ptxsim.order import (
    AGENT,
    CLOCK,
    LINE,
    MOST_INSTRUCTIONS,
    PENDING,
    STRONG,
    WARP,
    WHO,
    Order,
    Row,
    Threads,
    joined,
    line_of,
)
from tilewright.ptxsim.pointers import Pointers, pointers
from tilewright.ptxsim.scalars import KINDS
from tilewright.ptxsim.shadow import (
    AllReaders,
    Found,
    Interval,
    Ints,
    LastTwoReaders,
    Note,
    Stamps,
    Verbs,
)
from tilewright.ptxsim.syntax import Instruction, Kernel

ORDERING = {"acquire", "release", "acq_rel", "sc", "gl", "cta", "sys"}
STRONG_PARTS = {"volatile", "relaxed", "mmio", "acquire", "release", "acq_rel"}
ACCESSES = ("ld", "ldu", "st", "atom", "red", "wmma")
ELSEWHERE = {"param", "local", "const"}


@dataclass(frozen=True)
class Habits:
    """What a kernel's text tells of its accesses.

    grains  the logarithm of the smallest access in bytes, of shared and of global memory
    fenced  whether threads may order themselves by fences and atomics
    """

    grains: dict[str, int]
    fenced: bool
    pointers: Pointers


def habits(kernel: Kernel) -> Habits:
    """Look through the text of a kernel."""
    grains = {"shared": 3, "global": 3}
    for instruction in kernel.code:
        parts = set(instruction.parts)
        if instruction.parts[0] in ACCESSES and not parts & ELSEWHERE:
            grain = min((KINDS[p].itemsize.bit_length() - 1 for p in parts if p in KINDS),
                        default=0)
            for space in grains:
                if not any(p.startswith(tuple(grains)) for p in parts) or any(
                    p.startswith(space) for p in parts
                ):
                    grains[space] = min(grains[space], grain)
        elif instruction.name.startswith("cp.async.c"):
            grains = {space: min(grain, 2) for space, grain in grains.items()}
    return Habits(grains, any(map(_is_fence, kernel.code)), pointers(kernel))


def _is_fence(instruction: Instruction) -> bool:
    first, second = (*instruction.parts, "")[:2]
    if first == "membar" or first == "fence":
        return second not in ("proxy", "mbarrier_init")
    return first in ("ld", "st", "atom", "red") and bool(
        {"acquire", "release", "acq_rel"} & set(instruction.parts))


@lru_cache(maxsize=4096)
def is_strong(parts: tuple[str, ...]) -> bool:
    """Whether accesses of an instruction with these parts of a name do not race with others."""
    atomic = parts[0] in ("atom", "red", "mbarrier") or parts[:2] == ("cp", "reduce")
    return atomic or not STRONG_PARTS.isdisjoint(parts)


class Far(LastTwoReaders):
    """One allocation of global memory, during a launch.

    Loads through parameters that the kernel does not store through are looked at only where they
    meet, as intervals, what was stored until then.
    """

    def __init__(
        self, order: Order, cells: int, habits: Habits, found: Found, origin: int
    ) -> None:
        super().__init__(order, cells, habits.grains["global"], found, origin)
        self.across = not habits.fenced  # whether accesses of different blocks can race
        self.others = habits.pointers.others

    def kept(self, loads: list[Note]) -> list[Note]:
        return [note for note in loads
                if line_of(note.mark) not in self.others or self.meets(note.span)]

    def known(self, seen: Stamps, lanes: Ints) -> NDArray[np.bool_]:
        width = self.order.width
        near = (seen & WHO) // width == self.order.ids[lanes] // width
        result = np.full(len(seen), not self.across)
        result[near] = self.order.known(seen[near], lanes[near])
        return result


@dataclass
class Watched:
    """What the gangs of a launch share: the allocations it may store to, all if None."""

    habits: Habits
    starts: set[int] | None
    shadows: dict[int, Far] = field(default_factory=dict)


def watched(kernel_habits: Habits, memory: Memory, values: dict[str, Any]) -> Watched:
    """What to watch of global memory, where parameters and variables have these values."""
    names = kernel_habits.pointers.stores
    if names is None or any(isinstance(values.get(name), bytes) for name in names):
        return Watched(kernel_habits, None)
    numbers = (values[name] for name in names if isinstance(values.get(name), int | np.integer))
    found = (memory.allocation(int(number)) for number in numbers)
    return Watched(kernel_habits, {start for start in found if start is not None})


class Gang(Threads, Protocol):
    """The gang that is watched: its blocks, what it executes, its shared memory."""

    blocks: list[tuple[int, int, int]]
    thread: Ints
    block_of: Ints
    now: int
    shared: NDArray[np.uint8]
    shared_stride: int

    @property
    def launch(self) -> Launch: ...  # noqa: D102


class Launch(Protocol):
    """The launch of a gang."""

    @property
    def kernel(self) -> Kernel: ...  # noqa: D102
    @property
    def code(self) -> list[tuple[Instruction, Any]]: ...  # noqa: D102
    @property
    def lines(self) -> list[str]: ...  # noqa: D102
    @property
    def memory(self) -> Memory: ...  # noqa: D102
    @property
    def grid(self) -> tuple[int, int, int]: ...  # noqa: D102


class Races:
    """Of one gang: who knows of what, and what was accessed."""

    def __init__(self, gang: Gang, across: Watched) -> None:
        self.gang, self.across, launch = gang, across, gang.launch
        x, y, _ = launch.grid
        numbers = np.array([i + x * (j + y * k) for i, j, k in gang.blocks])
        self.order = Order(gang, numbers[gang.block_of] * gang.width + gang.thread)
        self.order.settle = self._settle
        grain = across.habits.grains["shared"]
        self.shared = AllReaders(self.order, gang.shared.size >> grain, grain, self._found_shared)
        for far in across.shadows.values():
            far.order = self.order
        self.alone = len(numbers) == x * y * launch.grid[2] == 1 or across.habits.fenced
        self.common: dict[int, Row] = {}

    def _settle(self, blocks: Sequence[int]) -> None:
        everybody = len(blocks) == len(self.gang.blocks)
        if blocks and not everybody:
            live = np.unique(self.gang.block_of[self.gang.live(np.arange(self.gang.size))])
            everybody = set(live.tolist()) <= set(blocks)
        self.shared.settle(everybody)
        for far in self.across.shadows.values():
            if far.notes or far.fresh:
                far.settle(everybody and self.alone)

    def finish(self) -> None:
        """The gang has ended."""
        self.shared.settle(True)
        for far in self.across.shadows.values():
            far.settle(False)

    # Accesses of threads.

    def noted(
        self, space: str, places: Ints, span: Span | None, size: int, bytes: int, lanes: Ints,
        changes: NDArray[np.bool_] | None = None,
    ) -> None:
        """Lanes accessed `bytes` at places that count elements of `size`; `span` as `located`."""
        starts = self.across.starts
        if space == "local" or space != "shared" and span is not None and (
                starts is not None and span.start not in starts):
            return
        pc = self.gang.now
        strong = is_strong(self.gang.launch.code[pc][0].parts)
        at = (0, 0) if span is None else (span.low, span.high + bytes)
        note = Note(places, size, bytes, lanes, self.mark | STRONG * strong, at, changes)
        if strong and self.across.habits.fenced:
            self._all_strong(lanes)
        if space == "shared":
            self.shared.note(note)
        elif span is None:
            self._split(note)
        else:
            self._far(span.start, note)

    @property
    def mark(self) -> int:
        """The present instruction, as in a stamp."""
        return min(self.gang.now, MOST_INSTRUCTIONS) << LINE

    def _far(self, start: int, note: Note) -> None:
        across = self.across
        if across.starts is not None and start not in across.starts:
            return
        if start not in across.shadows:
            if self.order.ids[-1] >= AGENT:
                return
            size = self.gang.launch.memory.sizes[start]
            grain = across.habits.grains["global"]

            def found(cell: int, seen: int, stamp: int, verbs: Verbs) -> None:
                self._found(f"{start + (cell << grain):#x} of global memory", seen, stamp, verbs)

            across.shadows[start] = Far(
                self.order, (size >> grain) + 1, across.habits, found, start - FIRST)
        across.shadows[start].note(note)

    def _split(self, note: Note) -> None:
        """The accesses of an instruction, by allocation."""
        starts = np.array(self.gang.launch.memory.starts)
        which = np.searchsorted(starts - FIRST, note.places * note.size, "right") - 1
        for i in np.unique(which).tolist():
            own = which == i
            changes = None if note.changes is None else note.changes[own]
            at = note.places[own] * note.size + FIRST
            span = int(at.min()), int(at.max()) + note.bytes
            self._far(int(starts[i]), Note(
                note.places[own], note.size, note.bytes, note.lanes[own], note.mark, span, changes))

    def _all_strong(self, lanes: Ints) -> None:
        """Every strong access of a block is taken to acquire and release."""
        for block in np.unique(self.gang.block_of[lanes]).tolist():
            own = lanes[self.gang.block_of[lanes] == block]
            if block in self.common:
                self.order.acquire(own, self.common[block])
            self.common[block] = joined(self.common.get(block), self.order.release(own))

    def made_meeting(self, places: Ints, lanes: Ints) -> None:
        """Lanes made mbarriers of words of shared memory: weak writes."""
        for place in places.tolist():
            self.order.meetings.pop(place, None)
        changes = np.ones(len(lanes), np.bool_)
        self.shared.note(Note(places, 8, 8, lanes, self.mark, self._span(8 * places, 8), changes))

    def _span(self, at: Ints, bytes: int) -> Interval:
        """The interval of places in shared memory, within their blocks."""
        near = at.reshape(-1) % self.gang.shared_stride
        return int(near.min()), int(near.max()) + bytes

    # What goes on beside the threads.

    def copy_began(self, lane: int, key: Hashable, at: Ints, size: int) -> Row:
        """An agent writes elements of shared memory; the row that tells of it."""
        stamp = self.order.started(int(self.gang.block_of[lane]), key) | self.mark
        self.shared.write(self.shared.cells_of(at, size), stamp, lane, self._span(at, size))
        self.shared.lasting = True
        return self.order.told_by(stamp)

    def reading_began(self, lanes: Ints, key: Hashable, at: Ints, size: int) -> Row:
        """An agent reads elements of shared memory for lanes; the row that tells of it."""
        stamp = self.order.started(int(self.gang.block_of[lanes[0]]), key) | self.mark
        self.shared.read(self.shared.cells_of(at, size), stamp, lanes, self._span(at, size))
        return self.order.told_by(stamp)

    def pending(self, lanes: Ints, at: Ints, size: int) -> tuple[Ints, Stamps]:
        """Lanes copy to shared memory and have not waited: cells and stamps [lanes, cells]."""
        cells = self.shared.cells_of(at, size)
        count = len(cells) // len(lanes)
        stamps = np.repeat(self.order.ids[lanes] | PENDING << CLOCK | self.mark, count)
        self.shared.under_way += len(cells)
        self.shared.write(cells, stamps, np.repeat(lanes, count), self._span(at, size))
        return cells.reshape(-1, count), stamps.reshape(-1, count)

    def waited(self, cells: Ints, pending: Stamps, stamps: Stamps) -> None:
        """Such copies are complete, as of stamps of their lanes."""
        mark = pending & MOST_INSTRUCTIONS << LINE
        span = self._span(cells << self.shared.grain, 1 << self.shared.grain)
        self.shared.end(cells, pending, stamps[:, None] | mark, span)

    # Reports.

    def _found_shared(self, cell: int, seen: int, stamp: int, verbs: Verbs) -> None:
        at = (cell << self.shared.grain) % self.gang.shared_stride
        self._found(f"{at:#x} of shared memory", seen, stamp, verbs)

    def _found(self, at: str, seen: int, stamp: int, verbs: Verbs) -> None:
        what = "nothing orders two accesses"
        if seen >> CLOCK == PENDING:
            what = "no wait covers a cp.async"
        both = "\n  ".join(
            self._access(access, verb) for access, verb in zip((seen, stamp), verbs, strict=True))
        kernel = self.gang.launch.kernel.name
        raise Race(f"a race for {at}: {what}", f"kernel {kernel}\n  {both}")

    def _access(self, stamp: int, verb: str) -> str:
        launch = self.gang.launch
        instruction = launch.code[min(line_of(stamp), len(launch.code) - 1)][0]
        line = f"line {instruction.line}: {launch.lines[instruction.line - 1].strip()}"
        who, width = stamp & WHO, self.gang.width
        if who >= AGENT:
            _, key = list(self.order.agents)[who - AGENT]
            return f"{line} ({key} {verb})"
        number, (x, y, _) = who // width, launch.grid
        block_at = number % x, number // x % y, number // (x * y)
        return f"{line} (block {block_at}, thread {who % width} {verb})"


__all__ = ["WARP", "Habits", "Races", "Watched", "habits", "is_strong", "watched"]
