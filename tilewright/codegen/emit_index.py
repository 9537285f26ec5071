"""Affine indices: a constant, plus uniform values times numbers, plus the lane times a number."""

from __future__ import annotations

from typing import NamedTuple


class Affine(NamedTuple):
    """``const + sum(coefficient * value) + lane * (number of the iteration within its section)``.

    terms  (SSA name, coefficient) of uniform i64 values, sorted, coefficients not 0
    """

    const: int = 0
    terms: tuple[tuple[str, int], ...] = ()
    lane: int = 0

    @property
    def number(self) -> int | None:
        """The value, if it is a constant."""
        return None if self.terms or self.lane else self.const

    def shift(self, by: int) -> Affine:
        """This plus a constant."""
        return Affine(self.const + by, self.terms, self.lane) if by else self

    def uniform(self) -> Affine:
        """This in lane 0."""
        return Affine(self.const, self.terms, 0) if self.lane else self


def plus(a: Affine, b: Affine) -> Affine:
    """a + b."""
    if not b.terms and not b.lane:
        return a.shift(b.const)
    if not a.terms and not a.lane:
        return b.shift(a.const)
    if not a.terms or not b.terms:
        terms = a.terms or b.terms
    else:
        sums = dict(a.terms)
        for name, coefficient in b.terms:
            sums[name] = sums.get(name, 0) + coefficient
        terms = tuple(sorted((n, c) for n, c in sums.items() if c))
    return Affine(a.const + b.const, terms, a.lane + b.lane)


def times(a: Affine, factor: int) -> Affine:
    """a * factor."""
    if factor == 1:
        return a
    if factor == 0:
        return Affine()
    return Affine(a.const * factor, tuple((n, c * factor) for n, c in a.terms), a.lane * factor)


Range = tuple[int, int]


def affine_range(a: Affine, ranges: dict[str, Range], lanes: int) -> Range | None:
    """The least and greatest value over ``lanes`` iterations, if all parts have known ranges."""
    low = high = a.const
    for name, coefficient in a.terms:
        found = ranges.get(name)
        if found is None:
            return None
        low += min(found[0] * coefficient, found[1] * coefficient)
        high += max(found[0] * coefficient, found[1] * coefficient)
    last = a.lane * (lanes - 1)
    return low + min(0, last), high + max(0, last)


def split(a: Affine, divisor: int) -> tuple[Affine, Affine]:
    """a = divisor * first + second, with everything divisible in the first."""
    whole = tuple((n, c // divisor) for n, c in a.terms if c % divisor == 0)
    rest = tuple((n, c) for n, c in a.terms if c % divisor)
    lane_fits = a.lane % divisor == 0
    quotient = Affine(a.const // divisor, whole, a.lane // divisor if lane_fits else 0)
    return quotient, Affine(a.const % divisor, rest, 0 if lane_fits else a.lane)
