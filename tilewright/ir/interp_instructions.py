"""The instructions of a block's threads in NumPy: copies under way, mbarriers, matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.instructions import BOX_BYTES, INSTRUCTIONS, PIECE, Place, Row, swizzled
from tilewright.ir.interp_lanes import Grid, Lanes, tracked
from tilewright.ir.interp_thread import Thread, poison
from tilewright.ir.loops import Buffer, Expr, For, Instruction, Load
from tilewright.ir.types import as_number

Array = NDArray[Any]


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


@dataclass(frozen=True)
class Box:
    """What a tensor copy has under way."""

    buffer: Buffer
    places: Array
    values: Array


@dataclass(eq=False)
class Mbarrier:
    """Threads arrive and bytes land; then its phase is over and the next one has begun.

    count  threads of each phase, ``left`` of them in this one
    bytes  announced, less those that have landed
    phase  0 or 1, alternately
    """

    count: int
    left: int
    bytes: int = 0
    phase: int = 0
    boxes: list[Box] = field(default_factory=list)

    def settle(self) -> None:
        """End the phase if nothing is left of it."""
        if self.left == 0 and self.bytes == 0:
            self.left, self.phase = self.count, 1 - self.phase


class Machine(Lanes):
    """The threads of a block, and what their instructions mean.

    commits   groups of asynchronous copies that each thread has closed
    barriers  the mbarriers, by the name of a buffer and a place in it
    """

    def __init__(self, member: Thread, loop: For, grid: Grid) -> None:
        super().__init__(member, loop, grid)
        self.commits = np.zeros(self.count, np.int64)
        self.copies: list[Copies] = []
        self.barriers: dict[tuple[str, int], Mbarrier] = {}

    def finish(self) -> None:
        """All copies have landed."""
        if self.copies or any(b.boxes for b in self.barriers.values()):
            raise self.bug("an asynchronous copy is still under way when its thread ends")

    def here(self) -> Array:
        """Whether each thread is here."""
        return np.ones(self.count, bool) if self.present is None else self.present

    def go_instruction(self, s: Instruction) -> Iterator[None]:
        """By the kind of the row; a wait for an mbarrier lets others go on."""
        row = INSTRUCTIONS[s.name]
        groups = self.groups(row.threads, s.name)
        if row.kind == "matrix":
            self.matrix(row, s, groups)
        elif row.kind == "async_copy":
            self.copy(s)
        elif row.kind == "async_commit":
            self.commits += self.here()
        elif row.kind == "async_wait":
            self.land(int(self.value(s.operands[0])))
        elif row.kind == "mbarrier_wait":
            yield from self.wait(s)
        elif row.kind == "tensor_copy":
            self.copy_box(s)
        elif row.kind != "order":
            self.arrive(row.kind, s)

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
        here = self.ids[self.here()]
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
        here = self.here()
        left: list[Copies] = []
        for c in self.copies:
            done = here[c.threads] & (c.groups < self.commits[c.threads] - pending)
            self.note(c.buffer, *several(c.places[done], c.threads[done]), write=True)
            self.memory[c.buffer.name][c.places[done]] = c.values[done]
            if not done.all():
                left.append(Copies(
                    c.buffer, c.threads[~done], c.places[~done], c.values[~done], c.groups[~done]))
        self.copies = left

    # --- mbarriers ------------------------------------------------------------------------
    def mbarriers(self, e: Expr) -> list[Mbarrier]:
        """The mbarrier of each thread that is here. Raises for one that no barrier made known."""
        assert isinstance(e, Load)
        places = self.spread(self.value(e.index))[self.here()]
        self.inside(e.buffer, places)
        self.note(e.buffer, places, self.ids[self.here()], write=False)
        found = [self.barriers.get((e.buffer.name, int(place))) for place in places]
        if None in found:
            place = places[found.index(None)]
            raise self.bug(f"the mbarrier {e.buffer.name}[{place}] is not set up")
        return [b for b in found if b is not None]

    def arrive(self, kind: str, s: Instruction) -> None:
        """Set up an mbarrier, arrive at it, or announce bytes and arrive."""
        place = s.operands[0]
        assert isinstance(place, Load)
        if kind == "mbarrier_init":
            places = self.spread(self.value(place.index))[self.here()]
            self.inside(place.buffer, places)
            self.note(place.buffer, places, self.ids[self.here()], write=True)
            count = int(self.value(s.operands[1]))
            for at in places:
                self.barriers[place.buffer.name, int(at)] = Mbarrier(count, count)
            return
        for barrier in self.mbarriers(place):
            if kind == "mbarrier_expect":
                barrier.bytes += int(self.value(s.operands[1]))
            barrier.left -= 1
            if barrier.left < 0:
                raise self.bug(f"more than {barrier.count} threads arrive at {place.buffer.name}")
            barrier.settle()

    def wait(self, s: Instruction) -> Iterator[None]:
        """Until all threads that are here find the phase of this parity completed."""
        place = s.operands[0]
        assert isinstance(place, Load)
        parities = self.spread(self.value(s.operands[1]))[self.here()]
        if np.any((parities != 0) & (parities != 1)):
            raise self.bug(f"a parity of {parities.max()}")
        barriers = self.mbarriers(place)
        while True:
            for barrier in set(barriers):
                for box in barrier.boxes:
                    self.memory[box.buffer.name][box.places] = box.values
                    barrier.bytes -= box.values.nbytes
                barrier.boxes.clear()
                barrier.settle()
            if all(b.phase != p for b, p in zip(barriers, parities, strict=True)):
                return
            yield

    def copy_box(self, s: Instruction) -> None:
        """Begin to copy a box of a matrix, swizzled; zeros are outside of the matrix."""
        to, source, place = s.operands[:3]
        assert isinstance(to, Load) and isinstance(source, Load)
        for lane, barrier in zip(np.flatnonzero(self.here()), self.mbarriers(place), strict=True):
            first, base, row, column, rows, columns, box = (
                int(self.spread(self.value(e))[lane])
                for e in (to.index, source.index, *s.operands[3:]))
            wide = BOX_BYTES // to.dtype.itemsize
            if first * to.dtype.itemsize % 1024 or column * to.dtype.itemsize % 16:
                raise self.bug(f"a box in {to.buffer.name} that is not aligned")
            y, x = row + np.arange(box)[:, None], column + np.arange(wide)
            inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
            origin = base + y * columns + x
            self.inside(source.buffer, origin[inside])
            values = np.zeros((box, wide), to.dtype.numpy)
            values[inside] = self.memory[source.buffer.name][origin[inside]]
            plain = first + np.arange(box * wide).reshape(box, wide)
            places = swizzled(plain, to.dtype.itemsize)
            self.inside(to.buffer, places)
            self.memory[to.buffer.name][places] = poison(to.dtype)
            barrier.boxes.append(Box(to.buffer, places, values))


def several(places: Array, threads: Array) -> tuple[Array, Array]:
    """Places [threads, elements] and whose they are, flat."""
    return places.reshape(-1), np.repeat(threads, places.shape[1])
