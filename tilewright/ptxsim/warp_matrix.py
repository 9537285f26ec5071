"""mma, wmma and the 8 x 8 matrix moves as functions of the registers of whole warps.

Register arrays are [warps, 32 lanes, registers]: 32-bit words, or 64-bit ones of f64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tilewright.ptxsim import fragments
from tilewright.ptxsim.formats import FORMATS, Codes, Format, decode, pack, unpack
from tilewright.ptxsim.fragments import Layout, shape_of
from tilewright.ptxsim.sums import count_bits, multiply_add

Formats = tuple[Format, Format, Format, Format]
"""Of A, B, C and D."""


class NotSimulated(ValueError):
    """A form of an instruction that the simulator does not know, or that PTX does not have."""


@dataclass(frozen=True)
class Multiplication:
    """One form of mma or wmma.mma: where the operands lie and what their bits mean."""

    a: Layout
    b: Layout
    c: Layout
    d: Layout
    a_format: Format
    b_format: Format
    c_format: Format
    d_format: Format
    satfinite: bool = False
    bits: str = ""  # "and" or "xor" of single bits
    parts: int = 1  # independent products stacked in each operand

    def run(self, a: Codes, b: Codes, c: Codes) -> Codes:
        """The registers of D = A x B + C."""
        left = self._matrix(a, self.a, self.a_format)
        right = self._matrix(b, self.b, self.b_format)
        start = decode(self._matrix(c, self.c, self.c_format), self.c_format)
        if self.bits:
            result = count_bits(left, right, start, self.bits)
        else:
            left, right = decode(left, self.a_format), decode(right, self.b_format)
            result = multiply_add(left, right, start, self.d_format, self.satfinite)
        result = result.reshape(len(a), *self.d.shape)
        return pack(self.d.to_threads(result), self.d_format)

    def _matrix(self, registers: Codes, layout: Layout, format: Format) -> Codes:
        codes = layout.to_matrix(unpack(registers, format))
        rows, cols = layout.shape
        if self.parts > 1:
            return codes.reshape(len(registers), self.parts, rows // self.parts, cols)
        return codes


@cache
def mma(parts: tuple[str, ...]) -> Multiplication:
    """The form that the dotted parts of an mma name; NotSimulated if there is none.

    mma.sync.aligned.m16n8k16.row.col[.satfinite].f32.f16.f16.f32[.xor.popc | .and.popc]
    """
    words = [p for p in parts if not p.startswith("kind::")]
    satfinite, bits = _take(words, "satfinite"), ""
    if _take(words, "popc"):
        bits = words.pop()
    _take(words, "rn")
    try:
        _, _, _, shape_text, *majors, d, a, b, c = words
        shape = shape_of(shape_text)
        formats = FORMATS[a], FORMATS[b], FORMATS[c], FORMATS[d]
    except (ValueError, KeyError) as error:
        raise NotSimulated(f"no form of mma: {'.'.join(parts)}") from error
    if a not in fragments.MMA_TYPES.get(shape_text, ()) or b not in (
        fragments.MMA_TYPES[shape_text]
    ):
        raise NotSimulated(f"mma of {a} and {b} has no shape {shape_text}")
    if (shape_text, a) == ("m8n8k4", "f16"):
        return _volta(majors, formats)
    if majors != ["row", "col"]:
        raise NotSimulated(f"mma.{shape_text} takes A by rows and B by columns")
    left = fragments.multiplicand("a", shape, formats[0])
    right = fragments.multiplicand("b", shape, formats[1])
    both = fragments.accumulator(shape)
    return Multiplication(left, right, both, both, *formats, satfinite=satfinite, bits=bits)


def _take(words: list[str], word: str) -> bool:
    found = word in words
    if found:
        words.remove(word)
    return found


def _volta(majors: list[str], formats: Formats) -> Multiplication:
    if len(majors) != 2 or not set(majors) <= {"row", "col"}:
        raise NotSimulated("mma.m8n8k4 of f16 names the order of A and of B")
    return Multiplication(
        fragments.volta_multiplicand("a", majors[0]), fragments.volta_multiplicand("b", majors[1]),
        fragments.volta_accumulator(formats[2]), fragments.volta_accumulator(formats[3]),
        *formats, parts=4,
    )


@cache
def wmma_mma(parts: tuple[str, ...]) -> Multiplication:
    """The form that the dotted parts of a wmma.mma name; NotSimulated if there is none.

    wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 (D, C; A and B are f16), or with all four
    types .f32.bf16.bf16.f32. Single bits: wmma.mma.xor.popc.sync.aligned...
    """
    words, bits = list(parts), ""
    satfinite = _take(words, "satfinite")
    _take(words, "rn")
    if _take(words, "popc"):
        bits = words.pop(2)
    try:
        shape_text, *types = words[6:]
        d, a, b, c = types if len(types) == 4 else (types[0], "f16", "f16", types[1])
        formats = FORMATS[a], FORMATS[b], FORMATS[c], FORMATS[d]
        left = fragments.wmma("a", shape_text, formats[0])
        right = fragments.wmma("b", shape_text, formats[1])
    except (ValueError, KeyError, IndexError) as error:
        raise NotSimulated(f"no form of wmma.mma: {'.'.join(parts)}") from error
    both = fragments.wmma("d", shape_text, formats[3])
    return Multiplication(left, right, both, both, *formats, satfinite=satfinite, bits=bits)


@dataclass(frozen=True)
class Access:
    """One form of wmma.load or wmma.store: which element each register part is."""

    layout: Layout
    format: Format
    by_columns: bool

    def offsets(self, stride: int | None) -> Any:
        """Element offsets [32, elements] from the address, lines `stride` elements apart.

        None takes the manual's default, the length of a line.
        """
        rows, cols = self.layout.rows, self.layout.cols
        if self.by_columns:
            rows, cols = cols, rows
        line = self.layout.shape[0 if self.by_columns else 1]
        return rows * (line if stride is None else stride) + cols


@cache
def wmma_access(parts: tuple[str, ...]) -> Access:
    """The form of wmma.load.a.sync.aligned.row.m16n16k16[.space].f16 or wmma.store.d...."""
    try:
        operand, major, shape_text, name = parts[2], parts[5], parts[6], parts[-1]
        format = FORMATS[name]
        layout = fragments.wmma("d" if operand == "c" else operand, shape_text, format)
    except (IndexError, KeyError, ValueError) as error:
        raise NotSimulated(f"no form of wmma: {'.'.join(parts)}") from error
    if major not in ("row", "col") or format.bits < 8:
        raise NotSimulated(f"{'.'.join(parts)} is not simulated")
    return Access(layout, format, major == "col")


def rows_to_registers(rows: Codes, transpose: bool) -> Codes:
    """ldmatrix: 8 x 8 matrices [..., 8, 8] of 16-bit codes to one register per lane [..., 32]."""
    matrix = np.swapaxes(rows, -1, -2) if transpose else rows
    held = fragments.eight_by_eight().to_threads(matrix)
    return pack(held, FORMATS["f16"])[..., 0]


def registers_to_rows(registers: Codes, transpose: bool) -> Codes:
    """stmatrix: the inverse of `rows_to_registers`."""
    codes = unpack(registers[..., None], FORMATS["f16"])
    matrix = fragments.eight_by_eight().to_matrix(codes)
    return np.swapaxes(matrix, -1, -2) if transpose else matrix


