"""The matrix instructions of a warp: mma, wmma, ldmatrix, stmatrix, movmatrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.formats import Format, pack, unpack
from tilewright.ptxsim.gang import WARP
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Operand
from tilewright.ptxsim.table import op
from tilewright.ptxsim.warp_matrix import (
    Multiplication,
    mma,
    registers_to_rows,
    rows_to_registers,
    wmma_access,
    wmma_mma,
)

ROW = 16
"""Bytes of a row of an 8 x 8 matrix."""


def word(format: Format) -> str:
    """The type of the registers that hold elements of a format."""
    return "b64" if format.bits == 64 else "b32"


def fragment(step: Step, operand: Operand, format: Format, elements: int) -> Any:
    """The registers of an operand as [warps, 32, registers]; Fault if they are not as many."""
    registers = step.columns(operand, word(format))
    expected = elements * format.bits // (64 if format.bits == 64 else 32)
    if registers.shape[1] != expected:
        raise Fault(f"{step.instruction.name}: an operand of {registers.shape[1]} registers, "
                    f"{expected} are needed")
    return registers.reshape(-1, WARP, expected)


def multiply(step: Step, form: Multiplication) -> None:
    """D = A x B + C in registers."""
    d, *sources = step.operands
    formats = (form.a_format, form.b_format, form.c_format)
    layouts = (form.a, form.b, form.c)
    registers = [
        fragment(step, operand, format, layout.elements)
        for operand, format, layout in zip(sources, formats, layouts, strict=True)
    ]
    result = form.run(*registers)
    step.write_columns(d, result.reshape(step.count, -1), word(form.d_format))


@op("mma.sync")
def mma_sync(step: Step) -> None:
    """A product of small matrices in registers."""
    if step.collect():
        multiply(step, mma(step.parts))


@op("wmma.mma")
def wmma_multiply(step: Step) -> None:
    """The same on opaque fragments."""
    if step.collect():
        multiply(step, wmma_mma(step.parts))


def line_stride(step: Step, index: int) -> int | None:
    """The distance of lines in elements, the same in all threads; None if it is not given."""
    return None if len(step.operands) <= index else step.uniform(step.operands[index], "b32")


def element_addresses(step: Step, operand: Operand, offsets: Any, size: int) -> Any:
    """Addresses [lanes, elements] of a fragment at the address that a warp agrees on."""
    at = step.addresses(operand).reshape(-1, WARP)
    if (at != at[:, :1]).any():
        raise Fault(f"{step.instruction.name}: the address differs between the threads of a warp")
    return (at[:, :, None] + (offsets * size).astype(np.uint64)).reshape(step.count, -1)


@op("wmma.load")
def wmma_load(step: Step) -> None:
    """A fragment from memory."""
    if not step.collect():
        return
    access = wmma_access(step.parts)
    size = access.format.bits // 8
    at = element_addresses(step, step.operands[1], access.offsets(line_stride(step, 2)), size)
    codes = np.stack(
        [step.gang.load(step.space, at[:, i], step.lanes, size) for i in range(at.shape[1])], 1
    )
    step.write_columns(step.operands[0], pack(codes, access.format), word(access.format))


@op("wmma.store")
def wmma_store(step: Step) -> None:
    """A fragment to memory."""
    if not step.collect():
        return
    access = wmma_access(step.parts)
    size = access.format.bits // 8
    at = element_addresses(step, step.operands[0], access.offsets(line_stride(step, 2)), size)
    registers = fragment(step, step.operands[1], access.format, access.layout.elements)
    codes = unpack(registers.reshape(step.count, -1), access.format)
    for i in range(at.shape[1]):
        step.gang.store(step.space, at[:, i], step.lanes, np.ascontiguousarray(codes[:, i]))


def matrices(step: Step) -> int:
    """How many 8 x 8 matrices an ldmatrix or stmatrix moves. UnknownInstruction of other forms."""
    if "m8n8" not in step.parts or step.parts[-1] != "b16":
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    return int(next(p for p in step.parts if p in ("x1", "x2", "x4"))[1:])


def row_addresses(step: Step, operand: Operand, count: int) -> tuple[Any, Any]:
    """Addresses [warps, count, 8, 8] of elements, and the lanes that gave them.

    Lanes 8i..8i+7 give the rows of matrix i, each 16 bytes at a multiple of 16.
    """
    at = step.shared_addresses(operand).reshape(-1, WARP)[:, : 8 * count]
    if (at % ROW).any():
        raise Fault(f"{step.instruction.name}: a row at {int(at[at % ROW != 0][0]):#x} is not "
                    f"aligned to {ROW} bytes")
    lanes = np.repeat(step.warps()[:, : 8 * count], 8, 1)
    return at.reshape(-1, count, 8, 1) + 2 * np.arange(8), lanes.reshape(-1)


@op("ldmatrix")
def ldmatrix(step: Step) -> None:
    """8 x 8 matrices of 16-bit elements from shared memory, a row per lane that names it."""
    if not step.collect():
        return
    count = matrices(step)
    at, lanes = row_addresses(step, step.operands[1], count)
    codes = step.gang.load("shared", at.reshape(-1), lanes, 2).reshape(at.shape)
    held = rows_to_registers(codes, "trans" in step.parts)  # [warps, count, 32]
    step.write_columns(step.operands[0], held.swapaxes(1, 2).reshape(step.count, count), "b32")


@op("stmatrix")
def stmatrix(step: Step) -> None:
    """The inverse of ldmatrix."""
    if not step.collect():
        return
    count = matrices(step)
    at, lanes = row_addresses(step, step.operands[0], count)
    held = step.columns(step.operands[1], "b32").reshape(-1, WARP, count).swapaxes(1, 2)
    codes = registers_to_rows(np.ascontiguousarray(held), "trans" in step.parts)
    step.gang.store("shared", at.reshape(-1), lanes, np.ascontiguousarray(codes.reshape(-1)))


@op("movmatrix")
def movmatrix(step: Step) -> None:
    """An 8 x 8 matrix in registers, transposed."""
    if not step.collect():
        return
    held = np.ascontiguousarray(step.values(step.operands[1], "b32")).reshape(-1, WARP)
    turned = rows_to_registers(registers_to_rows(held, False), True)
    step.write(step.operands[0], turned.reshape(-1), "b32")
