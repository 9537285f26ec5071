"""Eigenvalues and eigenvectors of any real matrix, by the shifted QR algorithm.

Reflections make the matrix zero below its first subdiagonal. Steps with two shifts at once, which
keep it real (Francis, 1961), then make it triangular but for blocks of two with conjugate
eigenvalues; eigenvectors follow by substitution from the last row up. Eigenvalues stand where they
are found, as LAPACK's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from tilewright.compiler.schedules.item import Cells, Code, Value, Variable
from tilewright.compiler.schedules.routines.complex_numbers import Complex, quotient
from tilewright.compiler.schedules.routines.spectral import SMALL, identity, scaled
from tilewright.ir.types import i64

Place: TypeAlias = Callable[[Value, Value], tuple[Value, Value]]

STEPS = 30
"""Steps per row after which the algorithm is said not to converge; two or three are usual."""

UNUSUAL = 10
"""Steps without a result after which other shifts are taken: the usual ones may lead nowhere."""


class Span(NamedTuple):
    """Places from ``start`` to before ``stop``."""

    start: Value | int
    stop: Value | int


def eig(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """The eigenvalues' parts in two rows, and below them the real and imaginary eigenvectors."""
    n = x.columns
    scale = scaled(code, x)
    turned, vector = identity(code, n), code.cells(n)
    with code.loop(0, n - 2) as j:
        below = Span(j + 1, n)
        with code.loop(*below) as r:
            vector[r] = x[r, j]
        factor = _reflector(code, vector, below)
        _reflect_rows(code, x, vector, factor, below, Span(0, n))
        for part in (x, turned):
            _reflect_columns(code, part, vector, factor, below, Span(0, n))
        with code.loop(j + 2, n) as r:
            x[r, j] = 0.0
    left = _triangular(code, x, turned, vector)
    values, vectors = _values(code, x), [code.cells(n, n), code.cells(n, n)]
    _vectors(code, x, turned, values, vectors)
    nothing = code.name((left < 0).where(scale * 0.0, math.nan))
    with code.loop(0, 2) as i, code.loop(0, n) as j:
        values[i, j] = values[i, j] * scale + nothing
    for part in vectors:
        with code.loop(0, n) as i, code.loop(0, n) as j:
            part[i, j] = part[i, j] + nothing
    return [values, *vectors]


# --- reflections ----------------------------------------------------------------------------
def _reflector(code: Code, vector: Cells, span: Span) -> Value:
    """Make a vector the one at which it is reflected onto its first axis: the factor of that."""
    start = span.start
    first = vector[start]
    with code.total(start + 1, span.stop) as (r, squares):
        squares.add(vector[r] * vector[r])
    rest = squares.get()
    whole = code.name(rest + first * first)
    size = code.name(whole.call("sqrt"))
    vector[start] = first + size.call("copysign", first)
    needed = (rest > 0) & (size > 0)
    return code.name(needed.where(1.0 / (whole + size * first.call("abs")), 0.0))


def _reflect_rows(
    code: Code, x: Cells, vector: Cells, factor: Value, rows: Span, columns: Span
) -> None:
    _reflect(code, x, vector, factor, rows, columns, lambda r, j: (r, j))


def _reflect_columns(
    code: Code, x: Cells, vector: Cells, factor: Value, columns: Span, rows: Span
) -> None:
    _reflect(code, x, vector, factor, columns, rows, lambda c, i: (i, c))


def _reflect(
    code: Code, x: Cells, vector: Cells, factor: Value, within: Span, lines: Span, place: Place
) -> None:
    """Each line less its part along the vector; ``place`` is where a line's entry stands."""
    with code.loop(*lines) as j:
        with code.total(*within) as (r, along):
            along.add(vector[r] * x[place(r, j)])
        step = code.name(along.get() * factor)
        with code.loop(*within) as r:
            x[place(r, j)] = x[place(r, j)] - step * vector[r]


# --- to triangular form -----------------------------------------------------------------------
def _triangular(code: Code, x: Cells, turned: Cells, vector: Cells) -> Value:
    """The last row that is not done: below 0 if all are."""
    n = x.columns
    last, tries = code.variable(n - 1, i64), code.variable(0, i64)
    with code.loop(0, STEPS * n):
        high = last.get()
        with code.when(high >= 0):
            low = _first_of_block(code, x, high)
            size = code.name(high - low)
            with code.when(size < 2):
                last.set(low - 1)
                tries.set(0)
            with code.when(size.equals(1)):
                _split(code, x, turned, low, high)
            with code.when(size > 1):
                tries.add(1)
                _step(code, x, turned, vector, low, high, tries)
    return last.get()


def _first_of_block(code: Code, x: Cells, high: Value) -> Value:
    """Where the block that ends here begins: behind the last number that is next to nothing."""
    low = code.variable(0, i64)
    with code.loop(1, high + 1) as j:
        near = code.name(x[j - 1, j - 1].call("abs") + x[j, j].call("abs"))
        limit = (near > 0).where(near, 1.0) * SMALL
        with code.when(x[j, j - 1].call("abs") <= limit):
            x[j, j - 1] = 0.0
            low.set(j)
    return low.get()


def _split(code: Code, x: Cells, turned: Cells, i: Value, j: Value) -> None:
    """Rotate a block of two rows that has real eigenvalues so that it is triangular."""
    half = code.name((x[i, i] - x[j, j]) * 0.5)
    square = code.name(half * half + x[i, j] * x[j, i])
    with code.when(square >= 0):
        first = code.name(half + square.call("sqrt").call("copysign", half))
        second = x[j, i]
        size = code.name((first * first + second * second).call("sqrt"))
        c, s = code.name(first / size), code.name(second / size)
        with code.loop(0, x.columns) as r:
            upper, lower = x[i, r], x[j, r]
            x[i, r] = c * upper + s * lower
            x[j, r] = c * lower - s * upper
        for part in (x, turned):
            with code.loop(0, x.rows) as r:
                left, right = part[r, i], part[r, j]
                part[r, i] = c * left + s * right
                part[r, j] = c * right - s * left
        x[j, i] = 0.0


def _step(
    code: Code, x: Cells, turned: Cells, vector: Cells, low: Value, high: Value, tries: Variable
) -> None:
    """Both shifts at once: a bulge of three rows is chased from the first row to the last."""
    n, before = x.columns, high - 1
    rounds = tries.get()
    unusual = (rounds // UNUSUAL * UNUSUAL).equals(rounds)
    sub = code.name(x[high, before].call("abs") + x[before, high - 2].call("abs"))
    sum = code.name(unusual.where(sub * 1.5, x[before, before] + x[high, high]))
    product = code.name(unusual.where(
        sub * sub, x[before, before] * x[high, high] - x[before, high] * x[high, before]))
    own, below = x[low, low], x[low + 1, low]
    vector[low] = own * (own - sum) + x[low, low + 1] * below + product
    vector[low + 1] = below * (own + x[low + 1, low + 1] - sum)
    vector[low + 2] = below * x[low + 2, low + 1]
    with code.loop(low, high) as i:
        rows = Span(i, code.name((i + 3 < high + 1).where(i + 3, high + 1)))
        with code.when(i > low), code.loop(*rows) as r:
            vector[r] = x[r, i - 1]
        factor = _reflector(code, vector, rows)
        _reflect_rows(code, x, vector, factor, rows, Span(
            code.name((i > low).where(i - 1, i)), n))
        _reflect_columns(code, x, vector, factor, rows, Span(
            0, code.name((i + 4 < high + 1).where(i + 4, high + 1))))
        _reflect_columns(code, turned, vector, factor, rows, Span(0, n))
        with code.when(i > low), code.loop(i + 1, rows.stop) as r:
            x[r, i - 1] = 0.0


# --- eigenvalues and eigenvectors -------------------------------------------------------------
def _values(code: Code, x: Cells) -> Cells:
    """The real parts, the imaginary ones, and in a third row whether a block begins here."""
    n = x.columns
    values = code.cells(3, n)
    with code.loop(0, n) as i:
        values[0, i] = x[i, i]
        values[1, i] = 0.0
        values[2, i] = 0.0
    with code.loop(0, n - 1) as i, code.when(x[i + 1, i].differs(0)):
        half = code.name((x[i, i] - x[i + 1, i + 1]) * 0.5)
        root = code.name((-(half * half + x[i, i + 1] * x[i + 1, i])).call("sqrt"))
        middle = code.name(x[i + 1, i + 1] + half)
        values[2, i] = 1.0
        for place, sign in ((i, 1.0), (i + 1, -1.0)):
            values[0, place] = middle
            values[1, place] = root * sign
    made = code.cells(2, n)
    with code.loop(0, 2) as r, code.loop(0, n) as i:
        made[r, i] = values[r, i]
    return made


def _vectors(
    code: Code, x: Cells, turned: Cells, values: Cells, made: list[Cells]
) -> None:
    n = x.columns
    found = code.cells(2, n)
    with code.loop(0, n) as k, code.when(values[1, k] >= 0):
        value = Complex(values[0, k], values[1, k])
        single = value.im.equals(0)
        end = code.name(single.where(k, k + 1))
        with code.when(single):
            found[0, k] = 1.0
            found[1, k] = 0.0
        with code.when(~single):
            _of_block(code, x, value, k, found)
        with code.loop(0, k) as t:
            _substitute(code, x, value, code.name(k - 1 - t), end, found)
        _turned_back(code, turned, found, k, end, made)
        with code.when(~single), code.loop(0, n) as r:
            made[0][r, end] = made[0][r, k]
            made[1][r, end] = -made[1][r, k]


def _of_block(code: Code, x: Cells, value: Complex, k: Value, found: Cells) -> None:
    """The last two numbers: an eigenvector of the block, by the larger of its outer numbers."""
    upper, lower = x[k, k + 1], x[k + 1, k]
    larger = code.name(upper.call("abs") >= lower.call("abs"))
    found[0, k] = larger.where(upper, value.re - x[k + 1, k + 1])
    found[1, k] = larger.where(0.0, value.im)
    found[0, k + 1] = larger.where(value.re - x[k, k], lower)
    found[1, k + 1] = larger.where(value.im, 0.0)


def _substitute(
    code: Code, x: Cells, value: Complex, i: Value, end: Value, found: Cells
) -> None:
    """A row, or the two rows of a block when its second one is met."""
    n = x.columns
    above = code.name((i > 0).where(i - 1, 0))
    below = code.name((i + 1 < n).where(i + 1, i))
    first = code.name((i < end) & x[below, i].differs(0) & below.differs(i))
    second = code.name((i > 0) & x[i, above].differs(0))
    own = _known(code, x, i, i, end, found)
    shifted = Complex(code.name(x[i, i] - value.re), -value.im)
    with code.when(~first & ~second):
        _set(found, i, quotient(code, own, _not_zero(code, shifted, SMALL)))
    with code.when(second):
        other = _known(code, x, above, i, end, found)
        corner = Complex(code.name(x[above, above] - value.re), -value.im)
        right, left = x[above, i], x[i, above]
        whole = corner.times(shifted)
        whole = Complex(code.name(whole.re - right * left), code.name(whole.im))
        whole = _not_zero(code, whole, SMALL * SMALL)
        one = other.times(shifted).minus(own.scaled(right))
        two = corner.times(own).minus(other.scaled(left))
        _set(found, above, quotient(code, one, whole))
        _set(found, i, quotient(code, two, whole))


def _known(code: Code, x: Cells, row: Value, i: Value, end: Value, found: Cells) -> Complex:
    """What the numbers behind ``i`` leave of a row."""
    sums = [code.variable(0.0), code.variable(0.0)]
    with code.loop(i + 1, end + 1) as j:
        for part, sum in enumerate(sums):
            sum.add(-(x[row, j] * found[part, j]))
    return Complex(sums[0].get(), sums[1].get())


def _not_zero(code: Code, z: Complex, least: float) -> Complex:
    """A divisor that is next to nothing, as of equal eigenvalues, is taken to be small."""
    tiny = code.name(z.re.call("abs") + z.im.call("abs") < least)
    return Complex(code.name(tiny.where(SMALL, z.re)), code.name(tiny.where(0.0, z.im)))


def _set(found: Cells, i: Value, z: Complex) -> None:
    found[0, i] = z.re
    found[1, i] = z.im


def _turned_back(
    code: Code, turned: Cells, found: Cells, k: Value, end: Value, made: list[Cells]
) -> None:
    """An eigenvector of the matrix, of length 1, whose largest number is real."""
    n = turned.rows
    sizes = [code.variable(0.0), code.variable(0.0)]
    for part, into in enumerate(made):
        with code.loop(0, n) as r:
            with code.total(0, end + 1) as (j, sum):
                sum.add(turned[r, j] * found[part, j])
            into[r, k] = sum.get()
            sizes[0].set(sizes[0].get().call("max", sum.get().call("abs")))
    largest = sizes[0].get()
    most, re, im = code.variable(-1.0), code.variable(1.0), code.variable(0.0)
    with code.loop(0, n) as r:
        a, b = code.name(made[0][r, k] / largest), code.name(made[1][r, k] / largest)
        square = code.name(a * a + b * b)
        sizes[1].add(square)
        with code.when(square > most.get()):
            most.set(square)
            re.set(a)
            im.set(b)
    length = code.name(sizes[1].get().call("sqrt"))
    with code.loop(0, n) as r:
        z = Complex(code.name(made[0][r, k] / largest), code.name(made[1][r, k] / largest))
        real = im.get().equals(0)
        size = code.name(most.get().call("sqrt"))
        phase = Complex(real.where(1.0, re.get() / size), real.where(0.0, -im.get() / size))
        turned_z = z.times(phase)
        made[0][r, k] = turned_z.re / length
        made[1][r, k] = turned_z.im / length
