"""a b + c of f64 numbers, rounded once."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLIT = 2.0**27 + 1
LEAST, GREATEST = 2.0**-400, 2.0**400
"""Numbers between these are multiplied and added without over- or underflow."""

F64 = NDArray[np.float64]


def fused_f64(a: Any, b: Any, c: Any) -> F64:
    """a b + c rounded once.

    Moderate numbers by sums of errors whose last but one is rounded to odd (Boldo and Melquiond,
    "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008);
    the others as fractions.
    """
    a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
    if not a.shape == b.shape == c.shape:
        a, b, c = np.broadcast_arrays(a, b, c)
    with np.errstate(all="ignore"):
        moderate = _is_moderate(a) & _is_moderate(b) & _is_moderate(c)
        result = _moderate(a, b, c)
        if not moderate.all():
            rest = ~moderate
            result[rest] = _other(a[rest], b[rest], c[rest])
    return result


def _is_moderate(x: F64) -> NDArray[np.bool_]:
    size = np.abs(x)
    return np.asarray((size > LEAST) & (size < GREATEST))


def _other(a: F64, b: F64, c: F64) -> F64:
    """Of numbers that are not all moderate."""
    product = a * b
    # An infinite c or a NaN decides, though the product of finite numbers may overflow; the sign
    # of a product that underflows does, though c is a zero.
    result = np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), c, product + c)
    result = np.where((a != 0) & (b != 0) & (c == 0), product, result)
    exact = (a == 0) | (b == 0) | (c == 0) | ~np.isfinite(a) | ~np.isfinite(b) | ~np.isfinite(c)
    if not exact.all():
        triples = zip(a[~exact], b[~exact], c[~exact], strict=True)
        result[~exact] = [_by_fractions(*map(float, triple)) for triple in triples]
    return result


def _moderate(a: F64, b: F64, c: F64) -> F64:
    product, low = _two_product(a, b)
    upper, rest = _two_sum(c, low)
    total, error = _two_sum(product, upper)
    return np.asarray(total + _sum_to_odd(error, rest))


def _two_sum(a: F64, b: F64) -> tuple[F64, F64]:
    """The rounded sum and its error."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _two_product(a: F64, b: F64) -> tuple[F64, F64]:
    """The rounded product and its error, by Dekker's and Veltkamp's splitting."""
    product = a * b
    (a1, a0), (b1, b0) = _split(a), _split(b)
    return product, ((a1 * b1 - product) + a1 * b0 + a0 * b1) + a0 * b0


def _split(x: F64) -> tuple[F64, F64]:
    """The upper half of the bits, and the others."""
    scaled = SPLIT * x
    upper = scaled - (scaled - x)
    return upper, x - upper


def _sum_to_odd(a: F64, b: F64) -> F64:
    """The sum; if it is not exact, the one of its two neighbours whose last bit is set."""
    total, error = _two_sum(a, b)
    even = np.ascontiguousarray(total).view(np.int64) & 1 == 0
    return np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)


def _by_fractions(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
