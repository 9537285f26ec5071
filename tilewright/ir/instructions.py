"""THE table of machine instructions that a thread of a GPU's block may run by name.

A row says what the operands are, how many threads run it together and what it means, in NumPy. What
it becomes in code is in ``codegen/gpu``. Layouts are those of the PTX ISA ("Matrix fragments for
mma.m16n8k16", "ldmatrix", "Asynchronous warpgroup level matrix shared memory layout"): thread ``l``
of a warp has g = l / 4 and t = l % 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilewright.ir.loops import Access, Instruction, Load, Space
from tilewright.ir.types import DType, bf16, bool_, f16, f32, i64

Array: TypeAlias = NDArray[Any]

WARP, WARPGROUP = 32, 128
PIECE = 16
"""Bytes of an asynchronous copy."""

BOX_BYTES = 128
"""Bytes of a row of a box that a tensor copy moves."""


@dataclass(frozen=True)
class Place:
    """An operand that is a place: so many elements from there on.

    dtypes  what it may hold; none: anything
    count   elements; 0: those of :data:`PIECE` bytes, None: as the meaning says
    access  in: read, out: written, inout: both
    like    the number of an earlier operand that has the same element type
    """

    space: Space
    dtypes: tuple[DType, ...]
    count: int | None
    access: Access
    like: int | None = None

    def elements(self, dtype: DType) -> int | None:
        """How many elements of a type it is."""
        return PIECE // dtype.itemsize if self.count == 0 else self.count


@dataclass(frozen=True)
class Number:
    """An operand that is a value; ``constant``: known when the kernel is written."""

    dtype: DType
    constant: bool = False


Operand: TypeAlias = Place | Number
Kind: TypeAlias = Literal[
    "matrix", "async_copy", "async_commit", "async_wait", "tensor_copy", "mbarrier_init",
    "mbarrier_arrive", "mbarrier_expect", "mbarrier_wait", "order",
]


@dataclass(frozen=True)
class Row:
    """An instruction.

    threads  that run it together: 1, a warp or a warpgroup (4 warps, the first a multiple of 4)
    least    the architecture from which on it is there; ``sm_90a``: there alone
    kind     matrix: from what is read to what is written, by ``meaning``; order: it orders others
    meaning  the contents of the places that are written, given those that are read, as
             [threads, elements] each; a place without a count is the whole buffer and the index
    """

    name: str
    operands: tuple[Operand, ...]
    threads: int
    least: str
    kind: Kind = "matrix"
    meaning: Callable[..., Array] | None = None


LANE = np.arange(WARP)
G, T = LANE[:, None] // 4, LANE[:, None] % 4


def wide(a: Array) -> Array:
    """Elements as f64, in which products of 16 bits are exact."""
    return np.asarray(a).astype(np.float64)


def tf32(a: Array) -> Array:
    """f32 rounded to 10 bits of mantissa, halves away from zero (cvt.rna.tf32.f32)."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    kept = np.where(np.isfinite(a), bits + np.uint32(0x1000), bits)
    return np.asarray(kept & np.uint32(0xFFFFE000)).view(np.float32)


def cut(a: Array) -> Array:
    """f32 of which 10 bits of mantissa are kept: so wgmma reads shared memory as tf32."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return np.asarray(bits & np.uint32(0xFFFFE000)).view(np.float32)


def multiply(
    m: int, n: int, k: int, width: int, rounded: Callable[[Array], Array]
) -> Callable[..., Array]:
    """``c += a b`` of a warp: a is m x k, b is k x n; a register has ``width`` neighbours in k."""
    i = np.arange(width)
    # Registers of A go down 8 rows first, then on in k; those of B on in k.
    a_rows = [G + 8 * (r % 2) + 0 * i for r in range(2 * k // (4 * width))]
    a_cols = [T * width + 4 * width * (r // 2) + i for r in range(2 * k // (4 * width))]
    b_rows = [T * width + 4 * width * r + i for r in range(k // (4 * width))]
    c_rows, c_cols = G + 8 * (np.arange(4) // 2), T * 2 + np.arange(4) % 2
    a_at = np.concatenate(a_rows, axis=1), np.concatenate(a_cols, axis=1)
    b_at = np.concatenate(b_rows, axis=1), G

    def meaning(c: Array, a: Array, b: Array) -> Array:
        left, right = np.zeros((m, k)), np.zeros((k, n))
        left[a_at], right[b_at] = wide(rounded(a)), wide(rounded(b))
        return np.asarray(wide(c) + (left @ right)[c_rows, c_cols], np.float32)

    return meaning


def quads(left: str, right: str) -> Callable[..., Array]:
    """``c += a b`` of four groups of eight threads: a is 8 x 4, b is 4 x 8, row or column major.

    A group has threads 4q to 4q + 3, and those 16 further on.
    """
    i, high, quad = np.arange(8), LANE[:, None] // 16, LANE[:, None] // 4 % 4
    line, four = T + 4 * high, np.arange(4)
    a_at = (quad, line, four) if left == "row" else (quad, four + 4 * high, T)
    b_at = (quad, four, line) if right == "col" else (quad, T, four + 4 * high)
    c_at = quad, LANE[:, None] % 2 + (i & 2) + 4 * high, (i & 4) + (LANE[:, None] & 2) + (i & 1)

    def meaning(c: Array, a: Array, b: Array) -> Array:
        one, other = np.zeros((4, 8, 4)), np.zeros((4, 4, 8))
        one[a_at], other[b_at] = wide(a), wide(b)
        return np.asarray(wide(c) + (one @ other)[c_at], np.float32)

    return meaning


def quad_rows() -> list[Row]:
    """The multiplications of sm_70."""
    operands = (
        Place("register", (f32,), 8, "inout"), Place("register", (f16,), 4, "in"),
        Place("register", (f16,), 4, "in"),
    )
    return [
        Row(f"mma_m8n8k4_{left}_{right}", operands, WARP, "sm_70", meaning=quads(left, right))
        for left in ("row", "col") for right in ("row", "col")]


def plain(rows: Array) -> Array:
    """Four 8 x 8 matrices by rows of 8 elements: a thread gets two neighbours of each."""
    return rows.reshape(4, 8, 8)[:, G, T * 2 + np.arange(2)].transpose(1, 0, 2).reshape(WARP, 8)


def transposed(rows: Array) -> Array:
    """The same of the transposed matrices."""
    return rows.reshape(4, 8, 8)[:, T * 2 + np.arange(2), G].transpose(1, 0, 2).reshape(WARP, 8)


def swizzled(index: Array, itemsize: int = 2) -> Array:
    """Where an element lies in a buffer whose 16-byte pieces are swizzled by 128 bytes.

    The number of the piece in its row of 128 bytes is xored with the row's number modulo 8.
    """
    index = np.asarray(index)
    row, piece = BOX_BYTES // itemsize, PIECE // itemsize
    return np.asarray(index ^ ((index // row) % 8 * piece))


def spread(lines: int, k: int, row: int, across: bool) -> Array:
    """Where the elements [lines, k] of a swizzled tile would be without its swizzle.

    Its rows have ``row`` elements: one for each line, or, ``across``, one for each k in squares of
    ``row`` lines, one after another.
    """
    line, depth = np.arange(lines)[:, None], np.arange(k)
    if not across:
        return np.asarray(line * row + depth)
    return np.asarray(line // row * row * row + line % row + depth * row)


STEP_BYTES = 32
"""Bytes along k of an operand of wgmma."""


def warpgroup(
    n: int, left: bool, right: bool, itemsize: int = 2, rounded: Callable[[Array], Array] = wide
) -> Callable[..., Array]:
    """``c += a b`` of a warpgroup: a is 64 x k, b is k x n, both in shared memory, k 32 bytes.

    ``left`` and ``right`` say whether A and B lie across, see :func:`spread`; rows have 128 bytes.
    The index is that of the first element.
    """
    thread = np.arange(WARPGROUP)[:, None]
    i = np.arange(n // 2)
    rows = 16 * (thread // 32) + thread % 32 // 4 + 8 * (i // 2 % 2)
    cols = 2 * (thread % 4) + i % 2 + 8 * (i // 4)
    row, k = BOX_BYTES // itemsize, STEP_BYTES // itemsize
    a_at, b_at = spread(64, k, row, left), spread(n, k, row, right)

    def meaning(c: Array, a: Array, first: int, b: Array, start: int) -> Array:
        one, other = (
            wide(rounded(tile[swizzled(at, itemsize)]))
            for tile, at in ((a, first + a_at), (b, start + b_at)))
        return np.asarray(wide(c) + (one @ other.T)[rows, cols], np.float32)

    return meaning


HALVES = (bf16, f16)


def fragments(dtypes: tuple[DType, ...], a: int, b: int) -> tuple[Operand, ...]:
    """``c``, ``a`` and ``b`` in registers."""
    return (
        Place("register", (f32,), 4, "inout"), Place("register", dtypes, a, "in"),
        Place("register", dtypes, b, "in", like=1),
    )


def loaded() -> tuple[Operand, ...]:
    """Registers for four matrices, and the row of 8 elements whose place this thread gives."""
    return Place("register", HALVES, 8, "out"), Place("shared", HALVES, 8, "in", like=0)


FORMS = {"": (False, False), "_n": (False, True), "_m": (True, False), "_mn": (True, True)}
"""What follows the name of a wgmma, and whether A and B lie across: neighbours along m, along n."""


WIDTHS = (64, 128, 192, 256)
"""Columns of a wgmma."""


def groups() -> list[Row]:
    """The multiplications of a warpgroup."""
    def operands(n: int, dtypes: tuple[DType, ...]) -> tuple[Operand, ...]:
        return (
            Place("register", (f32,), n // 2, "inout"), Place("shared", dtypes, None, "in"),
            Place("shared", dtypes, None, "in", like=1),
        )

    rows = []
    for n in WIDTHS:
        rows.append(Row(
            f"wgmma_m64n{n}k8_tf32", operands(n, (f32,)), WARPGROUP, "sm_90a",
            meaning=warpgroup(n, False, False, 4, cut)))
        tiles = operands(n, HALVES)
        for form, (left, right) in FORMS.items():
            name = f"wgmma_m64n{n}k16{form}"
            rows.append(Row(name, tiles, WARPGROUP, "sm_90a", meaning=warpgroup(n, left, right)))
    return rows


def mbarrier(kind: Kind, *more: Operand) -> Row:
    """What is done at an mbarrier, a place of an i64 in shared memory."""
    access: Access = "out" if kind == "mbarrier_init" else "in"
    return Row(kind, (Place("shared", (i64,), 1, access), *more), 1, "sm_90", kind)


ROWS = (
    Row("async_copy", (
        Place("shared", (), 0, "out"), Place("global", (), 0, "in", like=0), Number(bool_),
    ), 1, "sm_80", "async_copy"),
    Row("async_commit", (), 1, "sm_80", "async_commit"),
    Row("async_wait", (Number(i64, True),), 1, "sm_80", "async_wait"),
    Row("ldmatrix_x4", loaded(), WARP, "sm_75", meaning=plain),
    Row("ldmatrix_x4_t", loaded(), WARP, "sm_75", meaning=transposed),
    *quad_rows(),
    Row("mma_m16n8k8", fragments((f16,), 4, 2), WARP, "sm_75",
        meaning=multiply(16, 8, 8, 2, wide)),
    Row("mma_m16n8k16", fragments(HALVES, 8, 4), WARP, "sm_80",
        meaning=multiply(16, 8, 16, 2, wide)),
    Row("mma_m16n8k8_tf32", fragments((f32,), 4, 2), WARP, "sm_80",
        meaning=multiply(16, 8, 8, 1, tf32)),
    *groups(),
    Row("wgmma_fence", (), WARPGROUP, "sm_90a", "order"),
    Row("wgmma_commit", (), WARPGROUP, "sm_90a", "order"),
    Row("wgmma_wait", (Number(i64, True),), WARPGROUP, "sm_90a", "order"),
    Row("async_fence", (), 1, "sm_90", "order"),
    mbarrier("mbarrier_init", Number(i64, True)),
    mbarrier("mbarrier_arrive"),
    mbarrier("mbarrier_expect", Number(i64, True)),
    mbarrier("mbarrier_wait", Number(i64)),
    Row("tensor_copy", (
        Place("shared", (), None, "out"), Place("global", (), None, "in", like=0),
        Place("shared", (i64,), 1, "in"), Number(i64), Number(i64), Number(i64), Number(i64),
        Number(i64, True),
    ), 1, "sm_90", "tensor_copy"),
    Row("registers_less", (Number(i64, True),), WARPGROUP, "sm_90a", "order"),
    Row("registers_more", (Number(i64, True),), WARPGROUP, "sm_90a", "order"),
)

INSTRUCTIONS: dict[str, Row] = {row.name: row for row in ROWS}
"""By name. ``async_copy(to, from, whether)`` copies 16 bytes, zeros if it is false, at some time
before the ``async_wait(n)`` after the ``async_commit`` that follows: it waits until at most ``n``
of the thread's last commits are under way. ``async_fence`` makes what threads stored in shared
memory visible to wgmma and to tensor copies; ``wgmma_wait(n)`` is for wgmma what async_wait is for
copies: it reads and writes between ``wgmma_fence`` and that wait.

``mbarrier_init(bar, n)``: a phase ends when n threads have arrived and all announced bytes have
landed. ``mbarrier_expect(bar, bytes)`` announces and arrives. ``mbarrier_wait(bar, parity)`` waits
until the phase of that parity is over; before the first phase, that of parity 1 is.
``tensor_copy(to, from, bar, row, column, rows, columns, box)`` copies ``box`` rows of 128 bytes
from the place (row, column) of a matrix [rows, columns] that begins at ``from``, zeros outside of
it, into a swizzled tile; ``from``, ``rows`` and ``columns`` are known before the launch. Its bytes
land at ``bar``. ``registers_less(n)`` and ``registers_more(n)`` say how many registers the threads
of a warpgroup keep.
"""


def written(s: Instruction) -> Iterator[Load]:
    """The places that an instruction writes."""
    for operand, given in zip(INSTRUCTIONS[s.name].operands, s.operands, strict=True):
        if isinstance(operand, Place) and operand.access != "in" and isinstance(given, Load):
            yield given
