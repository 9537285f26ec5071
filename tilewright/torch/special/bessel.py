"""Bessel's and Airy's functions, as the Cephes Math Library has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tilewright.ir import build
from tilewright.ir.graph import Node, apply
from tilewright.torch.special import tables as t
from tilewright.torch.special.series import clenshaw, falling, horner, ratio


# --- J and Y --------------------------------------------------------------------------------
def _waves(x: Node, order: int) -> tuple[Node, Node]:
    """J and Y for x > 5: a cosine and a sine with slowly changing amplitudes."""
    pp, pq, qp, qq = (
        (t.J0_PP, t.J0_PQ, t.J0_QP, t.J0_QQ) if order == 0 else (t.J1_PP, t.J1_PQ, t.J1_QP, t.J1_QQ)
    )
    w = 5.0 / x
    square = w * w
    p = ratio(square, pp, pq)
    q = w * falling(square, qp) / falling(square, (1.0, *qq))
    angle = x - (0.25 + 0.5 * order) * math.pi
    cosine, sine = apply("cos", angle), apply("sin", angle)
    scale = math.sqrt(2 / math.pi) / apply("sqrt", x)
    return (p * cosine - q * sine) * scale, (p * sine + q * cosine) * scale


def j0(x: Node) -> Node:
    """The Bessel function of the first kind of order 0."""
    size = apply("abs", x)
    z = size * size
    inner = (z - 5.78318596294678452118e+00) * (z - 3.04712623436620863991e+01) * (
        falling(z, t.J0_RP) / falling(z, (1.0, *t.J0_RQ)))
    inner = build.where(size < 1e-5, 1.0 - z * 0.25, inner)
    return build.where(size <= 5.0, inner, _waves(size, 0)[0])


def j1(x: Node) -> Node:
    """The Bessel function of the first kind of order 1."""
    size = apply("abs", x)
    z = size * size
    inner = falling(z, t.J1_RP) / falling(z, (1.0, *t.J1_RQ)) * size * (
        z - 1.46819706421238932572e+01) * (z - 4.92184563216946036703e+01)
    found = build.where(size <= 5.0, inner, _waves(size, 1)[0])
    return build.where(x < 0.0, -found, found)


def y0(x: Node) -> Node:
    """The Bessel function of the second kind of order 0."""
    z = x * x
    inner = ratio(z, t.Y0_YP, (1.0, *t.Y0_YQ)) + (2 / math.pi) * apply("log", x) * j0(x)
    found = build.where(x <= 5.0, inner, _waves(x, 0)[1])
    found = apply("where", apply("eq", x, 0.0), -math.inf, found)
    return apply("where", x < 0.0, math.nan, found)


def y1(x: Node) -> Node:
    """The Bessel function of the second kind of order 1."""
    z = x * x
    inner = x * ratio(z, t.Y1_YP, (1.0, *t.Y1_YQ)) + (2 / math.pi) * (
        j1(x) * apply("log", x) - 1.0 / x)
    found = build.where(x <= 5.0, inner, _waves(x, 1)[1])
    found = apply("where", apply("eq", x, 0.0), -math.inf, found)
    return apply("where", x < 0.0, math.nan, found)


def spherical_j0(x: Node) -> Node:
    """sin(x) / x."""
    series = [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]
    near = horner(x * x, series)
    size = apply("abs", x)
    found = build.where(size < 0.5, near, apply("sin", x) / x)
    return apply("where", apply("eq", size, math.inf), 0.0, found)


# --- I and K --------------------------------------------------------------------------------
def _growing(size: Node, near: Sequence[float], far: Sequence[float], power: int) -> Node:
    """exp(-x) I(x) for x >= 0."""
    inner = clenshaw(size * 0.5 - 2.0, near)
    inner = inner * size if power else inner
    outer = clenshaw(32.0 / size - 2.0, far) / apply("sqrt", size)
    return build.where(size <= 8.0, inner, outer)


def i0e(x: Node) -> Node:
    """exp(-abs(x)) times the modified Bessel function of the first kind of order 0."""
    return _growing(apply("abs", x), t.I0_A, t.I0_B, 0)


def i1e(x: Node) -> Node:
    """exp(-abs(x)) times the modified Bessel function of the first kind of order 1."""
    found = _growing(apply("abs", x), t.I1_A, t.I1_B, 1)
    return build.where(x < 0.0, -found, found)


def i0(x: Node) -> Node:
    """The modified Bessel function of the first kind of order 0."""
    return apply("exp", apply("abs", x)) * i0e(x)


def i1(x: Node) -> Node:
    """The modified Bessel function of the first kind of order 1."""
    return apply("exp", apply("abs", x)) * i1e(x)


def _falling_bessel(x: Node, order: int, scaled: bool) -> Node:
    """The modified Bessel function of the second kind; ``scaled`` by exp(x)."""
    near, far = (t.K0_A, t.K0_B) if order == 0 else (t.K1_A, t.K1_B)
    inner = clenshaw(x * x - 2.0, near)
    log = apply("log", x * 0.5)
    inner = inner - log * i0(x) if order == 0 else log * i1(x) + inner / x
    inner = inner * apply("exp", x) if scaled else inner
    outer = clenshaw(8.0 / x - 2.0, far) / apply("sqrt", x)
    outer = outer if scaled else apply("exp", -x) * outer
    found = build.where(x <= 2.0, inner, outer)
    found = apply("where", apply("eq", x, 0.0), math.inf, found)
    return apply("where", x < 0.0, math.nan, found)


def k0(x: Node) -> Node:
    """The modified Bessel function of the second kind of order 0."""
    return _falling_bessel(x, 0, False)


def k1(x: Node) -> Node:
    """The modified Bessel function of the second kind of order 1."""
    return _falling_bessel(x, 1, False)


def k0e(x: Node) -> Node:
    """exp(x) times the modified Bessel function of the second kind of order 0."""
    return _falling_bessel(x, 0, True)


def k1e(x: Node) -> Node:
    """exp(x) times the modified Bessel function of the second kind of order 1."""
    return _falling_bessel(x, 1, True)


# --- Airy -----------------------------------------------------------------------------------
TERMS = 16
"""Of the power series, which is used up to 2.09."""


def airy_ai(x: Node) -> Node:
    """Airy's function of the first kind."""
    root = 1 / math.sqrt(math.pi)
    size = apply("abs", x)
    zeta = size * apply("sqrt", size) * (2 / 3)
    quarter = apply("sqrt", apply("sqrt", size))
    z = 1.0 / zeta
    square = z * z
    angle = zeta + 0.25 * math.pi
    waves = root / quarter * (
        apply("sin", angle) * (1.0 + square * ratio(square, t.AIRY_AI_AFN, (1.0, *t.AIRY_AI_AFD)))
        - apply("cos", angle) * (z * falling(square, t.AIRY_AI_AGN)
                                 / falling(square, (1.0, *t.AIRY_AI_AGD))))
    tail = root * ratio(z, t.AIRY_AI_AN, t.AIRY_AI_AD) / (2.0 * quarter * apply("exp", zeta))
    found = build.where(x < -2.09, waves, build.where(x >= 2.09, tail, _airy_series(x)))
    found = apply("where", x > 103.892, 0.0, found)
    return apply("where", apply("eq", size, math.inf), math.nan, found)


def _airy_series(x: Node) -> Node:
    cube = x * x * x
    f, g = [1.0], [1.0]
    for k in range(TERMS):
        f.append(f[-1] / ((3 * k + 2) * (3 * k + 3)))
        g.append(g[-1] / ((3 * k + 3) * (3 * k + 4)))
    return 0.355028053887817239260 * horner(cube, f) - (
        0.258819403792806798405 * x * horner(cube, g))
