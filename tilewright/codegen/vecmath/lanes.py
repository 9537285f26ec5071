"""Formulas over builder values: operators, the layout of floats, helpers that all functions share.

Nothing here asks for an instruction that a baseline target lacks: rounding to an integer adds and
subtracts a large constant, and exact products split their factors where fused multiply-add is
missing. So no formula ends in a call of the C library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

from tilewright.codegen.builder import Builder, Value, mangle
from tilewright.ir.types import DType, f32, f64, i32, i64

Operand: TypeAlias = Union["Lanes", int, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a float type is stored, and numbers that follow from it.

    bits    the integer type of the same width
    magic   added to and taken from a number, it rounds that number to an integer
    split   the factor of Veltkamp's splitting
    """

    dtype: DType
    bits: DType
    mantissa: int
    bias: int

    @property
    def magic(self) -> float:
        return 1.5 * 2.0**self.mantissa

    @property
    def split(self) -> float:
        return 2.0 ** (self.mantissa // 2 + 1) + 1.0

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, 1 - self.bias)

    @property
    def sign(self) -> int:
        """The bits of -0."""
        return 1 << (self.dtype.bits - 1)

    @property
    def one(self) -> int:
        """The bits of 1."""
        return self.bias << self.mantissa


LAYOUTS = {f32: Layout(f32, i32, 23, 127), f64: Layout(f64, i64, 52, 1023)}


@dataclass(frozen=True, slots=True)
class Lanes:
    """A value with operators; numbers on either side become constants of its type.

    Works on floats, integers and bools alike; ``&``, ``|``, ``^`` and ``~`` are bitwise.
    """

    b: Builder
    value: Value

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.value.dtype]

    def wrap(self, value: Value) -> Lanes:
        return Lanes(self.b, value)

    def of(self, number: Operand) -> Lanes:
        """A constant of this type, or the operand itself."""
        if isinstance(number, Lanes):
            return number
        return Lanes(self.b, self.b.like(self.value, number))

    def _apply(self, floats: str, ints: str, other: Operand) -> Lanes:
        opcode = floats if self.value.dtype.is_float else ints
        return self.wrap(self.b.binary(opcode, self.value, self.of(other).value))

    def __add__(self, other: Operand) -> Lanes:
        return self._apply("fadd", "add", other)

    def __sub__(self, other: Operand) -> Lanes:
        return self._apply("fsub", "sub", other)

    def __rsub__(self, other: Operand) -> Lanes:
        return self.of(other) - self

    def __mul__(self, other: Operand) -> Lanes:
        return self._apply("fmul", "mul", other)

    def __truediv__(self, other: Operand) -> Lanes:
        return self._apply("fdiv", "sdiv", other)

    def __rtruediv__(self, other: Operand) -> Lanes:
        return self.of(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Lanes:
        if not self.value.dtype.is_float:
            return self.of(0) - self
        return self.wrap(self.b.define(
            self.value.dtype, self.value.lanes, f"fneg {self.value.typed}"
        ))

    def __and__(self, other: Operand) -> Lanes:
        return self._apply("", "and", other)

    def __or__(self, other: Operand) -> Lanes:
        return self._apply("", "or", other)

    def __xor__(self, other: Operand) -> Lanes:
        return self._apply("", "xor", other)

    def __invert__(self) -> Lanes:
        return self ^ (1 if self.value.dtype.bits == 1 else -1)

    def __lshift__(self, count: Operand) -> Lanes:
        return self._apply("", "shl", count)

    def __rshift__(self, count: Operand) -> Lanes:
        """Arithmetic: the sign stays."""
        return self._apply("", "ashr", count)

    def logical_shift(self, count: Operand) -> Lanes:
        """To the right, zeros come in."""
        return self._apply("", "lshr", count)

    def _compare(self, floats: str, ints: str, other: Operand) -> Lanes:
        predicate = f"fcmp {floats}" if self.value.dtype.is_float else f"icmp {ints}"
        return self.wrap(self.b.compare(predicate, self.value, self.of(other).value))

    def __lt__(self, other: Operand) -> Lanes:
        return self._compare("olt", "slt", other)

    def __le__(self, other: Operand) -> Lanes:
        return self._compare("ole", "sle", other)

    def __gt__(self, other: Operand) -> Lanes:
        return self._compare("ogt", "sgt", other)

    def __ge__(self, other: Operand) -> Lanes:
        return self._compare("oge", "sge", other)

    def equals(self, other: Operand) -> Lanes:
        return self._compare("oeq", "eq", other)

    def differs(self, other: Operand) -> Lanes:
        """True for NaN as well."""
        return self._compare("une", "ne", other)

    def is_nan(self) -> Lanes:
        return self._compare("uno", "ne", self)

    def then(self, yes: Lanes, no: Operand) -> Lanes:
        """``yes`` where this bool is true, else ``no``."""
        return self.wrap(self.b.select(self.value, yes.value, yes.of(no).value))

    def fma(self, factor: Operand, addend: Operand) -> Lanes:
        """self * factor + addend, in one or in two roundings."""
        return self.wrap(self.b.fma(self.value, self.of(factor).value, self.of(addend).value))

    def sqrt(self) -> Lanes:
        return self.wrap(self.b.intrinsic("sqrt", self.value))

    def magnitude(self) -> Lanes:
        """The absolute value."""
        return self.wrap(self.b.intrinsic("fabs", self.value))

    def with_sign_of(self, other: Operand) -> Lanes:
        return self.wrap(self.b.intrinsic("copysign", self.value, self.of(other).value))

    def at_most(self, limit: float) -> Lanes:
        """The smaller of the two; a NaN stays. One ``min`` instruction on x86."""
        bound = self.of(limit)
        return (bound < self).then(bound, self)

    def at_least(self, limit: float) -> Lanes:
        """The larger of the two; a NaN stays. One ``max`` instruction on x86."""
        bound = self.of(limit)
        return (bound > self).then(bound, self)

    def as_bits(self) -> Lanes:
        """The stored bits, as an integer of the same width."""
        return self.wrap(self.b.convert("bitcast", self.value, self.layout.bits))

    def as_float(self) -> Lanes:
        """The float that has these bits."""
        dtype = f32 if self.value.dtype.bits == 32 else f64
        return self.wrap(self.b.convert("bitcast", self.value, dtype))

    def to_float(self) -> Lanes:
        """An integer as the float type of the same width."""
        dtype = f32 if self.value.dtype.bits == 32 else f64
        return self.wrap(self.b.convert("sitofp", self.value, dtype))

    def widen(self) -> Lanes:
        """f32 as f64, i32 as i64 with its sign."""
        if self.value.dtype.is_float:
            return self.wrap(self.b.convert("fpext", self.value, f64))
        return self.wrap(self.b.convert("sext", self.value, i64))

    def narrow(self) -> Lanes:
        """f64 as f32, i64 as i32."""
        if self.value.dtype.is_float:
            return self.wrap(self.b.convert("fptrunc", self.value, f32))
        return self.wrap(self.b.convert("trunc", self.value, i32))


Formula: TypeAlias = Callable[..., Lanes]


def horner(x: Lanes, coefficients: Sequence[float]) -> Lanes:
    """c0 + c1 x + c2 x^2 + ..."""
    total = x.of(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def to_integer(x: Lanes) -> tuple[Lanes, Lanes]:
    """x rounded to the nearest integer: as a float, and in the low bits of an integer.

    For |x| below 2^21 (f32) or 2^50 (f64); elsewhere both are some number. The integer's upper
    bits are those of a constant.
    """
    shifted = x + x.layout.magic
    return shifted - x.layout.magic, shifted.as_bits()


def two_sum(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """The rounded sum and its error, for any a and b."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def fast_two_sum(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """The rounded sum and its error, for |a| >= |b| or a = 0."""
    total = a + b
    return total, b - (total - a)


def halves(a: Lanes) -> tuple[Lanes, Lanes]:
    """a as a sum of two numbers of half the mantissa; |a| below 2^996 for f64."""
    scaled = a * a.layout.split
    upper = scaled - (scaled - a)
    return upper, a - upper


def two_product(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """The rounded product and its error."""
    product = a * b
    if a.b.fused:
        return product, a.wrap(a.b.intrinsic("fma", a.value, b.value, (-product).value))
    a1, a0 = halves(a)
    b1, b0 = halves(b)
    return product, ((a1 * b1 - product) + a1 * b0 + a0 * b1) + a0 * b0


def function(formula: Callable[..., Lanes]) -> Callable[..., Value]:
    """A formula over Lanes as a function ``(builder, *values) -> value``."""

    def emit(b: Builder, *args: Value) -> Value:
        return formula(*(Lanes(b, a) for a in args)).value

    emit.__name__ = formula.__name__
    emit.__doc__ = formula.__doc__
    return emit


def outlined(formula: Callable[..., Lanes]) -> Callable[..., Value]:
    """As :func:`function`, in an internal function of the module that is called: for formulas
    that have branches, or that are long and rarely in the innermost loop.
    """

    def emit(b: Builder, *args: Value) -> Value:
        first = args[0]
        symbol = f"@tw.{formula.__name__}.{mangle(first.dtype, first.lanes)}"
        inner = Builder()
        inner.fused = b.fused
        params = [Value(f"%x{k}", a.dtype, a.lanes) for k, a in enumerate(args)]
        result = formula(*(Lanes(inner, p) for p in params)).value
        listed = ", ".join(p.typed for p in params)
        lines = "\n".join(inner.lines)
        b.declarations.update(inner.declarations)
        b.declarations.add(
            f"define internal {result.type} {symbol}({listed}) {{\nentry:\n{lines}\n"
            f"  ret {result.typed}\n}}"
        )
        passed = ", ".join(a.typed for a in args)
        return b.define(result.dtype, result.lanes, f"call {result.type} {symbol}({passed})")

    emit.__name__ = formula.__name__
    emit.__doc__ = formula.__doc__
    return emit
