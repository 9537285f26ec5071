"""sinh, cosh, tanh and their inverses."""

from __future__ import annotations

from tilewright.codegen.vecmath.exponential import expm1_parts
from tilewright.codegen.vecmath.lanes import Lanes, horner
from tilewright.ir.types import DType, f32, f64

TANH: dict[DType, tuple[float, ...]] = {
    f32: (
        -0.3333328068256378, 0.13331405818462372, -0.05373651534318924,
        0.02062816731631756, -0.0056922961957752705,
    ),
    f64: (
        -0.33333333333332854, 0.13333333333261932, -0.053968253931194025,
        0.021869487574422614, -0.008863220980967259, 0.0035919890011464495,
        -0.0014549580024538157, 0.0005863137092872937, -0.0002285585608692717,
        7.713802631275233e-05, -1.6069510925928506e-05,
    ),
}
"""(tanh(x) / x - 1) / x^2 in powers of x^2, for |x| <= 5/8."""


def tanh(x: Lanes) -> Lanes:
    """A polynomial near zero, elsewhere 1 - 2 / (e^2x + 1)."""
    # From the limit on, tanh rounds to one.
    size = x.magnitude().at_most(9.2 if x.value.dtype is f32 else 19.2)
    square = x * x
    near = (x * square).fma(horner(square, TANH[x.value.dtype]), x)
    p, power = expm1_parts(size, twice=True)
    far = 1.0 - 2.0 / (power.fma(p, power) + 1.0)
    return (size < 0.625).then(near, far.with_sign_of(x))
