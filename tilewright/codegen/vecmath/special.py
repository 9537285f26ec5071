"""The error function."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.ir.types import DType, f32, f64


@dataclass(frozen=True)
class ErrorFunction:
    """Numbers for one float type.

    border   between the two polynomials
    near     erf(x) / x - 1 in powers of x^2, up to the border
    highest  from here on erf rounds to 1
    centre   the point around which ``far`` is a polynomial
    far      the root of erfc(x) whose degree is 2^squarings, from the border to ``highest``
    """

    border: float
    near: tuple[float, ...]
    highest: float
    centre: float
    far: tuple[float, ...]
    squarings: int


ERF: dict[DType, ErrorFunction] = {
    f32: ErrorFunction(
        1.2,
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
        1.375,
        (
            0.12837916709551256, -0.3761263890318345, 0.11283791670945073, -0.02686617064381463,
            0.005223977616397483, -0.000854832664937726, 0.00012055322907041827,
            -1.4925465154489772e-05, 1.6459726420153985e-06, -1.63439773537858e-07,
            1.4665044039082246e-08, -1.1644082678039203e-09, 7.43193239333157e-11,
            -2.7985573084860623e-12,
        ),
        5.93, 3.5,
        (
            0.17134869010141077, -0.15562958083241163, 0.0499697683505797, -0.002702533236311452,
            -0.0023106672579500474, 0.000514036395297125, 2.269480800699262e-05,
            -2.136171963608637e-05, 1.7114407942737384e-06, 4.082399939819134e-07,
            -7.673835178870004e-08, -3.1081520435284066e-09, 1.8101653017440697e-09,
            -6.147218327807573e-11, -3.217334583308685e-11, 2.8111305837191237e-12,
            4.182505822719939e-13,
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
    return (size < table.border).then(near, far)
