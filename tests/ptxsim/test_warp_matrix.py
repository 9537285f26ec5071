"""mma, wmma, ldmatrix and stmatrix as functions of registers, against plain matrix products."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim import fragments
from tilewright.ptxsim.formats import FORMATS, decode, encode, pack
from tilewright.ptxsim.fragments import shape_of
from tilewright.ptxsim.warp_matrix import (
    Multiplication,
    NotSimulated,
    mma,
    registers_to_rows,
    rows_to_registers,
    wmma_access,
    wmma_mma,
)

ACCUMULATORS = {"f16": ("f16", "f32"), "f64": ("f64",), "e4m3": ("f32", "f16")}


def numbers_of(rng: np.random.Generator, shape: tuple, name: str) -> np.ndarray:
    """Random numbers that the format has exactly, small enough for exact sums."""
    format = FORMATS[name]
    if format.integer:
        low = -(1 << (format.bits - 1)) if format.signed else 0
        high = (1 << (format.bits - 1)) if format.signed else 1 << format.bits
        return rng.integers(max(low, -99), min(high, 256), shape)
    return rng.integers(-4, 5, shape) / 2.0


def form_names() -> list[str]:
    names = []
    for shape, types in fragments.MMA_TYPES.items():
        for t in types:
            integer = FORMATS[t].integer
            for d in ("s32",) if integer else ACCUMULATORS.get(t, ("f32",)):
                if t == "b1":
                    names += [f"{shape}.row.col.{d}.{t}.{t}.{d}.{op}.popc" for op in
                              ("and", "xor")]
                else:
                    names.append(f"{shape}.row.col.{d}.{t}.{t}.{d}")
    names += [f"m8n8k4.{a}.{b}.f32.f16.f16.{c}" for a in ("row", "col") for b in ("row", "col")
              for c in ("f16", "f32")]
    return [*names, "m16n8k32.row.col.s32.s8.u8.s32", "m16n8k32.row.col.kind::f8f6f4.f32.e4m3"
            ".e5m2.f32", "m16n8k16.row.col.f32.f16.f16.f32"]


def product(form: Multiplication, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    if form.bits:
        both = np.bitwise_xor if form.bits == "xor" else np.bitwise_and
        return both(a[..., :, :, None], b[..., None, :, :]).sum(-2) + c
    return a @ b + c


@pytest.mark.parametrize("name", form_names())
def test_mma_multiplies(name: str) -> None:
    form = mma(tuple(f"mma.sync.aligned.{name}".split(".")))
    rng, warps = np.random.default_rng(1), 2
    numbers = {
        operand: numbers_of(rng, (warps, *getattr(form, operand).shape),
                            getattr(form, f"{operand}_format").name) for operand in "abc"
    }
    registers = [
        pack(getattr(form, o).to_threads(encode(numbers[o], getattr(form, f"{o}_format"))),
             getattr(form, f"{o}_format")) for o in "abc"
    ]
    got = form.run(*registers)
    split = [numbers[o].reshape(warps * form.parts, -1, numbers[o].shape[-1]) for o in "abc"]
    expected = product(form, *split).reshape(warps, *form.d.shape)
    held = pack(form.d.to_threads(encode(expected, form.d_format)), form.d_format)
    assert np.array_equal(got, held)


@pytest.mark.parametrize("name", [
    "m16n8k16.row.col.f32.f16.f16.f32", "m8n8k4.row.col.f32.f16.f16.f32",
    "m16n8k32.row.col.s32.s8.s8.s32", "m8n8k4.row.col.f64.f64.f64.f64",
])
def test_registers_are_as_many_as_the_manual_says(name: str) -> None:
    form = mma(tuple(f"mma.sync.aligned.{name}".split(".")))
    counts = {"m16n8k16": (8, 4, 4), "m16n8k32": (16, 8, 4)}
    expected = counts.get(name.split(".")[0], (1, 1, 2) if "f64" in name else (4, 4, 8))
    assert (form.a.elements, form.b.elements, form.d.elements) == expected


@pytest.mark.parametrize("name", [
    "m16n8k16.col.row.f32.f16.f16.f32", "m16n8k16.row.col.f32.tf32.tf32.f32", "m16n8k16.f32",
    "m16n8k99.row.col.f32.f16.f16.f32", "m8n8k4.f32.f16.f16.f32",
    "m16n8k16.row.col.f32.f16.f17.f32",
])
def test_forms_that_ptx_has_not_are_refused(name: str) -> None:
    with pytest.raises(NotSimulated):
        mma(tuple(f"mma.sync.aligned.{name}".split(".")))


@pytest.mark.parametrize("shape, a_type", list(fragments.WMMA_REGISTERS))
def test_wmma_multiplies_what_it_holds(shape: str, a_type: str) -> None:
    d_type = "s32" if FORMATS[a_type].integer else "f64" if a_type == "f64" else "f32"
    types = f"{d_type}.{d_type}" if a_type == "f16" else f"{d_type}.{a_type}.{a_type}.{d_type}"
    bits = ".and.popc" if a_type == "b1" else ""
    form = wmma_mma(tuple(f"wmma.mma{bits}.sync.aligned.row.col.{shape}.{types}".split(".")))
    rng, sizes = np.random.default_rng(2), shape_of(shape)
    a, b, c = (numbers_of(rng, (1, *sizes.of(o)), t) for o, t in
               zip("abc", (a_type, a_type, d_type), strict=True))
    registers = [
        pack(layout.to_threads(encode(x, format)), format)
        for layout, format, x in ((form.a, form.a_format, a), (form.b, form.b_format, b),
                                  (form.c, form.c_format, c))
    ]
    held = fragments.WMMA_REGISTERS[shape, a_type]
    assert [r.shape[-1] for r in registers[:2]] == [held["a"], held["b"]]
    got = decode(form.d.to_matrix(form.run(*registers)), form.d_format)
    assert np.array_equal(got, product(form, a, b, c))


@pytest.mark.parametrize("name, stride, expected", [
    ("wmma.load.a.sync.aligned.row.m16n16k16.global.f16", None, lambda r, c: 16 * r + c),
    ("wmma.load.b.sync.aligned.col.m32n8k16.f16", 20, lambda r, c: 20 * c + r),
    ("wmma.store.d.sync.aligned.col.m16n16k8.f32", None, lambda r, c: 16 * c + r),
    ("wmma.load.c.sync.aligned.row.m8n32k16.shared.s32", 40, lambda r, c: 40 * r + c),
])
def test_wmma_loads_lines_at_their_stride(name: str, stride: int | None, expected) -> None:
    access = wmma_access(tuple(name.split(".")))
    layout = access.layout
    assert np.array_equal(access.offsets(stride), expected(layout.rows, layout.cols))


@pytest.mark.parametrize("name", [
    "wmma.load.a.sync.aligned.row.m8n8k32.s4", "wmma.load.a.sync.aligned.row.m16n16k17.f16",
    "wmma.load.a.sync.aligned.m16n16k16.f16",
])
def test_wmma_accesses_that_are_not_simulated(name: str) -> None:
    with pytest.raises(NotSimulated):
        wmma_access(tuple(name.split(".")))


def test_an_eight_by_eight_matrix_in_registers() -> None:
    # PTX ISA, ldmatrix: lane T holds row T / 4, elements 2 (T % 4) and the next.
    rows = np.arange(64, dtype=np.uint16).reshape(8, 8)
    plain, turned = rows_to_registers(rows, False), rows_to_registers(rows, True)
    for lane in range(32):
        row, col = lane // 4, 2 * (lane % 4)
        assert plain[lane] == int(rows[row, col]) | int(rows[row, col + 1]) << 16
        assert turned[lane] == int(rows[col, row]) | int(rows[col + 1, row]) << 16
    assert np.array_equal(registers_to_rows(plain, False), rows)
    assert np.array_equal(registers_to_rows(turned, True), rows)
