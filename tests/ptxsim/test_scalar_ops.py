"""Instructions on scalars, each in a kernel of its own, against NumPy or Python integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tilewright.ptxsim.scalars import KINDS
from tilewright.ptxsim.simulator import Simulator

COUNT = 256
STORED = {"pred": "u32", "f16": "b16", "bf16": "b16", "f16x2": "b32", "bf16x2": "b32",
          "f32x2": "b64"}


def kernel(instruction: str, sources: list[str], result: str, literals: list[str]) -> str:
    """A kernel that applies an instruction to a value per thread from each source array."""
    names = [f"%s{i}" for i in range(len(sources))]
    lines = ["mov.u32 %t, %tid.x;"]
    for i, kind in enumerate(sources):
        size = KINDS["b32" if kind == "pred" else kind].itemsize
        lines += [
            f"ld.param.u64 %p, [in{i}];", f"mad.wide.u32 %p, %t, {size}, %p;",
            f"ld.global.b{8 * size} %w{i}, [%p];" if kind == "pred" else
            f"ld.global.b{8 * size} {names[i]}, [%p];",
        ]
        if kind == "pred":
            lines.append(f"setp.ne.u32 {names[i]}, %w{i}, 0;")
    lines.append(f"{instruction} %d, {', '.join([*names, *literals])};")
    if result == "pred":
        lines.append("selp.u32 %o, 1, 0, %d;")
    bits = KINDS[STORED.get(result, result)].itemsize * 8
    lines += ["ld.param.u64 %p, [out];", f"mad.wide.u32 %p, %t, {bits // 8}, %p;",
              f"st.global.b{bits} [%p], {'%o' if result == 'pred' else '%d'};"]
    registers = [f".reg .{STORED.get(k, k) if k != 'pred' else 'pred'} {n};"
                 for n, k in zip([*names, "%d"], [*sources, result], strict=True)]
    registers += [".reg .b64 %p;", ".reg .b32 %t, %o;", ".reg .b32 %w<9>;"]
    parameters = ", ".join(f".param .u64 in{i}" for i in range(len(sources)))
    body = "\n".join(registers + lines)
    return (f".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k({parameters}, "
            f".param .u64 out)\n{{\n{body}\nret;\n}}\n")


def apply(instruction: str, values: list[np.ndarray], kinds: list[str], result: str,
          literals: list[str]) -> np.ndarray:
    out = np.zeros(len(values[0]), KINDS["u32" if result == "pred" else result])
    arrays = [v.astype(np.uint32) if k == "pred" else v for v, k in zip(values, kinds, strict=True)]
    text = kernel(instruction, kinds, result, literals)
    Simulator().run(text, "k", (1,), (len(out),), [*arrays, out])
    return out


def samples(kind: str, seed: int) -> np.ndarray:
    """Random values of a type with its extremes among them."""
    rng = np.random.default_rng(seed)
    dtype = KINDS[kind]
    if kind == "pred":
        return rng.integers(0, 2, COUNT)
    if dtype.kind in "ui" and "x2" not in kind:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, COUNT, dtype, endpoint=True)
        values[:8] = [0, 1, limits.max, limits.min, 2, 5, limits.max - 1, 31]
    elif "x2" in kind:
        element = np.float16 if kind == "f16x2" else ml_dtypes.bfloat16
        return rng.standard_normal(2 * COUNT).astype(element).view(np.uint32)
    else:
        values = (rng.standard_normal(COUNT) * 2.0 ** rng.integers(-9, 9, COUNT)).astype(dtype)
        values[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5, 2.5]
    return rng.permutation(values)


def signed(values: np.ndarray) -> list[int]:
    return [int(v) for v in values]


def whole(function: Callable[..., int], bits: int) -> Callable[..., np.ndarray]:
    """A function of Python integers, its result modulo 2**bits."""
    def of_arrays(*arrays: np.ndarray) -> np.ndarray:
        rows = zip(*(signed(a) for a in arrays), strict=True)
        return np.array([function(*row) & (1 << bits) - 1 for row in rows], np.uint64)

    return of_arrays


def field(value: int, start: int, length: int, is_signed: bool, bits: int = 32) -> int:
    """PTX ISA, bfe: bit by bit as the manual's pseudocode does."""
    start, length, code = start & 0xFF, length & 0xFF, value & (1 << bits) - 1
    sign = 0
    if is_signed and length:
        sign = code >> min(start + length - 1, bits - 1) & 1
    got = 0
    for i in range(bits):
        inside = i < length and start + i < bits
        got |= (code >> (start + i) & 1 if inside else sign) << i
    return got


def inserted(a: int, b: int, start: int, length: int) -> int:
    """PTX ISA, bfi."""
    start, length, got = start & 0xFF, length & 0xFF, b & 0xFFFFFFFF
    for i in range(length):
        if start + i < 32 and i < 32:
            got = got & ~(1 << start + i) | (a >> i & 1) << start + i
    return got


def shifted(a: int, n: int, bits: int) -> int:
    return a >> min(n & 0xFFFFFFFF, bits - 1)


def quotient(a: int, b: int) -> int:
    return -1 if b == 0 else int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))


INTEGERS: list[tuple[str, str, str, list[str], Callable[..., int]]] = [
    # instruction, types of sources, of the result, literal operands, meaning
    ("add.s32", "s32 s32", "s32", [], lambda a, b: a + b),
    ("add.sat.s32", "s32 s32", "s32", [],
     lambda a, b: max(-(2**31), min(2**31 - 1, a + b))),
    ("add.u64", "u64 u64", "u64", [], lambda a, b: a + b),
    ("sub.s64", "s64 s64", "s64", [], lambda a, b: a - b),
    ("mul.lo.s32", "s32 s32", "s32", [], lambda a, b: a * b),
    ("mul.hi.s32", "s32 s32", "s32", [], lambda a, b: a * b >> 32),
    ("mul.hi.u32", "u32 u32", "u32", [], lambda a, b: a * b >> 32),
    ("mul.hi.u64", "u64 u64", "u64", [], lambda a, b: a * b >> 64),
    ("mul.hi.s64", "s64 s64", "s64", [], lambda a, b: a * b >> 64),
    ("mul.wide.s32", "s32 s32", "s64", [], lambda a, b: a * b),
    ("mul.wide.u16", "u16 u16", "u32", [], lambda a, b: a * b),
    ("mad.lo.s32", "s32 s32 s32", "s32", [], lambda a, b, c: a * b + c),
    ("mad.wide.u32", "u32 u32 u64", "u64", [], lambda a, b, c: a * b + c),
    ("mad.hi.u32", "u32 u32 u32", "u32", [], lambda a, b, c: (a * b >> 32) + c),
    ("div.s32", "s32 s32", "s32", [], quotient),
    ("div.u64", "u64 u64", "u64", [], quotient),
    ("rem.u32", "u32", "u32", ["7"], lambda a: a % 7),
    ("neg.s32", "s32", "s32", [], lambda a: -a),
    ("abs.s32", "s32", "s32", [], abs),
    ("min.s32", "s32 s32", "s32", [], min),
    ("max.u32", "u32 u32", "u32", [], max),
    ("sad.u32", "u32 u32 u32", "u32", [], lambda a, b, c: abs(a - b) + c),
    ("and.b32", "b32 b32", "b32", [], lambda a, b: a & b),
    ("xor.b64", "b64 b64", "b64", [], lambda a, b: a ^ b),
    ("not.b32", "b32", "b32", [], lambda a: ~a),
    ("lop3.b32", "b32 b32 b32", "b32", ["0xCA"], lambda a, b, c: (a & b) | (~a & c)),
    ("shl.b32", "b32 u32", "b32", [], lambda a, n: a << n if n < 32 else 0),
    ("shr.u32", "u32 u32", "u32", [], lambda a, n: a >> n),
    ("shr.s32", "s32 u32", "s32", [], lambda a, n: shifted(a, n, 32)),
    ("shr.s64", "s64 u32", "s64", [], lambda a, n: shifted(a, n, 64)),
    ("shf.l.wrap.b32", "b32 b32 u32", "b32", [],
     lambda a, b, n: (b << 32 | a) << (n & 31) >> 32),
    ("shf.r.clamp.b32", "b32 b32 u32", "b32", [],
     lambda a, b, n: (b << 32 | a) >> min(n, 32)),
    ("bfe.u32", "u32", "u32", ["5", "9"], lambda a: field(a, 5, 9, False)),
    ("bfe.s32", "s32", "s32", ["28", "9"], lambda a: field(a, 28, 9, True)),
    ("bfe.s32", "s32 u32 u32", "s32", [], lambda a, s, n: field(a, s, n, True)),
    ("bfi.b32", "b32 b32", "b32", ["7", "11"], lambda a, b: inserted(a, b, 7, 11)),
    ("bfi.b32", "b32 b32 u32 u32", "b32", [], inserted),
    ("bmsk.clamp.b32", "u32 u32", "b32", [], lambda a, n: sum(
        1 << i for i in range(32) if a <= i < a + n)),
    ("bmsk.wrap.b32", "u32 u32", "b32", [], lambda a, n: sum(
        1 << i for i in range(32) if a % 32 <= i < a % 32 + n % 32)),
    ("popc.b32", "b32", "u32", [], lambda a: bin(a).count("1")),
    ("popc.b64", "b64", "u32", [], lambda a: bin(a).count("1")),
    ("clz.b32", "b32", "u32", [], lambda a: 32 - a.bit_length()),
    ("bfind.u32", "u32", "u32", [], lambda a: a.bit_length() - 1),
    ("bfind.s32", "s32", "u32", [], lambda a: (a if a >= 0 else ~a).bit_length() - 1),
    ("brev.b32", "b32", "b32", [], lambda a: int(f"{a:032b}"[::-1], 2)),
    ("dp4a.s32.s32", "b32 b32 s32", "s32", [], lambda a, b, c: c + sum(
        ((a >> s & 255 ^ 128) - 128) * ((b >> s & 255 ^ 128) - 128) for s in (0, 8, 16, 24))),
    ("dp4a.u32.u32", "b32 b32 u32", "u32", [], lambda a, b, c: c + sum(
        (a >> s & 255) * (b >> s & 255) for s in (0, 8, 16, 24))),
    ("prmt.b32", "b32 b32", "b32", ["0x7210"],
     lambda a, b: a & 0xFFFFFF | b >> 24 << 24),
    ("prmt.b32", "b32 b32", "b32", ["0x99"],
     lambda a, b: (0xFFFF if a & 0x8000 else 0) | (a & 255) << 16 | (a & 255) << 24),
    ("selp.s32", "s32 s32 pred", "s32", [], lambda a, b, p: a if p else b),
    ("slct.s32.s32", "s32 s32 s32", "s32", [], lambda a, b, c: a if c >= 0 else b),
    ("setp.lt.s32", "s32 s32", "pred", [], lambda a, b: a < b),
    ("setp.hi.u32", "u32 u32", "pred", [], lambda a, b: a > b),
    ("setp.ge.and.s32", "s32 s32 pred", "pred", [], lambda a, b, p: a >= b and p),
    ("set.eq.u32.s32", "s32", "u32", ["5"], lambda a: -1 if a == 5 else 0),
    ("cvt.u8.u32", "u32", "u32", [], lambda a: a & 255),
    ("cvt.s32.s8", "s32", "s32", [], lambda a: (a & 255 ^ 128) - 128),
    ("cvt.s64.s32", "s32", "s64", [], lambda a: a),
    ("cvt.u64.u32", "u32", "u64", [], lambda a: a),
    ("cvt.sat.u8.s32", "s32", "u32", [], lambda a: max(0, min(255, a))),
    ("mov.b32", "b32", "b32", [], lambda a: a),
]


@pytest.mark.parametrize("row", INTEGERS, ids=lambda r: f"{r[0]} {r[1]}")
def test_integers(row: tuple) -> None:
    instruction, sources, result, literals, meaning = row
    kinds = sources.split()
    values = [samples(k, i) for i, k in enumerate(kinds)]
    got = apply(instruction, values, kinds, result, literals)
    bits = 8 * got.dtype.itemsize
    expected = whole(meaning, bits)(*values)
    assert np.array_equal(got.view(f"u{bits // 8}").astype(np.uint64), expected)


F32 = np.float32
FLOATS: list[tuple[str, str, str, Callable[..., Any]]] = [
    ("add.f32", "f32 f32", "f32", lambda a, b: a + b),
    ("add.rn.f64", "f64 f64", "f64", lambda a, b: a + b),
    ("add.f16", "f16 f16", "f16", lambda a, b: a + b),
    ("add.rn.bf16", "bf16 bf16", "bf16", lambda a, b: (a.astype(F32) + b).astype(a.dtype)),
    ("sub.f32", "f32 f32", "f32", lambda a, b: a - b),
    ("mul.f32", "f32 f32", "f32", lambda a, b: a * b),
    ("mul.sat.f32", "f32 f32", "f32",
     lambda a, b: np.where(np.isnan(a * b), 0, np.clip(a * b, 0, 1))),
    ("div.rn.f32", "f32 f32", "f32", lambda a, b: a / b),
    ("neg.f32", "f32", "f32", lambda a: -a),
    ("abs.f32", "f32", "f32", np.abs),
    ("min.f32", "f32 f32", "f32", np.fmin),
    ("max.f32", "f32 f32", "f32", np.fmax),
    ("max.NaN.f32", "f32 f32", "f32", np.maximum),
    ("copysign.f32", "f32 f32", "f32", lambda a, b: np.copysign(b, a)),
    ("sqrt.rn.f32", "f32", "f32", np.sqrt),
    ("rcp.rn.f32", "f32", "f32", lambda a: F32(1) / a),
    ("setp.lt.f32", "f32 f32", "pred", lambda a, b: a < b),
    ("setp.ne.f32", "f32 f32", "pred", lambda a, b: (a != b) & ~np.isnan(a) & ~np.isnan(b)),
    ("setp.neu.f32", "f32 f32", "pred", lambda a, b: a != b),
    ("setp.ltu.f32", "f32 f32", "pred", lambda a, b: ~(a >= b)),
    ("setp.nan.f32", "f32 f32", "pred", lambda a, b: np.isnan(a) | np.isnan(b)),
    ("testp.finite.f32", "f32", "pred", np.isfinite),
    ("cvt.rn.f16.f32", "f32", "f16", lambda a: a.astype(np.float16)),
    ("cvt.rn.bf16.f32", "f32", "bf16", lambda a: a.astype(ml_dtypes.bfloat16)),
    ("cvt.f32.f16", "f16", "f32", lambda a: a.astype(F32)),
    ("cvt.f64.f32", "f32", "f64", lambda a: a.astype(np.float64)),
    ("cvt.rn.f32.f64", "f64", "f32", lambda a: a.astype(F32)),
    ("cvt.rn.f32.s32", "s32", "f32", lambda a: a.astype(F32)),
    ("cvt.rn.f32.u64", "u64", "f32", lambda a: a.astype(F32)),
    ("cvt.rni.f32.f32", "f32", "f32", np.rint),
    ("cvt.rzi.s32.f32", "f32", "s32",
     lambda a: np.where(np.isnan(a), 0, np.clip(np.trunc(a.astype(np.float64)), -(2**31),
                                                 2**31 - 1)).astype(np.int32)),
    ("cvt.rmi.f32.f32", "f32", "f32", np.floor),
    ("cvt.rpi.s32.f32", "f32", "s32",
     lambda a: np.where(np.isnan(a), 0, np.clip(np.ceil(a.astype(np.float64)), -(2**31),
                                                 2**31 - 1)).astype(np.int32)),
    ("cvt.sat.f32.f32", "f32", "f32", lambda a: np.where(np.isnan(a), 0, np.clip(a, 0, 1))),
]


@pytest.mark.parametrize("instruction, sources, result, meaning", FLOATS,
                         ids=[r[0] for r in FLOATS])
def test_floats(instruction: str, sources: str, result: str, meaning: Any) -> None:
    kinds = sources.split()
    values = [samples(k, i) for i, k in enumerate(kinds)]
    got = apply(instruction, values, kinds, result, [])
    with np.errstate(all="ignore"):
        expected = np.asarray(meaning(*values)).astype(got.dtype)
    assert np.array_equal(got, expected, equal_nan=result != "pred" and got.dtype.kind != "i")
    if got.dtype.kind == "f":  # of zeros, the sign
        zero = expected == 0
        assert np.array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("name, function", [
    ("ex2.approx.ftz.f32", np.exp2), ("lg2.approx.f32", np.log2), ("sin.approx.f32", np.sin),
    ("cos.approx.f32", np.cos), ("tanh.approx.f32", np.tanh),
    ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x)), ("rcp.approx.ftz.f32", lambda x: 1 / x),
])
def test_functions(name: str, function: Any) -> None:
    x = np.linspace(0.1, 3, COUNT, dtype=np.float32)
    assert np.allclose(apply(name, [x], ["f32"], "f32", []), function(x), rtol=1e-6, atol=1e-7)


def test_fma_is_rounded_once() -> None:
    one = np.float32(1 + 2.0**-23)
    a = np.array([one, one, -one, np.float32(3e38)], np.float32)
    c = np.array([-one * one, np.float32(2.0**-60), np.float32(1), np.float32(-np.inf)], np.float32)
    got = apply("fma.rn.f32", [a, a, c], ["f32"] * 3, "f32", [])
    for i in range(3):
        exact = Fraction(float(a[i])) ** 2 + Fraction(float(c[i]))
        near = [np.nextafter(got[i], np.float32(s)) for s in (-np.inf, np.inf)]
        error = abs(Fraction(float(got[i])) - exact)
        assert all(error <= abs(Fraction(float(n)) - exact) for n in near)
    assert got[3] == -np.inf


def test_denormals_are_flushed_on_request() -> None:
    x = np.array([1e-40, -1e-40, 1e-30], np.float32)
    one = np.ones(3, np.float32)
    kept = apply("mul.f32", [x, one], ["f32", "f32"], "f32", [])
    flushed = apply("mul.ftz.f32", [x, one], ["f32", "f32"], "f32", [])
    assert np.array_equal(kept, x)
    assert np.array_equal(flushed, np.array([0, 0, 1e-30], np.float32)) and np.signbit(flushed[1])


@pytest.mark.parametrize("name, element", [("f16x2", np.float16), ("bf16x2", ml_dtypes.bfloat16)])
def test_pairs(name: str, element: type) -> None:
    a, b, c = (samples(name, i) for i in range(3))
    x, y, z = (v.view(element).astype(np.float64) for v in (a, b, c))
    got = apply(f"fma.rn.{name}", [a, b, c], [name] * 3, name, []).view(element)
    assert np.array_equal(got, (x * y + z).astype(element))
    got = apply(f"max.{name}", [a, b], [name] * 2, name, []).view(element)
    assert np.array_equal(got, np.maximum(x, y).astype(element))


def test_pairs_of_f32() -> None:
    a, b, c = (samples("f32", i).view(np.uint64) for i in range(3))
    x, y, z = (v.view(np.float32) for v in (a, b, c))
    for name, want in (("add", x + y), ("mul", x * y), ("sub", x - y)):
        got = apply(f"{name}.rn.f32x2", [a, b], ["f32x2"] * 2, "f32x2", []).view(np.float32)
        np.testing.assert_array_equal(got, want)
    got = apply("fma.rn.f32x2", [a, b, c], ["f32x2"] * 3, "f32x2", []).view(np.float32)
    np.testing.assert_array_equal(got, apply("fma.rn.f32", [x, y, z], ["f32"] * 3, "f32", []))


@pytest.mark.parametrize("name, element", [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_narrow_factors_of_f32(name: str, element: type) -> None:
    """PTX ISA 8.6, mixed precision: the last operand and the result are f32."""
    a, b, c = samples(name, 0), samples(name, 1), samples("f32", 2)
    x, y = a.astype(np.float32), b.astype(np.float32)
    got = apply(f"fma.rn.f32.{name}", [a, b, c], [name, name, "f32"], "f32", [])
    np.testing.assert_array_equal(got, apply("fma.rn.f32", [x, y, c], ["f32"] * 3, "f32", []))
    for op, want in (("add", x + c), ("sub", x - c)):
        got = apply(f"{op}.f32.{name}", [a, c], [name, "f32"], "f32", [])
        np.testing.assert_array_equal(got, want)


def test_pairs_are_made_of_two_floats_upper_first() -> None:
    a, b = (np.nan_to_num(samples("f32", i)) for i in range(2))
    got = apply("cvt.rn.bf16x2.f32", [a, b], ["f32", "f32"], "bf16x2", [])
    pair = got.view(ml_dtypes.bfloat16).reshape(-1, 2)
    assert np.array_equal(pair[:, 1], a.astype(ml_dtypes.bfloat16))
    assert np.array_equal(pair[:, 0], b.astype(ml_dtypes.bfloat16))


def test_tf32_is_rounded_away_from_zero_in_ties() -> None:
    x = np.array([1 + 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-11 - 2.0**-20, np.inf], np.float32)
    got = apply("cvt.rna.tf32.f32", [x], ["f32"], "b32", []).view(np.float32)
    assert np.array_equal(got, np.array([1 + 2.0**-10, -1 - 2.0**-10, 1, np.inf], np.float32))
