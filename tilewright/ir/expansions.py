"""What the composite elementwise ops are made of, and the walk that takes a graph apart.

An expansion is a function (node) -> node. It builds its result from any other ops, which are taken
apart in turn, and gives back the node itself where the op is primitive for that element type:
``mod`` and ``floordiv`` are on integers and are not on floats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tilewright.ir.build import bitcast, cast, nan_test, place, shifted, truth, where
from tilewright.ir.graph import (
    OPS,
    Graph,
    Node,
    apply,
    full,
    full_value,
    input_node,
    make,
    rebuild_node,
    topological,
)
from tilewright.ir.types import DTYPES, DType, TensorType, bf16, f16, f32, f64

Expansion: TypeAlias = Callable[[Node], Node]

INTS_OF = {n: DTYPES[f"i{n}"] for n in (16, 32, 64)}


# --- the walk -----------------------------------------------------------------------------
def expand_node(node: Node) -> Node:
    """``node`` in terms of primitives, its inputs taken as they are."""
    if node.op.expand is None:
        return node
    result: Node = node.op.expand(node)
    if result is node:
        return node
    done = {id(n): n for n in node.inputs}
    for inner in topological([result], node.inputs):
        if id(inner) not in done:
            inputs = [done[id(n)] for n in inner.inputs]
            done[id(inner)] = expand_node(rebuild_node(inner, inputs))
    return place(done[id(result)], node.inputs, node.loc)


@functools.lru_cache(maxsize=None)
def is_primitive(op: str, dtype: DType) -> bool:
    """Whether code generation spells this elementwise op on this element type itself."""
    row = OPS[op]
    if row.expand is None:
        return True
    probe = make(row, [input_node(f"p{i}", TensorType(dtype, ())) for i in range(row.arity or 0)])
    return row.expand(probe) is probe


def expand_all(graph: Graph, wanted: Callable[[Node], bool] = lambda node: True) -> Graph:
    """The same function without composite ops (or without those that are ``wanted`` gone)."""
    done: dict[int, Node] = {}
    for node in graph.nodes():
        fresh = rebuild_node(node, [done[id(n)] for n in node.inputs])
        done[id(node)] = expand_node(fresh) if wanted(fresh) else fresh
    return graph.rebuild(done[id(n)] for n in graph.outputs)


def in_f32(expansion: Expansion) -> Expansion:
    """An expansion that works in f32 for the 16-bit floats and rounds its result once."""
    def expand(node: Node) -> Node:
        if not any(n.dtype in (f16, bf16) for n in node.inputs):
            return expansion(node)
        wide = [cast(n, f32) if n.dtype in (f16, bf16) else n for n in node.inputs]
        return cast(make(node.op, wide, node.attrs), node.dtype)
    return expand


def put(node: Node) -> Node:
    """Sums and products of 16-bit floats are kept in f32; other modes do not round."""
    if node.attrs.mode in ("add", "mul"):
        return in_f32(lambda node: node)(node)
    return node


def of_inputs(f: Callable[..., Node]) -> Expansion:
    """An expansion written as a function of the inputs."""
    def expand(node: Node) -> Node:
        return f(*node.inputs)
    return expand


# --- signs and parts ----------------------------------------------------------------------
def sign(x: Node) -> Node:
    """-1, 0, 1, and NaN for NaN."""
    if x.dtype.kind == "u":
        return where(x > 0, 1, 0, like=x)
    below = where(x < 0, -1, where(x > 0, 1, 0, like=x))
    return where(nan_test(x), x, below) if x.dtype.is_float else below


def signbit(x: Node) -> Node:
    """The highest bit."""
    return bitcast(x, INTS_OF[x.dtype.bits]) < 0


def isnan(x: Node) -> Node:
    return nan_test(x) if x.dtype.is_float else truth(x, False)


def isinf(x: Node) -> Node:
    return apply("eq", apply("abs", x), math.inf) if x.dtype.is_float else truth(x, False)


def isfinite(x: Node) -> Node:
    return apply("abs", x) < math.inf if x.dtype.is_float else truth(x, True)


def nan_to_num(x: Node) -> Node:
    """0 for NaN, the largest finite numbers for the infinities."""
    if not x.dtype.is_float:
        return x
    most = largest_finite(x.dtype)
    kept = apply("min", apply("max", x, -most), most)
    return where(nan_test(x), 0, kept)


def largest_finite(dtype: DType) -> float:
    """The largest finite number of a float type."""
    bits = {"f16": 0x7BFF, "bf16": 0x7F7F, "f32": 0x7F7FFFFF, "f64": 0x7FEFFFFFFFFFFFFF}[dtype.name]
    raw = bits.to_bytes(dtype.itemsize, "little")
    return float(np.frombuffer(raw, dtype.numpy)[0])


def heaviside(x: Node, half: Node) -> Node:
    """0 below zero, 1 above, ``half`` at zero."""
    sides = where(x < 0, 0, where(apply("eq", x, 0), half, 1))
    return where(nan_test(x), x, sides)


def nextafter(x: Node, y: Node) -> Node:
    """The number next to ``x`` on the way to ``y``: a step of the bit pattern."""
    bits = bitcast(x, INTS_OF[x.dtype.bits])
    away = apply("eq", x < y, x > 0)
    step = bitcast(where(away, bits + 1, bits - 1), x.dtype)
    smallest = apply("copysign", bitcast(full(bits.type, 1), x.dtype), y)
    moved = where(apply("eq", x, 0), smallest, step)
    moved = where(apply("eq", x, y), y, moved)
    return where(nan_test(x) | nan_test(y), x + y, moved)


def spacing(x: Node) -> Node:
    """The distance to the next number away from zero, with the sign of ``x``."""
    bits = bitcast(x, INTS_OF[x.dtype.bits])
    distance = bitcast(bits + 1, x.dtype) - x
    least = bitcast(full(bits.type, 1), x.dtype)
    distance = where(apply("eq", x, 0), least, distance)
    return where(isfinite(x), distance, math.nan)


# --- choice -------------------------------------------------------------------------------
def choose_number(op: str) -> Callable[[Node, Node], Node]:
    """max or min that prefers a number to a NaN."""
    def choose(x: Node, y: Node) -> Node:
        best = apply(op, x, y)
        if not x.dtype.is_float:
            return best
        return where(nan_test(x), y, where(nan_test(y), x, best))
    return choose


def clip(x: Node, low: Node, high: Node) -> Node:
    return apply("min", apply("max", x, low), high)


def logical(op: str) -> Callable[[Node, Node], Node]:
    """and, or, xor of truth values."""
    def combine(x: Node, y: Node) -> Node:
        return apply(op, nonzero(x), nonzero(y))
    return combine


def nonzero(x: Node) -> Node:
    """The truth value of each element."""
    return x if x.dtype.kind == "b" else apply("ne", x, 0)


# --- division -----------------------------------------------------------------------------
def reciprocal(x: Node) -> Node:
    """1 / x; of integers only 1 and -1 have one, the others give 0."""
    if x.dtype.is_float:
        return 1 / x
    return where(apply("eq", apply("abs", x) if x.dtype.kind == "i" else x, 1), x, 0)


def fmod(x: Node, y: Node) -> Node:
    """The remainder that has the sign of ``x``; exact for floats."""
    if not x.dtype.is_float:
        rest = apply("mod", x, y)
        if x.dtype.kind == "u":
            return rest
        crosses = apply("ne", rest, 0) & apply("ne", x < 0, y < 0)
        return where(crosses, rest - y, rest)
    size, divisor = apply("abs", x), apply("abs", y)
    rest = remainder_f64(size, divisor) if x.dtype is f64 else remainder_f32(size, divisor)
    rest = where(isinf(y), size, rest)
    rest = where(isfinite(x) & apply("ne", y, 0), rest, math.nan)
    return apply("copysign", rest, x)


def remainder_f32(x: Node, y: Node) -> Node:
    """x mod y for x, y >= 0. Ten digits of 28 bits hold any quotient of two f32."""
    wide = cast(y, f64)
    return cast(long_division(cast(x, f64), [wide], wide, 28, 10), x.dtype)


def long_division(x: Node, parts: list[Node], y: Node, digit: int, digits: int) -> Node:
    """x mod y in f64 for x, y >= 0, by long division with ``digits`` digits of 2**digit.

    Every product and difference is exact: a digit has at most digit + 1 bits, and ``parts``, whose
    sum is ``y``, have no more than the rest of an f64's 53.
    """
    inverse = 1 / y
    for place_ in reversed(range(digits)):
        scale = math.ldexp(1, digit * place_)
        quotient = apply("rint", x * inverse * (1 / scale))
        for p in parts:
            multiple = p * scale
            product = quotient * multiple
            # A place beyond the range of f64 is larger than any x: its digit is 0.
            x = x - where(isinf(multiple), 0, product)
    return where(x < 0, x + y, x)


def split(y: Node) -> list[Node]:
    """An f64 as the sum of its upper 26 bits and the rest."""
    high = bitcast(apply("and", bitcast(y, INTS_OF[64]), -(1 << 27)), f64)
    return [high, y - high]


def remainder_f64(x: Node, y: Node) -> Node:
    """x mod y for x / y < 2**192; NaN, not a wrong number, for quotients beyond that."""
    tiny = y < 2.0 ** -800
    grow = where(tiny, 2.0 ** 200, 1.0, like=y)
    big, by = x * grow, y * grow
    rest = long_division(big, split(by), by, 24, 8)
    rest = where(big / by < 2.0 ** 192, rest, math.nan)
    return where(x < y, x, rest / grow)


def mod(node: Node) -> Node:
    """The remainder that has the sign of ``y``; primitive for integers."""
    x, y = node.inputs
    if not x.dtype.is_float:
        return node
    rest = apply("fmod", x, y)
    crosses = apply("ne", y < 0, rest < 0)
    signed = where(crosses, rest + y, rest)
    return where(apply("eq", rest, 0), apply("copysign", rest, y), signed)


def floordiv(node: Node) -> Node:
    """The quotient rounded down, consistent with ``mod``; primitive for integers."""
    x, y = node.inputs
    if not x.dtype.is_float:
        return node
    rest = apply("fmod", x, y)
    crosses = apply("ne", rest, 0) & apply("ne", y < 0, rest < 0)
    quotient = (x - rest) / y
    quotient = where(crosses, quotient - 1, quotient)
    down = apply("floor", quotient)
    down = where(quotient - down > 0.5, down + 1, down)
    down = where(apply("eq", quotient, 0), apply("copysign", quotient, x / y), down)
    # Beyond 2**53 a quotient is whole; beyond 2**192 ``fmod`` of f64 gives no remainder.
    whole = isfinite(x) & (apply("abs", x / y) > 2.0 ** 100)
    return where(whole | apply("eq", y, 0), x / y, down)


# --- powers, roots, logarithms ------------------------------------------------------------
def power(node: Node) -> Node:
    """Small constant exponents of floats become products; else primitive."""
    x, y = node.inputs
    exponent = full_value(y) if y.op.name == "full" else None
    if not x.dtype.is_float or exponent is None or exponent not in (0, 1, 2, 3, 4, -1, -2, 0.5):
        return node
    if x.dtype in (f16, bf16):
        return cast(make("pow", (cast(x, f32), cast(y, f32))), x.dtype)
    if exponent == 0.5:
        root = apply("sqrt", x) + 0
        return where(apply("eq", x, -math.inf), math.inf, root)
    return product_of(x if exponent >= 0 else 1 / x, abs(int(exponent)))


def product_of(x: Node, exponent: int) -> Node:
    """x ** exponent by squaring, exponent >= 0."""
    result: Node | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else result * square
        exponent >>= 1
        if exponent:
            square = square * square
    return full(x.type, 1) if result is None else result


def hypot(x: Node, y: Node) -> Node:
    """sqrt(x*x + y*y) without overflow or underflow of the squares."""
    infinite = isinf(x) | isinf(y)
    if x.dtype is f32:
        wide, tall = cast(x, f64), cast(y, f64)
        length = cast(apply("sqrt", wide * wide + tall * tall), f32)
    else:
        larger = apply("max", apply("abs", x), apply("abs", y))
        exponent = apply("and", bitcast(larger, INTS_OF[64]), 0x7FF << 52)
        # A power of two near the larger side; the smallest normal number for denormals.
        scale = bitcast(apply("max", exponent, 1 << 52), f64)
        scale = apply("min", scale, 2.0 ** 1022)
        u, v = x / scale, y / scale
        length = apply("sqrt", u * u + v * v) * scale
    return where(infinite, math.inf, length)


def logaddexp(exp: str, log1p: Callable[[Node], Node]) -> Callable[[Node, Node], Node]:
    """log(exp(x) + exp(y)) in some base, without overflow."""
    def combine(x: Node, y: Node) -> Node:
        # Equal infinities differ by NaN: their distance is 0.
        apart = where(apply("eq", x, y), 0, x - y)
        rest = log1p(apply(exp, -apply("abs", apart)))
        return apply("max", x, y) + rest
    return combine


def natural_log1p(x: Node) -> Node:
    return apply("log1p", x)


def binary_log1p(x: Node) -> Node:
    return apply("log1p", x) * (1 / math.log(2))


def sigmoid(x: Node) -> Node:
    """1 / (1 + exp(-x)); exp overflows to infinity where the result is 0."""
    return 1 / (1 + apply("exp", -x))


def sinc(x: Node) -> Node:
    """sin(pi x) / (pi x), 1 at zero; in f64, as rounding pi x would move the zeros."""
    if x.dtype is f32:
        return cast(sinc(cast(x, f64)), f32)
    angle = x * math.pi
    zero = apply("eq", angle, 0)
    safe = where(zero, 1, angle)
    return where(zero, 1, apply("sin", safe) / safe)


# --- bits ---------------------------------------------------------------------------------
def bitwise_count(node: Node) -> Node:
    """The ones of the absolute value, as u8."""
    return cast(apply("popcount", node.inputs[0]), node.dtype)


def ldexp(x: Node, n: Node) -> Node:
    """x * 2**n in f64, in three steps, so that no power of two leaves the range."""
    wide = INTS_OF[64]
    most = (1 << n.dtype.bits - (n.dtype.kind == "i")) - 1
    count = cast(apply("min", n, min(3000, most)), wide)
    count = apply("max", count, -3000)
    third = apply("floordiv", count, 3)
    result = cast(x, f64)
    for steps in (third, third, count - third - third):
        result = result * bitcast(apply("shl", steps + 1023, 52), f64)
    return cast(result, x.dtype)


def scaled(factor: float) -> Callable[[Node], Node]:
    """Multiplication with a constant."""
    def scale(x: Node) -> Node:
        return x * factor
    return scale


# --- scans --------------------------------------------------------------------------------
def logcumsumexp(node: Node) -> Node:
    """m + log(s), with the running largest element m and s the running sum of exp(x - m): each
    time that m grows, s is scaled down. m counts as a constant: the result does not depend on it.
    """
    (x,), attrs = node.inputs, node.attrs
    most = apply("stop_gradient", make("cummax", (x,), attrs))
    before = shifted(most, attrs.axis, -1 if attrs.reverse else 1, -math.inf)

    def relative(value: Node) -> Node:
        # Equal infinities are no distance apart.
        same = apply("eq", value, most) & ~isfinite(most)
        return apply("exp", where(same, 0, value - most))

    total = make("recurrence", (relative(before), relative(x)), attrs)
    return most + apply("log", total)
