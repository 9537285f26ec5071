"""Bits: logic, shifts, fields, counts, permutations of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ptxsim.faults import UnknownInstruction
from tilewright.ptxsim.ops.arithmetic import elementwise
from tilewright.ptxsim.scalars import KINDS, kind_of
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.table import op


@op("and")
def and_(step: Step) -> None:
    """Bitwise and."""
    elementwise(step, np.bitwise_and)


@op("or")
def or_(step: Step) -> None:
    """Bitwise or."""
    elementwise(step, np.bitwise_or)


@op("xor")
def xor(step: Step) -> None:
    """Bitwise exclusive or."""
    elementwise(step, np.bitwise_xor)


@op("not")
def not_(step: Step) -> None:
    """Bitwise complement."""
    elementwise(step, np.invert)


@op("cnot")
def cnot(step: Step) -> None:
    """1 if zero, else 0."""
    elementwise(step, lambda a: a == 0)


@op("lop3")
def lop3(step: Step) -> None:
    """Any function of three bits, by its table."""
    table = step.uniform(step.operands[4], "b32")
    a, b, c = (step.read(o, "b32") for o in step.operands[1:4])
    result = np.zeros(step.count, np.uint32)
    for row in range(8):
        if table >> row & 1:
            terms = [x if row >> s & 1 else ~x for x, s in ((a, 2), (b, 1), (c, 0))]
            result |= terms[0] & terms[1] & terms[2]
    step.write(step.operands[0], result, "b32")


@op("shl", "shr")
def shift(step: Step) -> None:
    """Shifts; by the width or more, nothing of the value is left but its sign."""
    kind = kind_of(step.parts)
    dtype = KINDS[kind]
    value, by = step.read(step.operands[1], kind), step.read(step.operands[2], "b32")
    bits = 8 * dtype.itemsize
    large = by >= bits
    small = np.minimum(by, bits - 1).astype(dtype)
    shifted = value << small if step.parts[0] == "shl" else value >> small
    if (dtype.kind == "u" or step.parts[0] == "shl") and large.any():
        shifted = np.where(large, dtype.type(0), shifted)
    step.write(step.operands[0], np.asarray(shifted, dtype), kind)


@op("shf")
def funnel(step: Step) -> None:
    """The upper (l) or lower (r) word of a shifted pair of words."""
    low, high = (step.read(o, "b32").astype(np.uint64) for o in step.operands[1:3])
    by = step.read(step.operands[3], "b32").astype(np.uint64)
    by = np.minimum(by, np.uint64(32)) if "clamp" in step.parts else by & np.uint64(31)
    both = high << np.uint64(32) | low
    if step.parts[1] == "l":
        word = both << by >> np.uint64(32)
    else:
        word = both >> by
    step.write(step.operands[0], (word & np.uint64(0xFFFFFFFF)).astype(np.uint32), "b32")


def field(value: Any, start: Any, length: Any, dtype: np.dtype[Any]) -> Any:
    """`length` bits of a value from bit `start`, extended by the sign of a signed type."""
    bits, wide = 8 * dtype.itemsize, np.asarray(value, dtype)
    start, length = (np.asarray(x).astype(np.int64) & 0xFF for x in (start, length))
    start = np.minimum(start, bits)
    inside = np.minimum(length, bits - start)
    up = np.minimum(bits - start - inside, bits - 1).astype(dtype)
    down = np.minimum(bits - inside, bits - 1).astype(dtype)
    found = wide << up >> down  # without a bit inside: the sign, if there is one
    nothing = length == 0 if dtype.kind == "i" else inside == 0
    return np.where(nothing, dtype.type(0), found)


@op("bfe")
def bfe(step: Step) -> None:
    """Extract a field of bits."""
    kind = kind_of(step.parts)
    value = step.values(step.operands[1], kind)
    start, length = (step.read(o, "b32") for o in step.operands[2:4])
    step.write(step.operands[0], field(value, start, length, KINDS[kind]), kind)


@op("bfi")
def bfi(step: Step) -> None:
    """Insert a field of bits."""
    kind = kind_of(step.parts)
    dtype = KINDS[kind]
    bits = 8 * dtype.itemsize
    a, b = (step.values(o, kind) for o in step.operands[1:3])
    start, length = (step.values(o, "b32") & 0xFF for o in step.operands[3:5])
    one, top = dtype.type(1), dtype.type(bits - 1)
    whole = np.where(
        length >= bits, ~dtype.type(0), (one << np.minimum(length.astype(dtype), top)) - one
    )
    at = np.minimum(start.astype(dtype), top)
    mask = np.where(start >= bits, dtype.type(0), whole << at)
    step.write(step.operands[0], (b & ~mask) | ((a << at) & mask), kind)


def bits_of(step: Step) -> Any:
    """The first source as [lanes, bits], lowest first."""
    kind = kind_of(step.parts)
    value = np.ascontiguousarray(step.values(step.operands[1], kind)).reshape(-1, 1)
    return np.unpackbits(value.view(np.uint8), axis=1, bitorder="little")


@op("popc")
def popc(step: Step) -> None:
    """How many bits are set."""
    step.write(step.operands[0], bits_of(step).sum(1).astype(np.uint32), "b32")


@op("clz")
def clz(step: Step) -> None:
    """How many bits are zero from the top."""
    bits = bits_of(step)[:, ::-1]
    zeros = np.where(bits.any(1), bits.argmax(1), bits.shape[1])
    step.write(step.operands[0], zeros.astype(np.uint32), "b32")


@op("bfind")
def bfind(step: Step) -> None:
    """The highest bit that differs from the sign, or all ones."""
    bits = bits_of(step)
    if kind_of(step.parts)[0] == "s":
        bits = bits ^ bits[:, -1:]
    bits = bits[:, ::-1]
    top = bits.shape[1] - 1 - bits.argmax(1)
    if "shiftamt" in step.parts:
        top = bits.shape[1] - 1 - top
    step.write(
        step.operands[0], np.where(bits.any(1), top, 0xFFFFFFFF).astype(np.uint32), "b32"
    )


@op("brev")
def brev(step: Step) -> None:
    """The bits in reverse order."""
    kind = kind_of(step.parts)
    code = np.packbits(bits_of(step)[:, ::-1], axis=1, bitorder="little")
    step.write(step.operands[0], np.ascontiguousarray(code).view(KINDS[kind])[:, 0], kind)


@op("prmt")
def prmt(step: Step) -> None:
    """Four bytes chosen out of eight; with the fourth bit of a choice, the byte's sign."""
    if step.parts[-1] != "b32" or len(step.parts) > 2:
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    a, b, choice = (step.values(o, "b32") for o in step.operands[1:4])
    eight = np.ascontiguousarray(np.stack([a, b], 1)).view(np.uint8)
    nibbles = choice[:, None] >> np.arange(0, 16, 4, dtype=np.uint32)
    chosen = np.take_along_axis(eight, (nibbles & 7).astype(np.int64), 1)
    signs = np.where(chosen & 0x80, 0xFF, 0).astype(np.uint8)
    result = np.where(nibbles & 8, signs, chosen).astype(np.uint8)
    step.write(step.operands[0], np.ascontiguousarray(result).view(np.uint32)[:, 0], "b32")


@op("bmsk")
def mask_of_bits(step: Step) -> None:
    """So many ones from a bit on; clamp: both numbers as they are, wrap: modulo 32."""
    start, count = (step.values(o, "b32").astype(np.int64) for o in step.operands[1:3])
    if "wrap" in step.parts:
        start, count = start & 31, count & 31
    start, end = np.minimum(start, 32), np.minimum(start + count, 32)
    ones = (np.int64(1) << end) - (np.int64(1) << start)
    step.write(step.operands[0], np.maximum(ones, 0).astype(np.uint32), "b32")
