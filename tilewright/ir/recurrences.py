"""Functions of two numbers that are loops: orthogonal polynomials, zeta, the incomplete gammas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.ir.routines import GammaAttrs, PolynomialAttrs
from tilewright.ir.types import TensorType

Array = np.ndarray


@dataclass(frozen=True)
class Polynomial:
    """A family of orthogonal polynomials.

    first     the polynomial of degree 1, of (x, 1 as a number of its type)
    step      the next one, of (x, p, q, k): p and q are the last two, q of degree k
    at_ends   at x = 1 and, apart from the sign of an odd degree, at x = -1: 0 for the number 1, 1
              for degree + 1, 2 for twice the degree + 1; None: no rule
    angle     between -1 and 1 the polynomial of a degree is a quotient of cosines or sines
    """

    first: Callable[[Any, Any], Any]
    step: Callable[[Any, Any, Any, Any], Any]
    at_ends: tuple[int, int] | None = None
    angle: str = ""


def _chebyshev(x: Any, p: Any, q: Any, k: Any) -> Any:
    return (x + x) * q - p


POLYNOMIALS: dict[str, Polynomial] = {
    "chebyshev_t": Polynomial(lambda x, one: x, _chebyshev, (0, 0), "t"),
    "chebyshev_u": Polynomial(lambda x, one: x + x, _chebyshev, (1, 1), "u"),
    "chebyshev_v": Polynomial(lambda x, one: x + x - one, _chebyshev, (0, 2), "v"),
    "chebyshev_w": Polynomial(lambda x, one: x + x + one, _chebyshev, (2, 0), "w"),
    "hermite_h": Polynomial(lambda x, one: x + x, lambda x, p, q, k: (x + x) * q - (k + k) * p),
    "hermite_he": Polynomial(lambda x, one: x, lambda x, p, q, k: x * q - k * p),
    "laguerre_l": Polynomial(
        lambda x, one: one - x, lambda x, p, q, k: (((k + k) + (1 - x)) * q - k * p) / (k + 1)),
    "legendre_p": Polynomial(
        lambda x, one: x, lambda x, p, q, k: ((k + k + 1) * x * q - k * p) / (k + 1), (0, 0)),
}
"""PyTorch's recurrences, term by term: they leave the range of a type where its do."""

LARGEST_NUMBER = {32: float(np.finfo(np.float32).max), 64: float(np.finfo(np.float64).max)}
"""By the bits of a type."""

BY_ANGLE = 8
"""The degree above which cosines are used."""

HIGHEST = {32: 128, 64: 512}
"""The degree above which Hermite's polynomials are NaN, by the bits of the type."""


def _polynomial(attrs: PolynomialAttrs, x: Any, degree: float) -> Any:
    kind, one, bits = POLYNOMIALS[attrs.family], np.float64(1), x.dtype.itemsize * 8
    x = np.float64(x)
    n = int(degree) if math.isfinite(degree) and abs(degree) < 2.0 ** 62 else -1
    if attrs.shifted:
        x = x + x - one
    if n < 0:
        return 0
    sign = -1 if n % 2 else 1
    if kind.at_ends is not None and abs(x) == 1:
        number = (1, n + 1, 2 * n + 1)[kind.at_ends[0 if x > 0 else 1]]
        return number if x > 0 else sign * number
    if n > BY_ANGLE and kind.angle and abs(x) < 1:
        return _by_angle(kind.angle, math.acos(x), n)
    if attrs.family.startswith("hermite") and n > HIGHEST[bits]:
        return math.nan
    if attrs.family == "laguerre_l" and x == 0:
        return 1
    p, q = one, kind.first(x, one)
    if not n:
        return p
    for k in range(1, n):
        p, q = q, kind.step(x, p, q, np.float64(k))
        if abs(q) > LARGEST_NUMBER[bits]:
            q = np.copysign(math.inf, q)
        if math.isnan(q):
            break
    return q


def _by_angle(angle: str, a: float, n: int) -> float:
    if angle == "t":
        return math.cos(n * a)
    if angle == "u":
        return math.sin((n + 1) * a) / math.sin(a)
    if angle == "v":
        return math.cos((n + 0.5) * a) / math.cos(a / 2)
    return math.sin((n + 0.5) * a) / math.sin(a / 2)


def polynomial(attrs: PolynomialAttrs, type: TensorType, x: Array, degree: Array) -> Array:
    """The polynomial whose degree is the whole part of ``degree``; 0 if that is negative."""
    return _each(lambda *numbers: _polynomial(attrs, *numbers), type, x, degree)


def _each(f: Callable[..., Any], type: TensorType, *arrays: Array) -> Array:
    result = np.empty(type.shape, type.dtype.numpy)
    with np.errstate(all="ignore"):
        for at in np.ndindex(*type.shape):
            result[at] = f(*(a[at] for a in arrays))
    return result


EULER_MACLAURIN = (
    12.0, -720.0, 30240.0, -1209600.0, 47900160.0, -1.8924375803183791606e9, 7.47242496e10,
    -2.950130727918164224e12, 1.1646782814350067249e14, -4.5979787224074726105e15,
    1.8152105401943546773e17, -7.1661652561756670113e18,
)
"""(2k)! / B(2k)."""

FIRST = 9
"""The place from which on the sum of zeta is its asymptotic series."""


def _zeta(x: float, q: float) -> float:
    if x <= 1:
        return math.inf if x == 1 else math.nan
    if q <= 0 and q == math.floor(q):
        return math.inf
    if math.isnan(x + q) or (q <= 0 and x != math.floor(x)):
        return math.nan
    x, q = np.float64(x), np.float64(q)
    steps = max(FIRST, math.floor(FIRST - q) + 1) if q < FIRST else FIRST
    total = sum(np.power(q + i, -x) for i in range(steps + 1))
    w = q + steps
    last = np.power(w, -x)
    total += last * w / (x - 1) - last / 2
    if math.isinf(x) and total == 0:
        return math.nan
    factor = np.float64(1)
    for i, b in enumerate(EULER_MACLAURIN):
        factor *= x + 2 * i
        last /= w
        total += factor * last / b if last else 0
        factor *= x + 2 * i + 1
        last /= w
    return float(total)


def zeta(attrs: Any, type: TensorType, x: Array, q: Array) -> Array:
    """Hurwitz's zeta function: the sum of (q + k)^-x over k >= 0."""
    return _each(lambda a, b: _zeta(float(a), float(b)), type, x, q)


STIRLING_FROM = 10.0
"""Arguments from which on lgamma is taken from Stirling's series."""

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


TERMS, ROOTS = 400, 12
"""The series end after so many terms, and so many times the root of a more, at the latest."""

LARGEST = 1e8
"""Beyond, two terms of the uniform asymptotic expansion are the function to f32's rounding."""


def _prefactor(a: float, x: float, lgamma: float) -> float:
    """x^a e^-x / gamma(a)."""
    if a < STIRLING_FROM:
        return math.exp(a * math.log(x) - x - lgamma)
    mu = (x - a) / a
    near = math.log1p(mu) - mu if mu > -1 else -math.inf
    series = sum(c / a ** (2 * i + 1) for i, c in enumerate(STIRLING))
    return math.exp(a * near - series) * math.sqrt(a / (2 * math.pi))


def _gamma(attrs: GammaAttrs, a: float, x: float, lgamma: float) -> float:
    low, high = (1.0, 0.0) if attrs.upper else (0.0, 1.0)
    if a < 0 or x < 0:
        return math.nan
    if a == 0:
        return high if x > 0 else math.nan
    if x == 0 or math.isinf(a):
        return math.nan if math.isinf(x) else low
    if math.isinf(x):
        return high
    if math.isnan(a + x):
        return math.nan
    factor = _prefactor(a, x, lgamma)
    if a > LARGEST:
        mu = (x - a) / a
        square = max(0.0, mu - math.log1p(mu)) * a
        lower = (1 + math.erf(math.copysign(math.sqrt(square), mu))) / 2
        lower += math.exp(-square) / math.sqrt(2 * math.pi * a) / 3
        return 1 - lower if attrs.upper else lower
    below = x <= max(1.0, a)
    value = _series(a, x) * factor / a if below else _fraction(a, x) * factor
    return value if below != attrs.upper else 1 - value


def _series(a: float, x: float) -> float:
    total = term = 1.0
    for i in range(1, int(TERMS + ROOTS * math.sqrt(a))):
        term *= x / (a + i)
        total += term
        if term <= 1e-17 * total:
            break
    return total


def _fraction(a: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction of the upper function."""
    b = x + 1 - a
    c, d = 1e300, 1 / b
    h = d
    for i in range(1, int(TERMS + ROOTS * math.sqrt(a))):
        an = -i * (i - a)
        b += 2
        d = 1 / (an * d + b)
        c = b + an / c
        h *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return h


def incomplete_gamma(attrs: GammaAttrs, type: TensorType, *arrays: Array) -> Array:
    """The regularised incomplete gamma function of (a, x, lgamma of a)."""
    return _each(lambda *numbers: _gamma(attrs, *map(float, numbers)), type, *arrays)
