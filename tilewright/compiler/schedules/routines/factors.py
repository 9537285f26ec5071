"""Triangular factors of a matrix, by columns, and what is solved with them.

Results are those of LAPACK: rows are exchanged for the largest pivot, reflections have its signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tilewright.compiler.schedules.item import Cells, Code, Value
from tilewright.ir.routines import ExchangeAttrs, ReflectAttrs, TriangleAttrs
from tilewright.ir.types import i64


def cholesky(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """L, and the number of the first minor that is not positive."""
    n = x.columns
    result, failed = code.cells(n, n), code.variable(0.0)
    with code.loop(0, n) as j:
        with code.loop(0, j) as i:
            result[i, j] = 0.0
        with code.total(0, j) as (p, known):
            known.add(result[j, p] * result[j, p])
        left = code.name(x[j, j] - known.get())
        number = (j + 1).to(left.dtype)
        bad = ~(left > 0) & failed.get().equals(0)
        failed.set(bad.where(number, failed.get()))
        root = code.name((left >= 0).where((left > 0).where(left, 0.0).call("sqrt"), math.nan))
        result[j, j] = root
        with code.loop(j + 1, n) as i:
            with code.total(0, j) as (p, known):
                known.add(result[i, p] * result[j, p])
            result[i, j] = (x[i, j] - known.get()) / root
    last = code.cells(1, n)
    with code.loop(0, n) as j:
        last[0, j] = failed.get()
    return [result, last]


def bring_pivot(
    code: Code, x: Any, pivots: Cells, i: Value, size: Callable[[Any], Value]
) -> None:
    """Exchange row ``i`` for the one, from it on, with the largest entry in its column.

    ``x`` holds real or complex entries; ``pivots`` has the number of the row, counted from 1.
    """
    largest, place = code.variable(size(x[i, i])), code.variable(i, i.dtype)
    with code.loop(i + 1, x.rows) as r:
        other = code.name(size(x[r, i]))
        larger = code.name(other > largest.get())
        place.set(larger.where(r, place.get()))
        largest.set(larger.where(other, largest.get()))
    found = place.get()
    pivots[0, i] = (found + 1).to(largest.get().dtype)
    with code.when(found.differs(i)), code.loop(0, x.columns) as j:
        upper, lower = x[i, j], x[found, j]
        x[i, j] = lower
        x[found, j] = upper


def lu(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """L and U in place of the matrix, and the exchanges of rows."""
    m, n = x.rows, x.columns
    pivots = code.cells(1, n)
    with code.loop(0, n) as j:
        pivots[0, j] = 0.0
    with code.loop(0, min(m, n)) as i:
        bring_pivot(code, x, pivots, i, lambda entry: entry.call("abs"))
        pivot = x[i, i]
        with code.when(pivot.differs(0)), code.loop(i + 1, m) as r:
            factor = code.name(x[r, i] / pivot)
            x[r, i] = factor
            with code.loop(i + 1, n) as j:
                x[r, j] = x[r, j] - factor * x[i, j]
    return [x, pivots]


def qr(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """R and the vectors of the reflections in place of the matrix, and their factors."""
    m, n = x.rows, x.columns
    factors = code.cells(1, n)
    with code.loop(0, n) as j:
        factors[0, j] = 0.0
    with code.loop(0, min(m, n)) as i:
        scale = code.variable(0.0)
        with code.loop(i + 1, m) as r:
            scale.set(scale.get().call("max", x[r, i].call("abs")))
        with code.when(scale.get().differs(0)):
            _reflection(code, x, factors, i, scale.get())
    return [x, factors]


def _reflection(code: Code, x: Cells, factors: Cells, i: Value, largest: Value) -> None:
    """Make a column zero below the diagonal."""
    m, n = x.rows, x.columns
    alpha = x[i, i]
    scale = code.name(largest.call("max", alpha.call("abs")))
    first = code.name(alpha / scale)
    with code.total(i + 1, m) as (r, squares):
        part = code.name(x[r, i] / scale)
        squares.add(part * part)
    size = (first * first + squares.get()).call("sqrt") * scale
    beta = code.name((alpha < 0).where(size, -size))
    factor = code.name((beta - alpha) / beta)
    factors[0, i] = factor
    with code.loop(i + 1, m) as r:
        x[r, i] = x[r, i] / (alpha - beta)
    x[i, i] = beta
    with code.loop(i + 1, n) as j:
        _reflected(code, x, x, i, j, factor)


def _reflected(
    code: Code, vectors: Cells, x: Cells, i: Value, j: Value, factor: Value
) -> None:
    """Reflect column ``j`` at the vector that stands below the diagonal of column ``i``."""
    m = x.rows
    with code.total(i + 1, m) as (r, along):
        along.add(vectors[r, i] * x[r, j])
    step = code.name((along.get() + x[i, j]) * factor)
    x[i, j] = x[i, j] - step
    with code.loop(i + 1, m) as r:
        x[r, j] = x[r, j] - step * vectors[r, i]


def reflect(code: Code, attrs: ReflectAttrs, factor: Cells, x: Cells) -> list[Cells]:
    """The reflections of ``qr``, on each column."""
    m = x.rows
    count = min(m, factor.columns)
    with code.loop(0, count) as c:
        i = c if attrs.forward else code.name(count - 1 - c)
        size = factor[m, i]
        with code.loop(0, x.columns) as j:
            _reflected(code, factor, x, i, j, size)
    return [x]


def exchange(code: Code, attrs: ExchangeAttrs, x: Cells, pivots: Cells) -> list[Cells]:
    """Rows exchanged in place."""
    m, count = x.rows, pivots.columns
    with code.loop(0, min(m, count)) as c:
        i = c if attrs.forward else code.name(min(m, count) - 1 - c)
        number = pivots[0, i]
        with code.when((number >= 1.0) & (number <= float(m))):
            other = code.name(number.to(i64) - 1)
            with code.loop(0, x.columns) as j:
                upper, lower = x[i, j], x[other, j]
                x[i, j] = lower
                x[other, j] = upper
    return [x]


def triangular_solve(code: Code, attrs: TriangleAttrs, a: Cells, b: Cells) -> list[Cells]:
    """Substitution, in place of the right sides."""
    n = a.columns
    with code.loop(0, n) as c:
        i = code.name(n - 1 - c) if attrs.upper else c
        start, stop = (i + 1, n) if attrs.upper else (0, i)
        with code.loop(0, b.columns) as j:
            with code.total(start, stop) as (p, known):
                known.add(a[i, p] * b[p, j])
            left = code.name(b[i, j] - known.get())
            b[i, j] = left if attrs.unit else left / a[i, i]
    return [b]
