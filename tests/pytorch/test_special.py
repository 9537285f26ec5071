"""Special functions against mpmath, which computes them to any number of digits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.types import TensorType, dtype_of
from tilewright.torch.special import bessel, error, gamma

mp = pytest.importorskip("mpmath")
besselk = functools.cache(mp.besselk)  # which is slow, and needed for k0e where it was for k0

SPREAD = np.concatenate([np.linspace(-10.3, 30.1, 120), np.geomspace(1e-5, 80, 40)])
WAVES = np.linspace(-30, 30, 121)
POSITIVE = np.linspace(0.01, 30, 120)

CASES: dict[str, tuple[Callable[[Node], Node], Callable[[Any], Any], Any, float]] = {
    "erfc": (error.erfc, mp.erfc, np.linspace(-6, 9, 150), 4),
    "erfcx": (error.erfcx, lambda x: mp.erfc(x) * mp.exp(x ** 2), np.linspace(-5, 20, 150), 4),
    "erfinv": (error.erfinv, mp.erfinv, np.linspace(-.999999, .999999, 150), 4),
    "ndtri": (error.ndtri, lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1),
              np.linspace(1e-6, 1 - 1e-6, 150), 8),
    "lgamma": (gamma.lgamma, lambda x: mp.log(abs(mp.gamma(x))), SPREAD, 30),
    "digamma": (gamma.digamma, mp.digamma, SPREAD, 30),
    "trigamma": (lambda x: gamma.polygamma(1, x), lambda x: mp.polygamma(1, x), SPREAD, 16),
    "polygamma 4": (lambda x: gamma.polygamma(4, x), lambda x: mp.polygamma(4, x), POSITIVE, 16),
    "polygamma 4, reflected": (
        lambda x: gamma.polygamma(4, x), lambda x: mp.polygamma(4, x),
        np.linspace(-9.7, -0.3, 30), 100),
    "j0": (bessel.j0, lambda x: mp.besselj(0, x), WAVES, 8),
    "j1": (bessel.j1, lambda x: mp.besselj(1, x), WAVES, 8),
    "y0": (bessel.y0, lambda x: mp.bessely(0, x), POSITIVE, 8),
    "y1": (bessel.y1, lambda x: mp.bessely(1, x), POSITIVE, 8),
    "i0": (bessel.i0, lambda x: mp.besseli(0, x), WAVES, 8),
    "i1": (bessel.i1, lambda x: mp.besseli(1, x), WAVES, 16),
    "i0e": (bessel.i0e, lambda x: mp.besseli(0, x) * mp.exp(-abs(x)), WAVES, 8),
    "i1e": (bessel.i1e, lambda x: mp.besseli(1, x) * mp.exp(-abs(x)), WAVES, 16),
    "k0": (bessel.k0, lambda x: besselk(0, x), POSITIVE, 16),
    "k1": (bessel.k1, lambda x: besselk(1, x), POSITIVE, 16),
    "k0e": (bessel.k0e, lambda x: besselk(0, x) * mp.exp(x), POSITIVE, 16),
    "k1e": (bessel.k1e, lambda x: besselk(1, x) * mp.exp(x), POSITIVE, 16),
    "spherical_j0": (bessel.spherical_j0, lambda x: mp.sin(x) / x if x else mp.mpf(1), WAVES, 4),
    "airy_ai": (bessel.airy_ai, mp.airyai, np.linspace(-10, 20, 150), 16),
}
"""The function, mpmath's, arguments, and how many units in the last place are allowed.

Near a zero the unit is that of the number 1.
"""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_as_near_as_stated(name: str, dtype: Any) -> None:
    function, exact, arguments, allowed = CASES[name]
    x = arguments.astype(dtype)
    place = input_node("x", TensorType(dtype_of(np.dtype(dtype)), x.shape))
    with np.errstate(all="ignore"):
        made = run_graph(Graph((place,), (function(place),), "special"), [x])[0]
    with mp.workdps(40):
        expected = np.array([float(exact(mp.mpf(float(v)))) for v in x])
    unit = np.finfo(dtype).eps * np.maximum(np.abs(expected), 1 if allowed >= 8 else 0)
    error = np.abs(made.astype(np.float64) - expected) / unit
    worst = int(error.argmax())
    assert error[worst] <= allowed, (x[worst], made[worst], expected[worst], error[worst])


@pytest.mark.parametrize(("function", "x", "expected"), [
    (error.erfc, [-np.inf, np.inf, np.nan], [2, 0, np.nan]),
    (error.erfinv, [-1, 1, 1.5, 0], [-np.inf, np.inf, np.nan, 0]),
    (error.ndtri, [0, 1, -0.1, 1.1], [-np.inf, np.inf, np.nan, np.nan]),
    (gamma.lgamma, [0, -1, 1, 2, np.inf, -np.inf], [np.inf, np.inf, 0, 0, np.inf, np.inf]),
    (gamma.digamma, [0.0, -0.0, -1, np.inf], [-np.inf, np.inf, np.nan, np.inf]),
    (bessel.y0, [0, -1], [-np.inf, np.nan]), (bessel.k1, [0, -1], [np.inf, np.nan]),
])
def test_corners(function: Any, x: list[float], expected: list[float]) -> None:
    place = input_node("x", TensorType(dtype_of(np.dtype(np.float32)), (len(x),)))
    with np.errstate(all="ignore"):
        made = run_graph(
            Graph((place,), (function(place),), "corners"), [np.array(x, np.float32)])[0]
    np.testing.assert_array_equal(made, np.array(expected, np.float32))
