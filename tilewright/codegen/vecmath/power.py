"""pow and cbrt."""

from __future__ import annotations

from tilewright.codegen.vecmath import exponential
from tilewright.codegen.vecmath.exponential import LOG2_E, biased_round
from tilewright.codegen.vecmath.lanes import (
    Lanes,
    fast_two_sum,
    horner,
    two_product,
    two_sum,
)
from tilewright.codegen.vecmath.logarithm import short_log, split_exponent
from tilewright.ir.types import DType, f32, f64

EXP2_SHORT = (
    0.6931472028560178, 0.24022637388984747, 0.05550329684762218,
    0.009619857193616863, 0.0013400247632840002, 0.00014933608832111856,
)
"""(2^r - 1) / r for |r| <= 1/2, to 2^-28."""

LOG_TAIL = (
    0.40000000000002256, 0.2857142857009955, 0.2222222251993273, 0.18181784365978976,
    0.15386757392498765, 0.13256816178629524, 0.13196344252111608,
)
"""(log(m) - 2s - 2/3 s^3) / s^5 in powers of s^2, s = (m - 1) / (m + 1), m from sqrt(1/2) on."""

TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
ROOT_HALF = 0x3FE6A09E667F3BCD
"""The bits of sqrt(1/2)."""

INFINITY = float("inf")


def is_whole(x: Lanes) -> Lanes:
    """Whether x is an integer; infinities count as one, NaN does not."""
    size = x.magnitude()
    step = 2.0**x.layout.mantissa
    return ((size + step) - step).equals(size) | (size >= step)


def power(x: Lanes, y: Lanes) -> Lanes:
    """x to the power y, with all of C99's special cases."""
    size = x.magnitude()
    result = narrow_power(size, y) if x.value.dtype is f32 else wide_power(size, y)
    result = (size.equals(1.0) & y.equals(y)).then(x.of(1.0), result)
    whole = is_whole(y)
    odd = whole & ~is_whole(y * 0.5)
    negative = x.as_bits() < 0
    result = (negative & odd).then(-result, result)
    undefined = (x < 0.0) & (x > -INFINITY) & ~whole
    result = undefined.then(x.of(float("nan")), result)
    return (x.equals(1.0) | y.equals(0.0)).then(x.of(1.0), result)


def narrow_power(size: Lanes, y: Lanes) -> Lanes:
    """|x|^y for f32, computed in f64, whose precision covers the error of a long exponent."""
    wide = size.widen()
    logarithm = short_log(wide)
    logarithm = size.equals(0.0).then(logarithm.of(-INFINITY), logarithm)
    logarithm = (size < INFINITY).then(logarithm, wide)
    exponent = (y.widen() * logarithm * LOG2_E).at_most(160.0).at_least(-160.0)
    n, scale = biased_round(exponent, 1.0)
    return (horner(exponent - n, (1.0, *EXP2_SHORT)) * scale).narrow()


def exact_log(x: Lanes) -> tuple[Lanes, Lanes]:
    """The natural logarithm of a positive finite f64 to 2^-64, as a sum of two numbers."""
    small = x < x.layout.smallest_normal
    e, m = split_exponent(small.then(x * 2.0**54, x), ROOT_HALF)
    exponent = e.to_float()
    exponent = small.then(exponent - 54.0, exponent)
    f = m - 1.0
    bottom, bottom_low = two_sum(m, m.of(1.0))
    s = f / bottom
    product, error = two_product(s, bottom)
    s_low = (((f - product) - error) - s * bottom_low) / bottom
    z, z_low = two_product(s, s)
    z_low = (s + s).fma(s_low, z_low)
    cube, cube_low = two_product(z, s)
    cube_low = cube_low + z.fma(s_low, z_low * s)
    third, third_low = two_product(cube, cube.of(TWO_THIRDS[0]))
    third_low = third_low + cube.fma(TWO_THIRDS[1], cube_low * TWO_THIRDS[0])
    tail = (cube * z).fma(horner(z, LOG_TAIL), third_low)
    total, low = fast_two_sum(s + s, third)
    low = low + ((s_low + s_low) + tail)
    ln2, ln2_low = exponential.TABLES[f64].ln2
    total, lost = fast_two_sum(exponent * ln2, total)
    return fast_two_sum(total, lost + exponent.fma(ln2_low, low))


def wide_power(size: Lanes, y: Lanes) -> Lanes:
    """|x|^y for f64: an exact product of y and a logarithm of twice the precision."""
    log, log_low = exact_log(size)
    log = size.equals(0.0).then(log.of(-INFINITY), log)
    log = (size < INFINITY).then(log, size)
    # Any larger y gives zero or infinity as well, and splitting it would overflow.
    near_y = y.at_most(2.0**66).at_least(-(2.0**66))
    exact, low = two_product(near_y, log)
    low = near_y.fma(log_low, low)
    exponent = (near_y * log).at_most(720.0).at_least(-800.0)
    low = exact.equals(exponent).then(low, 0.0)
    table = exponential.TABLES[f64]
    m, scale = biased_round(exponent, LOG2_E / 2)
    start = m.fma(-2 * table.ln2[0], exponent)
    piece = m * (2 * table.ln2[1])
    r = start - piece
    low = low + ((start - r) - piece)
    # The small terms are added up first: the sums then round little.
    curve = r * r * horner(r, table.exp)
    tilt = low.fma(r + curve, low)
    return (r + (curve + tilt) + 1.0) * scale * scale


INVERSE_ROOT: dict[DType, tuple[float, ...]] = {
    f32: (
        1.0000056402943194, -0.33335512896885683, 0.2213261620445347,
        -0.1714259179093668, 0.16474846632434825, -0.14794080520100153,
    ),
    f64: (
        0.9999998238677731, -0.33335157735844656, 0.22226752596841245, -0.17155389905126114,
        0.1421663914664099, -0.14701885896970823, 0.1354538741644192,
    ),
}
"""m^(-1/3) in powers of m - 1, for m from 2/3 to 4/3."""


def cbrt(x: Lanes) -> Lanes:
    """The cube root, by Newton's method from a polynomial for its reciprocal."""
    layout, size = x.layout, x.magnitude()
    shift = 24 if x.value.dtype is f32 else 54
    small = size < layout.smallest_normal
    e, m = split_exponent(small.then(size * 2.0**shift, size))
    exponent = e.to_float()
    magic = layout.magic + layout.bias
    shifted = exponent.fma(1 / 3, magic)
    third = shifted - magic
    rest = third.fma(-3.0, exponent)
    inverse = horner(m - 1.0, INVERSE_ROOT[x.value.dtype])
    more, less = rest > 0.5, rest < -0.5
    one = m.of(1.0)
    inverse = inverse * more.then(m.of(2 ** (-1 / 3)), less.then(m.of(2 ** (1 / 3)), one))
    m = m * more.then(m.of(2.0), less.then(m.of(0.5), one))
    if x.value.dtype is f64:
        error = 1.0 - m * inverse * inverse * inverse
        inverse = (inverse * (1 / 3)).fma(error, inverse)
    square = inverse * inverse
    root = m * square
    high, low = two_product(root, root)
    cube, cube_low = two_product(high, root)
    missing = ((m - cube) - cube_low) - low * root
    root = (square * (1 / 3)).fma(missing, root)
    scale = (shifted.as_bits() << layout.mantissa).as_float()
    result = root * scale
    result = small.then(result * 2.0 ** (-shift // 3), result)
    result = (size.equals(0.0) | ~(size < INFINITY)).then(size, result)
    return result.with_sign_of(x)
