"""mbarrier instructions, and the arrival of copies on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim import mbarrier
from tilewright.ptxsim.bulk import Transfer
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.gang import Gang
from tilewright.ptxsim.mbarrier import Barrier, Misuse
from tilewright.ptxsim.ops.copies import ThreadCopies
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Address, Operand
from tilewright.ptxsim.table import op

SIZE = 8


def places(step: Step, operand: Operand) -> list[int]:
    """Where the mbarriers of the lanes lie, as words of the shared memory of all blocks."""
    at, span = step.gang.shared_found(step.shared_addresses(operand), step.lanes, SIZE)
    if step.gang.races is not None:
        step.gang.races.noted("shared", at, span, SIZE, SIZE, step.lanes)
    return at.tolist()


def change(gang: Gang, place: int, function: Callable[[Barrier], Barrier]) -> int:
    """Replace the mbarrier at a place; the word that was there. Fault on misuse."""
    words = gang.shared.view(np.uint64)
    before = int(words[place])
    try:
        old = mbarrier.decode(before)
        new = function(old)
    except Misuse as misuse:
        raise Fault(f"mbarrier at shared address {place * SIZE % gang.shared_stride:#x}: "
                    f"{misuse}") from None
    words[place] = new.encode()
    if new.parity != old.parity:
        gang.advance()
        if gang.races is not None:
            gang.races.order.complete(place)
    return before


def each(step: Step, operand: Operand, function: Callable[[Barrier, int], Barrier]) -> list[int]:
    """Apply a function of an mbarrier and the lane's number to that of every lane in turn."""
    return [
        change(step.gang, place, lambda b, i=i: function(b, i))  # type: ignore[misc]
        for i, place in enumerate(places(step, operand))
    ]


@op("mbarrier.init")
def init(step: Step) -> None:
    """Make an mbarrier of a word."""
    counts = step.values(step.operands[1], "b32")
    gang = step.gang
    at = gang.shared_places(step.shared_addresses(step.operands[0]), step.lanes, SIZE)
    words = gang.shared.view(np.uint64)
    for place, count in zip(at.tolist(), counts, strict=True):
        words[place] = mbarrier.initialised(int(count)).encode()
    if gang.races is not None:
        gang.races.made_meeting(at, step.lanes)


@op("mbarrier.inval")
def inval(step: Step) -> None:
    """Make the word free for other uses."""
    words = step.gang.shared.view(np.uint64)
    for place in places(step, step.operands[0]):
        mbarrier.decode(int(words[place]))
        words[place] = 0xFFFFFFFFFFFFFFFF


@op("mbarrier.expect_tx")
def expect_tx(step: Step) -> None:
    """More bytes belong to this phase."""
    counts = step.values(step.operands[1], "b32")
    each(step, step.operands[0], lambda b, i: b.expect(int(counts[i])))


@op("mbarrier.complete_tx")
def complete_tx(step: Step) -> None:
    """Bytes have come."""
    counts = step.values(step.operands[1], "b32")
    each(step, step.operands[0], lambda b, i: b.complete(int(counts[i])))


def come(step: Step, at: list[int]) -> None:
    """The lanes tell at their mbarriers what they have done."""
    order, points = step.gang.races.order, np.array(at)  # type: ignore[union-attr]
    for point in set(at):
        order.come(point, order.release(step.lanes[points == point]))


def arrival(step: Step, function: Callable[[Barrier, int], Barrier]) -> None:
    """An arrival: the state before it goes to the first operand, if there is one."""
    has_state = not isinstance(step.operands[0], Address)
    target = step.operands[1 if has_state else 0]
    if step.gang.races is not None:
        come(step, places(step, target))
    tokens = each(step, target, function)
    if has_state:
        step.write(step.operands[0], np.array(tokens, np.uint64), "b64")


def last_count(step: Step, default: int) -> NDArray[Any]:
    """The count that follows the address, per lane."""
    if isinstance(step.operands[-1], Address):
        return np.full(step.count, default)
    return np.asarray(step.values(step.operands[-1], "b32"))


@op("mbarrier.arrive")
def arrive(step: Step) -> None:
    """Arrivals, one or as many as given; with .noComplete they must not end the phase."""
    counts = last_count(step, 1)
    if "noComplete" in step.parts:
        arrival(step, lambda b, i: b.arrive_without_completion(int(counts[i])))
    else:
        arrival(step, lambda b, i: b.arrive(int(counts[i])))


@op("mbarrier.arrive.expect_tx")
def arrive_expect_tx(step: Step) -> None:
    """More bytes belong to this phase, then one arrival."""
    counts = last_count(step, 0)
    arrival(step, lambda b, i: b.expect(int(counts[i])).arrive())


@op("mbarrier.arrive_drop")
def arrive_drop(step: Step) -> None:
    """Arrivals that later phases do not expect."""
    counts = last_count(step, 1)
    arrival(step, lambda b, i: b.drop(int(counts[i])))


@op("mbarrier.arrive_drop.expect_tx")
def arrive_drop_expect_tx(step: Step) -> None:
    """More bytes belong to this phase, then an arrival that later phases do not expect."""
    counts = last_count(step, 0)
    arrival(step, lambda b, i: b.expect(int(counts[i])).drop())


@op("mbarrier.pending_count")
def pending_count(step: Step) -> None:
    """The arrivals that were pending when a state was taken."""
    tokens = step.values(step.operands[1], "b64")
    counts = [mbarrier.pending_of(int(token)) for token in tokens]
    step.write(step.operands[0], np.array(counts, np.uint32), "b32")


@op("mbarrier.test_wait", "mbarrier.try_wait")
def wait(step: Step) -> None:
    """Whether a phase is complete, by its state or its parity.

    What the mbarrier counts and was put off happens now. Lanes that must look again let others go
    first; a try_wait that could suspend returns at once.
    """
    gang = step.gang
    words = gang.shared.view(np.uint64)
    if "parity" in step.parts:
        parities = [int(p) & 1 for p in step.values(step.operands[2], "b32")]
    else:
        parities = [mbarrier.parity_of(int(t)) for t in step.values(step.operands[2], "b64")]
    passed = np.zeros(step.count, np.bool_)
    at = places(step, step.operands[1])
    for i, place in enumerate(at):
        gang.bulk.deliver(place)
        try:
            passed[i] = mbarrier.decode(int(words[place])).passed(parities[i])
        except Misuse as misuse:
            raise Fault(f"a wait at shared address {place * SIZE % gang.shared_stride:#x}: "
                        f"{misuse}") from None
    step.write(step.operands[0], passed, "pred")
    if gang.races is not None:
        for point in set(at):
            own = passed & (np.array(at) == point)
            gang.races.order.passed(point, step.lanes[own])
    if not passed.all():
        gang.poll(step.lanes[~passed])


@op("cp.async.mbarrier.arrive")
def copies_arrive(step: Step) -> None:
    """The lane's earlier cp.async arrive on an mbarrier once they are complete.

    Without .noinc the phase expects one more arrival for it.
    """
    gang, copies = step.gang, step.gang.own(ThreadCopies)
    for lane, place in zip(step.lanes.tolist(), places(step, step.operands[0]), strict=True):
        if "noinc" not in step.parts:
            change(gang, place, Barrier.add_pending)
        upto, told = copies.issued, None
        stamps = None if gang.races is None else gang.races.order.stamps.copy()
        if gang.races is not None:
            told = gang.races.order.release(np.array([lane]))

        def finish(
            _: object, lane: int = lane, place: int = place, upto: int = upto, told: Any = told,
            stamps: Any = stamps,
        ) -> None:
            copies.complete_upto(lane, upto, stamps)
            if gang.races is not None:
                gang.races.order.come(place, told)
            change(gang, place, Barrier.arrive)

        gang.bulk.count_at_barrier(place, Transfer(lambda: np.zeros(0), finish, "cp.async"))
        gang.advance()
