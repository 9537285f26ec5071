"""sin, cos and tan over the whole range.

Moderate arguments lose n pi/2 in parts that are exact without fused multiply-add. If any lane is
beyond that, those lanes go one by one through integer arithmetic with enough digits of 2/pi.
So these functions have branches, and are called rather than written in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.codegen.builder import Builder, literal, llvm_type
from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.codegen.vecmath.reduction import NEEDS, REDUCE
from tilewright.ir.types import DType, bool_, f32, f64


@dataclass(frozen=True)
class Trigonometry:
    """Numbers for one float type.

    limit   the largest argument whose multiple of pi/2 the parts can take away
    parts   pi/2 as a sum of four; the first three are exact when multiplied by that multiple,
            and so is the argument less the first two
    sin     (sin(r) / r - 1) / r^2 in powers of r^2, for |r| <= pi/4
    cos     (cos(r) - 1 + r^2 / 2) / r^4 in powers of r^2
    tan     (tan(r) / r - 1) / r^2 in powers of r^2
    """

    limit: float
    parts: tuple[float, ...]
    sin: tuple[float, ...]
    cos: tuple[float, ...]
    tan: tuple[float, ...]


TABLES: dict[DType, Trigonometry] = {
    f32: Trigonometry(
        12800.0,
        (1.5703125, 0.0004837512969970703, 7.549533620476723e-08, 2.5633440682570896e-12),
        (-0.16666655242443085, 0.008332191035151482, -0.00019518604676704854),
        (0.04166664555668831, -0.0013887309469282627, 2.4432327336398885e-05),
        (
            0.33333349227905273, 0.13332675397396088, 0.05405891314148903, 0.02128620631992817,
            0.010827457532286644, 9.821323328651488e-05, 0.004372721537947655,
        ),
    ),
    f64: Trigonometry(
        1600000.0,
        (
            1.5707963109016418, 1.5893254712295857e-08, 6.123233932053594e-17, 6.36831716351095e-25,
        ),
        (
            -0.16666666666666632, 0.008333333333322486, -0.00019841269829853358,
            2.7557313705057064e-06, -2.505075988771532e-08, 1.5896886366993683e-10,
        ),
        (
            0.041666666666666595, -0.0013888888888873338, 2.4801587288997485e-05,
            -2.755731421530152e-07, 2.0875705115523596e-09, -1.1358732813079283e-11,
        ),
        (
            0.33333333333332776, 0.13333333333414824, 0.05396825392657176, 0.021869489611312572,
            0.008863219131563321, 0.0035922893754316183, 0.001454756151519532,
            0.0005950724407447943, 0.00022235700184025873, 0.00013657256982237871,
            -2.645230518543106e-05, 8.951284925258226e-05, -4.4909026380900556e-05,
            2.0871009339860534e-05,
        ),
    ),
}


def moderate(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """x - n pi/2 as a sum of two numbers, and n in the low bits of an integer; |x| <= limit."""
    table, layout = TABLES[x.value.dtype], x.layout
    shifted = x.fma(2 / math.pi, layout.magic)
    n = shifted - layout.magic
    first, second, third, last = table.parts
    rest = n.fma(-second, n.fma(-first, x))
    piece = n * third
    total = rest - piece
    # The multiple of the third part can cancel all of the rest: what is lost counts.
    low = n.fma(-last, (rest - total) - piece)
    angle = total + low
    return angle, (total - angle) + low, shifted.as_bits()


def reduced(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """What :func:`moderate` gives, for every finite x; NaN for the others."""
    fast = moderate(x)
    outside = x.magnitude() <= TABLES[x.value.dtype].limit
    return replace_lanes(x, ~outside, fast)


def replace_lanes(
    x: Lanes, chosen: Lanes, fast: tuple[Lanes, Lanes, Lanes]
) -> tuple[Lanes, Lanes, Lanes]:
    """``fast`` with the chosen lanes taken from the long reduction, in a branch of its own."""
    b, lanes = x.b, x.value.lanes
    b.declarations.update((REDUCE, *NEEDS))
    stored = (x.value, *(part.value for part in fast))
    for k, v in enumerate(stored):
        b.write(f"  %slot{k} = alloca {v.type}")
    mask = b.define(bool_, 1, f"bitcast {chosen.value.typed} to i{lanes}").name
    b.write(f"  %any = icmp ne i{lanes} {mask}, 0")
    b.write("  br i1 %any, label %cold, label %join")
    b.label("cold")
    for k, v in enumerate(stored):
        b.write(f"  store {v.typed}, ptr %slot{k}")
    b.write("  br label %lane")
    reduce_lanes(b, x.value.dtype, lanes)
    b.label("loaded")
    for k, v in enumerate(stored[1:]):
        b.write(f"  %slow{k} = load {v.type}, ptr %slot{k + 1}")
    b.write("  br label %join")
    b.label("join")
    first, second, third = (
        x.wrap(b.define(
            v.dtype, lanes, f"phi {v.type} [ {v.name}, %entry ], [ %slow{k}, %loaded ]"
        ))
        for k, v in enumerate(stored[1:])
    )
    return first, second, third


def reduce_lanes(b: Builder, dtype: DType, lanes: int) -> None:
    """The loop from %lane to %loaded: arguments in %slot0, results to the other slots."""
    bits = "i32" if dtype is f32 else "i64"
    scalars = (llvm_type(dtype), llvm_type(dtype), llvm_type(dtype), bits)
    b.label("lane")
    b.write("  %i = phi i64 [ 0, %cold ], [ %i.next, %next ]")
    for k, scalar in enumerate(scalars):
        b.write(f"  %at{k} = getelementptr {scalar}, ptr %slot{k}, i64 %i")
    b.write(f"  %one = load {scalars[0]}, ptr %at0")
    wide = "fpext float %one to double" if dtype is f32 else "fadd double %one, -0.0"
    b.write(f"  %wide = {wide}")
    b.write("  %size = call double @llvm.fabs.f64(double %wide)")
    b.declarations.add("declare double @llvm.fabs.f64(double)")
    b.write(f"  %moderate = fcmp ole double %size, {literal(f64, TABLES[dtype].limit)}")
    b.write("  br i1 %moderate, label %next, label %reduce")
    b.label("reduce")
    b.write("  %parts = call { double, double, i64 } @tw.reduce(double %wide)")
    for k, scalar in enumerate(scalars[1:]):
        b.write(f"  %part{k} = extractvalue {{ double, double, i64 }} %parts, {k}")
        name = f"%part{k}" if dtype is f64 else narrowed(b, k)
        b.write(f"  store {scalar} {name}, ptr %at{k + 1}")
    b.write("  br label %next")
    b.label("next")
    b.write("  %i.next = add i64 %i, 1")
    b.write(f"  %more = icmp ult i64 %i.next, {lanes}")
    b.write("  br i1 %more, label %lane, label %loaded")


def narrowed(b: Builder, part: int) -> str:
    """The name of part 0, 1 or 2 of the long reduction for f32: rounded, what that lost, n."""
    if part == 2:
        b.write("  %short2 = trunc i64 %part2 to i32")
    elif part == 1:
        b.write("  %back = fpext float %short0 to double")
        b.write("  %lost = fsub double %part0, %back")
        b.write("  %short1 = fptrunc double %lost to float")
    else:
        b.write("  %short0 = fptrunc double %part0 to float")
    return f"%short{part}"


def sine_cosine(r: Lanes, low: Lanes) -> tuple[Lanes, Lanes]:
    """sin and cos of r + low for |r| <= pi/4."""
    table = TABLES[r.value.dtype]
    square = r * r
    if r.value.dtype is f32:
        # Half an ulp of the angle is not worth its cost here.
        sine = (r * square).fma(horner(square, table.sin), r)
        return sine, square.fma(square.fma(horner(square, table.cos), -0.5), 1.0)
    sine = (r * square).fma(horner(square, table.sin), low) + r
    half = square * 0.5
    top = 1.0 - half
    # What the subtraction lost, with the small terms that come after it.
    rest = (1.0 - top - half) - r * low
    cosine = top + (square * square).fma(horner(square, table.cos), rest)
    return sine, cosine


def turned(x: Lanes, quarter: int) -> Lanes:
    """sin(x + quarter pi/2)."""
    r, low, n = reduced(x)
    sine, cosine = sine_cosine(r, low)
    if quarter:
        n = n + quarter
    odd = (n & 1).differs(0)
    value = odd.then(cosine, sine)
    sign = (n & 2) << (x.value.dtype.bits - 2)
    return (value.as_bits() ^ sign).as_float()


def sin(x: Lanes) -> Lanes:
    """The sine; x itself near zero, so -0 stays."""
    tiny = x.magnitude() < 2.0 ** -(x.layout.mantissa // 2 + 1)
    return tiny.then(x, turned(x, 0))


def cos(x: Lanes) -> Lanes:
    """The cosine."""
    return turned(x, 1)


def tan(x: Lanes) -> Lanes:
    """The tangent: a polynomial, or minus its reciprocal in odd quadrants."""
    r, low, n = reduced(x)
    square = r * r
    series = horner(square, TABLES[x.value.dtype].tan)
    value = (r * square).fma(series, low.fma(square, low)) + r
    odd = (n & 1).differs(0)
    value = odd.then(-1.0 / value, value)
    tiny = x.magnitude() < 2.0 ** -(x.layout.mantissa // 2 + 1)
    return tiny.then(x, value)
