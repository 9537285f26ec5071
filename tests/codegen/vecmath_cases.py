"""What the vector functions are compared with: wider references, points, errors in ulp."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tilewright.ir.types import DType, f32, f64


def wide_erf(x: np.ndarray) -> np.ndarray:
    """erf by its series of positive terms, in the precision of x."""
    if x.dtype == np.float64:
        return np.array([math.erf(v) for v in x.tolist()])
    inside = np.clip(x, -7, 7)
    square = inside * inside
    term = total = inside
    for n in range(1, 180):
        term = term * square * 2 / (2 * n + 1)
        total = total + term
    return total * np.exp(-square) * 2 / np.sqrt(4 * np.arctan(np.ones_like(x)))


REFERENCE: dict[str, Callable[..., np.ndarray]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "erf": wide_erf, "cbrt": np.cbrt, "pow": np.power,
}

BINARY = ("atan2", "pow")

DOMAIN: dict[str, tuple[float, float]] = {
    "expm1": (-40, 5), "tanh": (-20, 20), "erf": (-6.5, 6.5), "sinh": (-20, 20),
    "asin": (-1, 1), "acos": (-1, 1), "atanh": (-1, 1), "acosh": (1, 10),
    "sin": (-100, 100), "cos": (-100, 100), "tan": (-100, 100),
}
"""Where the interesting arguments are; elsewhere (-10, 10)."""

SPECIAL = (
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, -1.5, 7.0, -7.0,
    math.inf, -math.inf, math.nan, 1e-30, -1e-30, 1e30, -1e30, 0.625, 1.375, 1023.0, -1075.0,
    2.0**23, 2.0**24 + 2, 2.0**52 + 1, 2.0**53, -(2.0**53), 10.0, 100.0, 1000.0,
)


def special(dtype: DType) -> np.ndarray:
    """Special numbers of this type, with the ends of its range and its denormals."""
    info = np.finfo(dtype.numpy)
    ends = [info.max, info.tiny, info.smallest_subnormal, info.smallest_subnormal * 3, info.eps]
    turns = [math.log(float(info.max)), math.log2(float(info.max)), math.log(float(info.tiny))]
    edges = np.array([*ends, *turns], np.longdouble).astype(dtype.numpy)
    above = np.nextafter(edges, dtype.numpy.type(9e9))
    around = np.concatenate([np.nextafter(edges, 0), edges, above])
    return np.concatenate([np.array(SPECIAL).astype(dtype.numpy), around, -around])


def every_bit(dtype: DType, n: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers whose bits are random: all exponents alike, some NaN."""
    bits = np.uint32 if dtype is f32 else np.uint64
    return rng.integers(0, np.iinfo(bits).max, n, dtype=bits, endpoint=True).view(dtype.numpy)


def samples(name: str, dtype: DType, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """About n arguments: special ones, the usual range, near zero and one, and all exponents."""
    type_ = dtype.numpy
    if name in BINARY:
        return pairs(name, dtype, n, rng)
    low, high = DOMAIN.get(name, (-10, 10))
    part = n // 4
    near = np.ldexp(rng.uniform(-1, 1, part), rng.integers(-30, 1, part))
    parts = (
        special(dtype), rng.uniform(low, high, part), rng.uniform(-1.6, 1.6, part // 2),
        near, 1 + near[: part // 2], every_bit(dtype, part, rng),
    )
    return (np.concatenate([p.astype(type_) for p in parts]),)


def pairs(name: str, dtype: DType, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arguments of pow and atan2: all pairs of special numbers, then random ones."""
    x, y = (a.ravel() for a in np.meshgrid(special(dtype), special(dtype)))
    part = n // 4
    most = math.log2(float(np.finfo(dtype.numpy).max))
    base = np.concatenate([
        np.exp2(rng.uniform(-most, most, part)), 1 + rng.uniform(-1, 1, part) ** 5 * 0.9,
        rng.uniform(-5, 5, part),
    ])
    if name == "pow":
        # Exponents that use the whole range of results, then small integers.
        scale = np.log2(base[: 2 * part])
        other = rng.uniform(-most * 1.1, most * 1.02, 2 * part) / np.where(scale == 0, 1, scale)
        other = np.concatenate([other, rng.integers(-20, 20, part)])
    else:
        other = np.ldexp(rng.uniform(-1, 1, 3 * part), rng.integers(-20, 20, 3 * part))
    bits = every_bit(dtype, part, rng), every_bit(dtype, part, rng)
    with np.errstate(over="ignore"):
        return (
            np.concatenate([x, base.astype(dtype.numpy), bits[0]]),
            np.concatenate([y, other.astype(dtype.numpy), bits[1]]),
        )


def wide(dtype: DType) -> np.dtype:
    """The type in which the reference is computed."""
    return np.dtype(np.float64 if dtype is f32 else np.longdouble)


def slack(dtype: DType) -> float:
    """Ulps that the reference itself may be off: a platform may have nothing wider than f64."""
    return 0.01 if dtype is f32 or np.finfo(np.longdouble).nmant > 52 else 1.0


def reference(name: str, arguments: tuple[np.ndarray, ...], dtype: DType) -> np.ndarray:
    """The function in the wider type."""
    with np.errstate(all="ignore"):
        return REFERENCE[name](*(a.astype(wide(dtype)) for a in arguments))


def ulp_error(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """|got - want| in units of the last place of got's type at want.

    NaN for NaN, infinity for what overflows and zeros of equal sign have no error; the other way
    round the error is infinite.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(np.abs(want))[1] - 1, info.minexp)
        error = np.abs(got.astype(want.dtype) - want)
        error = np.ldexp(error, info.nmant - exponent).astype(np.float64)
        rounded = want.astype(got.dtype)
    nan = np.isnan(rounded)
    equal = (rounded == got) | (nan & np.isnan(got))
    error = np.where(equal & ~np.isfinite(rounded), 0.0, error)
    unsigned = (np.signbit(rounded) != np.signbit(got)) & ~nan & (rounded == 0)
    return np.where(np.isnan(error) | unsigned, np.inf, error)


DTYPES = (f32, f64)
