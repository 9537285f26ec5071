"""The functions around the integral of the normal distribution."""

from __future__ import annotations

import math

from tilewright.ir import build
from tilewright.ir.graph import Node, apply
from tilewright.ir.types import f64
from tilewright.torch.special.series import chebyshev, exp_of_square, falling, horner

SCALED = (
    1.1775789345674017, -0.004590054580646478, -0.08424913336651792, 0.05920993999819189,
    -0.026658668435305753, 0.009074997670705265, -0.002413163540417608, 0.0004907758365258086,
    -6.916973302501207e-05, 4.13902798607301e-06, 7.74038306619849e-07, -2.1886401049234397e-07,
    1.076499946567091e-08, 4.521959811218287e-09, -7.754400208831351e-10,
    -6.318088340886684e-11, 2.86879501093067e-11, 1.9455868545777347e-13,
    -9.65469674843344e-13, 3.25254814814874e-14, 3.3478119482868056e-14, -1.864562880419313e-15,
    -1.2507950530688648e-15, 7.418235256624044e-17, 5.068148904796111e-17,
    -2.2370566594359995e-18, -2.187342944303018e-18,
)
"""(1 + 2x) exp(x^2) erfc(x) as a Chebyshev series in (x - c) / (x + c), c = 3.75, for x >= 0.

The form is that of M. Shepherd and J. Laframboise, "Chebyshev approximation of
(1 + 2x) exp(x^2) erfc x in 0 <= x < inf" (1981).
"""

CENTRE, TERMS = 3.75, 14
"""The point that maps to 0, and how many terms f32 needs."""

SMALL = 0.5
"""Up to here 1 - erf(x) is as exact as the series."""


def _scaled(x: Node) -> Node:
    """exp(x^2) erfc(x) for x >= 0."""
    terms = SCALED if x.dtype is f64 else SCALED[:TERMS]
    place = 1.0 - (2 * CENTRE) / (x + CENTRE)
    return chebyshev(place, terms) / (x + x + 1.0)


def erfc(x: Node) -> Node:
    """1 - erf(x) without cancellation."""
    size = apply("abs", x)
    tail = _scaled(size) * exp_of_square(size, -1)
    tail = apply("where", size > 30.0, 0.0, tail)
    far = build.where(x < 0, 2.0 - tail, tail)
    return build.where(size < SMALL, 1.0 - apply("erf", x), far)


def erfcx(x: Node) -> Node:
    """exp(x^2) erfc(x)."""
    size = apply("abs", x)
    scaled = _scaled(size)
    grown = exp_of_square(size, 1) * 2.0 - scaled
    grown = apply("where", size > 30.0, math.inf, grown)
    return build.where(x < 0, grown, scaled)


CENTRAL = (
    (0.886226899, -1.645349621, 0.914624893, -0.140543331),
    (1.0, -2.118377725, 1.442710462, -0.329097515, 0.012229801),
)
OUTER = (
    (-1.970840454, -1.624906493, 3.429567803, 1.641345311),
    (1.0, 3.543889200, 1.637067800),
)
"""First guesses of the inverse, in y^2 and in the root of -log((1 - y) / 2): G. Pavlis, 1996."""


def erfinv(y: Node) -> Node:
    """The inverse of erf, by Newton's method: near 1 on erfc, where 1 - y is exact."""
    size = apply("abs", y)
    square = size * size
    inner = size * horner(square, CENTRAL[0]) / horner(square, CENTRAL[1])
    rest = 1.0 - size
    root = apply("sqrt", -apply("log", rest * 0.5))
    outer = horner(root, OUTER[0]) / horner(root, OUTER[1])
    x = build.where(size <= 0.7, inner, outer)
    for _ in range(2 if y.dtype is f64 else 1):
        error = build.where(size <= 0.7, apply("erf", x) - size, rest - erfc(x))
        x = x - error * (math.sqrt(math.pi) / 2) * exp_of_square(x, 1)
    x = apply("where", apply("eq", size, 1.0), math.inf, x)
    x = apply("where", size <= 1.0, x, math.nan)
    return apply("copysign", x, y)


NDTRI = (
    (
        (-59.96335010141079, 98.00107541859997, -56.67628574690703, 13.931260938727968,
         -1.2391658386738125),
        (1.0, 1.9544885833814176, 4.676279128988815, 86.36024213908905, -225.46268785411937,
         200.26021238006066, -82.03722561683334, 15.90562251262117, -1.1833162112133),
    ),
    (
        (4.0554489230596245, 31.525109459989388, 57.16281922464213, 44.08050738932008,
         14.684956192885803, 2.1866330685079025, -0.1402560791713545, -0.03504246268278482,
         -0.0008574567851546854),
        (1.0, 15.779988325646675, 45.39076351288792, 41.3172038254672, 15.04253856929075,
         2.504649462083094, -0.14218292285478779, -0.03808064076915783, -0.0009332594808954574),
    ),
    (
        (3.2377489177694603, 6.915228890689842, 3.9388102529247444, 1.3330346081580755,
         0.20148538954917908, 0.012371663481782003, 0.00030158155350823543,
         2.6580697468673755e-06, 6.239745391849833e-09),
        (1.0, 6.02427039364742, 3.6798356385616087, 1.3770209948908132, 0.21623699359449663,
         0.013420400608854318, 0.00032801446468212774, 2.8924786474538068e-06,
         6.790194080099813e-09),
    ),
)
"""Quotients of polynomials, the highest power first, around 1/2, and in 1 / sqrt(-2 log y) for
y > exp(-32) and below.

From the Cephes Math Library, see :mod:`tilewright.torch.special.tables`.
"""


def ndtri(y: Node) -> Node:
    """The number below which the normal distribution has the weight ``y``."""
    border = math.exp(-2)
    upper = y > 1.0 - border
    part = build.where(upper, 1.0 - y, y)
    shifted = part - 0.5
    square = shifted * shifted
    (p0, q0), (p1, q1), (p2, q2) = NDTRI
    middle = (shifted + shifted * (square * falling(square, p0) / falling(square, q0))) * (
        math.sqrt(2 * math.pi))
    x = apply("sqrt", -2.0 * apply("log", part))
    z = 1.0 / x
    near = z * falling(z, p1) / falling(z, q1)
    far = z * falling(z, p2) / falling(z, q2)
    tail = x - apply("log", x) / x - build.where(x < 8.0, near, far)
    result = build.where(part > border, middle, build.where(upper, tail, -tail))
    result = apply("where", apply("eq", y, 0.0), -math.inf, result)
    result = apply("where", apply("eq", y, 1.0), math.inf, result)
    return apply("where", apply("and", y >= 0.0, y <= 1.0), result, math.nan)
