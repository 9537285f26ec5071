"""Scalar code of a kernel, written as arithmetic on values: what a serial algorithm works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from tilewright.compiler.schedules.access import Writer
from tilewright.ir import loops as k
from tilewright.ir.types import DType, bool_, f64, i64


class Value:
    """An expression; arithmetic with numbers and values of its type builds others."""

    __slots__ = ("e",)

    def __init__(self, e: k.Expr) -> None:
        self.e = e

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.e.dtype

    def like(self, x: ValueLike) -> Value:
        """A number in the type of this value."""
        if isinstance(x, Value):
            return x
        return Value(k.Const(float(x) if self.dtype.is_float else x, self.dtype))

    def _with(self, op: str, other: ValueLike, dtype: DType | None = None) -> Value:
        return Value(k.Call(op, (self.e, self.like(other).e), dtype or self.dtype))

    def __add__(self, other: ValueLike) -> Value:
        if self.dtype is i64:
            return Value(k.add(self.e, self.like(other).e))
        return self._with("add", other)

    def __sub__(self, other: ValueLike) -> Value:
        if self.dtype is i64:
            return Value(k.sub(self.e, self.like(other).e))
        return self._with("sub", other)

    def __mul__(self, other: ValueLike) -> Value:
        if self.dtype is i64:
            return Value(k.mul(self.e, self.like(other).e))
        return self._with("mul", other)

    def __truediv__(self, other: ValueLike) -> Value:
        return self._with("div", other)

    def __radd__(self, other: ValueLike) -> Value:
        return self + other

    def __rmul__(self, other: ValueLike) -> Value:
        return self * other

    def __rsub__(self, other: ValueLike) -> Value:
        return self.like(other) - self

    def __rtruediv__(self, other: ValueLike) -> Value:
        return self.like(other) / self

    def __floordiv__(self, size: int) -> Value:
        return Value(k.floordiv(self.e, size))

    def __neg__(self) -> Value:
        return self.call("neg")

    def __lt__(self, other: ValueLike) -> Value:
        return self._with("lt", other, bool_)

    def __le__(self, other: ValueLike) -> Value:
        return self._with("le", other, bool_)

    def __gt__(self, other: ValueLike) -> Value:
        return self._with("gt", other, bool_)

    def __ge__(self, other: ValueLike) -> Value:
        return self._with("ge", other, bool_)

    def __and__(self, other: Value) -> Value:
        return self._with("and", other)

    def __or__(self, other: Value) -> Value:
        return self._with("or", other)

    def __invert__(self) -> Value:
        return self.call("not")

    def equals(self, other: ValueLike) -> Value:
        """Whether two numbers are equal."""
        return self._with("eq", other, bool_)

    def differs(self, other: ValueLike) -> Value:
        """Whether two numbers are not equal."""
        return self._with("ne", other, bool_)

    def call(self, op: str, *others: ValueLike) -> Value:
        """A primitive whose arguments and result are of this type."""
        args = (self.e, *(self.like(o).e for o in others))
        return Value(k.Call(op, args, self.dtype))

    def where(self, x: ValueLike, y: ValueLike) -> Value:
        """One of two values; two plain numbers are of f64."""
        like = x if isinstance(x, Value) else y
        if not isinstance(like, Value):
            like = real(0)
        a, b = like.like(x), like.like(y)
        return Value(k.Call("where", (self.e, a.e, b.e), a.dtype))

    def to(self, dtype: DType) -> Value:
        """The value in another type."""
        return self if dtype is self.dtype else Value(k.Call("cast", (self.e,), dtype))


ValueLike: TypeAlias = "Value | int | float"


def real(value: float) -> Value:
    """A number of f64."""
    return Value(k.Const(float(value), f64))


class Cells:
    """Numbers in memory of the thread: a matrix, or a row, whose places are plain numbers."""

    def __init__(self, code: Code, buffer: k.Buffer, rows: int, columns: int) -> None:
        self.code, self.buffer, self.rows, self.columns = code, buffer, rows, columns

    def _at(self, place: ValueLike | tuple[ValueLike, ValueLike]) -> k.Expr:
        if not isinstance(place, tuple):
            return _index(place)
        return k.add(k.mul(_index(place[0]), self.columns), _index(place[1]))

    def __getitem__(self, place: ValueLike | tuple[ValueLike, ValueLike]) -> Value:
        return self.code.name(Value(k.Load(self.buffer, self._at(place))))

    def __setitem__(
        self, place: ValueLike | tuple[ValueLike, ValueLike], value: ValueLike
    ) -> None:
        if not isinstance(value, Value):
            value = Value(k.Const(
                float(value) if self.buffer.dtype.is_float else value, self.buffer.dtype))
        self.code.w.write(k.Store(self.buffer, self._at(place), value.e))


def _index(place: ValueLike) -> k.Expr:
    if isinstance(place, Value):
        return place.e
    assert isinstance(place, int)
    return k.Const(place)


class Variable:
    """A number that changes, in a register."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def get(self) -> Value:
        """What it is now."""
        return self._cells[0]

    def set(self, value: ValueLike) -> None:
        """From here on it is this."""
        self._cells[0] = value

    def add(self, value: ValueLike) -> None:
        """It grows by this."""
        self.set(self.get() + value)


class Code:
    """Statements under construction."""

    def __init__(self, w: Writer) -> None:
        self.w = w

    def name(self, value: Value) -> Value:
        """The value, computed here once."""
        return Value(self.w.let("t", value.e))

    @contextmanager
    def loop(self, start: ValueLike, stop: ValueLike) -> Iterator[Value]:
        """A serial loop around the statements inside the ``with`` block."""
        with self.w.loop("i", _index(start), _index(stop)) as i:
            yield Value(i)

    def when(self, condition: Value) -> AbstractContextManager[None]:
        """A conditional around the statements inside the ``with`` block."""
        return self.w.when(condition.e)

    def cells(self, rows: int, columns: int = 1, dtype: DType = f64) -> Cells:
        """Memory for numbers, contents undefined."""
        buffer = self.w.alloc("m", dtype, max(1, rows * columns), "stack")
        return Cells(self, buffer, rows, columns)

    def variable(self, value: ValueLike, dtype: DType = f64) -> Variable:
        """A number that changes, and what it is at first."""
        cells = Cells(self, self.w.alloc("v", dtype, 1, "register"), 1, 1)
        cells[0] = value
        return Variable(cells)

    @contextmanager
    def total(self, start: ValueLike, stop: ValueLike) -> Iterator[tuple[Value, Variable]]:
        """A loop around the statements inside the ``with`` block, and a sum that starts at 0."""
        sum = self.variable(0.0)
        with self.loop(start, stop) as i:
            yield i, sum
