"""Fragment layouts against the formulas of the PTX ISA manual, one line per formula as it prints.

The manual gives row and column of the i-th element of a lane in terms of groupID = lane >> 2 and
threadID_in_group = lane % 4 (here g and t), shape by shape; the package has one rule for all.
"""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim import fragments
from tilewright.ptxsim.formats import FORMATS, decode, encode, pack, unpack
from tilewright.ptxsim.fragments import shape_of

# (shape, operand, types): (elements per lane, row of i, column of i)
MANUAL = {
    ("m8n8k4", "a", "f64"): (1, lambda g, t, i: g, lambda g, t, i: t),
    ("m8n8k4", "b", "f64"): (1, lambda g, t, i: t, lambda g, t, i: g),
    ("m8n8k4", "c", "f64"): (2, lambda g, t, i: g, lambda g, t, i: t * 2 + (i & 1)),
    ("m8n8k16", "a", "s8 u8"): (4, lambda g, t, i: g, lambda g, t, i: t * 4 + i),
    ("m8n8k16", "b", "s8 u8"): (4, lambda g, t, i: t * 4 + i, lambda g, t, i: g),
    ("m8n8k16", "c", "s8 u8"): (2, lambda g, t, i: g, lambda g, t, i: t * 2 + i),
    ("m8n8k32", "a", "s4 u4"): (8, lambda g, t, i: g, lambda g, t, i: t * 8 + i),
    ("m8n8k32", "b", "s4 u4"): (8, lambda g, t, i: t * 8 + i, lambda g, t, i: g),
    ("m8n8k32", "c", "s4 u4"): (2, lambda g, t, i: g, lambda g, t, i: t * 2 + i),
    ("m8n8k128", "a", "b1"): (32, lambda g, t, i: g, lambda g, t, i: t * 32 + i),
    ("m8n8k128", "b", "b1"): (32, lambda g, t, i: t * 32 + i, lambda g, t, i: g),
    ("m8n8k128", "c", "b1"): (2, lambda g, t, i: g, lambda g, t, i: t * 2 + i),
    ("m16n8k4", "a", "tf32 f64"): (2, lambda g, t, i: g if i == 0 else g + 8, lambda g, t, i: t),
    ("m16n8k4", "b", "tf32 f64"): (1, lambda g, t, i: t, lambda g, t, i: g),
    ("m16n8k4", "c", "tf32 f64"): (
        4, lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1)
    ),
    ("m16n8k8", "a", "f16 bf16"): (
        4, lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1)
    ),
    ("m16n8k8", "a", "tf32 f64"): (
        4, lambda g, t, i: g if i in (0, 2) else g + 8, lambda g, t, i: t if i < 2 else t + 4
    ),
    ("m16n8k8", "b", "f16 bf16"): (2, lambda g, t, i: t * 2 + i, lambda g, t, i: g),
    ("m16n8k8", "b", "tf32 f64"): (
        2, lambda g, t, i: t if i == 0 else t + 4, lambda g, t, i: g
    ),
    ("m16n8k8", "c", "f16 bf16 tf32 f64"): (
        4, lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1)
    ),
    ("m16n8k16", "a", "f16 bf16"): (
        8,
        lambda g, t, i: g if 0 <= i < 2 or 4 <= i < 6 else g + 8,
        lambda g, t, i: t * 2 + (i & 1) if i < 4 else t * 2 + (i & 1) + 8,
    ),
    ("m16n8k16", "a", "f64"): (
        8,
        lambda g, t, i: g if i % 2 == 0 else g + 8,
        lambda g, t, i: i * 2 + t if i % 2 == 0 else i * 2 - 2 + t,
    ),
    ("m16n8k16", "b", "f16 bf16"): (
        4,
        lambda g, t, i: t * 2 + (i & 1) if i < 2 else t * 2 + (i & 1) + 8,
        lambda g, t, i: g,
    ),
    ("m16n8k16", "b", "f64"): (4, lambda g, t, i: t + i * 4, lambda g, t, i: g),
    ("m16n8k16", "a", "s8 u8 e4m3 e5m2"): (
        8, lambda g, t, i: g if i < 4 else g + 8, lambda g, t, i: t * 4 + (i & 3)
    ),
    ("m16n8k16", "b", "s8 u8 e4m3 e5m2"): (4, lambda g, t, i: t * 4 + i, lambda g, t, i: g),
    ("m16n8k16", "c", "f16 bf16 f64 s8 u8"): (
        4, lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1)
    ),
    ("m16n8k32", "a", "s4 u4"): (
        16, lambda g, t, i: g if i < 8 else g + 8, lambda g, t, i: t * 8 + (i & 7)
    ),
    ("m16n8k32", "b", "s4 u4"): (8, lambda g, t, i: t * 8 + (i & 7), lambda g, t, i: g),
    ("m16n8k32", "a", "s8 u8 e4m3 e5m2"): (
        16,
        lambda g, t, i: g if 0 <= i < 4 or 8 <= i < 12 else g + 8,
        lambda g, t, i: t * 4 + (i & 3) if i < 8 else t * 4 + (i & 3) + 16,
    ),
    ("m16n8k32", "b", "s8 u8 e4m3 e5m2"): (
        8,
        lambda g, t, i: t * 4 + (i & 3) if i < 4 else t * 4 + (i & 3) + 16,
        lambda g, t, i: g,
    ),
    ("m16n8k32", "c", "s8 u8 s4 u4 e4m3 e5m2"): (
        4, lambda g, t, i: g if i < 2 else g + 8, lambda g, t, i: t * 2 + (i & 1)
    ),
    ("m16n8k64", "a", "s4 u4"): (
        32,
        lambda g, t, i: g if 0 <= i < 8 or 16 <= i < 24 else g + 8,
        lambda g, t, i: t * 8 + (i & 7) if i < 16 else t * 8 + (i & 7) + 32,
    ),
    ("m16n8k64", "b", "s4 u4"): (
        16,
        lambda g, t, i: t * 8 + (i & 7) if i < 8 else t * 8 + (i & 7) + 32,
        lambda g, t, i: g,
    ),
    ("m16n8k128", "a", "b1"): (
        64, lambda g, t, i: g if i < 32 else g + 8, lambda g, t, i: t * 32 + (i & 31)
    ),
    ("m16n8k128", "b", "b1"): (32, lambda g, t, i: t * 32 + i, lambda g, t, i: g),
    ("m16n8k256", "a", "b1"): (
        128,
        lambda g, t, i: g if 0 <= i < 32 or 64 <= i < 96 else g + 8,
        lambda g, t, i: t * 32 + (i & 31) if i < 64 else t * 32 + (i & 31) + 128,
    ),
    ("m16n8k256", "b", "b1"): (
        64,
        lambda g, t, i: t * 32 + (i & 31) if i < 32 else t * 32 + (i & 31) + 128,
        lambda g, t, i: g,
    ),
}


def layout_of(shape: str, operand: str, type: str) -> fragments.Layout:
    if operand == "c":
        return fragments.accumulator(shape_of(shape))
    return fragments.multiplicand(operand, shape_of(shape), FORMATS[type])


@pytest.mark.parametrize(
    "shape, operand, type",
    [(s, o, t) for s, o, types in MANUAL for t in types.split()],
)
def test_layouts_are_those_of_the_manual(shape: str, operand: str, type: str) -> None:
    found = next(v for (s, o, t), v in MANUAL.items() if (s, o) == (shape, operand)
                 and type in t.split())
    elements, row, col = found
    layout = layout_of(shape, operand, type)
    assert layout.elements == elements
    for lane in range(32):
        for i in range(elements):
            expected = row(lane >> 2, lane % 4, i), col(lane >> 2, lane % 4, i)
            assert (layout.rows[lane, i], layout.cols[lane, i]) == expected, (lane, i)


def test_every_shape_and_type_of_mma_is_held_against_the_manual() -> None:
    covered = {(s, o, t) for s, o, types in MANUAL for t in types.split() if o != "c"}
    wanted = {
        (shape, operand, type)
        for shape, types in fragments.MMA_TYPES.items() for type in types for operand in "ab"
        if (shape, type) != ("m8n8k4", "f16")
    }
    assert wanted == covered


def volta(lane: int, i: int, which: str) -> tuple[int, int]:
    """Row and column of mma.m8n8k4 with f16 within one of its four matrices, as the manual says."""
    low = lane < 16
    if which == "a row":
        return lane % 4 if low else lane % 4 + 4, i
    if which == "a col":
        return i % 4 if low else i % 4 + 4, lane % 4
    if which == "b row":
        return lane % 4, i if low else i + 4
    if which == "b col":
        return i, lane % 4 if low else lane % 4 + 4
    if which == "c f16":
        return lane % 4 if low else lane % 4 + 4, i
    x = (lane & 0b1) + (i & 0b10)
    return x if low else x + 4, (i & 0b100) + (lane & 0b10) + (i & 0b1)


@pytest.mark.parametrize("which", ["a row", "a col", "b row", "b col", "c f16", "c f32"])
def test_layouts_of_volta(which: str) -> None:
    operand, kind = which.split()
    if operand == "c":
        layout = fragments.volta_accumulator(FORMATS[kind])
    else:
        layout = fragments.volta_multiplicand(operand, kind)
    rows = layout.shape[0] // 4
    for lane in range(32):
        pair = next(p for p in range(4) if lane in {*range(4 * p, 4 * p + 4),
                                                    *range(16 + 4 * p, 20 + 4 * p)})
        for i in range(layout.elements):
            row, col = volta(lane, i, which)
            assert (layout.rows[lane, i], layout.cols[lane, i]) == (rows * pair + row, col)


@pytest.mark.parametrize("n", [8, 24, 64, 256])
def test_accumulators_of_a_warpgroup(n: int) -> None:
    # The manual's figure "WGMMA .m64nNk16 register fragment layout for accumulator matrix D":
    # row = (threads / 32 % 4) * 16 + group + 8 (i / 2 % 2), col = 2 t + i % 2 + 8 (i / 4).
    layout = fragments.wgmma_accumulator(n)
    assert layout.shape == (16, n) and layout.elements == n // 2
    for lane in range(32):
        for i in range(n // 2):
            row = lane // 4 + 8 * ((i // 2) % 2)
            col = (lane % 4) * 2 + (i % 2) + 8 * (i // 4)
            assert (layout.rows[lane, i], layout.cols[lane, i]) == (row, col)


def every_layout() -> list[tuple[str, fragments.Layout]]:
    found = [
        (f"{s}.{o}.{t}", layout_of(s, o, t)) for s, types in fragments.MMA_TYPES.items()
        for t in types for o in "abc" if (s, t) != ("m8n8k4", "f16")
    ]
    found += [
        (f"wmma.{s}.{o}.{t}", fragments.wmma(o, s, FORMATS[t]))
        for s, t in fragments.WMMA_REGISTERS for o in "abd"
    ]
    return [*found, ("wgmma", fragments.wgmma_accumulator(24))]


@pytest.mark.parametrize("name, layout", every_layout(), ids=lambda v: v if str(v) == v else "")
def test_a_layout_holds_every_element(name: str, layout: fragments.Layout) -> None:
    matrix = np.arange(layout.shape[0] * layout.shape[1]).reshape(layout.shape)
    assert np.array_equal(layout.to_matrix(layout.to_threads(matrix)), matrix)
    assert layout.rows.size % matrix.size == 0 or layout.rows.size == matrix.size


@pytest.mark.parametrize("name", list(FORMATS))
def test_registers_hold_codes_lowest_first(name: str) -> None:
    format = FORMATS[name]
    per = max(1, 32 // format.bits)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << min(format.bits, 62), (3, 32, 2 * per)).astype(format.code_type)
    registers = pack(codes, format)
    assert registers.shape == (3, 32, 2)
    assert np.array_equal(unpack(registers, format), codes)
    if format.bits < 32:
        first = sum(int(c) << (format.bits * i) for i, c in enumerate(codes[0, 0, :per]))
        assert int(registers[0, 0, 0]) == first


def test_codes_mean_what_the_formats_say() -> None:
    def number(name: str, code: int) -> float:
        return decode(np.array([code], FORMATS[name].code_type), FORMATS[name])[0]

    assert number("bf16", 0x3FC0) == 1.5
    assert number("f16", 0x3E00) == 1.5
    assert number("tf32", 0x3FC01FFF) == 1.5  # the low 13 bits are not read
    assert number("e4m3", 0x7E) == 448.0
    assert number("e5m2", 0x7B) == 57344.0
    assert number("s8", 0x80) == -128
    assert number("u8", 0x80) == 128
    assert number("s4", 0xF) == -1
    assert number("u4", 0xF) == 15
    assert np.isnan(number("e4m3", 0x7F))
    assert encode(np.array([1 + 2**-9 + 2**-12]), FORMATS["bf16"])[0] == 0x3F80
    assert encode(np.array([-1]), FORMATS["s4"])[0] == 0xF
