"""erf and cbrt."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.ir.types import DType, f32, f64


@dataclass(frozen=True)
class ErrorFunction:
    """Numbers for one float type.

    near     erf(x) / x - 1 in powers of x^2, for |x| <= 1.2
    highest  from here on erf rounds to 1
    centre   the point around which ``far`` is a polynomial
    far      the root of erfc(x) whose degree is 2^squarings, from 1.2 to ``highest``
    """

    near: tuple[float, ...]
    highest: float
    centre: float
    far: tuple[float, ...]
    squarings: int


ERF: dict[DType, ErrorFunction] = {
    f32: ErrorFunction(
        (
            0.12837915122509003, -0.3761253356933594, 0.11282646656036377, -0.026818878948688507,
            0.005129369907081127, -0.0007549414876848459, 6.495512934634462e-05,
        ),
        3.93, 2.5,
        (
            0.14203228056430817, -0.19006171822547913, 0.09364241361618042, -0.012294686399400234,
            -0.00649465573951602, 0.002711313311010599, 6.0991518694208935e-05,
            -0.0001890920102596283,
        ),
        2,
    ),
    f64: ErrorFunction(
        (
            0.12837916709551256, -0.37612638903183404, 0.11283791670941942, -0.026866170643161873,
            0.005223977610089871, -0.000854832630811889, 0.00012055311491010454,
            -1.4925215541756488e-05, 1.64560556670133e-06, -1.6307389847593344e-07,
            1.442120530412562e-08, -1.0603448716344219e-09, 4.8603805284239044e-11,
        ),
        5.93, 3.5,
        (
            0.17134869010176335, -0.1556295808204054, 0.049969768407103266,
            -0.002702533180006953, -0.002310667428904202, 0.0005140359197907202,
            2.269445410073204e-05, -2.1361572840220037e-05, 1.711805558967058e-06,
            4.0837584437412267e-07, -7.682128414742592e-08, -3.1839712877789703e-09,
            1.803944515353389e-09, -4.959816786274575e-11, -2.8335206676499357e-11,
            2.495829468469697e-12, 1.0234628804086e-13, -4.0184153539791096e-14,
        ),
        3,
    ),
}


def erf(x: Lanes) -> Lanes:
    """The error function.

    Away from zero it is 1 - q^(2^n): a low power of erfc is far from a polynomial, its root is
    close to one, and squaring is cheap.
    """
    table = ERF[x.value.dtype]
    size = x.magnitude().at_most(table.highest)
    near = x.fma(horner(x * x, table.near), x)
    power = horner(size - table.centre, table.far)
    for _ in range(table.squarings - 1):
        power = power * power
    far = (-power).fma(power, 1.0).with_sign_of(x)
    return (size < 1.2).then(near, far)
