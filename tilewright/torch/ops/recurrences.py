"""Functions of two arguments that are loops of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tilewright.ir.graph import Node, make
from tilewright.ir.routines import GammaAttrs, PolynomialAttrs
from tilewright.ir.types import f32, f64
from tilewright.torch.nodes import cast, operands, wide
from tilewright.torch.special import gamma
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

CHEBYSHEV = [f"chebyshev_{kind}" for kind in "tuvw"]
OTHERS = ["hermite_h", "hermite_he", "laguerre_l", "legendre_p"]


def _inputs(call: Call, *xs: Any) -> list[Node]:
    dtype = wide(call.type.dtype)
    if dtype not in (f32, f64):
        raise NotCompiled(f"the element type {dtype}")
    return operands(dtype, call.type.shape, *xs)


def _polynomial(name: str, attrs: PolynomialAttrs) -> None:
    family, _, kind = attrs.family.rpartition("_")

    @row(getattr(aten, f"special_{name}{family}_polynomial_{kind}"))
    def polynomial(call: Call, x: Any, degree: Any) -> Node:
        return make("polynomial", _inputs(call, x, degree), attrs)


for _name in CHEBYSHEV + OTHERS:
    _polynomial("", PolynomialAttrs(_name))
for _name in CHEBYSHEV:
    _polynomial("shifted_", PolynomialAttrs(_name, True))


@row(aten.special_zeta)
def zeta(call: Call, x: Any, q: Any) -> Node:
    return make("zeta", _inputs(call, x, q))


def _gamma(upper: bool) -> Callable[..., Node]:
    def function(call: Call, a: Node, x: Node) -> Node:
        order, argument = (cast(n, f64) for n in _inputs(call, a, x))
        return make("incomplete_gamma", (order, argument, gamma.lgamma(order)), GammaAttrs(upper))
    return function


row(aten.igamma)(_gamma(False))
row(aten.igammac)(_gamma(True))
