"""Integer ops as NumPy defines them: division by zero gives 0, shifts by the width or more shift
everything out, nothing traps.
"""

from __future__ import annotations

from tilewright.codegen.builder import Builder, Value


def number_of(x: Value) -> int | None:
    """The value of an integer constant, the same in all lanes."""
    text = x.name
    if text.startswith("splat ("):
        text = text[:-1].rsplit(" ", 1)[1]
    try:
        return int(text)
    except ValueError:
        return None


def safe_divisor(b: Builder, x: Value, y: Value) -> tuple[Value, Value | None]:
    """A divisor that cannot trap, and where the real one is zero (None: nowhere)."""
    number = number_of(y)
    if number is not None and number > 0:
        return y, None
    zero = b.compare("icmp eq", y, b.like(y, 0))
    bad = zero
    if y.dtype.kind == "i":
        least = b.compare("icmp eq", x, b.like(x, -(2 ** (x.dtype.bits - 1))))
        minus = b.compare("icmp eq", y, b.like(y, -1))
        bad = b.binary("or", zero, b.binary("and", least, minus))
    return b.select(bad, b.like(y, 1), y), zero


def zero_where(b: Builder, condition: Value | None, x: Value) -> Value:
    """0 where the condition holds."""
    return x if condition is None else b.select(condition, b.like(x, 0), x)


def power_of_two(y: Value) -> int | None:
    """log2 of a constant that is a power of two."""
    number = number_of(y)
    if number is None or number <= 0 or number & (number - 1):
        return None
    return number.bit_length() - 1


def divide(b: Builder, x: Value, y: Value) -> Value:
    """Unsigned quotient."""
    shift = power_of_two(y)
    if shift is not None:
        return b.binary("lshr", x, b.like(x, shift))
    divisor, zero = safe_divisor(b, x, y)
    return zero_where(b, zero, b.binary("udiv", x, divisor))


def remainder(b: Builder, x: Value, y: Value) -> Value:
    """Unsigned remainder."""
    shift = power_of_two(y)
    if shift is not None:
        return b.binary("and", x, b.like(x, (1 << shift) - 1))
    divisor, zero = safe_divisor(b, x, y)
    return zero_where(b, zero, b.binary("urem", x, divisor))


def truncated(b: Builder, x: Value, y: Value) -> tuple[Value, Value, Value, Value | None]:
    """Quotient and remainder towards zero, where rounding down differs, and where y is zero."""
    divisor, zero = safe_divisor(b, x, y)
    quotient = b.binary("sdiv", x, divisor)
    rest = b.binary("sub", x, b.binary("mul", quotient, divisor))
    nonzero = b.compare("icmp ne", rest, b.like(x, 0))
    signs = b.compare("icmp slt", b.binary("xor", rest, divisor), b.like(x, 0))
    return quotient, rest, b.binary("and", nonzero, signs), zero


def floor_divide(b: Builder, x: Value, y: Value) -> Value:
    """Signed quotient, rounded down; the least number by -1 wraps."""
    shift = power_of_two(y)
    if shift is not None:
        return b.binary("ashr", x, b.like(x, shift))
    quotient, _, differs, zero = truncated(b, x, y)
    lower = b.select(differs, b.binary("sub", quotient, b.like(x, 1)), quotient)
    return zero_where(b, zero, lower)


def modulo(b: Builder, x: Value, y: Value) -> Value:
    """Signed remainder with the divisor's sign."""
    shift = power_of_two(y)
    if shift is not None:
        return b.binary("and", x, b.like(x, (1 << shift) - 1))
    _, rest, differs, zero = truncated(b, x, y)
    return zero_where(b, zero, b.select(differs, b.binary("add", rest, y), rest))


def shift_left(b: Builder, x: Value, n: Value) -> Value:
    """0 if all bits are shifted out."""
    inside = b.compare("icmp ult", n, b.like(n, x.dtype.bits))
    amount = b.select(inside, n, b.like(n, 0))
    return b.select(inside, b.binary("shl", x, amount), b.like(x, 0))


def shift_right_unsigned(b: Builder, x: Value, n: Value) -> Value:
    """0 if all bits are shifted out."""
    inside = b.compare("icmp ult", n, b.like(n, x.dtype.bits))
    amount = b.select(inside, n, b.like(n, 0))
    return b.select(inside, b.binary("lshr", x, amount), b.like(x, 0))


def shift_left_clamped(b: Builder, x: Value, n: Value) -> Value:
    """:func:`shift_left` for GPUs.

    LLVM makes one clamping instruction of a choice like that one's, and cuts its count to 32 bits.
    """
    amount = b.intrinsic("umin", n, b.like(n, x.dtype.bits - 1))
    inside = b.compare("icmp ult", n, b.like(n, x.dtype.bits))
    return b.select(inside, b.binary("shl", x, amount), b.like(x, 0))


def shift_right_clamped(b: Builder, x: Value, n: Value) -> Value:
    """:func:`shift_right_unsigned` for GPUs, as :func:`shift_left_clamped`."""
    amount = b.intrinsic("umin", n, b.like(n, x.dtype.bits - 1))
    inside = b.compare("icmp ult", n, b.like(n, x.dtype.bits))
    return b.select(inside, b.binary("lshr", x, amount), b.like(x, 0))


def shift_right_signed(b: Builder, x: Value, n: Value) -> Value:
    """The sign if all bits are shifted out."""
    amount = b.intrinsic("umin", n, b.like(n, x.dtype.bits - 1))
    return b.binary("ashr", x, amount)


def popcount_signed(b: Builder, x: Value) -> Value:
    """NumPy counts the bits of the absolute value."""
    size = b.intrinsic("smax", x, b.binary("sub", b.like(x, 0), x))
    return b.intrinsic("ctpop", size)


def power(b: Builder, x: Value, y: Value) -> Value:
    """Powers by squaring; a negative exponent gives what truncating 1 / x**-y gives."""
    number = number_of(y)
    if number is not None and number >= 0:
        return constant_power(b, x, number)
    result, square = b.like(x, 1), x
    for bit in range(x.dtype.bits - (x.dtype.kind == "i")):
        taken = b.binary("and", y, b.like(y, 1 << bit))
        chosen = b.compare("icmp ne", taken, b.like(y, 0))
        result = b.select(chosen, b.binary("mul", result, square), result)
        square = b.binary("mul", square, square)
    if x.dtype.kind == "u":
        return result
    odd = b.compare("icmp ne", b.binary("and", y, b.like(y, 1)), b.like(y, 0))
    sign = b.select(odd, x, b.like(x, 1))
    size = b.intrinsic("smax", x, b.binary("sub", b.like(x, 0), x))
    unit = b.compare("icmp eq", size, b.like(x, 1))
    inverse = b.select(unit, sign, b.like(x, 0))
    return b.select(b.compare("icmp slt", y, b.like(y, 0)), inverse, result)


def constant_power(b: Builder, x: Value, exponent: int) -> Value:
    """By squaring, for an exponent that is known."""
    result: Value | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else b.binary("mul", result, square)
        exponent >>= 1
        if exponent:
            square = b.binary("mul", square, square)
    return b.like(x, 1) if result is None else result
