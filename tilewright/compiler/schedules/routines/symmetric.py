"""Factors of a symmetric matrix that need not be positive, with pivots of one row or two."""

from __future__ import annotations

from typing import Any

from tilewright.compiler.schedules.item import Cells, Code, Value, Variable
from tilewright.ir.routines import GROWTH
from tilewright.ir.types import i64


def ldl(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """Columns one by one; the second one of a block is passed over."""
    n = x.columns
    pivots = code.cells(1, n)
    skip = code.variable(0, i64)
    with code.loop(0, n) as k:
        again = code.name(skip.get().differs(0))
        skip.set(0)
        with code.when(~again):
            pivot, two = _pivot(code, x, k)
            row = code.name(k + two)
            with code.when(pivot.differs(row)):
                _exchanged(code, x, k, row, pivot, two)
            number = code.name((pivot + 1).to(x.buffer.dtype))
            with code.when(two.equals(0)):
                pivots[0, k] = number
                _one(code, x, k)
            with code.when(two.differs(0)):
                pivots[0, k] = -number
                pivots[0, k + 1] = -number
                _two(code, x, k)
                skip.set(1)
    return [x, pivots]


def _largest(code: Code, start: Value | int, stop: Value | int, x: Cells, k: Value,
             across: bool = False) -> tuple[Variable, Variable]:
    """The largest element of a part of a column, or of a row, and its place; at first 0."""
    size, place = code.variable(-1.0), code.variable(0, i64)
    with code.loop(start, stop) as i:
        value = code.name((x[k, i] if across else x[i, k]).call("abs"))
        larger = code.name(value > size.get())
        place.set(larger.where(i, place.get()))
        size.set(larger.where(value, size.get()))
    return size, place


def _pivot(code: Code, x: Cells, k: Value) -> tuple[Value, Value]:
    """The row to exchange, and 1 for a block of two."""
    n = x.columns
    own = code.name(x[k, k].call("abs"))
    size, place = _largest(code, k + 1, n, x, k)
    column = code.name(size.get().call("max", 0.0))
    other = code.name((size.get() < 0.0).where(k, place.get()))
    pivot, two = code.variable(k, i64), code.variable(0, i64)
    with code.when((own < column * GROWTH) & (k < n - 1)):
        before, _ = _largest(code, k, other, x, other, across=True)
        behind, _ = _largest(code, other + 1, n, x, other)
        row = code.name(before.get().call("max", behind.get()))
        with code.when(own < column * GROWTH * (column / row)):
            pivot.set(other)
            two.set((x[other, other].call("abs") < row * GROWTH).to(i64))
    return pivot.get(), two.get()


def _swap(x: Cells, a: tuple[Value, Value], b: tuple[Value, Value]) -> None:
    first, second = x[a], x[b]
    x[a] = second
    x[b] = first


def _exchanged(code: Code, x: Cells, k: Value, row: Value, pivot: Value, two: Value) -> None:
    """Exchange two rows, and the same columns, of the lower triangle."""
    with code.loop(pivot + 1, x.rows) as i:
        _swap(x, (i, row), (i, pivot))
    with code.loop(row + 1, pivot) as i:
        _swap(x, (i, row), (pivot, i))
    _swap(x, (row, row), (pivot, pivot))
    with code.when(two.differs(0)):
        _swap(x, (row, k), (pivot, k))


def _one(code: Code, x: Cells, k: Value) -> None:
    """Take a column out of what is behind it."""
    own = x[k, k]
    with code.when(own.differs(0.0)), code.loop(k + 1, x.rows) as j:
        factor = code.name(x[j, k] / own)
        with code.loop(j, x.rows) as i:
            x[i, j] = x[i, j] - x[i, k] * factor
        x[j, k] = factor


def _two(code: Code, x: Cells, k: Value) -> None:
    """Take two columns out of what is behind them."""
    second = k + 1
    below = x[second, k]
    first, last = code.name(x[second, second] / below), code.name(x[k, k] / below)
    scale = code.name(1.0 / (first * last - 1.0) / below)
    with code.loop(k + 2, x.rows) as j:
        a, b = x[j, k], x[j, second]
        left = code.name((first * a - b) * scale)
        right = code.name((last * b - a) * scale)
        with code.loop(j, x.rows) as i:
            x[i, j] = x[i, j] - x[i, k] * left - x[i, second] * right
        x[j, k] = left
        x[j, second] = right


def ldl_solve(code: Code, attrs: Any, x: Cells, pivots: Cells, b: Cells) -> list[Cells]:
    """Down with L and D, and up with the transpose of L."""
    n = x.columns
    skip = code.variable(0, i64)
    for down in (True, False):
        skip.set(0)
        with code.loop(0, n) as c:
            k = c if down else code.name(n - 1 - c)
            again = code.name(skip.get().differs(0))
            skip.set(0)
            number = pivots[0, k]
            row = code.name((number.call("abs").call("max", 1.0).call("min", float(n))).to(i64) - 1)
            first = k if down else code.name((k - 1).call("max", 0))
            paired = code.name((number < 0.0) & (first + 1 < n))
            with code.when(~again & ~paired):
                _solved(code, x, b, k, k, row, down)
            with code.when(~again & paired):
                _solved(code, x, b, first, code.name(first + 1), row, down, True)
                skip.set(1)
    return [b]


def _solved(
    code: Code, x: Cells, b: Cells, k: Value, last: Value, row: Value, down: bool,
    two: bool = False,
) -> None:
    """One block, of one row or two, from ``k`` to ``last``."""
    members = [k, last] if two else [k]
    with code.loop(0, b.columns) as j:
        if down:
            _swap(b, (last, j), (row, j))
            with code.loop(last + 1, x.rows) as i:
                total = b[i, j]
                for m in members:
                    total = total - x[i, m] * b[m, j]
                b[i, j] = total
            _divided(code, x, b, k, last, j, two)
        else:
            for m in members:
                with code.total(last + 1, x.rows) as (i, known):
                    known.add(x[i, m] * b[i, j])
                b[m, j] = b[m, j] - known.get()
            _swap(b, (last, j), (row, j))


def _divided(
    code: Code, x: Cells, b: Cells, k: Value, last: Value, j: Value, two: bool
) -> None:
    """By a block of D."""
    if not two:
        b[k, j] = b[k, j] / x[k, k]
        return
    below = x[last, k]
    upper, lower = code.name(x[k, k] / below), code.name(x[last, last] / below)
    scale = code.name(upper * lower - 1.0)
    first, second = code.name(b[k, j] / below), code.name(b[last, j] / below)
    b[k, j] = (lower * first - second) / scale
    b[last, j] = (upper * second - first) / scale
