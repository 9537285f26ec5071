"""What the threads of a warp exchange: shuffles, votes, matches, reductions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.gang import WARP
from tilewright.ptxsim.scalars import KINDS, kind_of
from tilewright.ptxsim.step import Step, as_pair, complete
from tilewright.ptxsim.syntax import Number, Operand
from tilewright.ptxsim.table import Meaning, op

LANE = np.arange(WARP)


def padded(step: Step, values: Any) -> Any:
    """Values per executing lane as [warps, 32], and which of those lanes execute."""
    if complete(step.lanes, WARP):
        table = np.reshape(values, (-1, WARP))
        return table, np.broadcast_to(np.True_, table.shape), whole_warps(len(table))
    warps, inverse = np.unique(step.lanes // WARP, return_inverse=True)
    table = np.zeros((len(warps), WARP), np.asarray(values).dtype)
    here = np.zeros((len(warps), WARP), np.bool_)
    places = inverse, step.lanes % WARP
    table[places], here[places] = values, True
    return table, here, places


@lru_cache(maxsize=64)
def whole_warps(count: int) -> tuple[Any, Any]:
    """The warp and the lane of all threads of so many warps."""
    return np.repeat(np.arange(count), WARP), np.tile(LANE, count)


def is_everybody(mask: Operand) -> bool:
    """Whether the text of an instruction names all threads of a warp."""
    return isinstance(mask, Number) and mask.value & 0xFFFFFFFF == 0xFFFFFFFF


def exchange(function: Meaning) -> Meaning:
    """Run a function once for the threads of each mask, when all that it names have come.

    Of instructions with .sync the last operand is the mask. Fault if a thread executes that its
    own mask does not name.
    """
    def collected(step: Step) -> None:
        if "sync" not in step.parts:
            function(step)
            return
        if not step.collect(whole=False, mask=step.operands[-1]):
            return
        if is_everybody(step.operands[-1]):
            function(step)
            return
        everybody, masks = step.lanes, step.values(step.operands[-1], "b32")
        named = masks >> (everybody % WARP).astype(np.uint32) & 1
        if not named.all():
            raise Fault(f"{step.instruction.name}: a thread executes that its mask does not name")
        for mask in np.unique(masks):
            step.take(everybody[masks == mask])
            function(step)

    return collected


@op("shfl")
@exchange
def shfl(step: Step) -> None:
    """A value of another lane; where that is outside of the segment, the own one."""
    synced = step.parts[1] == "sync"
    mode = step.parts[2 if synced else 1]
    values, here, (row, lane) = padded(step, step.values(step.operands[1], "b32"))
    by = step.read(step.operands[2], "b32").astype(np.int64) & 31
    clamp = step.read(step.operands[3], "b32").astype(np.int64)
    segment = clamp >> 8 & 31
    low = (lane & segment)
    high = low | (clamp & 31 & ~segment)
    if mode == "up":
        source = lane - by
        valid = source >= high
    elif mode == "down":
        source = lane + by
        valid = source <= high
    elif mode == "bfly":
        source = lane ^ by
        valid = source <= high
    else:
        source = low | (by & ~segment)
        valid = source <= high
    source = np.where(valid, source, lane)
    if synced and not here[row, source].all():
        raise Fault(f"{step.instruction.name}: a lane that does not take part is read")
    first, second = as_pair(step.operands[0])
    step.write(first, values[row, source], "b32")
    step.write(second, valid, "pred")


@op("vote")
@exchange
def vote(step: Step) -> None:
    """Whether a predicate holds in all, in any or in equal measure; or the bits of all."""
    mode = next(p for p in step.parts if p in ("all", "any", "uni", "ballot"))
    holds, here, (row, _) = padded(step, step.values(step.operands[1], "pred"))
    all_, any_ = (holds | ~here).all(1), holds.any(1)
    if mode == "ballot":
        bits = (holds.astype(np.uint32) << LANE.astype(np.uint32)).sum(1)
        step.write(step.operands[0], bits[row].astype(np.uint32), "b32")
    else:
        result = {"all": all_, "any": any_, "uni": all_ | ~any_}[mode]
        step.write(step.operands[0], result[row], "pred")


@op("activemask")
def activemask(step: Step) -> None:
    """The lanes that execute together."""
    _, here, (row, _) = padded(step, np.zeros(step.count, np.uint32))
    bits = (here.astype(np.uint64) << LANE.astype(np.uint64)).sum(1).astype(np.uint32)
    step.write(step.operands[0], bits[row], "b32")


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add.reduce, "min": np.minimum.reduce, "max": np.maximum.reduce,
    "and": np.bitwise_and.reduce, "or": np.bitwise_or.reduce, "xor": np.bitwise_xor.reduce,
}


@op("redux")
@exchange
def redux(step: Step) -> None:
    """A reduction over the lanes of a warp."""
    kind = kind_of(step.parts)
    values, here, (row, _) = padded(step, step.values(step.operands[1], kind))
    reduce = REDUCTIONS[next(p for p in step.parts if p in REDUCTIONS)]
    result = np.array([reduce(v[h]) for v, h in zip(values, here, strict=True)], KINDS[kind])
    step.write(step.operands[0], result[row], kind)


@op("match")
@exchange
def match(step: Step) -> None:
    """The lanes whose value is the same; .all: all of them or none."""
    kind = kind_of(step.parts)
    values, here, (row, lane) = padded(step, step.values(step.operands[1], kind))
    same = (values[:, :, None] == values[:, None, :]) & here[:, None, :] & here[:, :, None]
    bits = (same.astype(np.uint64) << LANE.astype(np.uint64)).sum(2).astype(np.uint32)
    first, second = as_pair(step.operands[0])
    if "any" in step.parts:
        step.write(first, bits[row, lane], "b32")
        return
    agree = np.array([len(set(v[h].tolist())) == 1 for v, h in zip(values, here, strict=True)])
    step.write(first, np.where(agree[row], bits[row, lane], 0).astype(np.uint32), "b32")
    step.write(second, agree[row], "pred")


@op("elect")
@exchange
def elect(step: Step) -> None:
    """One lane of the warp is chosen: the lowest."""
    if "sync" not in step.parts:
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    _, here, (row, lane) = padded(step, np.zeros(step.count, np.uint32))
    leader = here.argmax(1)[row]
    first, second = as_pair(step.operands[0])
    step.write(first, leader.astype(np.uint32), "b32")
    step.write(second, lane == leader, "pred")
