"""Branches, ends, barriers of a block, and what only orders or times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.barriers import Results, arrive
from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.gang import DONE
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Symbol
from tilewright.ptxsim.table import op


@op("bra")
def bra(step: Step) -> None:
    """Go to a label."""
    label = step.operands[0]
    if not isinstance(label, Symbol):
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    step.gang.pc[step.lanes] = step.symbol(label)
    step.gang.changed = True


@op("ret", "exit")
def end(step: Step) -> None:
    """The threads end."""
    step.gang.set_state(step.lanes, DONE)


@op("trap")
def trap(step: Step) -> None:
    """The kernel ends with a fault."""
    raise Fault("the kernel executed a trap")


@op("call")
def call(step: Step) -> None:
    """Functions are not simulated: those of a compiled kernel are inlined."""
    raise UnknownInstruction("calls of functions are not simulated")


@op("membar", "fence", "nanosleep", "brkpt", "pmevent", "griddepcontrol")
def nothing(step: Step) -> None:
    """Order or time that this simulator always has."""


def _barriers(
    step: Step, number: int, count: int
) -> Iterator[tuple[NDArray[np.int64], int, int | None]]:
    """The barriers that lanes come to, by operands with their number and their count, if any."""
    lanes = step.lanes
    zeros = np.zeros(step.count, np.int64)
    numbers, counts = (
        step.values(step.operands[i], "b32").astype(np.int64) if i < len(step.operands) else zeros
        for i in (number, count))
    for key in np.unique(numbers << 32 | counts).tolist():
        own = lanes[(numbers << 32 | counts) == key]
        yield own, key >> 32, key & 0xFFFFFFFF if count < len(step.operands) else None


def together(step: Step) -> bool:
    """Of an aligned barrier: wait for the whole warp; whether any warp is here.

    In divergent code the other threads never come, and the deadlock tells where each waits.
    """
    aligned = step.parts[0] == "bar" or "aligned" in step.parts
    return step.collect(whole=False) if aligned else True


@op("bar.sync", "barrier.sync", "barrier.cta.sync", "bar.cta.sync")
def bar_sync(step: Step) -> None:
    """Wait at a barrier until its threads have come."""
    if together(step):
        for lanes, number, count in _barriers(step, 0, 1):
            arrive(step.gang, lanes, number, count, wait=True)


@op("bar.arrive", "barrier.arrive", "barrier.cta.arrive", "bar.cta.arrive")
def bar_arrive(step: Step) -> None:
    """Come to a barrier without waiting."""
    if together(step):
        for lanes, number, count in _barriers(step, 0, 1):
            arrive(step.gang, lanes, number, count, wait=False)


@op("bar.red", "barrier.red", "barrier.cta.red", "bar.cta.red")
def bar_red(step: Step) -> None:
    """A barrier that also joins a predicate of its threads.

    The instruction runs twice: first the threads arrive with their votes, then, when the barrier
    has opened, they take the result.
    """
    gang, opened = step.gang, step.gang.own(Results).votes
    if not together(step):
        return
    if int(step.lanes[0]) not in opened:
        votes = np.array(step.values(step.operands[-1], "pred"))
        gang.pc[step.lanes] -= 1
        for lanes, number, count in _barriers(step, 1, 2 if len(step.operands) > 3 else 9):
            own = np.isin(step.lanes, lanes)
            arrive(gang, lanes, number, count, wait=True, votes=votes[own])
        return
    votes_of = [opened.pop(lane) for lane in step.lanes.tolist()]
    if "popc" in step.parts:
        step.write(step.operands[0], np.array([v.sum() for v in votes_of], np.uint32), "b32")
    else:
        join = np.all if "and" in step.parts else np.any
        step.write(step.operands[0], np.array([join(v) for v in votes_of]), "pred")


@op("bar.warp.sync")
def bar_warp(step: Step) -> None:
    """Wait for the threads of the warp that the mask names."""
    met = step.collect(whole=False, mask=step.operands[0])
    if met and step.gang.races is not None:
        step.gang.races.order.warps_met(step.lanes)
