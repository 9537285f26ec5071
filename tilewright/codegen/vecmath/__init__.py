"""Vector code of the mathematical functions: builder and values in, a value out.

Every function takes and gives f32 or f64 in any number of lanes and treats NaN, infinities, zeros
and denormals as C99 says. ``docs/vecmath.md`` lists the measured errors.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codegen.builder import Value
from tilewright.codegen.vecmath.area import acosh, asinh, atanh
from tilewright.codegen.vecmath.exponential import exp, exp2, expm1
from tilewright.codegen.vecmath.hyperbolic import cosh, sinh, tanh
from tilewright.codegen.vecmath.inverse import acos, asin, atan, atan2
from tilewright.codegen.vecmath.lanes import Formula, function, outlined
from tilewright.codegen.vecmath.logarithm import log, log1p, log2, log10
from tilewright.codegen.vecmath.power import cbrt, power
from tilewright.codegen.vecmath.special import erf
from tilewright.codegen.vecmath.trigonometric import cos, sin, tan

INLINE: dict[str, Formula] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log2": log2, "log10": log10,
    "log1p": log1p, "tanh": tanh, "sinh": sinh, "cosh": cosh, "erf": erf,
    "asin": asin, "acos": acos, "atan": atan,
}
"""Written in place."""

CALLED: dict[str, Formula] = {
    "sin": sin, "cos": cos, "tan": tan, "atan2": atan2, "asinh": asinh, "acosh": acosh,
    "atanh": atanh, "cbrt": cbrt, "pow": power,
}
"""Written once per module and called."""

MATH: dict[str, Callable[..., Value]] = {
    **{name: function(formula) for name, formula in INLINE.items()},
    **{name: outlined(formula) for name, formula in CALLED.items()},
}
"""By op name: ``(builder, *values) -> value``."""

BOUNDS: dict[str, tuple[float, float]] = {
    "acos": (1.2, 1.3), "acosh": (0.6, 1.4), "asin": (1.2, 1.3), "asinh": (0.6, 1.5),
    "atan": (1.6, 1.8), "atan2": (1.8, 1.8), "atanh": (0.6, 1.5), "cbrt": (0.6, 0.6),
    "cos": (1.6, 1.0), "cosh": (1.5, 1.6), "erf": (1.7, 2.0), "exp": (2.0, 2.0),
    "exp2": (1.6, 1.6), "expm1": (1.7, 1.7), "log": (0.9, 1.0), "log10": (1.5, 1.6),
    "log1p": (1.7, 1.5), "log2": (1.7, 1.3), "pow": (0.6, 1.5), "sin": (1.6, 1.0),
    "sinh": (1.6, 1.7), "tan": (1.7, 1.8), "tanh": (1.4, 1.5),
}
"""Ulps that no measured error exceeds, in f32 and in f64, with and without fused multiply-add."""
