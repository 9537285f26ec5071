"""The fast tier of the functions: NVIDIA's approximations of f32, behind ``fast_math``.

Denormals are zero in them. Errors, as the CUDA C++ Programming Guide and the PTX ISA state them:
ex2 2 ulp, lg2 2^-22 absolute near 1, so that exp and log lose digits as their argument grows; tanh
2^-11 relative; sin and cos 2^-20.9 absolute between -pi and pi, and nothing of use far from there;
a quotient 2 ulp. f64 has no such tier, and what has no approximation is as it always is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tilewright.codegen.builder import Builder, Value
from tilewright.codegen.vecmath import MATH
from tilewright.compiler.target import Target
from tilewright.ir.types import f32

Function = Callable[..., Value]


def scalars(make: Function) -> Function:
    """A function of vectors, made lane by lane."""

    def each(b: Builder, *args: Value) -> Value:
        lanes = args[0].lanes
        if lanes == 1:
            return make(b, *args)
        result = Value("poison", args[0].dtype, lanes)
        for lane in range(lanes):
            parts = [
                b.define(a.dtype, 1, f"extractelement {a.typed}, i64 {lane}") for a in args]
            one = make(b, *parts)
            result = b.define(
                one.dtype, lanes, f"insertelement {result.typed}, {one.typed}, i64 {lane}")
        return result

    return each


def special(name: str) -> Function:
    """An intrinsic on f32 numbers."""

    def make(b: Builder, *args: Value) -> Value:
        types = ", ".join(["float"] * len(args))
        b.declarations.add(f"declare float @llvm.nvvm.{name}({types})")
        passed = ", ".join(a.typed for a in args)
        return b.define(f32, 1, f"call float @llvm.nvvm.{name}({passed})")

    return make


ex2, lg2 = special("ex2.approx.ftz.f32"), special("lg2.approx.ftz.f")
sin, cos = special("sin.approx.ftz.f"), special("cos.approx.ftz.f")
quotient, root, tanh_unit = special("div.full"), special("sqrt.approx.ftz.f"), special(
    "tanh.approx.f32")


def scaled(b: Builder, x: Value, factor: float) -> Value:
    """x times a number."""
    return b.binary("fmul", x, b.like(x, factor))


def exp(b: Builder, x: Value) -> Value:
    """2 to the power of x log2(e)."""
    return ex2(b, scaled(b, x, math.log2(math.e)))


def logarithm(base: float) -> Function:
    """The logarithm to a base."""

    def make(b: Builder, x: Value) -> Value:
        return scaled(b, lg2(b, x), 1 / math.log2(base))

    return make


def tanh_by_exp(b: Builder, x: Value) -> Value:
    """1 - 2 / (1 + exp(2x)), where there is no instruction."""
    below = b.binary("fadd", ex2(b, scaled(b, x, 2 * math.log2(math.e))), b.like(x, 1.0))
    return b.binary("fsub", b.like(x, 1.0), quotient(b, b.like(x, 2.0), below))


def tangent(b: Builder, x: Value) -> Value:
    """sin(x) / cos(x)."""
    return quotient(b, sin(b, x), cos(b, x))


def precise(op: str) -> Function:
    """What an op is without the fast tier."""
    if op in MATH:
        return MATH[op]
    if op == "div":
        return lambda b, x, y: b.binary("fdiv", x, y)
    return lambda b, x: b.intrinsic(op, x)


def functions(target: Target) -> dict[str, Function]:
    """The functions by op name, for a target with or without the fast tier."""
    if target.gpu is None or not target.fast_math:
        return MATH
    fast: dict[str, Function] = {
        "exp": exp, "exp2": ex2, "log": logarithm(math.e), "log2": lg2, "log10": logarithm(10),
        "sin": sin, "cos": cos, "tan": tangent, "div": quotient, "sqrt": root,
        "tanh": tanh_unit if target.gpu.sm >= 75 else tanh_by_exp,
    }

    def chosen(op: str) -> Function:
        quick, slow = scalars(fast[op]), precise(op)
        return lambda b, *args: (quick if args[0].dtype is f32 else slow)(b, *args)

    return {**MATH, **{op: chosen(op) for op in fast}}
