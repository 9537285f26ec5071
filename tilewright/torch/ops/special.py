"""Special functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.types import DType, f64, i32, i64
from tilewright.torch.nodes import cast, default_float, operand, wide
from tilewright.torch.special import bessel, error, gamma
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

FUNCTIONS: dict[str, Callable[[Node], Node]] = {
    "erfc": error.erfc, "special_erfcx": error.erfcx, "erfinv": error.erfinv,
    "special_ndtri": error.ndtri, "lgamma": gamma.lgamma, "digamma": gamma.digamma,
    "i0": bessel.i0, "special_i0e": bessel.i0e, "special_i1": bessel.i1,
    "special_i1e": bessel.i1e, "special_bessel_j0": bessel.j0, "special_bessel_j1": bessel.j1,
    "special_bessel_y0": bessel.y0, "special_bessel_y1": bessel.y1,
    "special_modified_bessel_i0": bessel.i0, "special_modified_bessel_i1": bessel.i1,
    "special_modified_bessel_k0": bessel.k0, "special_modified_bessel_k1": bessel.k1,
    "special_scaled_modified_bessel_k0": bessel.k0e,
    "special_scaled_modified_bessel_k1": bessel.k1e,
    "special_spherical_bessel_j0": bessel.spherical_j0, "special_airy_ai": bessel.airy_ai,
}


def _wide(x: Node) -> Node:
    return cast(x, wide(default_float(x.dtype)))


def _enter(name: str, function: Callable[[Node], Node]) -> None:
    @row(getattr(aten, name))
    def special(call: Call, x: Node) -> Node:
        return function(_wide(x))


for _name, _function in FUNCTIONS.items():
    _enter(_name, _function)


@row(aten.polygamma)
def polygamma(call: Call, n: int, x: Node) -> Node:
    if n > 16:
        raise NotCompiled("a high derivative")
    return gamma.polygamma(n, _wide(x))


# --- parts of a float ---------------------------------------------------------------------
BITS: dict[DType, tuple[DType, int, int]] = {f64: (i64, 52, 1022)}
"""By float type: the integers of its size, the bits of its fraction, and the bias less one."""


@row(aten.frexp)
def frexp(call: Call, x: Node) -> list[Node]:
    """Mantissa and exponent; a subnormal number is first brought into the normal range."""
    v = cast(x, wide(x.dtype))
    ints, fraction, bias = BITS.get(v.dtype, (i32, 23, 126))
    tiny = make("lt", (make("abs", (v,)), operand(2.0 ** (1 - bias), v.dtype, v.shape)))
    lifted = build.where(tiny, v * 2.0 ** (fraction + 1), v)
    bits = build.bitcast(lifted, ints)
    exponents = (1 << (v.dtype.bits - 1 - fraction)) - 1
    field = make("and", (make("shr", (bits, operand(fraction, ints, v.shape))),
                         operand(exponents, ints, v.shape)))
    exponent = field - build.where(tiny, operand(bias + fraction + 1, ints, v.shape),
                                   operand(bias, ints, v.shape))
    kept = make("and", (bits, operand(~(exponents << fraction), ints, v.shape)))
    mantissa = build.bitcast(make("or", (kept, operand(bias << fraction, ints, v.shape))), v.dtype)
    plain = make("and", (make("ne", (v, operand(0, v.dtype, v.shape))),
                         make("lt", (make("abs", (v,)), operand(math.inf, v.dtype, v.shape)))))
    return [build.where(plain, mantissa, v),
            build.where(plain, exponent, operand(0, ints, v.shape))]
