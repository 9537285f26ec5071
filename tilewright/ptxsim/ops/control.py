"""Branches, ends, barriers of a block, and what only orders or times."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ptxsim.barriers import arrive
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


@op("bar.sync", "barrier.sync", "barrier.cta.sync", "bar.cta.sync")
def bar_sync(step: Step) -> None:
    """Wait at a barrier until its threads have come."""
    aligned = step.parts[0] == "bar" or "aligned" in step.parts
    number = step.uniform(step.operands[0], "b32") if step.operands else 0
    arrive(step.gang, step.lanes, number, _count(step, 1), wait=True, aligned=aligned)


@op("bar.arrive", "barrier.arrive", "barrier.cta.arrive", "bar.cta.arrive")
def bar_arrive(step: Step) -> None:
    """Come to a barrier without waiting."""
    aligned = step.parts[0] == "bar" or "aligned" in step.parts
    number = step.uniform(step.operands[0], "b32")
    arrive(step.gang, step.lanes, number, _count(step, 1), wait=False, aligned=aligned)


@op("bar.red", "barrier.red", "barrier.cta.red", "bar.cta.red")
def bar_red(step: Step) -> None:
    """A barrier that also counts or joins a predicate of its threads: read after it opens.

    The instruction runs twice: first the threads arrive with their votes, then they take the
    result.
    """
    gang, key = step.gang, "red"
    votes: dict[int, Any] = gang.extras[key]
    fresh = np.array([int(lane) not in votes for lane in step.lanes])
    if fresh.all():
        holds = step.values(step.operands[-1], "pred")
        for lane, vote in zip(step.lanes.tolist(), holds.tolist(), strict=True):
            votes[lane] = bool(vote)
        number = step.uniform(step.operands[1], "b32")
        needed = _count(step, 2) if len(step.operands) > 3 else None
        gang.pc[step.lanes] -= 1
        arrive(gang, step.lanes, number, needed, wait=True, aligned="aligned" in step.parts
               or step.parts[0] == "bar")
        return
    if fresh.any():
        raise Fault("a warp came to bar.red in parts")
    blocks = gang.block_of[step.lanes]
    results = []
    for block in blocks:
        cast = np.array([v for lane, v in votes.items() if gang.block_of[lane] == block])
        results.append({"and": cast.all(), "or": cast.any(), "popc": cast.sum()}[
            next(p for p in step.parts if p in ("and", "or", "popc"))])
    kind = "b32" if "popc" in step.parts else "pred"
    step.write(step.operands[0], np.array(results), kind)
    gang.extras["red.read"].update(dict.fromkeys(step.lanes.tolist()))
    if len(gang.extras["red.read"]) >= len(votes):
        votes.clear()
        gang.extras["red.read"].clear()


@op("bar.warp.sync")
def bar_warp(step: Step) -> None:
    """Wait for the threads of the warp."""
    step.collect(whole=False)
