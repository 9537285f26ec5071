"""sinh, cosh, tanh and their inverses."""

from __future__ import annotations

from tilewright.codegen.vecmath.exponential import expm1_parts
from tilewright.codegen.vecmath.lanes import Lanes
from tilewright.ir.types import f32


def tanh(x: Lanes) -> Lanes:
    """(e^2x - 1) / (e^2x + 1), where the numerator keeps its relative accuracy at zero."""
    size = x.magnitude().at_most(9.2 if x.value.dtype is f32 else 19.2)
    p, power = expm1_parts(size, twice=True)
    top = power.fma(p, power - 1.0)
    # The sum shares the numerator's error, which cancels where the quotient is near one.
    return (top / (top + 2.0)).with_sign_of(x)
