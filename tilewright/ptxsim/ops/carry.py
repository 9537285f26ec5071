"""Sums, differences and products with carry: the words of longer integers.

The carry is one bit per thread. After a difference it is the borrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ptxsim.gang import Gang
from tilewright.ptxsim.ops.arithmetic import product
from tilewright.ptxsim.scalars import KINDS, kind_of
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.table import op


class Carry:
    """The carry of every lane; false at first."""

    def __init__(self, gang: Gang) -> None:
        self.flag = np.zeros(gang.size, np.bool_)


def finish(step: Step, total: Any, overflow: Any, kind: str) -> None:
    """Write a word, and the carry if the instruction asks for it."""
    step.write(step.operands[0], total, kind)
    if "cc" in step.parts:
        step.gang.own(Carry).flag[step.lanes] = overflow


def unsigned(kind: str) -> str:
    """The unsigned type of the same size: carries are those of unsigned words."""
    return f"u{kind[1:]}"


def taken(step: Step, kind: str) -> Any:
    """The carry that goes in, as a number; 0 for instructions that take none."""
    dtype = KINDS[kind]
    if not step.parts[0].endswith("c"):
        return np.zeros(step.count, dtype)
    return step.gang.own(Carry).flag[step.lanes].astype(dtype)


def with_carry(a: Any, b: Any, carry: Any) -> tuple[Any, Any]:
    """The sum of two words and a carry, and whether it is too long."""
    partial = a + b
    total = partial + carry
    return total, (partial < a) | (total < partial)


@op("add.cc", "addc")
def addc(step: Step) -> None:
    """a + b, addc also with the carry."""
    kind = unsigned(kind_of(step.parts))
    a, b = (step.values(o, kind) for o in step.operands[1:3])
    finish(step, *with_carry(a, b, taken(step, kind)), kind)


@op("sub.cc", "subc")
def subc(step: Step) -> None:
    """a - b, subc also less the borrow."""
    kind = unsigned(kind_of(step.parts))
    a, b = (step.values(o, kind) for o in step.operands[1:3])
    borrow = taken(step, kind)
    partial = a - b
    finish(step, partial - borrow, (a < b) | (partial < borrow), kind)


@op("mad.lo.cc", "mad.hi.cc", "madc")
def madc(step: Step) -> None:
    """The lower or upper word of a b, plus c, madc also with the carry."""
    kind = kind_of(step.parts)
    word = unsigned(kind)
    part = np.broadcast_to(np.asarray(product(step, kind)), (step.count,)).astype(KINDS[word])
    c = step.values(step.operands[3], word)
    finish(step, *with_carry(part, c, taken(step, word)), word)
