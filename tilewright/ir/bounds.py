"""What is known of an index from the ranges of the loops around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.ir.loops import Call, Const, Expr, For, Load, Var, const_int


@dataclass(frozen=True, slots=True)
class Range:
    """The values from ``low`` to ``high``, both included; None: no limit is known."""

    low: int | None
    high: int | None


UNKNOWN = Range(None, None)
Facts = Mapping[str, "Range | Expr"]
"""By name: the range of a loop variable, or the value of a ``Let``."""


def loop_range(loop: For, facts: Facts) -> Range | None:
    """The values that a loop variable takes; None if the loop certainly runs no iteration."""
    low, high = range_of(loop.start, facts).low, range_of(loop.stop, facts).high
    if low is not None and high is not None:
        if high <= low:
            return None
        if const_int(loop.start) is not None and loop.step > 1:
            return Range(low, low + (high - 1 - low) // loop.step * loop.step)
    return Range(low, None if high is None else high - 1)


def range_of(e: Expr, facts: Facts) -> Range:
    """The values that an i64 expression can take."""
    if isinstance(e, Const):
        number = const_int(e)
        return UNKNOWN if number is None else Range(number, number)
    if isinstance(e, Var):
        fact = facts.get(e.name, UNKNOWN)
        return fact if isinstance(fact, Range) else range_of(fact, facts)
    if isinstance(e, Load) or len(e.args) != 2:
        return UNKNOWN
    return range_of_call(e, facts)


def range_of_call(e: Call, facts: Facts) -> Range:
    """The values of an index sum, difference, product, quotient, remainder, minimum or maximum."""
    a, b = (range_of(x, facts) for x in e.args)
    if e.op == "add":
        return Range(plus(a.low, b.low), plus(a.high, b.high))
    if e.op == "sub":
        return Range(plus(a.low, negative(b.high)), plus(a.high, negative(b.low)))
    if e.op == "mul":
        corners = [times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        known = [c for c in corners if c is not None]
        return Range(min(known), max(known)) if len(known) == 4 else UNKNOWN
    divisor = const_int(e.args[1])
    if e.op == "floordiv" and divisor is not None and divisor > 0:
        return Range(*(None if x is None else x // divisor for x in (a.low, a.high)))
    if e.op == "mod" and divisor is not None and divisor > 0:
        if a.low is not None and a.high is not None and 0 <= a.low and a.high < divisor:
            return a
        return Range(0, divisor - 1)
    if e.op in ("min", "max"):
        choose = min if e.op == "min" else max
        lows = [x for x in (a.low, b.low) if x is not None]
        highs = [x for x in (a.high, b.high) if x is not None]
        low = choose(lows) if len(lows) == 2 or (e.op == "max" and lows) else None
        high = choose(highs) if len(highs) == 2 or (e.op == "min" and highs) else None
        return Range(low, high)
    return UNKNOWN


def plus(a: int | None, b: int | None) -> int | None:
    """A sum, unknown if either is."""
    return None if a is None or b is None else a + b


def times(a: int | None, b: int | None) -> int | None:
    """A product, unknown if either is."""
    return None if a is None or b is None else a * b


def negative(a: int | None) -> int | None:
    """The number with the other sign, unknown if it is."""
    return None if a is None else -a


@dataclass(frozen=True, slots=True)
class Affine:
    """``constant`` plus a sum of variables times factors; no factor is 0."""

    constant: int
    factors: dict[str, int]


def affine(e: Expr, facts: Facts) -> Affine | None:
    """An i64 expression as an affine form of loop variables; None if it is not one."""
    number = const_int(e)
    if number is not None:
        return Affine(number, {})
    if isinstance(e, Var):
        fact = facts.get(e.name)
        if fact is None or isinstance(fact, Range):
            return Affine(0, {e.name: 1})
        return affine(fact, facts)
    if not isinstance(e, Call) or e.op not in ("add", "sub", "mul") or len(e.args) != 2:
        return None
    a, b = affine(e.args[0], facts), affine(e.args[1], facts)
    if a is None or b is None:
        return None
    if e.op == "mul":
        if a.factors and b.factors:
            return None
        form, factor = (b, a.constant) if not a.factors else (a, b.constant)
        return scaled(form, factor)
    other = b if e.op == "add" else scaled(b, -1)
    factors = dict(a.factors)
    for name, factor in other.factors.items():
        factors[name] = factors.get(name, 0) + factor
    return Affine(a.constant + other.constant, {n: f for n, f in factors.items() if f})


def scaled(form: Affine, factor: int) -> Affine:
    """A multiple of an affine form."""
    if factor == 0:
        return Affine(0, {})
    return Affine(form.constant * factor, {n: f * factor for n, f in form.factors.items()})


def attained(form: Affine, facts: Facts, exact: frozenset[str]) -> Range | None:
    """The smallest and largest value that an affine form really takes.

    None unless all its variables are in ``exact``: those of loops with constant bounds, which take
    both ends of their ranges in every combination.
    """
    low = high = form.constant
    for name, factor in form.factors.items():
        fact = facts.get(name)
        if name not in exact or not isinstance(fact, Range):
            return None
        if fact.low is None or fact.high is None:
            return None
        ends = (fact.low * factor, fact.high * factor)
        low, high = low + min(ends), high + max(ends)
    return Range(low, high)
