"""Where the elements of a matrix lie in the registers of a warp.

A `Layout` says of each thread and each element that it holds which row and column that is. With
g = lane / 4 and t = lane % 4, all warp-wide mma shapes but Volta's follow one rule: a register
holds p = 32 / bits neighbours along K, four lanes side by side cover 4p, a further register covers
8 more rows (A of 16 rows) or 4p more of K. Source: PTX ISA 9.0, "Matrix fragments for mma.m..."
and "Register fragments and shared memory matrix layouts" of wgmma; the tests hold its formulas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.formats import Codes, Format

LANES = np.arange(32)
GROUP, IN_GROUP = LANES[:, None] >> 2, LANES[:, None] & 3


@dataclass(frozen=True)
class Shape:
    """The sizes of one multiplication, as in m16n8k16."""

    m: int
    n: int
    k: int

    def of(self, operand: str) -> tuple[int, int]:
        """Rows and columns of the operand a, b, c or d."""
        return {"a": (self.m, self.k), "b": (self.k, self.n)}.get(operand, (self.m, self.n))


def shape_of(text: str) -> Shape:
    """Parse m16n8k16."""
    match = re.fullmatch(r"m(\d+)n(\d+)k(\d+)", text)
    if match is None:
        raise ValueError(f"not a matrix shape: {text}")
    return Shape(*map(int, match.groups()))


@dataclass(frozen=True, eq=False)
class Layout:
    """rows[thread, i] and cols[thread, i] of the i-th element that a thread holds."""

    rows: NDArray[Any]
    cols: NDArray[Any]
    shape: tuple[int, int]

    @property
    def elements(self) -> int:
        """How many elements a thread holds."""
        return int(self.rows.shape[1])

    def to_matrix(self, held: Codes) -> Codes:
        """The matrix [..., rows, cols] of the elements [..., thread, i] that threads hold."""
        matrix = np.zeros((*held.shape[:-2], *self.shape), held.dtype)
        matrix[..., self.rows, self.cols] = held
        return matrix

    def to_threads(self, matrix: Codes) -> Codes:
        """The elements [..., thread, i] of a matrix [..., rows, cols]."""
        return matrix[..., self.rows, self.cols]


def _layout(rows: Any, cols: Any, shape: tuple[int, int]) -> Layout:
    rows, cols = np.broadcast_arrays(rows, cols)
    return Layout(rows.copy(), cols.copy(), shape)


@cache
def multiplicand(operand: str, shape: Shape, format: Format) -> Layout:
    """The fragment of A ("a") or B ("b") of mma, all shapes but m8n8k4 of f16."""
    per = max(1, 32 // format.bits)
    lines, depth = (shape.m, shape.k) if operand == "a" else (shape.n, shape.k)
    index = np.arange(lines * depth // 32)
    register, within = index // per, index % per
    across = 2 if lines == 16 else 1  # registers that cover the rows of one stretch of K
    line = GROUP + 8 * (register % across)
    along = IN_GROUP * per + within + 4 * per * (register // across)
    rows, cols = (line, along) if operand == "a" else (along, line)
    return _layout(rows, cols, shape.of(operand))


@cache
def accumulator(shape: Shape) -> Layout:
    """The fragment of C and D of mma, all shapes but m8n8k4 of f16: two columns, then 8 rows on."""
    index = np.arange(shape.m * shape.n // 32)
    return _layout(GROUP + 8 * (index // 2), 2 * IN_GROUP + index % 2, shape.of("d"))


# mma.m8n8k4 of f16 (Volta) multiplies four pairs of matrices at once. Pair p belongs to lanes
# 4p..4p+3 and 16+4p..16+4p+3; a layout here has the pair in front: rows count 8 (A, C) or 4 (B)
# from pair to pair, so that a matrix is four stacked ones.
QUAD = (LANES[:, None] % 16) // 4
HIGH = LANES[:, None] // 16


@cache
def volta_multiplicand(operand: str, major: str) -> Layout:
    """A (four stacked [8, 4]) or B (four stacked [4, 8]) of mma.m8n8k4 with f16, row or col."""
    index = np.arange(4)
    by_lane, by_index = IN_GROUP + 4 * HIGH, index % 4
    if operand == "a":
        rows, cols = (by_lane, by_index) if major == "row" else (by_index + 4 * HIGH, IN_GROUP)
        return _layout(rows + 8 * QUAD, cols, (32, 4))
    rows, cols = (IN_GROUP, by_index + 4 * HIGH) if major == "row" else (by_index, by_lane)
    return _layout(rows + 4 * QUAD, cols, (16, 8))


@cache
def volta_accumulator(format: Format) -> Layout:
    """C and D (four stacked [8, 8]) of mma.m8n8k4 with f16 operands, f16 or f32 themselves."""
    index = np.arange(8)
    if format.bits == 16:
        return _layout(IN_GROUP + 4 * HIGH + 8 * QUAD, index, (32, 8))
    rows = (LANES[:, None] & 1) + (index & 2) + 4 * HIGH
    cols = (index & 4) + (LANES[:, None] & 2) + (index & 1)
    return _layout(rows + 8 * QUAD, cols, (32, 8))


@cache
def eight_by_eight() -> Layout:
    """One 8 x 8 matrix of 16-bit elements as ldmatrix and stmatrix hold it: two per lane."""
    return _layout(GROUP, 2 * IN_GROUP + np.arange(2), (8, 8))


@cache
def wgmma_accumulator(n: int) -> Layout:
    """The 16 rows of D of wgmma m64nNk* that one warp of the four holds, warp w rows 16w...

    A in registers is held as `multiplicand` says of 16 rows.
    """
    index = np.arange(n // 2)
    return _layout(
        GROUP + 8 * (index // 2 % 2), 2 * IN_GROUP + index % 2 + 8 * (index // 4), (16, n)
    )


# What wmma loads is opaque: only wmma.mma, wmma.store and elementwise work on equal fragments may
# use it. Here slot s = 32 i + lane of a fragment holds element s of the row-major matrix; a
# fragment with more slots than elements (f16 A and B on every architecture) holds several copies.
WMMA_REGISTERS: dict[tuple[str, str], dict[str, int]] = {
    ("m16n16k16", "f16"): {"a": 8, "b": 8},
    ("m32n8k16", "f16"): {"a": 8, "b": 8},
    ("m8n32k16", "f16"): {"a": 8, "b": 8},
    ("m16n16k16", "bf16"): {"a": 4, "b": 4},
    ("m32n8k16", "bf16"): {"a": 8, "b": 2},
    ("m8n32k16", "bf16"): {"a": 2, "b": 8},
    ("m16n16k8", "tf32"): {"a": 4, "b": 4},
    ("m8n8k4", "f64"): {"a": 1, "b": 1},
    **{("m16n16k16", t): {"a": 2, "b": 2} for t in ("s8", "u8")},
    **{("m32n8k16", t): {"a": 4, "b": 1} for t in ("s8", "u8")},
    **{("m8n32k16", t): {"a": 1, "b": 4} for t in ("s8", "u8")},
    **{("m8n8k32", t): {"a": 1, "b": 1} for t in ("s4", "u4")},
    ("m8n8k128", "b1"): {"a": 1, "b": 1},
}
"""Registers per thread of A and B, by shape and element type (PTX ISA, "Matrix fragments for
WMMA")."""


@cache
def wmma(operand: str, shape: str, format: Format) -> Layout:
    """The layout of a wmma fragment, a choice of this simulator. KeyError: not in the table."""
    rows, cols = shape_of(shape).of(operand)
    if operand in "ab":
        held = WMMA_REGISTERS[shape, format.name][operand] * max(1, 32 // format.bits)
    else:
        held = rows * cols // 32
    slot = (32 * np.arange(held) + LANES[:, None]) % (rows * cols)
    return _layout(slot // cols, slot % cols, (rows, cols))


MMA_TYPES: dict[str, tuple[str, ...]] = {
    "m8n8k4": ("f16", "f64"),
    "m8n8k16": ("s8", "u8"),
    "m8n8k32": ("s4", "u4"),
    "m8n8k128": ("b1",),
    "m16n8k4": ("tf32", "f64"),
    "m16n8k8": ("f16", "bf16", "tf32", "f64"),
    "m16n8k16": ("f16", "bf16", "s8", "u8", "f64", "e4m3", "e5m2"),
    "m16n8k32": ("s8", "u8", "s4", "u4", "e4m3", "e5m2"),
    "m16n8k64": ("s4", "u4"),
    "m16n8k128": ("b1",),
    "m16n8k256": ("b1",),
}
"""The types of A and B that mma has for a shape (PTX ISA, mma)."""
