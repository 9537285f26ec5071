"""Clusters of one block: addresses of its shared memory, and its barrier."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.gang import Gang
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.table import op


@op("mapa")
def mapa(step: Step) -> None:
    """The address of a variable in the shared memory of a block of the cluster."""
    kind = step.parts[-1]
    ranks = np.unique(step.read(step.operands[2], "b32"))
    if ranks.any():
        raise Fault(f"mapa: a cluster of one block has rank 0 alone, got {ranks.max()}")
    step.write(step.operands[0], step.read(step.operands[1], kind), kind)


@op("getctarank")
def getctarank(step: Step) -> None:
    """The rank of the block whose shared memory an address is in."""
    step.write(step.operands[0], np.uint32(0), "b32")


@dataclass
class ClusterBarrier:
    """The barrier of one block's cluster: phases passed, and who has arrived in this one."""

    phase: int = 0
    arrived: set[int] = field(default_factory=set)


class ClusterBarriers:
    """Those of a gang's blocks, and the phase in which each lane arrived."""

    def __init__(self, gang: Gang) -> None:
        self.of_block = [ClusterBarrier() for _ in gang.blocks]
        self.came: dict[int, int] = {}


def barrier_of(gang: Gang, block: int) -> ClusterBarrier:
    """The cluster barrier of a block; it opens when all threads that live have arrived."""
    barrier = gang.own(ClusterBarriers).of_block[block]
    lanes = np.arange(block * gang.width, (block + 1) * gang.width)
    if barrier.arrived and len(barrier.arrived) >= gang.live(lanes).sum():
        if gang.unfenced is not None:
            gang.unfenced.synchronised(np.array(sorted(barrier.arrived)))
        barrier.phase += 1
        if gang.races is not None:
            gang.races.order.complete(("cluster", block))
        barrier.arrived.clear()
        gang.advance()
    return barrier


@op("barrier.cluster.arrive")
def arrive(step: Step) -> None:
    """Arrive without waiting."""
    gang = step.gang
    came = gang.own(ClusterBarriers).came
    for lane in step.lanes.tolist():
        block = int(gang.block_of[lane])
        barrier = barrier_of(gang, block)
        if lane in barrier.arrived:
            raise Fault("a thread arrived twice at the barrier of the cluster")
        came[lane] = barrier.phase
        barrier.arrived.add(lane)
    for block in np.unique(gang.block_of[step.lanes]).tolist():
        if gang.races is not None:
            order, own = gang.races.order, step.lanes[gang.block_of[step.lanes] == block]
            order.come(("cluster", block), order.release(own))
        barrier_of(gang, block)


@op("barrier.cluster.wait")
def wait(step: Step) -> None:
    """Wait until all threads have arrived."""
    gang = step.gang
    came = gang.own(ClusterBarriers).came
    early = []
    for lane in step.lanes.tolist():
        if lane not in came:
            raise Fault("a thread waits at the barrier of the cluster without having arrived")
        if barrier_of(gang, int(gang.block_of[lane])).phase == came[lane]:
            early.append(lane)
        else:
            del came[lane]
    passing = step.lanes[~np.isin(step.lanes, early)]
    if gang.races is not None:
        for block in np.unique(gang.block_of[passing]).tolist():
            own = passing[gang.block_of[passing] == block]
            gang.races.order.passed(("cluster", block), own)
    if early:
        waiting = np.array(early)
        gang.pc[waiting] -= 1
        gang.poll(waiting)
