"""Partial derivatives of the elementwise ops: (out, *inputs) -> one node per input, None for zero.

They are expressions of nodes, so they can be differentiated again. A guard (``where``) stands
wherever a branch that is not taken could be infinite or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from tilewright.ir.build import where
from tilewright.ir.graph import Node, apply, full, full_value

Partials: TypeAlias = tuple[Node | None, ...]
Derivative: TypeAlias = Callable[..., Partials]


def unary(f: Callable[[Node, Node], Node]) -> Derivative:
    """The derivative of a function of one input, as a function of result and input."""
    def derivative(out: Node, x: Node) -> Partials:
        return (f(out, x),)
    return derivative


def none(out: Node, *inputs: Node) -> Partials:
    """Constant almost everywhere."""
    return (None,) * len(inputs)


def one(x: Node) -> Node:
    return full(x.type, 1)


# --- arithmetic ---------------------------------------------------------------------------
def add(out: Node, x: Node, y: Node) -> Partials:
    return one(x), one(y)


def sub(out: Node, x: Node, y: Node) -> Partials:
    return one(x), full(y.type, -1)


def mul(out: Node, x: Node, y: Node) -> Partials:
    return y, x


def div(out: Node, x: Node, y: Node) -> Partials:
    return 1 / y, -out / y


def neg(out: Node, x: Node) -> Partials:
    return (full(x.type, -1),)


def absolute(out: Node, x: Node) -> Partials:
    return (where(x > 0, 1, where(x < 0, -1, 0, like=x)),)


def mod(out: Node, x: Node, y: Node) -> Partials:
    return one(x), -apply("floordiv", x, y)


def fmod(out: Node, x: Node, y: Node) -> Partials:
    return one(x), -apply("trunc", x / y)


def power(out: Node, x: Node, y: Node) -> Partials:
    """y x**(y-1), without NaN for x = y = 0, and x**y log x, zero for x = 0."""
    if y.op.name == "full":
        exponent = full_value(y)
        if exponent == 0:
            return None, None
        lower = apply("pow", x, full(y.type, exponent - 1))
        return (lower if exponent == 1 else lower * y), None
    zero = apply("eq", y, 0)
    slope = where(zero, 0, y * apply("pow", x, where(zero, 1, y - 1)))
    nought = apply("eq", x, 0)
    growth = where(nought, 0, out * apply("log", where(nought, 1, x)))
    return slope, growth


def chosen(beats: str) -> Derivative:
    """max and min: the chosen input has slope 1; equal inputs share it."""
    def derivative(out: Node, x: Node, y: Node) -> Partials:
        tie = where(apply("eq", x, y), 0.5, 0, like=x)
        return where(apply(beats, x, y), 1, tie), where(apply(beats, y, x), 1, tie)
    return derivative


def copysign(out: Node, x: Node, s: Node) -> Partials:
    return apply("copysign", one(x), x) * apply("copysign", one(x), s), None


def first_only(out: Node, x: Node, y: Node) -> Partials:
    """Slope 1 in the first input, 0 in the second."""
    return one(x), None


def heaviside(out: Node, x: Node, half: Node) -> Partials:
    return None, where(apply("eq", x, 0), 1, 0, like=half)


# --- roots, exponentials, logarithms ------------------------------------------------------
sqrt = unary(lambda out, x: 0.5 / out)
cbrt = unary(lambda out, x: 1 / (3 * (out * out)))
rsqrt = unary(lambda out, x: -0.5 * out / x)
exp = unary(lambda out, x: out)
exp2 = unary(lambda out, x: out * math.log(2))
expm1 = unary(lambda out, x: out + 1)
log = unary(lambda out, x: 1 / x)
log2 = unary(lambda out, x: (1 / math.log(2)) / x)
log10 = unary(lambda out, x: (1 / math.log(10)) / x)
log1p = unary(lambda out, x: 1 / (1 + x))
sigmoid = unary(lambda out, x: out * (1 - out))


def hypot(out: Node, x: Node, y: Node) -> Partials:
    """x / out and y / out, zero at the origin."""
    safe = where(apply("eq", out, 0), 1, out)
    return x / safe, y / safe


def logaddexp(exp: str) -> Derivative:
    """The shares of the two terms in the sum."""
    def derivative(out: Node, x: Node, y: Node) -> Partials:
        finite = apply("isfinite", out)

        def share(term: Node) -> Node:
            alone = where(apply("eq", term, out), 0, -math.inf, like=out)
            return apply(exp, where(finite, term - out, alone))
        return share(x), share(y)
    return derivative


# --- trigonometric and hyperbolic ---------------------------------------------------------
sin = unary(lambda out, x: apply("cos", x))
cos = unary(lambda out, x: -apply("sin", x))
tan = unary(lambda out, x: 1 + out * out)
asin = unary(lambda out, x: 1 / apply("sqrt", (1 - x) * (1 + x)))
acos = unary(lambda out, x: -1 / apply("sqrt", (1 - x) * (1 + x)))
atan = unary(lambda out, x: 1 / (1 + x * x))
sinh = unary(lambda out, x: apply("cosh", x))
cosh = unary(lambda out, x: apply("sinh", x))
tanh = unary(lambda out, x: 1 - out * out)
asinh = unary(lambda out, x: 1 / apply("sqrt", x * x + 1))
acosh = unary(lambda out, x: 1 / apply("sqrt", (x - 1) * (x + 1)))
atanh = unary(lambda out, x: 1 / ((1 - x) * (1 + x)))
erf = unary(lambda out, x: (2 / math.sqrt(math.pi)) * apply("exp", -(x * x)))


def atan2(out: Node, y: Node, x: Node) -> Partials:
    square = x * x + y * y
    return x / square, -y / square


def sinc(out: Node, x: Node) -> Partials:
    """pi (cos t - sinc) / t with t = pi x; its power series where that cancels."""
    angle = x * math.pi
    near = apply("abs", angle) < 1
    square = angle * angle
    series = full(x.type, 0)
    for n in range(10, 0, -1):
        # The terms of d/dt sum (-1)**n t**(2n) / (2n+1)!, one t taken out.
        series = series * square + (-1) ** n * 2 * n / math.factorial(2 * n + 1)
    safe = where(near, 1, angle)
    far = (apply("cos", safe) - apply("sin", safe) / safe) / safe
    return (math.pi * where(near, series * angle, far),)


def ldexp(out: Node, x: Node, n: Node) -> Partials:
    return apply("ldexp", one(x), n), None
