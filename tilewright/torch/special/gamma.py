"""The logarithm of the gamma function and its derivatives."""

from __future__ import annotations

import math

from tilewright.ir import build
from tilewright.ir.graph import Node, apply, full
from tilewright.ir.types import f64
from tilewright.torch.special.series import falling, horner, sin_pi

AROUND_TWO = {
    32: (
        0.42278433509981406, 0.3224670336769287, -0.0673523014391886, 0.020580788331734278,
        -0.0073855331401251135, 0.002890956191431478, -0.0011930560653655184,
        0.0005056574201943736, -0.00022086359602971272, 0.00011500355768401579,
        -5.279720076649535e-05,
    ),
    64: (
        0.42278433509846713, 0.3224670334241132, -0.0673523010531981, 0.020580808427784546,
        -0.007385551028673982, 0.0028905103307416916, -0.0011927539117034603,
        0.0005096695247350046, -0.0002231547584459229, 9.945751299502483e-05,
        -4.4926236911408775e-05, 2.050720932554435e-05, -9.439485793376806e-06,
        4.374902561528567e-06, -2.0392390995770996e-06, 9.548989664656593e-07,
        -4.4910097084374094e-07, 2.131348260770404e-07, -1.0103103366294172e-07,
        4.480528673717322e-08, -2.1173055145112293e-08, 1.5188150671219617e-08,
        -7.380418772414079e-09,
    ),
}
"""lgamma(2 + t) / t in powers of t, for t between -1/2 and 1/2, by the bits of the type."""

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""B(2k) / (2k (2k - 1)): what Stirling's series has in odd powers of 1 / x."""

LARGE = 8.0
"""From here on Stirling's series is exact to rounding."""


def lgamma(x: Node) -> Node:
    """The logarithm of the absolute value of the gamma function.

    Near its zeros 1 and 2 it is a product with the distance to them; from 8 on Stirling's series;
    between, the argument is brought to [1.5, 2.5); below 1/2 it is reflected.
    """
    mirrored = x < 0.5
    y = build.where(mirrored, 1.0 - x, x)
    result = build.where(y < LARGE, _lgamma_shifted(y), _lgamma_large(y))
    reflected = math.log(math.pi) - apply("log", apply("abs", sin_pi(x))) - result
    result = build.where(mirrored, reflected, result)
    return apply("where", apply("eq", apply("abs", x), math.inf), math.inf, result)


def _lgamma_shifted(y: Node) -> Node:
    """For ``y`` between 1/2 and 8."""
    polynomial = AROUND_TWO[y.dtype.bits]
    small = y < 1.5
    place, product = build.where(small, y + 1.0, y), build.where(small, y, full(y.type, 1))
    for _ in range(6):
        above = place >= 2.5
        place = build.where(above, place - 1.0, place)
        product = build.where(above, product * place, product)
    rest = place - 2.0
    log = apply("log", product)
    return rest * horner(rest, polynomial) + build.where(small, -log, log)


def _lgamma_large(y: Node) -> Node:
    inverse = 1.0 / y
    series = inverse * horner(inverse * inverse, STIRLING)
    return (y - 0.5) * (apply("log", y) - 1.0) + (series + (0.5 * math.log(2 * math.pi) - 0.5))


DIGAMMA = (
    8.33333333333333333333E-2, -2.10927960927960927961E-2, 7.57575757575757575758E-3,
    -4.16666666666666666667E-3, 3.96825396825396825397E-3, -8.33333333333333333333E-3,
    8.33333333333333333333E-2,
)
"""B(2k) / 2k, the highest first: the asymptotic series of digamma."""

STEPS = 10
"""Unit steps that bring any positive argument to where the asymptotic series holds."""


def digamma(x: Node) -> Node:
    """The derivative of lgamma; -inf at 0, NaN at negative integers, as in PyTorch."""
    mirrored = x < 0.0
    y = build.where(mirrored, 1.0 - x, x)
    total = full(y.type, 0)
    for _ in range(STEPS):
        below = y < 10.0
        total = build.where(below, total - 1.0 / y, total)
        y = build.where(below, y + 1.0, y)
    inverse = 1.0 / (y * y)
    series = inverse * falling(inverse, DIGAMMA)
    total = total + apply("log", y) - 0.5 / y - series
    fraction = x - apply("trunc", x)
    reflected = total - math.pi / apply("tan", fraction * math.pi)
    reflected = apply("where", apply("eq", fraction, 0.0), math.nan, reflected)
    result = build.where(mirrored, reflected, total)
    return build.where(apply("eq", x, 0.0), apply("copysign", math.inf, -x), result)


BERNOULLI = (
    12.0, -720.0, 30240.0, -1209600.0, 47900160.0, -1.8924375803183791606e9, 7.47242496e10,
    -2.950130727918164224e12, 1.1646782814350067249e14, -4.5979787224074726105e15,
    1.8152105401943546773e17, -7.1661652561756670113e18,
)
"""(2k)! / B(2k), for the Euler-Maclaurin sum of Hurwitz's zeta function."""


def polygamma(n: int, x: Node) -> Node:
    """The n-th derivative of digamma.

    Hurwitz's zeta function by the Euler-Maclaurin sum for positive arguments; for negative ones
    the reflection formula, whose term is a polynomial in the cotangent. At integers up to 0 it is
    infinite. 16-bit floats and f32 are computed in f64, for high powers leave their range.
    """
    if n == 0:
        return digamma(x)
    v = build.cast(x, f64)
    mirrored = v < 0.0
    y = build.where(mirrored, 1.0 - v, v)
    sign = 1.0 if n % 2 else -1.0
    value = _zeta(n + 1, y) * (sign * math.factorial(n))
    cotangent = 1.0 / apply("tan", (v - apply("rint", v)) * math.pi)
    term = horner(cotangent, _cotangent_derivative(n)) * math.pi ** (n + 1)
    reflected = value * (1.0 if n % 2 == 0 else -1.0) - term
    result = build.where(mirrored, reflected, value)
    pole = apply("and", v <= 0.0, apply("eq", v, apply("floor", v)))
    result = apply("where", pole, sign * math.inf, result)
    return build.cast(result, x.dtype)


def _zeta(s: int, q: Node) -> Node:
    """The sum of (q + k)^-s over k >= 0, for q > 0."""
    place = q
    total = _inverse_power(place, s)
    for _ in range(9):
        place = place + 1.0
        last = _inverse_power(place, s)
        total = total + last
    total = total + last * place * (1.0 / (s - 1)) - last * 0.5
    factor, power = 1.0, last
    for k, b in enumerate(BERNOULLI):
        factor *= s + 2 * k
        power = power / place
        total = total + power * (factor / b)
        factor *= s + 2 * k + 1
        power = power / place
    return total


def _inverse_power(x: Node, n: int) -> Node:
    inverse = 1.0 / x
    result: Node | None = None
    square = inverse
    while n:
        if n % 2:
            result = square if result is None else result * square
        square, n = square * square, n // 2
    assert result is not None
    return result


def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The n-th derivative of cot as a polynomial in cot, the constant term first."""
    p = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(p)][1:]
        p = [0] * (len(p) + 1)
        for k, c in enumerate(slope):
            p[k] -= c
            p[k + 2] -= c
    return tuple(float(c) for c in p)
