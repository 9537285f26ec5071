"""sinh, cosh and tanh."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.vecmath.exponential import expm1_parts
from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.ir.types import DType, f32, f64


@dataclass(frozen=True)
class Hyperbolic:
    """Numbers for one float type.

    highest   beyond this sinh and cosh overflow
    one       from here on tanh rounds to one
    sinh      (sinh(x) / x - 1) / x^2 in powers of x^2, for |x| <= 1
    tanh      (tanh(x) / x - 1) / x^2 in powers of x^2, for |x| <= 5/8
    """

    highest: float
    one: float
    sinh: tuple[float, ...]
    tanh: tuple[float, ...]


TABLES: dict[DType, Hyperbolic] = {
    f32: Hyperbolic(
        89.5, 9.2,
        (
            0.1666666716337204, 0.00833331048488617, 0.00019842895562760532,
            2.7822131869469468e-06,
        ),
        (
            -0.3333328068256378, 0.13331405818462372, -0.05373651534318924,
            0.02062816731631756, -0.0056922961957752705,
        ),
    ),
    f64: Hyperbolic(
        710.6, 19.2,
        (
            0.16666666666666669, 0.008333333333332912, 0.0001984126984159341,
            2.7557319106756406e-06, 2.5052130998804913e-08, 1.6056659159906632e-10,
            7.77660035714056e-13,
        ),
        (
            -0.33333333333332854, 0.13333333333261932, -0.053968253931194025,
            0.021869487574422614, -0.008863220980967259, 0.0035919890011464495,
            -0.0014549580024538157, 0.0005863137092872937, -0.0002285585608692717,
            7.713802631275233e-05, -1.6069510925928506e-05,
        ),
    ),
}


def odd_series(x: Lanes, series: tuple[float, ...]) -> Lanes:
    """x + x^3 (c0 + c1 x^2 + ...)."""
    square = x * x
    return (x * square).fma(horner(square, series), x)


def quarter_exponential(size: Lanes) -> Lanes:
    """exp / 4, which is finite wherever sinh and cosh are."""
    p, power = expm1_parts(size.at_most(TABLES[size.value.dtype].highest), lower=2)
    return power.fma(p, power)


def sinh(x: Lanes) -> Lanes:
    """The hyperbolic sine: a polynomial near zero, elsewhere from the exponential."""
    size = x.magnitude()
    near = odd_series(size, TABLES[x.value.dtype].sinh)
    quarter = quarter_exponential(size)
    far = (quarter - 0.0625 / quarter) * 2.0
    return (size < 1.0).then(near, far).with_sign_of(x)


def cosh(x: Lanes) -> Lanes:
    """The hyperbolic cosine."""
    quarter = quarter_exponential(x.magnitude())
    return (quarter + 0.0625 / quarter) * 2.0


def tanh(x: Lanes) -> Lanes:
    """A polynomial near zero, elsewhere 1 - 2 / (e^2x + 1)."""
    table = TABLES[x.value.dtype]
    size = x.magnitude().at_most(table.one)
    near = odd_series(size, table.tanh)
    p, power = expm1_parts(size, twice=True)
    far = 1.0 - 2.0 / (power.fma(p, power) + 1.0)
    return (size < 0.625).then(near, far).with_sign_of(x)
