"""asin, acos, atan and atan2."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.vecmath.lanes import Lanes, fast_two_sum, horner
from tilewright.ir.types import DType, f32, f64


@dataclass(frozen=True)
class InverseTrigonometry:
    """Numbers for one float type.

    pi        pi as a rounded number and the rest; their halves are pi/2
    asin      (asin(s) / s - 1) / s^2 in powers of s^2, for |s| <= 1/2
    atan      (atan(r) / r - 1) / r^2 in powers of r^2, for |r| <= 1
    """

    pi: tuple[float, float]
    asin: tuple[float, ...]
    atan: tuple[float, ...]


TABLES: dict[DType, InverseTrigonometry] = {
    f32: InverseTrigonometry(
        (3.1415927410125732, -8.742277657347586e-08),
        (
            0.16666752099990845, 0.07495308667421341, 0.04546930640935898,
            0.024183768779039383, 0.04216035082936287,
        ),
        (
            -0.33333152532577515, 0.19993767142295837, -0.14211001992225647,
            0.10665769875049591, -0.07551666349172592, 0.0432048961520195,
            -0.01636338047683239, 0.0029194995295256376,
        ),
    ),
    f64: InverseTrigonometry(
        (3.141592653589793, 1.2246467991473532e-16),
        (
            0.16666666666665408, 0.07500000000337229, 0.044642856828102526,
            0.030381959147711652, 0.02237175776624205, 0.01735970937655148,
            0.013885187149269751, 0.012169544697022527, 0.006526473375016613,
            0.019532529308366707, -0.016231168052558313, 0.03191715359159378,
        ),
        (
            -0.3333333333333307, 0.19999999999951742, -0.14285714282587542,
            0.11111111007324256, -0.090909070074702, 0.07692279884985925,
            -0.06666404390804571, 0.058805296132127476, -0.052535259124296914,
            0.04722345421485384, -0.04219235918028183, 0.036643005213426505,
            -0.029905504119887936, 0.021986780840375805, -0.013902298473899588,
            0.007197686213186556, -0.0028855056799804565, 0.0008315223763163327,
            -0.00015220296590360465, 1.3229170746724795e-05,
        ),
    ),
}


def half_sine(size: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """For a number in [0, 1]: whether it is above 1/2, and two parts of an angle t.

    asin is t up to 1/2 and pi/2 - 2t above; NaN for numbers above 1.
    """
    large = size > 0.5
    square = large.then(size * -0.5 + 0.5, size * size)
    sine = large.then(square.sqrt(), size)
    series = horner(square, TABLES[size.value.dtype].asin)
    return large, sine, sine * square * series


def asin(x: Lanes) -> Lanes:
    """The arc sine; NaN outside [-1, 1]."""
    pi, rest = TABLES[x.value.dtype].pi
    large, sine, more = half_sine(x.magnitude())
    outer, lost = fast_two_sum(sine.of(pi / 2), sine * -2.0)
    outer = outer + (lost + rest / 2 - (more + more))
    return large.then(outer, sine + more).with_sign_of(x)


def acos(x: Lanes) -> Lanes:
    """The arc cosine; NaN outside [-1, 1]."""
    pi, rest = TABLES[x.value.dtype].pi
    large, sine, more = half_sine(x.magnitude())
    t = sine + more
    double = t + t
    outer = (x < 0.0).then(pi - (double - rest), double)
    inner = pi / 2 - (t.with_sign_of(x) - rest / 2)
    return large.then(outer, inner)


def arc(r: Lanes) -> Lanes:
    """atan for |r| <= 1."""
    square = r * r
    return (r * square).fma(horner(square, TABLES[r.value.dtype].atan), r)


def atan(x: Lanes) -> Lanes:
    """The arc tangent."""
    pi, rest = TABLES[x.value.dtype].pi
    size = x.magnitude()
    large = size > 1.0
    t = arc(large.then(1.0 / size, size))
    return large.then(pi / 2 - (t - rest / 2), t).with_sign_of(x)


def atan2(y: Lanes, x: Lanes) -> Lanes:
    """The angle of the point (x, y), with the signs of zeros and infinities as in C99."""
    pi, rest = TABLES[x.value.dtype].pi
    width, height = x.magnitude(), y.magnitude()
    steep = height > width
    lesser, greater = steep.then(width, height), steep.then(height, width)
    ratio = lesser / greater
    # Two infinities are at 45 degrees; two zeros on the axis.
    alike = greater.equals(0.0).then(ratio.of(0.0), 1.0)
    ratio = lesser.equals(greater).then(alike, ratio)
    t = arc(ratio)
    left = x.as_bits() < 0
    t = (steep ^ left).then(-t, t)
    zero = t.of(0.0)
    base = steep.then(t.of(pi / 2), left.then(t.of(pi), zero))
    small = steep.then(t.of(rest / 2), left.then(t.of(rest), zero))
    return (base + (t + small)).with_sign_of(y)
