"""Sizes that are known when the program runs: polynomials of named sizes, in normal form.

    n = named("n");  (2 * n + 4) // 2 == n + 2;  str(n * n - 1) == "n*n - 1"

A size is an ``int`` or a :class:`Size`, and what the arithmetic can reduce to a number is a number.
Equal polynomials are equal to ``==`` and have one hash. A quotient that does not come out even, a
minimum and a maximum are atoms of the polynomial.

Whether one size is smaller than another is answered where it holds for all values of the names,
which are 0 or more; else the comparison raises :class:`Undecided`. What only makes a program faster
asks :func:`tilewright.ir.hints.estimate`.
"""

from __future__ import annotations

import functools
import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

from tilewright.ir.decide import Undecided, decide, number_of

Dim: TypeAlias = "int | Size"
"""A size: a number, or an expression of names that get their numbers when the program runs."""

Op: TypeAlias = Literal["floordiv", "min", "max"]
Bounds: TypeAlias = "tuple[int | None, int | None]"
"""The least and the greatest value, None where there is no limit."""

WORDS = frozenset((
    "inf", "nan", "true", "false", "if", "else", "for", "in", "let", "alloc", "check", "barrier",
    "stream", "min", "max", "floordiv",
))
"""Words of the two languages that name no size."""


@dataclass(frozen=True, slots=True)
class Apply:
    """What no polynomial expresses: a quotient, rounded down (0 by 0), and extremes."""

    op: Op
    a: Dim
    b: Dim

    def __str__(self) -> str:
        return f"{self.op}({self.a}, {self.b})"


Atom: TypeAlias = "str | Apply"
Monomial: TypeAlias = "tuple[Atom, ...]"
Terms: TypeAlias = "dict[Monomial, int]"


class Size:
    """A sum of integer multiples of products of atoms, at least one of which has an atom.

    Made by :func:`named` and arithmetic: ``+ - * // %`` with numbers and other sizes. A quotient by
    0 is 0, a remainder by 0 the dividend.
    """

    __slots__ = ("terms", "_hash")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Size) and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        """Without the hash, which another process computes otherwise."""
        return type(self), (self.terms,)

    def __add__(self, other: Dim) -> Dim:
        return added(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return added(self, other, -1)

    def __rsub__(self, other: int) -> Dim:
        return added(-self, other, 1)

    def __neg__(self) -> Size:
        return Size(tuple((m, -c) for m, c in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        return multiplied(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return divided(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return divided(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - divided(self, other) * other

    def __rmod__(self, other: int) -> Dim:
        return other - divided(other, self) * self

    def __divmod__(self, other: Dim) -> tuple[Dim, Dim]:
        return self // other, self % other

    def __rdivmod__(self, other: int) -> tuple[Dim, Dim]:
        return other // self, other % self

    def __lt__(self, other: Dim) -> bool:
        return _decided("<", self, other, less(self, other))

    def __le__(self, other: Dim) -> bool:
        return _decided("<=", self, other, less(self, other + 1))

    def __gt__(self, other: Dim) -> bool:
        return _decided(">", self, other, less(other, self))

    def __ge__(self, other: Dim) -> bool:
        return _decided(">=", self, other, less(other, self + 1))

    def __str__(self) -> str:
        return _text(self)

    __repr__ = __str__

    def __index__(self) -> int:
        return number_of(self)


def _decided(sign: str, a: Dim, b: Dim, answer: bool | None) -> bool:
    if answer is None:
        answer = decide(a, sign, b)
    if answer is None:
        raise Undecided(f"whether {a} {sign} {b} is known when the program runs")
    return answer


def named(name: str) -> Size:
    """The size of this name. Raises ``ValueError`` unless it is a plain word of its own."""
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name) or name in WORDS:
        raise ValueError(f"a size cannot be called {name!r}")
    return Size((((name,), 1),))


# --- arithmetic -------------------------------------------------------------------------
def _terms(dim: Dim) -> Terms:
    return {(): dim} if isinstance(dim, int) else dict(dim.terms)


def _size(terms: Terms) -> Dim:
    """The normal form of a sum."""
    kept = [(m, c) for m, c in terms.items() if c]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return Size(tuple(sorted(kept, key=lambda term: (-len(term[0]), [str(a) for a in term[0]]))))


def added(a: Dim, b: Dim, factor: int) -> Dim:
    """a + factor * b."""
    result = _terms(a)
    for monomial, count in _terms(b).items():
        result[monomial] = result.get(monomial, 0) + factor * count
    return _size(result)


def multiplied(a: Dim, b: Dim) -> Dim:
    """a * b."""
    result: Terms = {}
    for first, c in _terms(a).items():
        for second, d in _terms(b).items():
            monomial = tuple(sorted(first + second, key=str))
            result[monomial] = result.get(monomial, 0) + c * d
    return _size(result)


@functools.lru_cache(maxsize=4096)
def divided(a: Dim, b: Dim) -> Dim:
    """a // b, rounded down; what divides without a rest is taken out of the quotient."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    even, rest = _split(a, b)
    if isinstance(rest, int) and isinstance(b, int):
        return even + rest // b
    if rest == 0:
        return even
    if isinstance(b, int) and b > 0:
        low, high = bounds(rest)
        if low is not None and high is not None and low // b == high // b:
            return even + low // b
    rest, b = _reduced(rest, b)
    return even + Size((((Apply("floordiv", rest, b),), 1),))


def _split(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """(q, r) with a = q * b + r; r is 0 if the division of polynomials comes out even."""
    lead, count = next(iter(_terms(b).items()))
    single = isinstance(b, int) or len(b.terms) == 1
    even: Dim = 0
    left = a
    for _ in range(8):
        found: Terms = {}
        for monomial, c in _terms(left).items():
            quotient = _without(monomial, lead)
            if quotient is not None and c % count == 0:
                found[quotient] = c // count
                if not single:
                    break
        part = _size(found)
        if part == 0:
            break
        even, left = added(even, part, 1), added(left, multiplied(part, b), -1)
        if single or left == 0:
            return even, left
    return 0, a


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    """The atoms of a monomial that a divisor leaves, if it divides it."""
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _reduced(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """An equal quotient by a smaller number: (4n // 8) is (n // 2), ((n // 2) // 3) is (n // 6)."""
    if not isinstance(b, int) or isinstance(a, int):
        return a, b
    if len(a.terms) == 1 and a.terms[0][1] == 1 and len(a.terms[0][0]) == 1:
        (atom,) = a.terms[0][0]
        if isinstance(atom, Apply) and atom.op == "floordiv" and isinstance(atom.b, int) and b > 0:
            return atom.a, atom.b * b
    common = b
    for _, count in a.terms:
        common = _gcd(common, count)
    return _size({m: c // common for m, c in a.terms}), b // common


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return abs(a)


@overload
def ceil_div(a: int, b: int) -> int: ...
@overload
def ceil_div(a: Dim, b: Dim) -> Dim: ...
def ceil_div(a: Dim, b: Dim) -> Dim:
    """a / b, rounded up."""
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    return (a + (b - 1)) // b


def smallest(a: Dim, b: Dim) -> Dim:
    """The smaller size."""
    if less(b, a) is False:
        return a
    return b if less(a, b) is False else _extreme("min", a, b)


def largest(a: Dim, b: Dim) -> Dim:
    """The larger size."""
    if less(a, b) is False:
        return a
    return b if less(b, a) is False else _extreme("max", a, b)


def _extreme(op: Op, a: Dim, b: Dim) -> Size:
    first, second = sorted((a, b), key=lambda x: (isinstance(x, int), str(x)))
    return Size((((Apply(op, first, second),), 1),))


def product(dims: Iterable[Dim]) -> Dim:
    """All of these, multiplied."""
    result: Dim = 1
    for d in dims:
        result = result * d
    return result


def total(dims: Iterable[Dim]) -> Dim:
    """All of these, added."""
    result: Dim = 0
    for d in dims:
        result = result + d
    return result


# --- what is known of a size ------------------------------------------------------------
def less(a: Dim, b: Dim) -> bool | None:
    """Whether a < b, for all values of the names; None if that depends on them."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    low, high = bounds(b - a)
    if low is not None and low > 0:
        return True
    return False if high is not None and high <= 0 else None


def may_equal(a: Dim, b: Dim) -> bool:
    """Whether two sizes can be taken to be equal: they are, or quotients in them can make it so."""
    if a == b:
        return True
    rest = a - b
    if isinstance(rest, int) or not any(isinstance(x, Apply) for m, _ in rest.terms for x in m):
        return False
    low, high = bounds(rest)
    return (low is None or low <= 0) and (high is None or high >= 0)


@functools.lru_cache(maxsize=4096)
def bounds(dim: Dim) -> Bounds:
    """The least and greatest value that the limits of the parts allow."""
    low: int | None = 0
    high: int | None = 0
    for monomial, count in _terms(dim).items():
        least: int | None = 1
        most: int | None = 1
        for atom in monomial:
            a, b = _atom_bounds(atom)
            if a is None or a < 0 or least is None:
                least = most = None
            else:
                least, most = least * a, None if most is None or b is None else most * b
        ends = (least, most) if count > 0 else (most, least)
        low = None if low is None or ends[0] is None else low + ends[0] * count
        high = None if high is None or ends[1] is None else high + ends[1] * count
    return low, high


def _atom_bounds(atom: Atom) -> Bounds:
    if isinstance(atom, str):
        return 0, None
    (low, high), (other_low, other_high) = bounds(atom.a), bounds(atom.b)
    if atom.op == "floordiv":
        if isinstance(atom.b, int) and atom.b > 0:
            return (None if low is None else low // atom.b), (
                None if high is None else high // atom.b)
        positive = low is not None and low >= 0 and other_low is not None and other_low >= 0
        return (0, high) if positive else (None, None)
    lows = [x for x in (low, other_low) if x is not None]
    highs = [x for x in (high, other_high) if x is not None]
    if atom.op == "min":
        return (min(lows) if len(lows) == 2 else None), min(highs, default=None)
    return max(lows, default=None), (max(highs) if len(highs) == 2 else None)


# --- names and numbers ------------------------------------------------------------------
def names_of(dims: Iterable[Dim]) -> tuple[str, ...]:
    """The names in these sizes, each once, sorted."""
    found: set[str] = set()
    for dim in dims:
        if isinstance(dim, Size):
            found |= _names(dim)
    return tuple(sorted(found))


@functools.lru_cache(maxsize=4096)
def _names(dim: Size) -> frozenset[str]:
    found: set[str] = set()
    for monomial, _ in dim.terms:
        for atom in monomial:
            found.update((atom,) if isinstance(atom, str) else names_of((atom.a, atom.b)))
    return frozenset(found)


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The number that the size has for these values. Raises ``KeyError`` for a name without one."""
    found = substitute(dim, values)
    if not isinstance(found, int):
        raise KeyError(", ".join(names_of((found,))))
    return found


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The size with other sizes in the places of names."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, count in dim.terms:
        part: Dim = count
        for atom in monomial:
            part = part * _substituted(atom, values)
        total = total + part
    return total


def _substituted(atom: Atom, values: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, str):
        return values[atom] if atom in values else named(atom)
    a, b = substitute(atom.a, values), substitute(atom.b, values)
    if atom.op == "floordiv":
        return divided(a, b)
    return smallest(a, b) if atom.op == "min" else largest(a, b)


def evaluator(
    dims: Sequence[Dim], names: Sequence[str]
) -> Callable[..., tuple[int, ...]]:
    """A quick function from the names' numbers, in this order, to those of all the sizes."""
    text = "".join(f"{_python(d)}, " for d in dims)
    space: dict[str, Any] = {"min": min, "max": max, "floordiv": _quotient}
    made: Callable[..., tuple[int, ...]] = eval(f"lambda {', '.join(names)}: ({text})", space)
    return made


def _quotient(a: int, b: int) -> int:
    return a // b if b else 0


def _python(dim: Dim) -> str:
    if isinstance(dim, int):
        return str(dim)
    return " + ".join(
        "*".join([str(count), *(
            a if isinstance(a, str) else f"{a.op}({_python(a.a)}, {_python(a.b)})"
            for a in monomial)])
        for monomial, count in dim.terms
    )


@functools.lru_cache(maxsize=4096)
def _text(dim: Size) -> str:
    """``2*n*m + n - 1``."""
    parts: list[str] = []
    for monomial, count in dim.terms:
        factors = [str(a) for a in monomial]
        if abs(count) != 1 or not factors:
            factors.insert(0, str(abs(count)))
        sign = "-" if count < 0 else "+"
        parts += [sign, "*".join(factors)]
    first = parts[1] if parts[0] == "+" else f"-{parts[1]}"
    return " ".join([first, *parts[2:]])
