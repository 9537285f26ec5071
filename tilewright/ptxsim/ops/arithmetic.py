"""Arithmetic on integers and floats, comparisons and selection.

f16 and bf16 results are rounded once from f32 or f64; fma is exact before its one rounding. The
approx functions are the exact ones rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tilewright.ptxsim.faults import UnknownInstruction
from tilewright.ptxsim.fused import fused_f64
from tilewright.ptxsim.scalars import KINDS, kind_of
from tilewright.ptxsim.step import Step, as_pair
from tilewright.ptxsim.table import op

HALVES = {"f16x2": "f16", "bf16x2": "bf16", "f32x2": "f32"}
TINY = {"f32": np.finfo(np.float32).tiny}


def halves(value: Any, kind: str) -> Any:
    """A packed pair as [lanes, 2] of its element type."""
    return np.ascontiguousarray(value).reshape(-1, 1).view(KINDS[HALVES[kind]])


@lru_cache(maxsize=4096)
def narrower(parts: tuple[str, ...]) -> str | None:
    """The type of all operands but the last in ``fma.rn.f32.f16`` and its kin; that is f32."""
    named = [part for part in parts if part in KINDS]
    mixed = len(named) == 2 and named[0] == "f32" and named[1] in ("f16", "bf16")
    return named[1] if mixed else None


def flushed(value: Any) -> Any:
    """Denormal f32 become zeros of their sign."""
    return np.where(np.abs(value) < TINY["f32"], np.copysign(np.float32(0), value), value)


def elementwise(step: Step, function: Callable[..., Any], kind: str | None = None) -> None:
    """The first operand = function of the others, all of the instruction's type."""
    instruction = step.instruction
    parts, operands = instruction.parts, instruction.operands
    narrow = narrower(parts)
    kind = "f32" if narrow else kind or kind_of(parts)
    if narrow:
        values = [step.read(o, narrow).astype(np.float32) for o in operands[1:-1]]
        values.append(step.read(operands[-1], kind))
    else:
        values = [step.read(o, kind) for o in operands[1:]]
    if kind in HALVES:
        pairs = [halves(np.broadcast_to(v, (step.count,)), kind) for v in values]
        result = np.asarray(function(*pairs)).astype(KINDS[HALVES[kind]])
        codes = np.ascontiguousarray(result).view(KINDS[kind])[:, 0]
        step.write(operands[0], codes, "b64" if kind == "f32x2" else "b32")
        return
    ftz = "ftz" in parts and kind == "f32"
    if ftz:
        values = [flushed(v) for v in values]
    result = function(*values)
    if "sat" in parts and kind in ("f32", "f64", "f16", "bf16"):
        result = np.where(np.isnan(result), 0, np.clip(result, 0, 1))
    if ftz:
        result = flushed(np.asarray(result, np.float32))
    step.write(operands[0], np.asarray(result, KINDS[kind]), kind)


@op("add")
def add(step: Step) -> None:
    """Sum; integers wrap or, with .sat, saturate."""
    if "sat" in step.parts and kind_of(step.parts) == "s32":
        a, b = (step.read(o, "s32").astype(np.int64) for o in step.operands[1:])
        step.write(step.operands[0], np.clip(a + b, -(2**31), 2**31 - 1).astype(np.int32), "s32")
        return
    elementwise(step, np.add)


@op("sub")
def sub(step: Step) -> None:
    """Difference."""
    elementwise(step, np.subtract)


def widened(kind: str) -> np.dtype[Any]:
    """The integer type of twice the size."""
    dtype = KINDS[kind]
    return np.dtype(f"{dtype.kind}{dtype.itemsize * 2}")


def product(step: Step, kind: str) -> Any:
    """The part of an integer product that .lo, .hi or .wide asks for, or the float product."""
    a, b = step.read(step.operands[1], kind), step.read(step.operands[2], kind)
    dtype = KINDS[kind]
    if dtype.kind not in "ui" or "lo" in step.parts:
        return a * b
    if "wide" in step.parts:
        return a.astype(widened(kind)) * b.astype(widened(kind))
    if dtype.itemsize == 8:
        exact = np.asarray(a).astype(object) * np.asarray(b).astype(object) >> 64
        return np.asarray(exact).astype(dtype)
    return (a.astype(widened(kind)) * b.astype(widened(kind)) >> 8 * dtype.itemsize).astype(dtype)


def result_kind(step: Step, kind: str) -> str:
    """The type of the result of mul and mad."""
    return f"{kind[0]}{int(kind[1:]) * 2}" if "wide" in step.parts else kind


@op("mul")
def mul(step: Step) -> None:
    """Product: floats, or .lo, .hi, .wide of integers."""
    kind = kind_of(step.parts)
    if KINDS[kind].kind in "ui" and kind not in HALVES:
        step.write(step.operands[0], product(step, kind), result_kind(step, kind))
    else:
        elementwise(step, np.multiply)


@op("mad", "fma")
def mad(step: Step) -> None:
    """a b + c."""
    kind = kind_of(step.parts)
    if KINDS[kind].kind in "ui" and kind not in HALVES:
        result = result_kind(step, kind)
        total = product(step, kind) + step.read(step.operands[3], result)
        step.write(step.operands[0], total, result)
    else:
        elementwise(step, fused)


def fused(a: Any, b: Any, c: Any) -> Any:
    """a b + c; of f32 rounded once, as products are exact in f64 and the sum is corrected."""
    if a.dtype != np.float32:
        if a.dtype == np.float64:
            return fused_f64(a, b, c)
        return np.asarray(a, np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)
    exact, other = a.astype(np.float64) * b, c.astype(np.float64)
    total = np.asarray(exact + other)
    # Rounding twice differs from rounding once where f64 came to a tie of f32, or of a denormal;
    # a zero is exact, as no sum of these numbers underflows.
    bits = total.view(np.uint64)
    doubtful = (bits & TIE_BITS == TIE) | ((bits << ONE) - ONE < LEAST_NORMAL - ONE)
    result = total.astype(np.float32)
    if doubtful.any():
        at = np.nonzero(doubtful)
        exact, other = (np.broadcast_to(x, total.shape)[at] for x in (exact, other))
        result[at] = rounded_sum(exact, other)
    return result


ONE = np.uint64(1)
TIE_BITS, TIE = np.uint64((1 << 29) - 1), np.uint64(1 << 28)
"""What f64 has beyond f32, and where it lies in the middle between two f32."""

LEAST_NORMAL = np.uint64((1023 - 126) << 53)
"""The bits of the least normal f32, as f64, without the sign."""


def rounded_sum(exact: Any, other: Any) -> Any:
    """The sum of f64 numbers rounded once to f32: it is made odd where it is not exact."""
    total = exact + other
    # The error of the f64 sum (Knuth's two-sum) decides a tie of the second rounding.
    virtual = total - exact
    error = (exact - (total - virtual)) + (other - virtual)
    odd = np.ascontiguousarray(total).view(np.int64) & 1
    inexact = (error != 0) & np.isfinite(total) & (odd == 0)
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where(inexact, np.nextafter(total, toward), total).astype(np.float32)


@op("div")
def div(step: Step) -> None:
    """Quotient; of integers toward zero."""
    elementwise(step, divide)


def divide(a: Any, b: Any) -> Any:
    """a / b, integers toward zero; by zero, all bits set."""
    dtype = np.result_type(a)
    if dtype.kind not in "ui":
        return a / b
    safe = np.where(b == 0, np.ones_like(b), b)
    quotient = a // safe
    remainder = a - quotient * safe
    quotient = quotient + ((remainder != 0) & ((a < 0) != (safe < 0)))
    return np.where(b == 0, np.array(-1).astype(dtype), quotient).astype(dtype)


@op("rem")
def rem(step: Step) -> None:
    """Remainder with the sign of the dividend."""
    elementwise(step, lambda a, b: np.fmod(a, np.where(b == 0, np.ones_like(b), b)))


@op("neg")
def neg(step: Step) -> None:
    """Negation."""
    elementwise(step, np.negative)


@op("abs")
def absolute(step: Step) -> None:
    """Magnitude."""
    elementwise(step, np.abs)


@op("min", "max")
def minmax(step: Step) -> None:
    """The smaller or greater; a number wins over NaN, unless .NaN asks for NaN."""
    keep = "NaN" in step.parts
    table: dict[str, Any] = {"min": np.minimum if keep else np.fmin,
                             "max": np.maximum if keep else np.fmax}
    choose = table[step.parts[0]]

    def chosen(*values: Any) -> Any:
        result = values[0]
        for value in values[1:]:
            result = choose(result, value)
        return result

    elementwise(step, chosen)


@op("copysign")
def copysign(step: Step) -> None:
    """The second operand with the sign of the first."""
    elementwise(step, lambda a, b: np.copysign(b, a))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "rcp": lambda x: 1 / x, "ex2": np.exp2,
    "lg2": np.log2, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
}


@op(*FUNCTIONS)
def function(step: Step) -> None:
    """sqrt, rsqrt, rcp, ex2, lg2, sin, cos, tanh."""
    chosen = FUNCTIONS[step.parts[0]]
    elementwise(step, lambda x: chosen(np.asarray(x, np.float64)))


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
    "hs": np.greater_equal,
}
BOOLEANS: dict[str, Callable[[Any, Any], Any]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
}


def compared(name: str, a: Any, b: Any) -> Any:
    """A comparison by its name; those with u hold for NaN too."""
    floats = np.result_type(a).kind not in "ui"
    unordered = (np.isnan(a) | np.isnan(b)) if floats else np.False_
    if name == "num":
        return ~unordered
    if name == "nan":
        return unordered
    if name.endswith("u") and name[:-1] in COMPARISONS:
        return COMPARISONS[name[:-1]](a, b) | unordered
    if name not in COMPARISONS:
        raise UnknownInstruction(f"the comparison {name} is not simulated")
    holds = COMPARISONS[name](a, b)
    return holds & ~unordered if name == "ne" else holds


def comparison(step: Step, first: int) -> tuple[Any, Any]:
    """The comparison that setp and set make, and its opposite, each joined with a third operand."""
    kind = kind_of(step.parts)
    a, b = (step.read(o, kind) for o in step.operands[first : first + 2])
    if kind in HALVES:
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    holds = compared(step.parts[1], a, b)
    opposite = ~np.asarray(holds)
    if len(step.operands) > first + 2:
        join = BOOLEANS[step.parts[2]]
        third = step.read(step.operands[first + 2], "pred")
        holds, opposite = join(holds, third), join(opposite, third)
    return holds, opposite


def halves_compared(step: Step) -> tuple[Any, Any]:
    """What setp finds of the lower and of the upper half of packed pairs."""
    kind = kind_of(step.parts)
    a, b = (halves(step.values(o, kind), kind).astype(np.float32) for o in step.operands[1:3])
    holds = np.asarray(compared(step.parts[1], a, b))
    if len(step.operands) > 3:
        third = step.values(step.operands[3], "pred")
        holds = BOOLEANS[step.parts[2]](holds, third[:, None])
    return holds[:, 0], holds[:, 1]


@op("setp")
def setp(step: Step) -> None:
    """A comparison into one or two predicates; of packed pairs, one for each half."""
    first, second = as_pair(step.operands[0])
    if kind_of(step.parts) in HALVES:
        holds, opposite = halves_compared(step)
    else:
        holds, opposite = comparison(step, 1)
    step.write(first, holds, "pred")
    step.write(second, opposite, "pred")


@op("set")
def set_(step: Step) -> None:
    """A comparison into a register: all bits, or 1.0."""
    holds, _ = comparison(step, 1)
    kind = next(p for p in step.parts[2:] if p in KINDS)
    if KINDS[kind].kind in "ui":
        step.write(step.operands[0], np.where(holds, -1, 0).astype(KINDS[kind]), kind)
    else:
        step.write(step.operands[0], np.where(holds, 1, 0).astype(KINDS[kind]), kind)


@op("selp")
def selp(step: Step) -> None:
    """a if the predicate holds, else b."""
    kind = kind_of(step.parts)
    a, b = (step.read(o, kind) for o in step.operands[1:3])
    step.write(step.operands[0], np.where(step.read(step.operands[3], "pred"), a, b), kind)


@op("slct")
def slct(step: Step) -> None:
    """a if c >= 0, else b."""
    a, b = (step.read(o, step.parts[-2]) for o in step.operands[1:3])
    c = step.read(step.operands[3], step.parts[-1])
    step.write(step.operands[0], np.where(c >= 0, a, b), step.parts[-2])


@op("sad")
def sad(step: Step) -> None:
    """|a - b| + c."""
    elementwise(step, lambda a, b, c: np.where(a > b, a - b, b - a) + c)


@op("dp4a")
def dp4a(step: Step) -> None:
    """The sum of four products of bytes, plus c."""
    a, b = (
        np.ascontiguousarray(step.values(o, "b32")).reshape(-1, 1)
        .view(np.int8 if kind == "s32" else np.uint8).astype(np.int64)
        for o, kind in zip(step.operands[1:3], step.parts[1:3], strict=True)
    )
    total = (a * b).sum(1) + step.values(step.operands[3], "s32")
    step.write(step.operands[0], (total & 0xFFFFFFFF).astype(np.uint32), "b32")


@op("testp")
def testp(step: Step) -> None:
    """A property of a float."""
    x = step.read(step.operands[1], kind_of(step.parts))
    tiny = np.finfo(KINDS[kind_of(step.parts)]).tiny
    properties = {
        "finite": np.isfinite(x), "infinite": np.isinf(x), "number": ~np.isnan(x),
        "notanumber": np.isnan(x), "normal": np.isfinite(x) & (np.abs(x) >= tiny),
        "subnormal": (np.abs(x) < tiny) & (x != 0),
    }
    step.write(step.operands[0], properties[step.parts[1]], "pred")
