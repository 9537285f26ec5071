"""Rounding of floats to whole numbers without instructions for it, and division that rounds."""

from __future__ import annotations

from tilewright.codegen.builder import Builder, Value
from tilewright.ir.types import f32

NAMES = frozenset(("floor", "ceil", "trunc", "rint", "nearbyint", "roundeven"))


def to_whole(b: Builder, name: str, x: Value) -> Value:
    """floor, ceil, trunc or rint by adding and subtracting the number whose last bit is worth 1."""
    magic = b.like(x, 2.0**23 if x.dtype is f32 else 2.0**52)
    size = b.intrinsic("fabs", x)
    near = b.binary("fsub", b.binary("fadd", size, magic), magic)
    one, zero = b.like(x, 1.0), b.like(x, 0.0)
    if name == "trunc":
        near = b.binary("fsub", near, b.select(b.compare("fcmp ogt", near, size), one, zero))
    near = b.intrinsic("copysign", near, x)
    if name == "floor":
        near = b.binary("fsub", near, b.select(b.compare("fcmp ogt", near, x), one, zero))
    elif name == "ceil":
        near = b.binary("fadd", near, b.select(b.compare("fcmp olt", near, x), one, zero))
    near = b.intrinsic("copysign", near, x)
    return b.select(b.compare("fcmp olt", size, magic), near, x)


def modulo(b: Builder, x: Value, y: Value) -> Value:
    """x - floor(x / y) * y with the sign of y, exact while the quotient fits the mantissa."""
    whole = b.intrinsic("trunc", b.binary("fdiv", x, y))
    rest = b.fma(b.define(x.dtype, x.lanes, f"fneg {whole.typed}"), y, x)
    zero = b.like(x, 0.0)
    unequal = b.compare("fcmp une", rest, zero)
    signs = b.binary("xor", b.compare("fcmp olt", rest, zero), b.compare("fcmp olt", y, zero))
    moved = b.select(b.binary("and", unequal, signs), b.binary("fadd", rest, y), rest)
    signed = b.select(unequal, moved, b.intrinsic("copysign", zero, y))
    # A finite x by an infinite y is x itself, or y where the signs differ.
    endless = b.compare("fcmp oeq", b.intrinsic("fabs", y), b.like(x, float("inf")))
    finite = b.compare("fcmp olt", b.intrinsic("fabs", x), b.like(x, float("inf")))
    apart = b.binary("xor", b.compare("fcmp olt", x, zero), b.compare("fcmp olt", y, zero))
    differs = b.binary("and", apart, b.compare("fcmp une", x, zero))
    plain = b.select(b.compare("fcmp oeq", x, zero), b.intrinsic("copysign", zero, y), x)
    limit = b.select(differs, y, plain)
    return b.select(b.binary("and", endless, finite), limit, signed)


def floor_divide(b: Builder, x: Value, y: Value) -> Value:
    """The quotient that belongs to :func:`modulo`; x / 0 as division gives it."""
    rest = modulo(b, x, y)
    quotient = b.binary("fdiv", b.binary("fsub", x, rest), y)
    whole = b.intrinsic("rint", quotient)
    signed = b.select(
        b.compare("fcmp une", whole, b.like(x, 0.0)),
        whole,
        b.intrinsic("copysign", b.like(x, 0.0), b.binary("fdiv", x, y)),
    )
    by_zero = b.compare("fcmp oeq", y, b.like(y, 0.0))
    return b.select(by_zero, b.binary("fdiv", x, y), signed)
