"""The error function."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.ir.types import DType, f32, f64


@dataclass(frozen=True)
class ErrorFunction:
    """Numbers for one float type.

    border   between the two polynomials
    offset   what x^2 loses before it enters ``near``, so that rounding does less harm
    near     erf(x) / x - 1 in powers of x^2 - offset, up to the border
    highest  from here on erf rounds to 1
    centre   the point around which ``far`` is a polynomial; less it, small arguments stay exact
    far      the root of erfc(x) whose degree is 2^squarings, from the border to ``highest``
    """

    border: float
    offset: float
    near: tuple[float, ...]
    highest: float
    centre: float
    far: tuple[float, ...]
    squarings: int


ERF: dict[DType, ErrorFunction] = {
    f32: ErrorFunction(
        1.2, 0.0,
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
        1.25, 0.75,
        (
            -0.10010880203447822, -0.2445884137465581, 0.0669188879646626, -0.015131144700103254,
            0.002847208334977413, -0.0004554912389534484, 6.318505363425514e-05,
            -7.725333917263116e-06, 8.436954896499251e-07, -8.321215901480157e-08,
            7.47878797658177e-09, -6.167732996564215e-10, 4.780726312223058e-11,
            -3.714868485838941e-12,
        ),
        5.93, 2.5,
        (
            0.37687115680278155, -0.25215887332754433, 0.03989208130904741, 0.010425687572303725,
            -0.0037385889676056433, -9.86706502469829e-05, 0.0001728466681876532,
            -1.3589121718110908e-05, -4.037257984985335e-06, 6.36206774801412e-07,
            5.719455149082233e-08, -1.592067456547748e-08, -8.320010248918866e-10,
            4.5539472115157345e-10, -2.57732893426007e-11, -4.5351154018781684e-12,
            7.343006166509603e-13, -3.4164389145011165e-14,
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
    square = x * x - table.offset if table.offset else x * x
    near = x.fma(horner(square, table.near), x)
    power = horner(size - table.centre, table.far)
    for _ in range(table.squarings - 1):
        power = power * power
    far = (-power).fma(power, 1.0).with_sign_of(x)
    return (size < table.border).then(near, far)
