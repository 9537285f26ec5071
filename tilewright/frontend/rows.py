"""NumPy functions that are rows of the op table but no ufuncs, and ``np.frexp``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.errors import DTypeError
from tilewright.frontend.build import as_node, cast, describe_value, emit, wrap
from tilewright.frontend.elementwise import check_keywords, regular, special, typed
from tilewright.frontend.location import here
from tilewright.frontend.tracer import implements
from tilewright.ir.attrs import CastAttrs
from tilewright.ir.build import where
from tilewright.ir.graph import Node, apply
from tilewright.ir.types import bool_, f64, i32, i64


def unary(name: str) -> Callable[..., Any]:
    """The traced form of a row with one floating point input; other numbers count as f64."""
    def run(x: Any, out: Any = None) -> Any:
        check_keywords(f"np.{name}", {"out": out}, ())
        node = as_node(regular(x, f"np.{name}"))
        return wrap(emit(name, (node if node.dtype.is_float else cast(node, f64),)), x)
    run.__doc__ = f"``np.{name}``."
    return run


sinc = implements(np.sinc)(unary("sinc"))
isposinf = implements(np.isposinf)(unary("isposinf"))
isneginf = implements(np.isneginf)(unary("isneginf"))


@special(np.frexp)
def frexp(ufunc: np.ufunc, x: Any) -> Any:
    """``np.frexp``: the fraction in [0.5, 1) and the exponent, read from the bits of an f64."""
    node = typed(ufunc, x)
    if node.dtype is bool_ or not node.dtype.is_float:
        raise DTypeError("np.frexp takes floating point numbers", got=describe_value(x), loc=here())
    fraction, exponent = parts(cast(node, f64))
    return wrap(cast(fraction, node.dtype), x), wrap(cast(exponent, i32), x)


def parts(x: Node) -> tuple[Node, Node]:
    """Fraction and exponent of an f64; 0 is the exponent of zero, infinity and NaN."""
    tiny = apply("abs", x) < 2.0**-1022
    normal = where(tiny, x * 2.0**54, x)
    bits = emit("bitcast", (normal,), CastAttrs(i64))
    exponent = apply("and", apply("shr", bits, 52), 0x7FF) - 1022
    exponent = where(tiny, exponent - 54, exponent)
    half = apply("or", apply("and", bits, ~(0x7FF << 52)), 1022 << 52)
    plain = apply("and", apply("isfinite", x), apply("ne", x, 0))
    fraction = where(plain, emit("bitcast", (half,), CastAttrs(f64)), x)
    return fraction, where(plain, exponent, 0)
