"""log, log2, log10 and log1p.

A number is 2^e m with m from 2/3 to 4/3, so that f = m - 1 is exact and of equal size on both
sides. f32 takes a polynomial in f; f64 the odd series in s = f / (2 + f), which is half as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.codegen.vecmath.lanes import Formula, Lanes, fast_two_sum, horner
from tilewright.ir.types import DType, f32, f64


@dataclass(frozen=True)
class Logarithm:
    """Numbers for one float type.

    start    the bits of 2/3
    series   f32: (log(1 + f) - f + f^2 / 2) / f^3; f64: (log(1 + f) / s - 2) / s^2 by powers of s^2
    bases    per base: log_b(2) in two parts, the first times an exponent exact, and log_b(e) in
             two, the first of half a mantissa
    """

    start: int
    series: tuple[float, ...]
    bases: dict[str, tuple[float, float, float, float]]


TABLES: dict[DType, Logarithm] = {
    f32: Logarithm(
        0x3F2AAAAB,
        (
            0.3333321511745453, -0.24999797344207764, 0.20010463893413544, -0.16680504381656647,
            0.1400480717420578, -0.1218399628996849, 0.13990157842636108, -0.12892955541610718,
        ),
        {
            "e": (0.693145751953125, 1.428606765330187e-06, 1.0, 0.0),
            "2": (1.0, 0.0, 1.44287109375, -0.00017605285393074155),
            "10": (
                0.301025390625, 4.605039066518657e-06,
                0.434326171875, -3.168997136526741e-05,
            ),
        },
    ),
    f64: Logarithm(
        0x3FE5555555555555,
        (
            0.6666666666667271, 0.399999999961598, 0.28571429395651965, 0.22222138470780356,
            0.18186357362631622, 0.15250162227986383, 0.1536839881365698,
        ),
        {
            "e": (0.6931471805601177, -1.7239444525614835e-13, 1.0, 0.0),
            "2": (1.0, 0.0, 1.4426950514316559, -1.0542692476429138e-08),
            "10": (
                0.3010299956640665, -8.532344317057107e-14,
                0.4342944845557213, -2.6524694553078553e-09,
            ),
        },
    ),
}


SHORT = (0.6666666309451509, 0.4000086104106155, 0.28507115121333415, 0.2409872392023584)
"""The series of f64 to 2^-35."""


def split_exponent(x: Lanes, start: int | None = None) -> tuple[Lanes, Lanes]:
    """e as an integer and m from 2/3 to 4/3 with x = 2^e m; x positive, normal and finite.

    ``start`` is the bits of another least m.
    """
    layout = x.layout
    start = start or TABLES[x.value.dtype].start
    offset = x.as_bits() - start
    m = (offset & ((1 << layout.mantissa) - 1)) + start
    return offset >> layout.mantissa, m.as_float()


def excess(f: Lanes) -> Lanes:
    """log(1 + f) - f for |f| <= 1/3."""
    series = TABLES[f.value.dtype].series
    if f.value.dtype is f32:
        square = f * f
        return (square * f).fma(horner(f, series), square * -0.5)
    s = f / (f + 2.0)
    half_square = f * f * 0.5
    square = s * s
    return s * (square * horner(square, series) + half_square) - half_square


def combine(e: Lanes, f: Lanes, base: str) -> Lanes:
    """The logarithm of 2^e (1 + f); e is a float that is an integer."""
    two, two_rest, unit, unit_rest = TABLES[f.value.dtype].bases[base]
    if base == "e":
        return e.fma(two, f + e.fma(two_rest, excess(f)))
    # Both the upper half of f and ``unit`` have half a mantissa: their product is exact.
    half = 1 << (f.layout.mantissa // 2 + 1)
    upper = (f.as_bits() & -half).as_float()
    small = (f - upper).fma(unit, f.fma(unit_rest, excess(f) * (unit + unit_rest)))
    if two_rest:
        small = e.fma(two_rest, small)
    if f.value.dtype is f32:
        return e.fma(two, upper.fma(unit, small))
    total, lost = fast_two_sum(e * two, upper * unit)
    return total + (small + lost)


def short_log(x: Lanes) -> Lanes:
    """The natural logarithm of a positive normal f64 to 2^-35, for results rounded to f32."""
    e, m = split_exponent(x)
    f = m - 1.0
    s = f / (f + 2.0)
    square = s * s
    series = s.fma(2.0, s * square * horner(square, SHORT))
    return e.to_float().fma(math.log(2), series)


def with_edges(x: Lanes, result: Lanes) -> Lanes:
    """The result where 0 < x < inf; x itself for inf and NaN; -inf at 0; NaN below."""
    result = (x < float("inf")).then(result, x)
    edge = x.equals(0.0).then(x.of(float("-inf")), float("nan"))
    return (x <= 0.0).then(edge, result)


def logarithm(base: str) -> Formula:
    """The formula of log_b for the base "e", "2" or "10"."""

    def log(x: Lanes) -> Lanes:
        layout = x.layout
        small = x < layout.smallest_normal
        scale = 2.0**layout.mantissa
        e, m = split_exponent(small.then(x * scale, x))
        exponent = e.to_float()
        exponent = small.then(exponent - float(layout.mantissa), exponent)
        return with_edges(x, combine(exponent, m - 1.0, base))

    log.__doc__ = f"The logarithm to the base {base}."
    return log


log = logarithm("e")
log2 = logarithm("2")
log10 = logarithm("10")


def log1p(x: Lanes) -> Lanes:
    """log(1 + x), accurate near zero."""
    layout = x.layout
    total = x + 1.0
    shadow = total - x
    lost = (x - (total - shadow)) + (1.0 - shadow)
    e, m = split_exponent(total)
    # 2^(1 - e) rather than 2^-e, which is no normal number for the largest e.
    scale = (((1 - e) << layout.mantissa) + layout.one).as_float()
    f = (m - 1.0) + lost * 0.5 * scale
    result = combine(e.to_float(), f, "e")
    result = (x < float("inf")).then(result, x)
    edge = x.equals(-1.0).then(x.of(float("-inf")), float("nan"))
    result = (x <= -1.0).then(edge, result)
    tiny = x.magnitude() < 2.0 ** -(layout.mantissa + 1)
    return tiny.then(x, result)
