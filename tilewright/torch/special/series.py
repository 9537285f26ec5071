"""Polynomials, Chebyshev series, and squares that are exact where they are exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tilewright.ir import build
from tilewright.ir.graph import Node, apply, full
from tilewright.ir.types import f64, i32, i64


def horner(x: Node, coefficients: Sequence[float]) -> Node:
    """A polynomial, the constant term first."""
    total = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * x + c
    return total


def falling(x: Node, coefficients: Sequence[float]) -> Node:
    """A polynomial, the highest power first, as Cephes writes them."""
    return horner(x, tuple(reversed(coefficients)))


def ratio(x: Node, top: Sequence[float], bottom: Sequence[float]) -> Node:
    """A quotient of two polynomials, the highest powers first."""
    return falling(x, top) / falling(x, bottom)


def chebyshev(x: Node, coefficients: Sequence[float]) -> Node:
    """A Chebyshev series, the constant term first, by Clenshaw's recurrence."""
    twice = x + x
    before, last = full(x.type, 0), full(x.type, coefficients[-1])
    for c in reversed(coefficients[1:-1]):
        before, last = last, twice * last - before + c
    return x * last - before + coefficients[0]


def clenshaw(y: Node, coefficients: Sequence[float]) -> Node:
    """A Chebyshev series in y / 2 whose constant term is last and counts half, as in Cephes."""
    reversed_ = list(reversed(coefficients))
    return chebyshev(y * 0.5, [reversed_[0] * 0.5, *reversed_[1:]])


def exp_of_square(x: Node, sign: int, more: Node | None = None) -> Node:
    """exp(sign * x^2 + more), with x^2 as a sum of an exact square and a small rest."""
    ints, kept = (i64, -1 << 27) if x.dtype is f64 else (i32, -1 << 12)
    high = build.bitcast(apply("and", build.bitcast(x, ints), kept), x.dtype)
    rest = (x - high) * (x + high) * float(sign)
    rest = rest if more is None else rest + more
    return apply("exp", high * high * float(sign)) * apply("exp", rest)


def sin_pi(x: Node) -> Node:
    """sin(pi x), exactly 0 at integers."""
    rest = x - apply("rint", x * 0.5) * 2.0  # in [-1, 1]
    near = apply("where", apply("abs", rest) > 0.5, apply("copysign", 1.0, rest) - rest, rest)
    return apply("sin", near * math.pi)
