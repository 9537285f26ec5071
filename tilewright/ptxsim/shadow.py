"""What was accessed, cell by cell: the last write, and the reads that a later write must know of.

A cell is as many bytes as the smallest access of a kernel. Accesses of threads are noted, and
looked at together before anybody learns anything (see `order`): until then no two threads know of
what the other does meanwhile, so that its order does not matter. Two accesses of one cell by
different threads are a race if one of them is a write, not both are strong, and the later thread
does not know of the earlier access. Writes that leave the value as it is do not race with writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    Stamps,
)

Ints = NDArray[np.int64]
Verbs = tuple[str, str]
Interval = tuple[int, int]
Found = Callable[[int, int, int, Verbs], None]
"""Reports a race: the cell, the stamps of an earlier and of a later access, what each does."""

READ_WRITTEN: Verbs = ("writes", "reads")
WRITE_READ: Verbs = ("reads", "writes")
WRITE_WRITTEN: Verbs = ("writes", "writes")

MOST_NOTES = 256


@dataclass(slots=True)
class Note:
    """An access of some lanes, `bytes` at each of the places, which count elements of `size`.

    mark     its instruction and its strength, as in a stamp
    span     from its first byte to its end: in global memory, or in the block's shared memory
    changes  of a write: whether it left another value than was there
    """

    places: Ints
    size: int
    bytes: int
    lanes: Ints
    mark: int
    span: Interval
    changes: NDArray[np.bool_] | None = None


class Shadow:
    """Of one array of memory. Subclasses say which reads are remembered, and how.

    grain   the logarithm of the bytes of a cell
    origin  the place of the first cell, in bytes
    """

    def __init__(self, order: Order, cells: int, grain: int, found: Found, origin: int = 0) -> None:
        self.order, self.cells, self.grain, self.found = order, cells, grain, found
        self.origin = origin
        self.notes: list[Note] = []
        self.written: Stamps | None = None
        self.beside: Stamps | None = None  # strong writes that others took the place of
        self.stored: dict[int, Interval] = {}  # where writes were, by their instructions
        self.fresh = False  # whether accesses are recorded of which somebody may not know
        self.under_way = 0  # writes that no barrier makes known
        self.lasting = False  # whether accesses of agents are recorded: no barrier does, either

    def note(self, note: Note) -> None:
        """Note an access, to be looked at later."""
        self.notes.append(note)
        if len(self.notes) >= MOST_NOTES:
            self.settle(False)

    def settle(self, ending: bool) -> None:
        """Look at what was noted. `ending`: then everybody concerned will know of everything."""
        notes, self.notes = self.notes, []
        stores = [note for note in notes if note.changes is not None]
        loads = [note for note in notes if note.changes is None]
        for note in stores:
            self.stores_at(note.mark, note.span)
        if stores or self.fresh or not ending:
            near = [note for note in loads if self.meets(note.span)]
            if self.fresh:
                self._check_loads(near)
            strong = any(note.mark & STRONG for note in stores)  # they take the place of others
            for group in [[note] for note in stores] if strong else [stores]:
                if group:
                    self._store(*_joined([self._spread(note) for note in group]))
                    self._check_loads(near)
                    self.fresh |= strong
            kept = [] if ending else self.kept(loads)
            if kept:
                cells, stamps, lanes, _ = _joined([self._spread(note) for note in kept])
                weak = stamps & STRONG == 0
                self.remember(cells[weak], stamps[weak], lanes[weak])
            self.fresh = self.lasting or self.under_way > 0 or not ending and (
                self.fresh or bool(notes))
        if not self.fresh:
            self.stored.clear()

    def stores_at(self, mark: int, span: Interval) -> None:
        """An instruction stored in an interval."""
        low, high = self.stored.get(mark, span)
        self.stored[mark] = min(low, span[0]), max(high, span[1])

    def meets(self, span: Interval) -> bool:
        """Whether an interval touches what was stored."""
        return any(span[0] < high and low < span[1] for low, high in self.stored.values())

    def kept(self, loads: list[Note]) -> list[Note]:
        """The loads that are to be remembered."""
        return loads

    def _cells(self, note: Note) -> Ints:
        first = note.places * note.size - self.origin >> self.grain
        count = note.bytes >> self.grain
        return first if count <= 1 else (first[:, None] + np.arange(count)).reshape(-1)

    def _spread(self, note: Note) -> tuple[Ints, Stamps, Ints, Any]:
        """Cells, stamps, lanes and changes, one of each per cell."""
        columns = self.order.stamps[note.lanes] | note.mark, note.lanes, note.changes
        count = max(1, note.bytes >> self.grain)
        if count > 1:
            columns = tuple(  # type: ignore[assignment]
                None if c is None else np.repeat(c, count) for c in columns)
        return self._cells(note), *columns

    def _check_loads(self, loads: list[Note]) -> None:
        if self.written is None:
            return
        for note in loads:
            cells = self._cells(note)
            for written in self.writes():
                seen = written[cells]
                at = self.suspects(seen)
                if len(at):
                    lanes = note.lanes[at // max(1, note.bytes >> self.grain)]
                    stamps = self.order.stamps[lanes] | note.mark
                    self.check(seen[at], cells[at], stamps, lanes, READ_WRITTEN)

    def suspects(self, seen: Stamps) -> Ints:
        """Which of the accesses somebody may not know of."""
        return np.flatnonzero(seen)

    def _store(self, cells: Ints, stamps: Stamps, lanes: Ints, changes: Any) -> None:
        if self.fresh:
            self.check_reads(cells, stamps, lanes)
        written = self._writes()
        some = cells, stamps, lanes
        if not changes.all():
            some = cells[changes], stamps[changes], lanes[changes]
        strong = bool(len(stamps) and stamps[0] & STRONG)
        before = written[some[0]] if strong else stamps
        for earlier in self.writes() if self.fresh else ():
            self.check(earlier[some[0]], *some, WRITE_WRITTEN)
        written[some[0]] = some[1]
        self.check(written[some[0]], *some, WRITE_WRITTEN)
        if strong:
            self._keep_beside(*some, before)
        if len(some[0]) < len(cells):
            silent = np.flatnonzero(~changes)
            silent = silent[self.known(written[cells[silent]], lanes[silent])]
            written[cells[silent]] = stamps[silent]

    def _keep_beside(self, cells: Ints, stamps: Stamps, lanes: Ints, before: Stamps) -> None:
        """Strong writes take the place of strong ones that they need not know of: keep one more."""
        if self.beside is None:
            self.beside = np.zeros(self.cells, np.int64)
        lost = (self._writes()[cells] ^ stamps) & WHO != 0
        self.beside[cells[lost]] = stamps[lost]
        unknown = (before & STRONG != 0) & ((before ^ stamps) & WHO != 0)
        unknown &= ~self.known(before, lanes)
        self.beside[cells[unknown]] = before[unknown]

    def writes(self) -> list[Stamps]:
        """What is recorded of writes."""
        return [w for w in (self.written, self.beside) if w is not None]

    def _writes(self) -> Stamps:
        if self.written is None:
            self.written = np.zeros(self.cells, np.int64)
        return self.written

    def check(
        self, seen: Stamps, cells: Ints, stamps: Stamps, lanes: Ints, verbs: Verbs
    ) -> None:
        """Report the first of the accesses `seen` of the same cells that lanes do not know of."""
        other = (seen ^ stamps) & WHO != 0
        if self.under_way:
            other |= (seen >= PENDING << CLOCK) & (seen != stamps)
        at = np.flatnonzero(other)
        at = at[self.suspects(seen[at])]
        at = at[seen[at] & stamps[at] & STRONG == 0]
        if len(at):
            at = at[~self.known(seen[at], lanes[at])]
        if len(at):
            i = int(at[0])
            self.found(int(cells[i]), int(seen[i]), int(stamps[i]), verbs)

    def known(self, seen: Stamps, lanes: Ints) -> NDArray[np.bool_]:
        """Whether lanes know of accesses."""
        return self.order.known(seen, lanes)

    def check_reads(self, cells: Ints, stamps: Stamps, lanes: Ints) -> None:
        """Report the first read of a cell that a write does not know of."""
        raise NotImplementedError

    def remember(self, cells: Ints, stamps: Stamps, lanes: Ints) -> None:
        """Record reads."""
        raise NotImplementedError


def _joined(spread: list[Any]) -> tuple[Any, ...]:
    return tuple(
        None if column[0] is None else column[0] if len(column) == 1 else np.concatenate(column)
        for column in zip(*spread, strict=True))


class LastTwoReaders(Shadow):
    """Remembers the last two threads that read a cell: exact if only whole blocks synchronise."""

    readers: tuple[Stamps, Stamps] | None = None

    def check_reads(self, cells: Ints, stamps: Stamps, lanes: Ints) -> None:
        for reader in self.readers or ():
            self.check(reader[cells], cells, stamps, lanes, WRITE_READ)

    def remember(self, cells: Ints, stamps: Stamps, lanes: Ints) -> None:
        if self.readers is None:
            self.readers = np.zeros(self.cells, np.int64), np.zeros(self.cells, np.int64)
        last, other = self.readers
        before = last[cells]
        differs = (before ^ stamps) & WHO != 0
        other[cells[differs]] = before[differs]
        last[cells] = stamps
        lost = (last[cells] ^ stamps) & WHO != 0
        other[cells[lost]] = stamps[lost]


class AllReaders(Shadow):
    """Remembers per cell and warp the clock of the last read and which lanes read at that time.

    Reads and writes of agents, and those that are under way, are recorded at once.
    """

    reads: Stamps | None = None  # [cells, warps]: the clock, then a bit per lane
    marks: NDArray[np.uint16]

    def __init__(self, order: Order, cells: int, grain: int, found: Found) -> None:
        super().__init__(order, cells, grain, found)
        self.warps = order.width // WARP
        self.agents: dict[int, Stamps] = {}

    def remember(self, cells: Ints, stamps: Stamps, lanes: Ints) -> None:
        if self.reads is None:
            self.reads = np.zeros(self.cells * self.warps, np.int64)
            self.marks = np.zeros(self.cells * self.warps, np.uint16)
        at = cells * self.warps + lanes // WARP % self.warps
        clocks = stamps >> CLOCK << WARP
        self.reads[at[self.reads[at] >> WARP << WARP != clocks]] = 0
        np.bitwise_or.at(self.reads, at, clocks | 1 << lanes % WARP)
        self.marks[at] = stamps >> LINE & MOST_INSTRUCTIONS

    def check_reads(self, cells: Ints, stamps: Stamps, lanes: Ints) -> None:
        for reads in self.agents.values():
            self.check(reads[cells], cells, stamps, lanes, WRITE_READ)
        if self.reads is None:
            return
        rows = self.reads.reshape(-1, self.warps)[cells]
        item, warp = np.nonzero(rows >> WARP >= (self.order.limit[lanes] >> CLOCK)[:, None])
        if not len(item):
            return
        bits = rows[item, warp][:, None] >> np.arange(WARP) & 1
        pair, lane = np.nonzero(bits)
        item, warp = item[pair], warp[pair]
        marks = self.marks.reshape(-1, self.warps)[cells[item], warp].astype(np.int64)
        width = self.order.width
        who = self.order.ids[lanes[item]] // width * width + warp * WARP + lane
        seen = rows[item, warp] >> WARP << CLOCK | marks << LINE | who
        self.check(seen, cells[item], stamps[item], lanes[item], WRITE_READ)

    def suspects(self, seen: Stamps) -> Ints:
        return np.flatnonzero(seen >= self.order.lowest)

    # What goes on beside the threads.

    def cells_of(self, at: Ints, bytes: int) -> Ints:
        """The cells of so many bytes at each of the places."""
        first, count = at.reshape(-1) >> self.grain, max(1, bytes >> self.grain)
        return (first[:, None] + np.arange(count)).reshape(-1)

    def look(self, span: Interval) -> None:
        """Look at what was noted if some of it touches an interval that is about to change."""
        if any(note.span[0] < span[1] and span[0] < note.span[1] for note in self.notes):
            self.settle(False)

    def write(
        self, cells: Ints, stamps: Stamps | int, lanes: Ints | int, span: Interval
    ) -> None:
        """Check and record writes that do not end here; `lanes` are those that began them."""
        self.look(span)
        stamps, lanes = (np.broadcast_to(a, cells.shape) for a in (stamps, lanes))
        self.check_reads(cells, stamps, lanes)
        for earlier in self.writes():
            self.check(earlier[cells], cells, stamps, lanes, WRITE_WRITTEN)
        self._writes()[cells] = stamps
        self.stores_at(int(stamps[0]) & MOST_INSTRUCTIONS << LINE, span)
        self.fresh = True

    def end(self, cells: Ints, pending: Stamps, stamps: Stamps, span: Interval) -> None:
        """Writes under way have ended: they become those of their threads at this time."""
        self.look(span)
        written = self._writes()
        still = written[cells] == pending
        written[cells[still]] = stamps[still]
        self.under_way -= cells.size

    def read(self, cells: Ints, stamp: int, lanes: Ints, span: Interval) -> None:
        """Check, for each of the lanes, and record reads of an agent."""
        self.look(span)
        for written in self.writes():
            for lane in lanes.tolist():
                self.check(written[cells], cells, np.full(len(cells), stamp),
                           np.full(len(cells), lane), READ_WRITTEN)
        agent = (stamp & WHO) - AGENT
        if agent not in self.agents:
            self.agents[agent] = np.zeros(self.cells, np.int64)
        self.agents[agent][cells] = stamp
        self.fresh = self.lasting = True
