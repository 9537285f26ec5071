"""Functions of two numbers whose loops are as long as the numbers ask for."""

from __future__ import annotations

import math
from typing import Any

from tilewright.compiler.schedules.item import Code, Value, real
from tilewright.ir.recurrences import (
    BY_ANGLE,
    EULER_MACLAURIN,
    FIRST,
    HIGHEST,
    LARGEST,
    LARGEST_NUMBER,
    POLYNOMIALS,
    ROOTS,
    STIRLING,
    STIRLING_FROM,
    TERMS,
    Polynomial,
)
from tilewright.ir.routines import GammaAttrs, PolynomialAttrs
from tilewright.ir.types import f64, i64

BLOCK = 1 << 15
"""Steps of a recurrence before it is asked whether it has become NaN, which ends it."""

MOST_STEPS = 1 << 40
"""Steps after which every recurrence off [-1, 1] has left the range of its type."""


# --- orthogonal polynomials ---------------------------------------------------------------
def polynomial(code: Code, attrs: PolynomialAttrs, x: Value, degree: Value) -> Value:
    """The recurrence, in f64, but where a rule gives the number at once."""
    kind, dtype = POLYNOMIALS[attrs.family], x.dtype
    x = code.name(x.to(f64))
    fits = code.name(degree.call("abs") < 2.0 ** 62)
    n = code.name(fits.where(fits.where(degree, 0.0).to(i64), -1))
    if attrs.shifted:
        x = code.name(x + x - 1.0)
    known = code.name(n < 0)  # without steps
    if kind.angle:
        inside = code.name((x.call("abs") < 1.0) & (n > BY_ANGLE))
        known = code.name(known | inside)
    if kind.at_ends is not None:
        known = code.name(known | x.call("abs").equals(1.0))
    if attrs.family in HERMITE:
        known = code.name(known | (n > HIGHEST[dtype.bits]))
    result = code.variable(0.0)
    with code.when(~known):
        result.set(_stepped(code, kind, x, n, LARGEST_NUMBER[dtype.bits]))
    if attrs.family in HERMITE:
        result.set((n > HIGHEST[dtype.bits]).where(math.nan, result.get()))
    if attrs.family == "laguerre_l":
        result.set(x.equals(0.0).where(1.0, result.get()))
    if kind.angle:
        with code.when(inside):
            result.set(_by_angle(kind.angle, x.call("acos"), n.to(f64)))
    if kind.at_ends is not None:
        result.set(_at_ends(code, kind.at_ends, x, n, result.get()))
    return code.name((n < 0).where(0.0, result.get()).to(dtype))


HERMITE = ("hermite_h", "hermite_he")


def _stepped(code: Code, kind: Polynomial, x: Value, n: Value, largest: float) -> Value:
    """The polynomial of degree ``n`` by its recurrence; infinite beyond the largest number."""
    one = x.like(1.0)
    before = code.variable(1.0)
    now = code.variable(n.equals(0).where(one, kind.first(x, one)))
    stop = code.name(n.call("min", MOST_STEPS))
    with code.loop(0, (stop + (BLOCK - 1)) // BLOCK) as b, code.when(now.get().equals(now.get())):
        start = code.name(b * BLOCK)
        end = code.name((start + BLOCK).call("min", stop))
        with code.loop(start.call("max", 1), end) as i:
            last = now.get()
            after = code.name(kind.step(x, before.get(), last, code.name(i.to(f64))))
            before.set(last)
            beyond = code.name(after.call("abs") > largest)
            now.set(beyond.where(real(math.inf).call("copysign", after), after))
    return now.get()


def _by_angle(angle: str, a: Value, n: Value) -> Value:
    if angle == "t":
        return (n * a).call("cos")
    if angle == "u":
        return ((n + 1.0) * a).call("sin") / a.call("sin")
    half = a * 0.5
    if angle == "v":
        return ((n + 0.5) * a).call("cos") / half.call("cos")
    return ((n + 0.5) * a).call("sin") / half.call("sin")


def _at_ends(code: Code, rule: tuple[int, int], x: Value, n: Value, otherwise: Value) -> Value:
    one = x.like(1.0)
    right, left = (
        (one, (n + 1).to(x.dtype), (n + n + 1).to(x.dtype))[number] for number in rule)
    odd = code.name(n.call("and", 1).differs(0))
    signed = odd.where(-left, left)
    return x.equals(1.0).where(right, x.equals(-1.0).where(signed, otherwise))


# --- zeta ---------------------------------------------------------------------------------
def zeta(code: Code, attrs: Any, exponent: Value, start: Value) -> Value:
    """The first terms, and the rest by the Euler-Maclaurin sum."""
    x, q = code.name(exponent.to(f64)), code.name(start.to(f64))
    whole = code.name(q.equals(q.call("floor")))
    infinite = code.name(x.equals(1.0) | (~(x < 1.0) & (q <= 0.0) & whole))
    inside = code.name((x > 1.0) & ((q > 0.0) | ((q <= 0.0) & ~whole & x.equals(x.call("floor")))))
    result = code.variable(math.nan)
    with code.when(inside):
        result.set(_zeta(code, x, q))
    return code.name(infinite.where(math.inf, result.get()).to(exponent.dtype))


def _zeta(code: Code, x: Value, q: Value) -> Value:
    more = (real(FIRST) - q).call("floor") + 1.0
    steps = code.name(more.call("max", FIRST).call("min", 2.0 ** 40))
    with code.total(0, steps.to(i64) + 1) as (i, sum):
        sum.add((q + i.to(f64)).call("pow", -x))
    w = code.name(q + steps)
    last = code.name(w.call("pow", -x))
    total = code.name(sum.get() + last * w / (x - 1.0) - last * 0.5)
    total = code.name((x.equals(math.inf) & total.equals(0.0)).where(math.nan, total))
    factor = x.like(1.0)
    for number, b in enumerate(EULER_MACLAURIN):
        factor = code.name(factor * (x + 2.0 * number))
        last = code.name(last / w)
        # Where the powers have left the range there is nothing more to add.
        total = code.name(total + last.equals(0.0).where(0.0, factor * last / b))
        factor = code.name(factor * (x + (2.0 * number + 1.0)))
        last = code.name(last / w)
    return total


# --- incomplete gamma functions -----------------------------------------------------------
def incomplete_gamma(
    code: Code, attrs: GammaAttrs, order: Value, argument: Value, log: Value
) -> Value:
    """A power series below the mean, a continued fraction above it."""
    a, x, lgamma = (code.name(v.to(f64)) for v in (order, argument, log))
    result = code.variable(math.nan)
    with code.when((a > 0.0) & (x > 0.0) & (a < math.inf) & (x < math.inf)):
        with code.when(a <= LARGEST):
            below = code.name(x <= a.call("max", 1.0))
            factor = code.name(_prefactor(code, a, x, lgamma))
            most = code.name((a.call("sqrt") * ROOTS + TERMS).to(i64))
            value = code.variable(0.0)
            with code.when(below):
                value.set(_series(code, a, x, most) * factor / a)
            with code.when(~below):
                value.set(_fraction(code, a, x, most) * factor)
            own = ~below if attrs.upper else below
            result.set(own.where(value.get(), 1.0 - value.get()))
        with code.when(a > LARGEST):
            mu = code.name((x - a) / a)
            square = code.name((mu - mu.call("log1p")).call("max", 0.0) * a)
            distance = square.call("sqrt").call("copysign", mu)
            more = (-square).call("exp") / (a * (2 * math.pi)).call("sqrt")
            lower = code.name((distance.call("erf") + 1.0) * 0.5 + more * (1 / 3))
            result.set(1.0 - lower if attrs.upper else lower)
    low, high = (1.0, 0.0) if attrs.upper else (0.0, 1.0)
    found = x.equals(math.inf).where(high, result.get())
    found = a.equals(math.inf).where(x.equals(math.inf).where(math.nan, low), found)
    found = x.equals(0.0).where(low, found)
    found = a.equals(0.0).where((x > 0.0).where(high, math.nan), found)
    return code.name(((a < 0.0) | (x < 0.0)).where(math.nan, found).to(order.dtype))


def _prefactor(code: Code, a: Value, x: Value, lgamma: Value) -> Value:
    """x^a e^-x / gamma(a)."""
    near = (a * x.call("log") - x - lgamma).call("exp")
    mu = code.name((x - a) / a)
    distance = (mu > -1.0).where(mu.call("log1p") - mu, -math.inf)
    inverse = code.name(1.0 / a)
    square = code.name(inverse * inverse)
    series = real(STIRLING[-1])
    for c in reversed(STIRLING[:-1]):
        series = code.name(series * square + c)
    far = (a * distance - series * inverse).call("exp") * (a / (2 * math.pi)).call("sqrt")
    return (a < STIRLING_FROM).where(near, far)


def _series(code: Code, a: Value, x: Value, most: Value) -> Value:
    total, term, going = code.variable(1.0), code.variable(1.0), code.variable(1, i64)
    with code.loop(1, most) as i, code.when(going.get().differs(0)):
        term.set(term.get() * x / (a + i.to(f64)))
        total.add(term.get())
        going.set((term.get() > total.get() * 1e-17).to(i64))
    return total.get()


def _fraction(code: Code, a: Value, x: Value, most: Value) -> Value:
    """Lentz's evaluation."""
    b = code.variable(x + 1.0 - a)
    c, d = code.variable(1e300), code.variable(1.0 / b.get())
    h, going = code.variable(d.get()), code.variable(1, i64)
    with code.loop(1, most) as number, code.when(going.get().differs(0)):
        i = code.name(number.to(f64))
        an = code.name(i * (a - i))
        b.add(2.0)
        d.set(1.0 / (an * d.get() + b.get()))
        c.set(b.get() + an / c.get())
        step = code.name(d.get() * c.get())
        h.set(h.get() * step)
        going.set(((step - 1.0).call("abs") >= 1e-16).to(i64))
    return h.get()
