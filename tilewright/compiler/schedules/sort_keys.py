"""Elements as unsigned numbers in the same order, and back.

The bits of a float, with all but the sign flipped if it is negative, are ordered as the float is.
All NaNs become the largest key and both zeros the same one; that a zero is negative is noted in the
highest bit of the position that goes with the key.
"""

from __future__ import annotations

from tilewright.compiler.schedules.reduction import converted
from tilewright.ir import loops as k
from tilewright.ir.types import DTYPES, DType, bool_, u32

NEGATIVE_ZERO = 1 << 31
"""The mark of a negative zero in a position."""


def key_type(dtype: DType) -> DType:
    """The unsigned type of the keys."""
    return DTYPES[f"u{8 * dtype.itemsize}"]


def _signed(dtype: DType) -> DType:
    return DTYPES[f"i{dtype.bits}"]


def _flipped(bits: k.Expr) -> k.Expr:
    """All bits but the sign of a negative number flipped, which is its own inverse."""
    dtype = bits.dtype
    sign = k.Call("shr", (bits, k.Const(dtype.bits - 1, dtype)), dtype)
    rest = k.Call("and", (sign, k.Const((1 << dtype.bits - 1) - 1, dtype)), dtype)
    return k.Call("xor", (bits, rest), dtype)


def _moved(key: k.Expr) -> k.Expr:
    """The highest bit flipped: between the orders of signed and unsigned numbers."""
    return k.Call("xor", (key, k.Const(1 << key.dtype.bits - 1, key.dtype)), key.dtype)


def _where(condition: k.Expr, x: k.Expr, y: k.Expr) -> k.Expr:
    return k.Call("where", (condition, x, y), x.dtype)


def to_key(x: k.Expr, descending: bool) -> k.Expr:
    """The key of an element."""
    dtype = x.dtype
    kind = key_type(dtype)
    if dtype is bool_ or dtype.kind == "u":
        key = converted(x, kind)
    elif dtype.is_int:
        key = _moved(k.Call("bitcast", (x,), kind))
    else:
        signed = _signed(dtype)
        bits: k.Expr = k.Call("bitcast", (x,), signed)
        zero = k.Call("eq", (x, k.Const(0.0, dtype)), bool_)
        nan = k.Call("ne", (x, x), bool_)
        most = k.Const((1 << dtype.bits - 1) - 1, signed)
        bits = _where(nan, most, _where(zero, k.Const(0, signed), _flipped(bits)))
        key = _moved(k.Call("bitcast", (bits,), kind))
    return k.Call("not", (key,), kind) if descending else key


def from_key(key: k.Expr, place: k.Expr | None, dtype: DType, descending: bool) -> k.Expr:
    """The element of a key; ``place`` is the marked position, which only a float needs."""
    if descending:
        key = k.Call("not", (key,), key.dtype)
    if dtype is bool_:
        return k.Call("ne", (key, k.Const(0, key.dtype)), bool_)
    if dtype.kind == "u":
        return key
    signed = k.Call("bitcast", (_moved(key),), _signed(dtype))
    if dtype.is_int:
        return signed
    assert place is not None
    number = k.Call("bitcast", (_flipped(signed),), dtype)
    negative = k.Call("ge", (place, k.Const(NEGATIVE_ZERO, u32)), bool_)
    return _where(negative, k.Const(-0.0, dtype), number)


def marked(x: k.Expr, position: k.Expr) -> k.Expr:
    """A position as u32, marked if ``x`` is a negative zero."""
    place = k.Call("cast", (position,), u32)
    if not x.dtype.is_float:
        return place
    signed = _signed(x.dtype)
    lowest = k.Const(-(1 << x.dtype.bits - 1), signed)
    negative = k.Call("eq", (k.Call("bitcast", (x,), signed), lowest), bool_)
    mark = _where(negative, k.Const(NEGATIVE_ZERO, u32), k.Const(0, u32))
    return k.Call("or", (place, mark), u32)


def unmarked(place: k.Expr, dtype: DType) -> k.Expr:
    """The position without its mark, in an integer type."""
    return converted(k.Call("and", (place, k.Const(NEGATIVE_ZERO - 1, u32)), u32), dtype)
