"""Complex numbers in serial algorithms: pairs of values, and matrices whose parts stand in rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilewright.compiler.schedules.item import Cells, Code, Value
from tilewright.compiler.schedules.routines.factors import bring_pivot
from tilewright.ir.routines import TriangleAttrs


@dataclass(frozen=True)
class Complex:
    """A number: its real and its imaginary part."""

    re: Value
    im: Value

    def times(self, other: Complex) -> Complex:
        """The product."""
        return Complex(self.re * other.re - self.im * other.im,
                       self.re * other.im + self.im * other.re)

    def minus(self, other: Complex) -> Complex:
        """The difference."""
        return Complex(self.re - other.re, self.im - other.im)

    def scaled(self, x: Value) -> Complex:
        """The product with a real number."""
        return Complex(self.re * x, self.im * x)

    def size(self) -> Value:
        """The sum of the parts' sizes, by which LAPACK chooses its pivots."""
        return self.re.call("abs") + self.im.call("abs")


def quotient(code: Code, a: Complex, b: Complex) -> Complex:
    """a / b, by b over the larger of its parts, so that its square is neither large nor small."""
    scale = code.name(b.re.call("abs").call("max", b.im.call("abs")))
    re, im = code.name(b.re / scale), code.name(b.im / scale)
    square = code.name((re * re + im * im) * scale)
    return Complex(code.name((a.re * re + a.im * im) / square),
                   code.name((a.im * re - a.re * im) / square))


class ComplexCells:
    """A matrix in cells: the rows of its real parts, and below them those of its imaginary ones."""

    def __init__(self, x: Cells) -> None:
        self.x, self.rows, self.columns = x, x.rows // 2, x.columns

    def __getitem__(self, place: tuple[Value, Value]) -> Complex:
        i, j = place
        return Complex(self.x[i, j], self.x[i + self.rows, j])

    def __setitem__(self, place: tuple[Value, Value], z: Complex) -> None:
        i, j = place
        self.x[i, j] = z.re
        self.x[i + self.rows, j] = z.im


def complex_lu(code: Code, attrs: Any, x: Cells) -> list[Cells]:
    """L and U in place of the matrix, and the exchanges of rows."""
    a = ComplexCells(x)
    n = a.columns
    pivots = code.cells(1, n)
    with code.loop(0, n) as i:
        bring_pivot(code, a, pivots, i, Complex.size)
        pivot = a[i, i]
        with code.when(pivot.size().differs(0)), code.loop(i + 1, n) as r:
            factor = quotient(code, a[r, i], pivot)
            a[r, i] = factor
            with code.loop(i + 1, n) as j:
                a[r, j] = a[r, j].minus(factor.times(a[i, j]))
    return [x, pivots]


def complex_triangular_solve(
    code: Code, attrs: TriangleAttrs, triangle: Cells, right: Cells
) -> list[Cells]:
    """The solution in place of the right sides, by substitution."""
    a, b = ComplexCells(triangle), ComplexCells(right)
    n = a.columns
    with code.loop(0, b.columns) as j, code.loop(0, n) as step:
        i = code.name(n - 1 - step) if attrs.upper else step
        start, stop = (i + 1, n) if attrs.upper else (0, i)
        sums = [code.variable(part) for part in (b[i, j].re, b[i, j].im)]
        with code.loop(start, stop) as p:
            term = a[i, p].times(b[p, j])
            sums[0].add(-term.re)
            sums[1].add(-term.im)
        left = Complex(sums[0].get(), sums[1].get())
        b[i, j] = left if attrs.unit else quotient(code, left, a[i, i])
    return [right]
