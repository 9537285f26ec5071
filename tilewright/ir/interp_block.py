"""Grids of blocks in NumPy: what ``block`` and ``thread`` loops mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tilewright.ir.interp_instructions import Machine
from tilewright.ir.interp_lanes import Grid
from tilewright.ir.interp_thread import Thread
from tilewright.ir.loops import Alloc, For, Stmt
from tilewright.ir.races import Track
from tilewright.ir.types import as_number

Array = NDArray[Any]


class Member(Thread):
    """A thread of the team that also runs its share of the blocks of a grid."""

    grid: Grid

    def run_section(self, section: Sequence[Stmt]) -> None:
        self.grid.enter(section)
        self.run(section)

    def run_for(self, s: For) -> None:
        if s.kind == "thread":
            Machine(self, s, self.grid).run_all(self)
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
