"""Branches, calls, ends, barriers of a block, and what only orders or times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.barriers import Results, arrive
from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.gang import DONE, Gang
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Operand, Symbol
from tilewright.ptxsim.table import op


@op("bra")
def bra(step: Step) -> None:
    """Go to a label."""
    label = step.operands[0]
    if not isinstance(label, Symbol):
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    go(step.gang, step.lanes, step.symbol(label))


def go(gang: Gang, lanes: NDArray[np.int64], pc: int) -> None:
    """Lanes go on elsewhere."""
    gang.pc[lanes] = pc
    gang.changed = True


@op("brx.idx")
def branch_by_index(step: Step) -> None:
    """Go to one of a list of labels."""
    index, name = step.values(step.operands[0], "b32"), step.operands[1]
    labels = step.gang.launch.kernel.tables.get(getattr(name, "name", ""), ())
    for i in np.unique(index).tolist():
        if i >= len(labels):
            raise Fault(f"{step.instruction.name}: label {i} of {len(labels)}")
        go(step.gang, step.lanes[index == i], step.symbol(Symbol(labels[i])))


@op("exit")
def end(step: Step) -> None:
    """The threads end."""
    step.gang.set_state(step.lanes, DONE)


class Calls:
    """Where the calls are that each lane is in, the innermost last."""

    def __init__(self, gang: Gang) -> None:
        self.depth = np.zeros(gang.size, np.int64)
        self.at = np.zeros((gang.size, 8), np.int64)

    def enter(self, lanes: NDArray[np.int64], pc: int) -> None:
        """Lanes begin a call."""
        deepest = int(self.depth[lanes].max())
        if deepest == self.at.shape[1]:
            self.at = np.pad(self.at, ((0, 0), (0, deepest)))
        self.at[lanes, self.depth[lanes]] = pc
        self.depth[lanes] += 1


@op("call")
def call(step: Step) -> None:
    """Copy the arguments to the function's parameters, and go there."""
    target = step.operands[1]
    if not isinstance(target, Symbol):
        raise UnknownInstruction("calls through registers are not simulated")
    function = step.gang.launch.functions[target.name]
    arguments = step.items(step.operands[2]) if len(step.operands) > 2 else ()
    for argument, parameter in zip(arguments, function.parameters, strict=True):
        copy_local(step, argument, parameter.name, parameter.size)
    step.gang.own(Calls).enter(step.lanes, step.gang.now)
    go(step.gang, step.lanes, step.symbol(target))


@op("ret")
def ret(step: Step) -> None:
    """Copy results to where the call wants them, and go on after it; outside of calls, end."""
    gang, calls = step.gang, step.gang.own(Calls)
    outside = calls.depth[step.lanes] == 0
    if outside.any():
        gang.set_state(step.lanes[outside], DONE)
    inside = step.lanes[~outside]
    calls.depth[inside] -= 1
    came = calls.at[inside, calls.depth[inside]]
    for pc in np.unique(came).tolist():
        step.take(inside[came == pc])
        results, target = gang.launch.code[pc][0].operands[:2]
        function = gang.launch.functions[getattr(target, "name", "")]
        for result, of_function in zip(step.items(results), function.results, strict=True):
            copy_local(step, result, of_function.name, of_function.size, back=True)
        go(gang, step.lanes, pc + 1)


def copy_local(step: Step, operand: Operand, name: str, size: int, back: bool = False) -> None:
    """An argument to a local variable of a function, or a result back."""
    if not isinstance(operand, Symbol):
        raise UnknownInstruction("arguments in registers are not simulated")
    ours, theirs = (
        np.full(step.count, step.symbol(symbol), np.uint64) for symbol in (operand, Symbol(name)))
    source, target = (theirs, ours) if back else (ours, theirs)
    for i in range(size):
        offset = np.uint64(i)
        byte = step.gang.load("local", source + offset, step.lanes, 1)
        step.gang.store("local", target + offset, step.lanes, byte)


@op("trap")
def trap(step: Step) -> None:
    """The kernel ends with a fault."""
    raise Fault("the kernel executed a trap")


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
        masks = step.values(step.operands[0], "b32")
        for mask in np.unique(masks):
            step.gang.races.order.warps_met(step.lanes[masks == mask])
