"""Elementwise operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.types import DType, bool_, i32
from tilewright.torch.looks import look
from tilewright.torch.nodes import (
    cast,
    common,
    default_float,
    number,
    operand,
    operands,
    reduce,
    wide,
)
from tilewright.torch.table import Call, Check, NotCompiled, row

aten = torch.ops.aten

FLOAT_FUNCTIONS = {
    "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2",
    "log10": "log10", "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin",
    "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf", "sqrt": "sqrt",
    "rsqrt": "rsqrt", "sigmoid": "sigmoid", "reciprocal": "reciprocal",
}
"""Functions of one argument whose result is a float whatever the argument is."""

SAME_TYPE = {
    "neg": "neg", "abs": "abs", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "positive": "positive",
}
"""Functions of one argument that keep its type; those that round leave integers as they are."""

BINARY = {
    "mul": "mul", "maximum": "max", "minimum": "min", "atan2": "atan2",
    "fmax": "fmax", "fmin": "fmin", "copysign": "copysign", "hypot": "hypot",
    "logaddexp": "logaddexp", "logaddexp2": "logaddexp2", "nextafter": "nextafter",
    "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
}

COMPARISONS = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}

LOGICAL = {
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
}

TESTS = {
    "isnan": "isnan", "isinf": "isinf", "isposinf": "isposinf", "isneginf": "isneginf",
    "signbit": "signbit", "logical_not": "logical_not",
}

ROUND = frozenset(("floor", "ceil", "trunc", "rint"))


def _apply(op: str, dtype: DType, call: Call, *xs: Any) -> Node:
    if op in ("mul", "div") and not all(isinstance(x, Node) for x in xs):
        dtype = wide(dtype)  # a number is not rounded to 16 bits before it is used
    return make(op, operands(dtype, call.type.shape, *xs))


def _float_function(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Node) -> Node:
        return _apply(op, default_float(x.dtype), call, x)
    return function


def _same_type(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Node) -> Node:
        if (op in ROUND and not x.dtype.is_float) or (x.dtype is bool_ and op != "neg"):
            return x
        return _apply(op, x.dtype, call, x)
    return function


def _binary(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Any, y: Any) -> Node:
        return _apply(op, call.type.dtype, call, x, y)
    return function


def _comparison(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Any, y: Any) -> Node:
        return _apply(op, common(*call.args[:2]), call, x, y)
    return function


def _logical(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Any, y: Any) -> Node:
        return make(op, [operand(_truth(v), bool_, call.type.shape) for v in (x, y)])
    return function


def _truth(x: Any) -> Any:
    return cast(x, bool_) if isinstance(x, Node) else bool(x)


def _test(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Node) -> Node:
        if op in ("isposinf", "isneginf", "signbit") and not x.dtype.is_float:
            zero = operand(0, x.dtype, x.shape)
            if op == "signbit" and x.dtype.kind == "i":
                return make("lt", (x, zero))
            return operand(False, bool_, x.shape)
        return make(op, (x,))
    return function


def _enter(table: dict[str, str], maker: Callable[[str], Callable[..., Node]]) -> None:
    for name, op in table.items():
        row(getattr(aten, name))(maker(op))


_enter(FLOAT_FUNCTIONS, _float_function)
_enter(SAME_TYPE, _same_type)
_enter(BINARY, _binary)
_enter(COMPARISONS, _comparison)
_enter(LOGICAL, _logical)
_enter(TESTS, _test)


@row(aten.add)
def add(call: Call, x: Any, y: Any, *, alpha: Any = 1) -> Node:
    return _scaled_sum("add", call, x, y, alpha)


@row(aten.sub)
def sub(call: Call, x: Any, y: Any, *, alpha: Any = 1) -> Node:
    return _scaled_sum("sub", call, x, y, alpha)


def _scaled_sum(op: str, call: Call, x: Any, y: Any, alpha: Any) -> Node:
    dtype = call.type.dtype
    if alpha == 1:
        return _apply(op, dtype, call, x, y)
    dtype = wide(dtype)  # rounded once
    return _apply(op, dtype, call, x, _apply("mul", dtype, call, y, alpha))


@row(aten.rsub)
def rsub(call: Call, x: Any, y: Any, alpha: Any = 1) -> Node:
    return sub(call, y, x, alpha=alpha)


def _divide(op: str, call: Call, x: Any, y: Any) -> Node:
    """A quotient or rest. PyTorch raises where an integer is divided by zero."""
    dtype, shape = call.type.dtype, call.type.shape
    if dtype.is_int and 0 not in shape and not (isinstance(y, int) and y != 0):
        by = operand(y, dtype, y.shape if isinstance(y, Node) else ())
        none = cast(make("eq", (by, number(0, dtype, by.shape))), i32)
        at = f" at {call.loc}" if call.loc is not None else ""
        call.checks.append(Check(
            look, reduce("sum", none, tuple(range(by.type.rank))) if by.shape else none,
            ("RuntimeError", f"ZeroDivisionError: an integer is divided by zero{at}")))
    return _apply(op, dtype, call, x, y)


@row(aten.div, aten.true_divide)
def div(call: Call, x: Any, y: Any, *, rounding_mode: str | None = None) -> Node:
    dtype = call.type.dtype
    if rounding_mode is None:
        return _apply("div", dtype, call, x, y)
    if rounding_mode == "floor":
        return _divide("floordiv", call, x, y)
    if dtype.is_float:
        return make("trunc", (_apply("div", dtype, call, x, y),))
    return truncated_quotient(
        _divide("floordiv", call, x, y), *operands(dtype, call.type.shape, x, y))


def truncated_quotient(down: Node, a: Node, b: Node) -> Node:
    """Integer division towards zero, from what is rounded down."""
    rest = make("mod", (a, b))
    zero = operand(0, a.dtype, a.shape)
    signs_differ = make("ne", (make("lt", (a, zero)), make("lt", (b, zero))))
    up = signs_differ & make("ne", (rest, zero))
    return build.where(up, down + 1, down)


@row(aten.floor_divide)
def floor_divide(call: Call, x: Any, y: Any) -> Node:
    return _divide("floordiv", call, x, y)


@row(aten.remainder)
def remainder(call: Call, x: Any, y: Any) -> Node:
    return _divide("mod", call, x, y)


@row(aten.fmod)
def fmod(call: Call, x: Any, y: Any) -> Node:
    return _divide("fmod", call, x, y)


@row(aten.pow)
def power(call: Call, x: Any, y: Any) -> Node:
    dtype = call.type.dtype
    if isinstance(y, int | float) and isinstance(x, Node) and dtype.is_float:
        simple = _simple_power(cast(x, dtype), float(y))
        if simple is not None:
            return simple
    if isinstance(y, int) and not isinstance(y, bool) and dtype.is_int and y < 0:
        raise NotCompiled("an integer to a negative power")
    return _apply("pow", dtype, call, x, y)


def _simple_power(x: Node, y: float) -> Node | None:
    if y == 0.5:
        return make("sqrt", (x,))
    if y == 1.0:
        return x
    if y == 2.0:
        return x * x
    if y == 3.0:
        return x * x * x
    if y == -1.0:
        return make("reciprocal", (x,))
    if y == -0.5:
        return make("rsqrt", (x,))
    if y == -2.0:
        return make("reciprocal", (x * x,))
    return None


@row(aten.round)
def round_(call: Call, x: Node, *, decimals: int = 0) -> Node:
    if not x.dtype.is_float:
        return x
    if decimals == 0:
        return make("rint", (x,))
    scale = operand(10.0 ** abs(decimals), x.dtype, x.shape)
    if decimals > 0:
        return make("rint", (x * scale,)) / scale
    return make("rint", (x / scale,)) * scale


@row(aten.sign, aten.sgn)
def sign(call: Call, x: Node) -> Node:
    if x.dtype is bool_:
        return x
    zero = operand(0, x.dtype, x.shape)
    above, below = (cast(make(op, (x, zero)), x.dtype) for op in ("gt", "lt"))
    return above - below if x.dtype.kind != "u" else above


@row(aten.angle)
def angle(call: Call, x: Node) -> Node:
    v = cast(x, call.type.dtype)
    side = build.where(v < 0.0, operand(math.pi, v.dtype, v.shape), operand(0, v.dtype, v.shape))
    return build.where(build.nan_test(v), v, side)


@row(aten.bitwise_not)
def bitwise_not(call: Call, x: Node) -> Node:
    return make("not", (x,))


def _shift(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Any, y: Any) -> Node:
        return _apply(op, call.type.dtype, call, x, y)
    return function


row(aten.bitwise_left_shift, aten.__lshift__)(_shift("shl"))
row(aten.bitwise_right_shift, aten.__rshift__)(_shift("shr"))


@row(aten.where)
def where(call: Call, condition: Node, x: Any, y: Any) -> Node:
    truth = operand(condition, bool_, call.type.shape)
    return make("where", (truth, *operands(call.type.dtype, call.type.shape, x, y)))


@row(aten.masked_fill)
def masked_fill(call: Call, x: Node, mask: Node, value: Any) -> Node:
    return where(call, mask, value, x)


def bounded(x: Node, low: Any, high: Any) -> Node:
    """``x`` between two bounds that may be missing; NaN stays NaN, ``high`` wins."""
    if low is not None:
        x = make("max", (x, operand(low, x.dtype, x.shape)))
    if high is not None:
        x = make("min", (x, operand(high, x.dtype, x.shape)))
    return x


@row(aten.clamp, aten.clip)
def clamp(call: Call, x: Node, min: Any = None, max: Any = None) -> Node:
    return bounded(operand(x, call.type.dtype, call.type.shape), min, max)


@row(aten.clamp_min)
def clamp_min(call: Call, x: Node, min: Any) -> Node:
    return clamp(call, x, min)


@row(aten.clamp_max)
def clamp_max(call: Call, x: Node, max: Any) -> Node:
    return clamp(call, x, None, max)


@row(aten.relu)
def relu(call: Call, x: Node) -> Node:
    return bounded(x, 0, None)


@row(aten.gelu)
def gelu(call: Call, x: Node, *, approximate: str = "none") -> Node:
    wide_x = cast(x, wide(x.dtype))
    if approximate == "tanh":
        inner = (wide_x + wide_x * wide_x * wide_x * 0.044715) * math.sqrt(2 / math.pi)
        return wide_x * (make("tanh", (inner,)) + 1.0) * 0.5
    return wide_x * (make("erf", (wide_x * math.sqrt(0.5),)) + 1.0) * 0.5


@row(aten.gelu_backward)
def gelu_backward(call: Call, grad: Node, x: Node, *, approximate: str = "none") -> Node:
    g, v = (cast(n, wide(x.dtype)) for n in (grad, x))
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        t = make("tanh", ((v + v * v * v * 0.044715) * scale,))
        slope = (v * v * (3 * 0.044715) + 1.0) * scale
        return g * ((t + 1.0) * 0.5 + v * (1.0 - t * t) * slope * 0.5)
    cdf = (make("erf", (v * math.sqrt(0.5),)) + 1.0) * 0.5
    pdf = make("exp", (v * v * -0.5,)) * (1 / math.sqrt(2 * math.pi))
    return g * (cdf + v * pdf)


@row(aten.silu)
def silu(call: Call, x: Node) -> Node:
    v = cast(x, wide(x.dtype))
    return v * make("sigmoid", (v,))


@row(aten._to_copy, torch.ops.prims.convert_element_type)
def to_copy(call: Call, x: Node, *args: Any, **kwargs: Any) -> Node:
    return x


@row(aten.clone, aten.alias, aten.detach, aten.lift_fresh_copy, aten.lift_fresh,
     aten.contiguous, torch.ops.prims.device_put)
def same(call: Call, x: Node, *args: Any, **kwargs: Any) -> Node:
    return x


@row(aten.fill, aten.full_like)
def fill(call: Call, x: Node, value: Any, **kwargs: Any) -> Node:
    return operand(value, call.type.dtype, call.type.shape)


@row(aten.copy)
def copy(call: Call, x: Node, source: Node, non_blocking: bool = False) -> Node:
    return operand(source, call.type.dtype, call.type.shape)


@row(aten.heaviside)
def heaviside(call: Call, x: Any, half: Any) -> Node:
    dtype = call.type.dtype
    if dtype.is_float:
        return _apply("heaviside", dtype, call, x, half)
    v, middle = operands(dtype, call.type.shape, x, half)
    zero = operand(0, dtype, v.shape)
    above = cast(make("gt", (v, zero)), dtype)
    return build.where(make("eq", (v, zero)), middle, above)


@row(aten.addcmul)
def addcmul(call: Call, x: Node, a: Node, b: Node, *, value: Any = 1) -> Node:
    return add(call, x, _apply("mul", call.type.dtype, call, a, b), alpha=value)


@row(aten.addcdiv)
def addcdiv(call: Call, x: Node, a: Node, b: Node, *, value: Any = 1) -> Node:
    return add(call, x, _apply("div", call.type.dtype, call, a, b), alpha=value)


@row(aten.lerp)
def lerp(call: Call, x: Node, end: Node, weight: Any) -> Node:
    a, b, w = operands(call.type.dtype, call.type.shape, x, end, weight)
    near = make("lt", (make("abs", (w,)), operand(0.5, w.dtype, w.shape)))
    return build.where(near, a + w * (b - a), b - (b - a) * (1.0 - w))


@row(torch.ops.prims.fma)
def fma(call: Call, a: Any, b: Any, c: Any) -> Node:
    """A product and a sum, fused where the target may do so: optimisers step with it."""
    return _apply("add", call.type.dtype, call, _apply("mul", call.type.dtype, call, a, b), c)
