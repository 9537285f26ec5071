"""NumPy's medians, quantiles and percentiles on traced values: a few places of a sorted axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError
from tilewright.frontend.build import as_node, axes_of, describe_value, wrap
from tilewright.frontend.elementwise import check_keywords
from tilewright.frontend.location import here
from tilewright.frontend.ordered import places
from tilewright.frontend.tracer import Tracer, implements, refuse
from tilewright.ir.types import bf16

METHODS = (
    "inverted_cdf", "averaged_inverted_cdf", "closest_observation", "interpolated_inverted_cdf",
    "hazen", "weibull", "linear", "median_unbiased", "normal_unbiased", "lower", "higher",
    "midpoint", "nearest",
)


def rows_of(a: Any, axis: Any, name: str) -> tuple[Any, tuple[int, ...]]:
    """The reduced axes as one, the last, and their numbers."""
    shape = np.shape(a)
    axes = axes_of(axis, len(shape), name)
    moved = np.moveaxis(a, axes, range(len(shape) - len(axes), len(shape)))
    kept = tuple(d for i, d in enumerate(shape) if i not in axes)
    return np.reshape(moved, (*kept, int(np.prod([shape[i] for i in axes], dtype=int)))), axes


def kept(result: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: Any) -> Any:
    """With axes of size 1 in the place of the reduced ones, if asked; other axes stand before."""
    if keepdims in (False, None, np._NoValue):
        return result
    before = np.shape(result)[: np.ndim(result) - len(shape) + len(axes)]
    return np.reshape(result, (*before, *(1 if i in axes else d for i, d in enumerate(shape))))


def sorted_places(rows: Any, start: int, stop: int) -> Any:
    """The places ``start`` to ``stop`` of the sorted last axis."""
    node = as_node(rows)
    return wrap(places("sort", node, len(node.shape) - 1, start, stop), rows)


def with_nans(result: Any, rows: Any) -> Any:
    """NaN where the row has one."""
    if np.dtype(rows.dtype).kind in "biu":
        return result
    return np.where(np.any(np.isnan(rows), axis=-1), result.dtype.type(np.nan), result)


@implements(np.median)
def median(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False
) -> Any:
    """``np.median``: the mean of the two middle elements, or the middle one."""
    check_keywords("np.median", {"out": out}, ())
    rows, axes = rows_of(a, axis, "np.median")
    size = rows.shape[-1]
    middle = sorted_places(rows, (size - 1) // 2, size // 2 + 1) if size else rows
    return kept(with_nans(np.mean(middle, axis=-1), rows), np.shape(a), axes, keepdims)


@implements(np.nanmedian)
def nanmedian(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False
) -> Any:
    """``np.nanmedian``: NaNs stand last and are not counted."""
    check_keywords("np.nanmedian", {"out": out}, ())
    if not as_node(a).dtype.is_float:
        return median(a, axis, keepdims=keepdims)
    rows, axes = rows_of(a, axis, "np.nanmedian")
    if not rows.shape[-1]:
        return median(a, axis, keepdims=keepdims)
    count = np.count_nonzero(np.logical_not(np.isnan(rows)), axis=-1, keepdims=True)
    ends = np.concatenate([np.maximum(count - 1, 0) // 2, count // 2], axis=-1)
    # Of a row of nothing but NaN the first one is taken.
    middle = np.take_along_axis(sorted_places(rows, 0, rows.shape[-1]), ends, -1)
    return kept(np.mean(middle, axis=-1), np.shape(a), axes, keepdims)


@implements(np.percentile)
def percentile(a: Any, q: Any, *args: Any, **options: Any) -> Any:
    """``np.percentile``."""
    known(q, "np.percentile")
    fractions = q / 100 if type(q) in (int, float) else np.true_divide(q, 100)
    return quantile(a, fractions, *args, **{"name": "np.percentile", **options})


def known(q: Any, name: str) -> Any:
    """The wanted fractions, which decide what is computed."""
    if isinstance(q, Tracer):
        refuse(f"{name} of a traced q cannot be traced", "make q a number or a NumPy array")
    return q


@implements(np.quantile)
def quantile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
    method: Any = "linear", keepdims: Any = False, *, weights: Any = None,
    interpolation: Any = None, name: str = "np.quantile",
) -> Any:
    """``np.quantile`` by any of NumPy's methods, without weights."""
    check_keywords(name, {"out": out, "weights": weights, "interpolation": interpolation}, ())
    if method not in METHODS:
        raise DTypeError(f"{name}: there is no such method", expected=", ".join(METHODS),
                         got=repr(method), loc=here())
    fractions = np.asarray(known(q, name))
    if not np.all((fractions >= 0) & (fractions <= 1)):
        limit = "0 to 100" if name == "np.percentile" else "0 to 1"
        raise ShapeError(f"{name}: q is outside its range", expected=limit, got=describe_value(q),
                         loc=here())
    rows, axes = rows_of(a, axis, name)
    size = rows.shape[-1]
    if not size:
        raise ShapeError(f"{name} of no elements has no value", got=describe_value(a), loc=here())
    # NumPy's own places: the quantiles of 0, 1, 2 ...
    at = np.quantile(np.arange(float(size)), fractions, method=method)
    before = np.floor(at).astype(np.int64)
    after = np.minimum(before + 1, size - 1)
    first, stop = int(before.min(initial=size - 1)), int(after.max(initial=0)) + 1
    dtype = result_type(rows, q, method)
    ordered = np.moveaxis(sorted_places(rows, first, max(first, stop)), -1, 0)
    low = np.take(ordered, before - first, 0)
    share = np.reshape(np.asarray(at - before, dtype), (*at.shape, *(1,) * (rows.ndim - 1)))
    result = low
    if np.any(share):
        high = np.take(ordered, after - first, 0)
        apart = high - low
        near = np.where(share >= 0.5, high - apart * (1 - share), low + apart * share)
        # What is not wanted at all does not count, even if it is infinite.
        result = np.where(share == 0, low, near)
    result = np.astype(result, dtype)
    return kept(with_nans(result, rows), np.shape(a), axes, keepdims)


def result_type(rows: Any, q: Any, method: Any) -> np.dtype:
    """What NumPy gives for these element types; bf16 stays bf16."""
    dtype = as_node(rows).dtype
    if dtype is bf16:
        return dtype.numpy
    sample = np.zeros(2, dtype.numpy)
    wanted = 0.0 if type(q) in (int, float) else np.zeros_like(np.asarray(q))
    return np.asarray(np.quantile(sample, wanted, method=method)).dtype
