"""Which accesses are ordered before what a thread does next: by barriers and whatever it waits for.

Every warp has a clock, which moves on whenever one of its threads tells others of its past. An
access is a stamp of the clock, the instruction and the thread. A thread knows of an access if it is
its own; if a barrier of the whole block followed it (its clock is at most the block's floor); if a
bar.warp.sync of the whole warp did (the warp's floor); or if its row of knowledge, a clock per
thread of the block, says so. Rows begin with the first mbarrier or barrier of a part of a block;
threads of a warp share one until they learn different things.

Work that goes on beside the threads (products of wgmma, bulk copies) has agents: they have columns
in the rows, and clocks of their own that only a wait for them makes known.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[np.int64]

WARP = 32

CLOCK, LINE, STRONG = 41, 25, 1 << 24
"""A stamp, from its top: clock, instruction, whether the access is strong (atomic), who."""

WHO, AGENT = STRONG - 1, 1 << 23
"""Threads have numbers in their launch, agents numbers from AGENT on."""

MOST_INSTRUCTIONS = (1 << CLOCK - LINE) - 1
AGENT_CLOCK = 1 << 20
PENDING = 1 << 21
"""The clock of what a thread copies asynchronously and has not waited for: nobody knows of it."""

Stamps = NDArray[np.int64]
Row = NDArray[np.int32]


class Threads(Protocol):
    """Lanes of a gang: how many of all and per block, and which have not ended."""

    size: int
    width: int

    def live(self, lanes: Lanes) -> NDArray[np.bool_]: ...  # noqa: D102


@dataclass
class Meeting:
    """What those have told who came to a meeting point: in this phase, and in those before."""

    coming: Row | None = None
    done: Row | None = None


class Order:
    """Of one gang: clocks, floors, rows of knowledge, agents.

    ids     the numbers of its lanes' threads in the launch
    settle  called before anybody learns something, with the blocks all of whose threads are about
            to know of everything
    """

    def __init__(self, gang: Threads, ids: NDArray[np.int64]) -> None:
        self.gang, self.width, self.ids = gang, gang.width, ids
        self.settle: Callable[[Sequence[int]], None] = lambda _: None
        warps = gang.size // WARP
        self.clock = np.ones(warps, np.int64)
        self.stamps: Stamps = ids + (1 << CLOCK)
        self.limit = np.full(gang.size, 1 << CLOCK, np.int64)
        self.lowest = 1 << CLOCK  # the least limit
        self.warp_floor = np.zeros(warps, np.int64)
        self.rows: NDArray[np.int32] | None = None
        self.leader = np.arange(gang.size) // WARP * WARP
        self.agents: dict[tuple[int, Hashable], int] = {}
        self.columns = np.zeros(0, np.int64)  # of agents, by number
        self.counts: list[int] = []
        self.meetings: dict[Hashable, Meeting] = {}

    # Barriers.

    def opened(self, barriers: list[tuple[int, Lanes, Lanes, bool]]) -> None:
        """Barriers have opened: their blocks, the threads that had arrived, those that waited,
        and whether they were for the whole block. What threads did that ended is known then.
        """
        whole = []
        for block, arrived, waiting, everybody in barriers:
            if everybody:
                whole.append(block)
            else:
                self.acquire(waiting, self.release(arrived))
        if whole:
            self._everybody(whole)

    def _everybody(self, blocks: list[int]) -> None:
        self.settle(blocks)
        by_block = self.clock.reshape(-1, self.width // WARP)
        last = by_block[blocks].max(1)
        by_block[blocks] = last[:, None] + 1
        lanes = (np.array(blocks)[:, None] * self.width + np.arange(self.width)).reshape(-1)
        self.limit[lanes] = np.repeat(last + 1 << CLOCK, self.width)
        self.lowest = int(self.limit.min())
        self.stamps[lanes] = self.limit[lanes] | self.ids[lanes]
        if self.rows is not None:
            self.leader[lanes] = lanes // WARP * WARP
            agents = self.rows[lanes, self.width :].reshape(len(blocks), self.width, -1).max(1)
            self.rows[lanes, self.width :] = np.repeat(agents, self.width, 0)

    def warps_met(self, lanes: Lanes) -> None:
        """The lanes of each warp among these have synchronised."""
        warps, counts = np.unique(lanes // WARP, return_counts=True)
        live = (warps[:, None] * WARP + np.arange(WARP)).reshape(-1)
        alive = self.gang.live(live).reshape(-1, WARP).sum(1)
        for warp in warps[counts < alive]:
            own = lanes[lanes // WARP == warp]
            self.acquire(own, self.release(own))
        whole = warps[counts >= alive]
        if len(whole) and self.width == WARP:
            self._everybody(whole.tolist())
        elif len(whole):
            self.settle(())
            self.warp_floor[whole] = self.clock[whole]
            self._join_rows(whole.tolist())
            self._tick(whole)

    def _join_rows(self, warps: list[int]) -> None:
        if self.rows is None:
            return
        for warp in warps:
            members = slice(warp * WARP, warp * WARP + WARP)
            leaders = np.unique(self.leader[members])
            if len(leaders) > 1:
                self.rows[warp * WARP] = self.rows[leaders].max(0)
                self.leader[members] = warp * WARP

    # Telling and learning.

    def release(self, lanes: Lanes) -> Row:
        """What these lanes of one block have done and know, to be told to others."""
        self.settle(())
        row: Row = self._rows()[np.unique(self.leader[lanes])].max(0)
        warps = np.unique(lanes // WARP)
        peers = (warps[:, None] * WARP + np.arange(WARP)) % self.width
        row[peers] = np.maximum(row[peers], self.warp_floor[warps][:, None])
        row[lanes % self.width] = self.clock[lanes // WARP]
        self._tick(warps)
        return row

    def acquire(self, lanes: Lanes, row: Row) -> None:
        """These lanes of one block learn what a row tells."""
        self.settle(())
        rows, leaders = self._rows(), self.leader[lanes]
        block = int(lanes[0]) // self.width * self.width
        mates = np.arange(block, block + self.width)
        mates = mates[self.gang.live(mates)]
        staying = np.setdiff1d(mates, lanes, assume_unique=True)
        for leader in np.intersect1d(leaders, self.leader[staying]).tolist():
            self._part(leader, lanes[leaders == leader], staying[self.leader[staying] == leader])
        leaders = np.unique(self.leader[lanes])
        rows[leaders, : len(row)] = np.maximum(rows[leaders, : len(row)], row)

    def _part(self, leader: int, going: Lanes, staying: Lanes) -> None:
        """Lanes that share a row go apart: some will learn what the others do not."""
        rows = self._rows()
        for lanes in (going, staying):
            if leader not in lanes:
                rows[lanes[0]] = rows[leader]
                self.leader[lanes] = lanes[0]

    def _tick(self, warps: NDArray[np.int64]) -> None:
        self.clock[warps] += 1
        self.stamps.reshape(-1, WARP)[warps] += 1 << CLOCK

    def _rows(self) -> NDArray[np.int32]:
        needed = self.width + len(self.columns)
        if self.rows is None or self.rows.shape[1] < needed:
            rows = np.zeros((self.gang.size, needed + 8), np.int32)
            if self.rows is not None:
                rows[:, : self.rows.shape[1]] = self.rows
            self.rows = rows
        return self.rows

    # Meeting points: mbarriers, and the barrier of a cluster.

    def come(self, point: Hashable, row: Row) -> None:
        """Somebody tells a row at a meeting point."""
        meeting = self.meetings.setdefault(point, Meeting())
        meeting.coming = joined(meeting.coming, row)

    def complete(self, point: Hashable) -> None:
        """The phase of a meeting point is complete."""
        meeting = self.meetings.setdefault(point, Meeting())
        if meeting.coming is not None:
            meeting.done = joined(meeting.done, meeting.coming)
            meeting.coming = None

    def passed(self, point: Hashable, lanes: Lanes) -> None:
        """Lanes of one block have seen that a phase is complete."""
        meeting = self.meetings.get(point)
        if len(lanes) and meeting is not None and meeting.done is not None:
            self.acquire(lanes, meeting.done)

    # Agents.

    def started(self, block: int, key: Hashable) -> int:
        """The stamp of the next piece of work of a block's agent, without its instruction."""
        agent = self.agents.setdefault((block, key), len(self.counts))
        if agent == len(self.counts):
            self.counts.append(0)
            of_block = sum(b == block for b, _ in self.agents)
            self.columns = np.append(self.columns, self.width + of_block - 1)
        self.counts[agent] += 1
        return AGENT_CLOCK + self.counts[agent] << CLOCK | AGENT + agent

    def told_by(self, stamp: int) -> Row:
        """The row that tells of an agent's work up to a stamp, and of nothing else."""
        row: Row = np.zeros(self._rows().shape[1], np.int32)
        row[self.columns[(stamp & WHO) - AGENT]] = stamp >> CLOCK
        return row

    # Questions.

    def known(self, seen: Stamps, lanes: Lanes) -> NDArray[np.bool_]:
        """Whether accesses of each lane's block are ordered before what the lane does next."""
        clock, who = seen >> CLOCK, seen & WHO
        column = who % self.width
        warp = self.ids[lanes] // WARP
        found = (seen < self.limit[lanes]) | (who == self.ids[lanes])
        found |= (who // WARP == warp) & (clock <= self.warp_floor[lanes // WARP])
        if len(self.columns):
            agents = who >= AGENT
            found &= ~agents
            column[agents] = self.columns[who[agents] - AGENT]
        if self.rows is not None:
            found |= clock <= self._rows()[self.leader[lanes], column]
        return np.asarray(found & (clock < PENDING))


def joined(one: Row | None, other: Row) -> Row:
    """All that two rows tell."""
    if one is None:
        return other
    if len(one) < len(other):
        one, other = other, one
    result = one.copy()
    result[: len(other)] = np.maximum(result[: len(other)], other)
    return result


def line_of(stamp: Any) -> int:
    """The index of the instruction of a stamp."""
    return int(stamp) >> LINE & MOST_INSTRUCTIONS
