"""Eigenvalues and singular values by Jacobi's rotations, and the exponential of a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tilewright.compiler.schedules.item import Cells, Code, Value, Variable, real
from tilewright.ir.routines import TAYLOR
from tilewright.ir.types import i64

SWEEPS = 40
"""Rounds of rotations of all pairs; few are needed, for they converge quadratically."""

SMALL = 2.0 ** -52
"""What is this much smaller than its neighbours counts as zero."""


def eigh(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """Rotations of rows and columns until nothing stands off the diagonal."""
    n = x.columns
    scale = scaled(code, x)
    with code.loop(0, n) as i, code.loop(i + 1, n) as j:
        x[i, j] = x[j, i]
    vectors = identity(code, n)
    with _pairs(code, n) as (p, q, changed):
        other = x[p, q]
        with code.when(other.call("abs") > SMALL / 16):
            changed.set(1)
            c, s = _rotation(code, x[q, q] - x[p, p], other + other)
            _turn(code, x, p, q, c, s)
            with code.loop(0, n) as r:
                upper, lower = x[p, r], x[q, r]
                x[p, r] = c * upper - s * lower
                x[q, r] = s * upper + c * lower
            x[p, q] = 0.0
            x[q, p] = 0.0
            _turn(code, vectors, p, q, c, s)
    values = code.cells(1, n)
    with code.loop(0, n) as i:
        values[0, i] = x[i, i]
    return _in_order(code, values, [vectors], scale, False)


def svd(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """Rotations of columns until they are orthogonal: their lengths are the singular values."""
    m, n = x.rows, x.columns
    scale = scaled(code, x)
    right = identity(code, n)
    with _pairs(code, n) as (p, q, changed):
        sums = [code.variable(0.0) for _ in range(3)]
        with code.loop(0, m) as r:
            a, b = x[r, p], x[r, q]
            for sum, term in zip(sums, (a * a, b * b, a * b), strict=True):
                sum.add(term)
        first, second, both = (sum.get() for sum in sums)
        limit = (first * second).call("sqrt") * (4 * SMALL)
        with code.when(both.call("abs") > limit.call("max", SMALL ** 2)):
            changed.set(1)
            c, s = _rotation(code, second - first, both + both)
            _turn(code, x, p, q, c, s)
            _turn(code, right, p, q, c, s)
    values = code.cells(1, n)
    with code.loop(0, n) as j:
        with code.total(0, m) as (r, squares):
            squares.add(x[r, j] * x[r, j])
        length = code.name(squares.get().call("sqrt"))
        values[0, j] = length
        with code.loop(0, m) as r:
            x[r, j] = (length > 0).where(x[r, j] / length, 0.0)
    return _in_order(code, values, [x, right], scale, True)


def scaled(code: Code, x: Cells) -> Value:
    """Divide a matrix by its largest number, which is returned: NaN if one is not finite."""
    largest, rest = code.variable(0.0), code.variable(0.0)
    with code.loop(0, x.rows) as i, code.loop(0, x.columns) as j:
        value = x[i, j]
        largest.set(largest.get().call("max", value.call("abs")))
        rest.add(value * 0.0)
    size = code.name((largest.get() > 0).where(largest.get(), 1.0))
    with code.loop(0, x.rows) as i, code.loop(0, x.columns) as j:
        x[i, j] = x[i, j] / size
    return code.name(size + rest.get())


def identity(code: Code, n: int) -> Cells:
    """A unit matrix."""
    made = code.cells(n, n)
    with code.loop(0, n) as i, code.loop(0, n) as j:
        made[i, j] = i.equals(j).where(real(1), 0.0)
    return made


@contextmanager
def _pairs(code: Code, n: int) -> Iterator[tuple[Value, Value, Variable]]:
    """All pairs of columns, again until none is changed."""
    changed = code.variable(1, i64)
    with code.loop(0, SWEEPS), code.when(changed.get().differs(0)):
        changed.set(0)
        with code.loop(0, n) as p, code.loop(p + 1, n) as q:
            yield p, q, changed


def _rotation(code: Code, difference: Value, twice: Value) -> tuple[Value, Value]:
    """The cosine and sine of the smaller angle that makes an element zero."""
    slope = code.name(difference / twice)
    size = slope.call("abs") + (slope * slope + 1.0).call("sqrt")
    tangent = code.name(real(1).call("copysign", slope) / size)
    cosine = code.name(1.0 / (tangent * tangent + 1.0).call("sqrt"))
    return cosine, code.name(tangent * cosine)


def _turn(code: Code, x: Cells, p: Value, q: Value, c: Value, s: Value) -> None:
    """Rotate two columns."""
    with code.loop(0, x.rows) as r:
        left, right = x[r, p], x[r, q]
        x[r, p] = c * left - s * right
        x[r, q] = s * left + c * right


def _in_order(
    code: Code, values: Cells, columns: list[Cells], scale: Value, falling: bool
) -> list[Cells]:
    """Values times a scale, in order, and the columns that belong to them."""
    n = values.columns
    nothing = code.name(scale * 0.0)
    made = [code.cells(part.rows, n) for part in (values, *columns)]
    with code.loop(0, n) as i:
        own, place = code.name(values[0, i] + nothing), code.variable(0, i64)
        with code.loop(0, n) as j:
            other = code.name(values[0, j] + nothing)
            before, behind = other < own, other > own
            if falling:
                before, behind = behind, before
            before = before | (~behind & (j < i))  # all NaN: as they stand
            place.add(before.to(i64))
        to = place.get()
        made[0][0, to] = own * scale
        for part, source in zip(made[1:], columns, strict=True):
            with code.loop(0, source.rows) as r:
                part[r, to] = source[r, i] + nothing
    return made


def matrix_exp(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """The exponential series of x / 2^s, squared s times."""
    n = x.columns
    norm = code.variable(0.0)
    with code.loop(0, n) as j:
        with code.total(0, n) as (i, sum):
            sum.add(x[i, j].call("abs"))
        norm.set(norm.get().call("max", sum.get()))
    finite = code.name(norm.get() < math.inf)
    exponent = norm.get().call("max", 1.0).call("log2").call("ceil")
    squarings = code.name(finite.where(exponent, 0.0))
    scale = code.name((-squarings).call("exp2"))
    result, other = identity(code, n), code.cells(n, n)
    with code.loop(0, TAYLOR) as c:
        factor = code.name(scale / (TAYLOR - c).to(scale.dtype))
        _product(code, x, result, other)
        with code.loop(0, n) as i, code.loop(0, n) as j:
            result[i, j] = i.equals(j).where(real(1), 0.0) + other[i, j] * factor
    with code.loop(0, squarings.to(i64)):
        _product(code, result, result, other)
        with code.loop(0, n) as i, code.loop(0, n) as j:
            result[i, j] = other[i, j]
    with code.loop(0, n) as i, code.loop(0, n) as j:
        result[i, j] = finite.where(result[i, j], math.nan)
    return [result]


def _product(code: Code, a: Cells, b: Cells, into: Cells) -> None:
    with code.loop(0, a.rows) as i, code.loop(0, b.columns) as j:
        with code.total(0, a.columns) as (p, sum):
            sum.add(a[i, p] * b[p, j])
        into[i, j] = sum.get()
