"""NumPy's scans, sorts, quantiles and searches: traced, compiled, and compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from frontend_harness import BF16, agrees, numpy_result, same, sample
from trace_cases import B, I, N, T, V, X

import tilewright as tw
from tilewright.frontend.quantiles import METHODS

ARRAYS = {"x": X, "i": I, "b": B, "n": N, "t": T}
TIES = np.array([[2, 1, 2, 0, 1, 1], [0, 0, 3, 3, 0, 1]], np.int8)
DISCRETE = ("inverted_cdf", "closest_observation", "lower", "higher", "nearest")

ANY: dict[str, Callable[[Any], Any]] = {
    "sums": lambda x: (
        np.cumsum(x), np.cumsum(x, 0), x.cumsum(-1), np.cumsum(x, 1, dtype=np.float64),
        np.add.accumulate(x), np.cumulative_sum(x, axis=1), np.cumsum(x, dtype=bool),
    ),
    "products": lambda x: (
        np.cumprod(x, 1), x.cumprod(0), np.multiply.accumulate(x, 1),
        np.cumulative_prod(x, axis=0, include_initial=True),
    ),
    "extremes": lambda x: (np.maximum.accumulate(x), np.minimum.accumulate(x, axis=1)),
    "truths": lambda x: (np.logical_and.accumulate(x), np.logical_or.accumulate(x, 1)),
    "without NaN": lambda x: (np.nancumsum(x, 1), np.nancumprod(x), np.nanmedian(x, 0),
                              np.nanmedian(x), np.nanmedian(x, 1, keepdims=True)),
    "sort": lambda x: (np.sort(x), np.sort(x, 0), np.sort(x, None), np.sort(x, kind="stable")),
    "argsort": lambda x: (np.argsort(x, 0, kind="stable"), x.argsort(kind="stable")),
    "median": lambda x: (np.median(x), np.median(x, 0), np.median(x, 1, keepdims=True),
                         np.median(x, (0, 1))),
}

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "partition": (lambda x: (
        np.sort(np.partition(x, 2)[:, :2]), np.partition(x, (1, -1), 0)[1],
        np.partition(x, 3, None)[3], np.take_along_axis(x, np.argpartition(x, 2), 1)[:, 2],
    ), (X,)),
    "lexsort": (lambda k: (np.lexsort((k[0], k[1])), np.lexsort(k), np.lexsort((k, k % 2), 0)),
                (TIES,)),
    "logarithms": (lambda x, i: (np.logaddexp.accumulate(x, 1), np.logaddexp.accumulate(i)),
                   (X, I)),
    "searchsorted": (lambda s, x, i: (
        np.searchsorted(s, x), np.searchsorted(s, x, "right"), s.searchsorted(1),
        np.searchsorted(s, i), np.searchsorted([1, 2, 3], i),
        np.searchsorted(i[0], x, sorter=np.argsort(i[0])),
    ), (np.sort(V), X, I)),
    "digitize": (lambda s, x, i: (
        np.digitize(x, s), np.digitize(x, s, right=True), np.digitize(x, s[::-1]),
        np.digitize(i, [1, 2, 3]), np.digitize(i, [3, 2, 1], True),
    ), (np.sort(V), X, I)),
    "nothing": (lambda x, y: (
        np.cumsum(x), np.sort(x, 0), np.argsort(x, 1), np.median(x, 1), np.sort(y, 1),
        np.median(y, 1), np.median(y, 0), np.searchsorted(y[0], X), np.nanmedian(y, 1),
    ), (np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32))),
    "no axes": (lambda x: (np.cumsum(x), np.median(x), np.sort(x, None), np.searchsorted([1, 2], x),
                           np.quantile(x, [0.2, 0.8])), (np.float32(1.5),)),
    "infinities": (lambda x: (np.median(x, 1), np.sort(x), np.cumsum(x, 1), np.argsort(x, 1)),
                   (np.array([[np.inf, 1, 2], [-np.inf, np.inf, np.inf]]),)),
}


def both(function: Callable[..., Any], *arguments: Any) -> None:
    """The interpreter and machine code against NumPy."""
    agrees(function, *arguments)
    expected = tw.tree.leaves(tuple(numpy_result(function, *arguments)))
    got = tw.tree.leaves(tw.jit(function)(*arguments))
    for a, b in zip(got, expected, strict=True):
        same(a, b)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", ANY)
def test_of_any_array(name: str, array: str) -> None:
    both(ANY[name], ARRAYS[array])


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    function, arguments = CASES[name]
    both(function, *arguments)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("array", ARRAYS)
def test_quantiles(method: str, array: str) -> None:
    if array == "b" and method not in DISCRETE:
        return  # NumPy subtracts no truths
    both(lambda x: (
        np.quantile(x, 0.3, method=method), np.quantile(x, [0.0, 1.0], method=method),
        np.percentile(x, [0, 25, 50.0, 77, 100], axis=1, method=method),
        np.percentile(x, 40, method=method),
        np.quantile(x, np.array([[0.1, 0.9]]), axis=0, keepdims=True, method=method),
    ), ARRAYS[array])


@pytest.mark.parametrize("dtype", ["i1", "u8", "f2", "?", "f8", BF16], ids=str)
def test_types(dtype: Any) -> None:
    x = sample((5, 40), dtype, 3)
    if dtype != BF16:
        both(lambda x: (np.cumsum(x, 0), np.sort(x, 0), np.argsort(x, 1, kind="stable"),
                        np.median(x, 0), np.cumprod(x, 1), np.maximum.accumulate(x)), x)
        return
    wide = x.astype(np.float32)
    got = tw.jit(lambda x: (np.sort(x, 1), np.argsort(x, 1), np.median(x, 1), np.cumsum(x, 1)))(x)
    want = (np.sort(wide, 1), np.argsort(wide, 1, kind="stable"), np.median(wide, 1),
            np.cumsum(wide, 1))
    for a, b in zip(got, want, strict=True):
        same(a, b.astype(BF16) if b.dtype.kind == "f" else b)


def test_long_rows() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(3, 5000)).astype(np.float32)
    both(lambda x: (np.sort(x), np.median(x, 1), np.percentile(x, [1, 99], axis=1),
                    np.partition(x, 7)[:, 7], np.cumsum(x.astype("f8"), 1)), x)


def test_gradients() -> None:
    """Through positions: the slope of a sum of chosen elements is one where they stand."""
    x = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    slope = tw.jit(tw.grad(lambda x: np.sort(x)[-2:].sum()))(x)
    np.testing.assert_array_equal(slope, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(tw.grad(np.median)(x), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(
        tw.grad(lambda x: np.maximum.accumulate(x).sum())(x), [3, 0, 0, 2, 0])
    weights = np.arange(5.0)
    np.testing.assert_allclose(
        tw.grad(lambda x: (np.cumsum(x) * weights).sum())(x), [10, 10, 9, 7, 4])
    zeros = np.array([2.0, 0.0, 3.0, 0.0])
    np.testing.assert_allclose(tw.grad(lambda x: np.cumprod(x).sum())(zeros), [1, 8, 0, 0])
