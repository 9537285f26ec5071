"""Branches, ends, barriers of a block, and what only orders or times."""

from __future__ import annotations

import numpy as np

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


def _count(step: Step, index: int) -> int | None:
    if len(step.operands) <= index:
        return None
    return step.uniform(step.operands[index], "b32")


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
        number = step.uniform(step.operands[0], "b32") if step.operands else 0
        arrive(step.gang, step.lanes, number, _count(step, 1), wait=True)


@op("bar.arrive", "barrier.arrive", "barrier.cta.arrive", "bar.cta.arrive")
def bar_arrive(step: Step) -> None:
    """Come to a barrier without waiting."""
    if together(step):
        number = step.uniform(step.operands[0], "b32")
        arrive(step.gang, step.lanes, number, _count(step, 1), wait=False)


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
        number = step.uniform(step.operands[1], "b32")
        needed = _count(step, 2) if len(step.operands) > 3 else None
        votes = np.array(step.values(step.operands[-1], "pred"))
        gang.pc[step.lanes] -= 1
        arrive(gang, step.lanes, number, needed, wait=True, votes=votes)
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
    step.collect(whole=False, mask=step.operands[0])
