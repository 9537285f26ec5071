"""asinh, acosh and atanh: logarithms of a sum or a quotient.

f32 computes in f64, where the rounding of that sum does no harm. f64 keeps the sum's error and
hands both parts to the logarithm.
"""

from __future__ import annotations

from tilewright.codegen.vecmath.lanes import Lanes, fast_two_sum, two_product, two_sum
from tilewright.codegen.vecmath.logarithm import combine, short_log, split_exponent
from tilewright.ir.types import f32


def log_of_sum(value: Lanes, low: Lanes, doubled: Lanes | None = None) -> Lanes:
    """log(value + low) for a normal value of 2/3 or more; twice that where ``doubled``."""
    layout = value.layout
    e, m = split_exponent(value)
    # 2^(1 - e), because 2^-e is no normal number for the largest e.
    scale = (((1 - e) << layout.mantissa) + layout.one).as_float()
    f, rest = two_sum(m - 1.0, low * 0.5 * scale)
    if doubled is not None:
        e = doubled.then(e + 1, e)
    return combine(e.to_float(), f, "e") + rest * (1.0 - f)


def root_of_square_and(x: Lanes, one: float) -> tuple[Lanes, Lanes]:
    """sqrt(x^2 + one) and its error."""
    square, error = two_product(x, x)
    total, lost = two_sum(square, x.of(one))
    root = total.sqrt()
    again, excess = two_product(root, root)
    missing = ((total - again) - excess) + (lost + error)
    return root, missing / (root + root).at_least(x.layout.smallest_normal)


def asinh(x: Lanes) -> Lanes:
    """log(|x| + sqrt(x^2 + 1)) with the sign of x."""
    size = x.magnitude()
    if x.value.dtype is f32:
        wide = size.widen()
        far = short_log(wide + wide.fma(wide, 1.0).sqrt()).narrow()
        near = (size * (size * size)).fma(-1 / 6, size)
        limit = 2.0**-12
    else:
        huge = size > 2.0**28
        root, low = root_of_square_and(size, 1.0)
        total, lost = two_sum(root, size)
        low = huge.then(low.of(0.0), low + lost)
        far = log_of_sum(huge.then(size, total), low, huge)
        near, limit = size, 2.0**-27
    far = (size < float("inf")).then(far, size)
    return (size < limit).then(near, far).with_sign_of(x)


def acosh(x: Lanes) -> Lanes:
    """log(x + sqrt(x^2 - 1)); NaN below 1."""
    if x.value.dtype is f32:
        wide = x.widen()
        result = short_log(wide + wide.fma(wide, -1.0).sqrt()).narrow()
    else:
        huge = x > 2.0**28
        root, low = root_of_square_and(x, -1.0)
        total, lost = two_sum(x, root)
        low = huge.then(low.of(0.0), low + lost)
        result = log_of_sum(huge.then(x, total), low, huge)
    result = (x < float("inf")).then(result, x)
    return (x < 1.0).then(x.of(float("nan")), result)


def atanh(x: Lanes) -> Lanes:
    """log((1 + x) / (1 - x)) / 2; infinite at 1, NaN beyond."""
    size = x.magnitude()
    if x.value.dtype is f32:
        wide = size.widen()
        far = (short_log((1.0 + wide) / (1.0 - wide)) * 0.5).narrow()
        near = (size * (size * size)).fma(1 / 3, size)
        limit = 2.0**-12
    else:
        bottom, lost = fast_two_sum(size.of(1.0), -size)
        twice = size + size
        quotient = twice / bottom
        product, error = two_product(quotient, bottom)
        rest = (((twice - product) - error) - quotient * lost) / bottom
        total, more = two_sum(quotient, size.of(1.0))
        far = log_of_sum(total, rest + more) * 0.5
        near, limit = size, 2.0**-27
    edge = size.equals(1.0).then(x.of(float("inf")), float("nan"))
    far = (size < 1.0).then(far, edge)
    return (size < limit).then(near, far).with_sign_of(x)
