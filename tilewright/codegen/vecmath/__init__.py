"""Vector code of the mathematical functions: builder and values in, a value out, error below 2 ulp.

Every function takes and gives f32 or f64 in any number of lanes and treats NaN, infinities, zeros
and denormals as C99 says. ``docs/vecmath.md`` lists the measured errors.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codegen.builder import Value
from tilewright.codegen.vecmath import exponential, hyperbolic, logarithm, special, trigonometric
from tilewright.codegen.vecmath.lanes import function, outlined

MATH: dict[str, Callable[..., Value]] = {
    "exp": function(exponential.exp),
    "exp2": function(exponential.exp2),
    "expm1": function(exponential.expm1),
    "log": function(logarithm.log),
    "log2": function(logarithm.log2),
    "log10": function(logarithm.log10),
    "log1p": function(logarithm.log1p),
    "sin": outlined(trigonometric.sin),
    "cos": outlined(trigonometric.cos),
    "tan": outlined(trigonometric.tan),
    "tanh": function(hyperbolic.tanh),
    "erf": function(special.erf),
}
"""By op name: ``(builder, *values) -> value``."""
