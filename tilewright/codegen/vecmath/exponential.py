"""exp, exp2 and expm1.

exp and exp2 take an even multiple 2m of ln 2 (or 1) from their argument. Then 2^2m is 2^m twice,
2^m is always a normal number, and the second multiplication alone rounds into the denormals or
overflows, as it should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.ir.types import DType, f32, f64

LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Exponential:
    """Numbers for one float type.

    highest, lowest   beyond these exp overflows, or is less than half the least denormal
    ln2               ln 2 in two parts; the first times any exponent is exact
    exp               (exp(r) - 1 - r) / r^2 for |r| <= ln 2
    exp2              (2^r - 1) / r for |r| <= 1
    expm1             (exp(r) - 1 - r) / r^2 for |r| <= ln 2 / 2
    """

    highest: float
    lowest: float
    ln2: tuple[float, float]
    exp: tuple[float, ...]
    exp2: tuple[float, ...]
    expm1: tuple[float, ...]


TABLES: dict[DType, Exponential] = {
    f32: Exponential(
        89.0, -104.0, (0.693359375, -0.00021219444417128554),
        (
            0.5000003576278687, 0.1666661500930786, 0.041661158204078674,
            0.008335994556546211, 0.0014106612652540207, 0.000196346256416291,
        ),
        (
            0.6931472420692444, 0.24022674560546875, 0.05550356209278107,
            0.009616651572287083, 0.0013344425242394209, 0.00015659544442314655,
            1.4740615370101295e-05,
        ),
        (
            0.4999999701976776, 0.16666537523269653, 0.041667740792036057,
            0.008367317728698254, 0.001383789349347353,
        ),
    ),
    f64: Exponential(
        710.0, -746.0, (0.6931471805601177, -1.7239444525614835e-13),
        (
            0.4999999999999993, 0.16666666666666993, 0.04166666666670253,
            0.008333333333265776, 0.001388888888342164, 0.0001984126989080829,
            2.480159094740863e-05, 2.7557303045881386e-06, 2.755612588831377e-07,
            2.505435949037264e-08, 2.1065270436932918e-09, 1.5995667764202373e-10,
        ),
        (
            0.6931471805599453, 0.2402265069590998, 0.055504108664821875,
            0.009618129107644391, 0.0013333558146429462, 0.00015403530384055855,
            1.5252733797578243e-05, 1.3215489328328947e-06, 1.0178087863056657e-07,
            7.054557468995302e-09, 4.4453185091816643e-10, 2.592493183748186e-11,
            1.3818182423867414e-12,
        ),
        (
            0.5, 0.16666666666666677, 0.04166666666666667, 0.008333333333321721,
            0.0013888888888900501, 0.00019841269885645805, 2.480158726703538e-05,
            2.7557244764220642e-06, 2.7557338454096677e-07, 2.5108844954187902e-08,
            2.0891508753488657e-09,
        ),
    ),
}


def biased_round(x: Lanes, scale: float, lower: int = 0) -> tuple[Lanes, Lanes]:
    """n, the integer nearest to x * scale, and 2^(n - lower), which has to be a normal number.

    The large constant that rounds carries the exponent's bias in its low bits, so a shift of the
    sum's bits makes the power.
    """
    layout = x.layout
    magic = layout.magic + (layout.bias - lower)
    shifted = x.fma(scale, magic)
    return shifted - magic, (shifted.as_bits() << layout.mantissa).as_float()


def exp(x: Lanes) -> Lanes:
    """e^x."""
    table = TABLES[x.value.dtype]
    x = x.at_most(table.highest).at_least(table.lowest)
    m, scale = biased_round(x, LOG2_E / 2)
    r = m.fma(-2 * table.ln2[0], x)
    r = m.fma(-2 * table.ln2[1], r)
    return horner(r, (1.0, 1.0, *table.exp)) * scale * scale


def exp2(x: Lanes) -> Lanes:
    """2^x, exact for integers."""
    table = TABLES[x.value.dtype]
    x = x.at_most(table.highest / math.log(2) + 1).at_least(table.lowest / math.log(2))
    m, scale = biased_round(x, 0.5)
    return horner(m.fma(-2.0, x), (1.0, *table.exp2)) * scale * scale


def expm1_parts(x: Lanes, twice: bool = False, lower: int = 0) -> tuple[Lanes, Lanes]:
    """p and s with exp(x) = 2^lower s (1 + p), or exp(2x) if ``twice``; |p| < 0.42.

    s is a power of two and has to be a normal number.
    """
    table = TABLES[x.value.dtype]
    n, power = biased_round(x, LOG2_E * 2 if twice else LOG2_E, lower)
    r = n.fma(-table.ln2[0], x + x if twice else x)
    if x.value.dtype is f32:
        r = n.fma(-table.ln2[1], r)
        return (r * r).fma(horner(r, table.expm1), r), power
    piece = n * table.ln2[1]
    rounded = r - piece
    lost = (r - rounded) - piece
    return rounded + (rounded * rounded).fma(horner(rounded, table.expm1), lost), power


def expm1(x: Lanes) -> Lanes:
    """e^x - 1, accurate near zero."""
    table = TABLES[x.value.dtype]
    mantissa = x.layout.mantissa
    inside = x.at_most(table.highest).at_least(-(mantissa + 4) * math.log(2))
    # Half of the power, doubled at the end, is finite wherever the result is.
    p, half = expm1_parts(inside, lower=1)
    result = half.fma(p, half - 0.5) * 2.0
    tiny = x.magnitude() < 2.0 ** -(mantissa + 2)
    return tiny.then(x, result)
