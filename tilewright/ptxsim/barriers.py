"""The 16 barriers of a block: who has arrived, who waits, and when they open."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.gang import BARRIER, DONE, RUN, WARP, Gang, Lanes

MOST = 16


@dataclass
class Waiting:
    """One barrier of one block: threads that arrived, those of them that wait, how many it takes.

    `votes` are the predicates of bar.red, by lane.
    """

    needed: int | None
    arrived: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    votes: dict[int, bool] = field(default_factory=dict)


class Results:
    """The votes of bar.red that opened, by the lanes that have not taken them yet."""

    def __init__(self, gang: Gang) -> None:
        self.votes: dict[int, NDArray[np.bool_]] = {}


def arrive(
    gang: Gang, lanes: Lanes, number: int, needed: int | None, wait: bool,
    votes: NDArray[np.bool_] | None = None,
) -> None:
    """Threads come to a barrier; with `wait` they stay until it opens.

    `votes` are the predicates of bar.red. Fault: a count that other threads do not agree on.
    """
    if not 0 <= number < MOST:
        raise Fault(f"there is no barrier {number}")
    if needed is not None and (needed % WARP or needed <= 0):
        raise Fault(f"a barrier for {needed} threads: the count must be a multiple of {WARP}")
    for block in np.unique(gang.block_of[lanes]):
        own = lanes[gang.block_of[lanes] == block].tolist()
        key = (int(block), number)
        barrier = gang.barriers.setdefault(key, Waiting(needed))
        if barrier.needed != needed:
            raise Fault(f"barrier {number} is used for {needed} threads and for {barrier.needed}")
        barrier.arrived += own
        if wait:
            barrier.waiting += own
        if votes is not None:
            own_votes = votes[gang.block_of[lanes] == block].tolist()
            barrier.votes.update(zip(own, own_votes, strict=True))
        if needed is not None and len(barrier.arrived) > needed:
            raise Fault(f"{len(barrier.arrived)} threads came to barrier {number}, which is for "
                        f"{needed}")
    if wait:
        gang.set_state(lanes, BARRIER)
    release_barriers(gang)


def release_barriers(gang: Gang) -> bool:
    """Open every barrier that all have come to; whether there was one."""
    opened = []
    for key, barrier in list(gang.barriers.items()):
        block, _ = key
        if barrier.needed is None:
            first = block * gang.width
            needed = int((gang.state[first : first + gang.width] != DONE).sum())
        else:
            needed = barrier.needed
        if len(barrier.arrived) < needed or not barrier.arrived:
            continue
        del gang.barriers[key]
        arrived, waiting = np.array(barrier.arrived), np.array(barrier.waiting, np.int64)
        everybody = barrier.needed is None or len(waiting) == gang.launch.threads
        opened.append((block, arrived, waiting, everybody))
        gang.set_state(waiting, RUN)
        gang.advance()
        if gang.unfenced is not None:
            gang.unfenced.synchronised(arrived)
        if barrier.votes:
            votes = np.array(list(barrier.votes.values()))
            gang.own(Results).votes.update(dict.fromkeys(barrier.waiting, votes))
    if opened and gang.races is not None:
        gang.races.order.opened(opened)
    return bool(opened)
