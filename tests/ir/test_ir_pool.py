"""Pooling on nodes against plain loops; gradients, given and by differentiation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from window_cases import derivatives, gradients, inputs_like, taps, values

from tilewright.ir.pool import (
    Pooling,
    adaptive_avg_pool,
    adaptive_avg_pool_grad,
    adaptive_max_pool,
    avg_pool,
    avg_pool_grad,
    max_pool,
    max_pool_grad,
    max_pool_indices,
    pooling,
)

CASES: dict[str, tuple[tuple[int, ...], Pooling]] = {
    "1d": ((2, 7), pooling([3])),
    "2d": ((2, 6, 8), pooling([2, 2])),
    "overlapping": ((1, 2, 7, 7), pooling([3, 3], [2, 2], [1, 1])),
    "close": ((2, 5, 6), pooling([3, 2], [1, 1], [1, 0])),
    "gaps": ((2, 9), pooling([2], [3])),
    "dilated": ((1, 2, 9, 8), pooling([3, 2], [1, 2], [1, 0], [2, 3])),
    "ceil": ((2, 7, 8), pooling([3, 3], [2, 3], [1, 1], None, True)),
    "ceil beyond the padding": ((1, 6), pooling([2], [4], [1], None, True)),
    "uneven": ((1, 5, 5), pooling([3, 2], [2, 1], [(0, 2), (1, 0)])),
    "3d": ((2, 4, 5, 4), pooling([2, 3, 2], [2, 2, 1], [0, 1, 1])),
}


def sizes_of(shape: tuple[int, ...], p: Pooling) -> tuple[int, ...]:
    """The space of the result, window by window: each starts in the data or before it."""
    result = []
    for axis, d in enumerate(shape[len(shape) - p.dims:]):
        low, high = p.padding[axis]
        reach = (p.sizes[axis] - 1) * p.dilations[axis] + 1
        count = 0
        while count * p.strides[axis] + reach <= d + low + high or (
            p.ceil and count * p.strides[axis] < d + low
            and (count - 1) * p.strides[axis] + reach < d + low + high
        ):
            count += 1
        result.append(count)
    return tuple(result)


def each(x: np.ndarray, p: Pooling):
    """(place of the result, elements seen, their flat places), for every window."""
    lead, space = x.shape[:x.ndim - p.dims], x.shape[x.ndim - p.dims:]
    for row in np.ndindex(*lead):
        for place in product(*map(range, sizes_of(x.shape, p))):
            seen = [at for _, at in taps(p, p.sizes, place, space)]
            yield (*row, *place), [x[(*row, *at)] for at in seen], [
                int(np.ravel_multi_index(at, space)) for at in seen]


def largest(x: np.ndarray, p: Pooling) -> tuple[np.ndarray, np.ndarray]:
    """The definition of max pooling."""
    shape = (*x.shape[:x.ndim - p.dims], *sizes_of(x.shape, p))
    result, indices = np.empty(shape), np.empty(shape, np.int64)
    for place, seen, flat in each(x, p):
        best = None
        for value, at in zip(seen, flat, strict=True):
            if best is None or value > result[place] or np.isnan(value):
                best, result[place] = at, value
        indices[place] = best
    return result, indices


def mean(x: np.ndarray, p: Pooling, include: bool, divisor: int | None) -> np.ndarray:
    """The definition of average pooling."""
    space = x.shape[x.ndim - p.dims:]
    result = np.empty((*x.shape[:x.ndim - p.dims], *sizes_of(x.shape, p)))
    for place, seen, _ in each(x, p):
        count = len(seen)
        if include:
            count = 1
            for axis, i in enumerate(place[x.ndim - p.dims:]):
                low, high = p.padding[axis]
                count *= sum(
                    i * p.strides[axis] + j * p.dilations[axis] < space[axis] + low + high
                    for j in range(p.sizes[axis]))
        result[place] = sum(seen) / (divisor or count)
    return result


@pytest.mark.parametrize("filling", ["numbers", "ties", "NaN", "-inf", "ints"])
@pytest.mark.parametrize("name", CASES)
def test_max_pool(name: str, filling: str) -> None:
    shape, p = CASES[name]
    rng = np.random.default_rng(len(name))
    x = rng.normal(size=shape)
    if filling == "ties":
        x = np.round(x)
    if filling == "NaN":
        x.flat[rng.integers(0, x.size, x.size // 3)] = np.nan
    if filling == "-inf":
        x[:] = -np.inf
    if filling == "ints":
        x = rng.integers(-128, -120, shape).astype(np.int8)
    value, places = largest(x, p)
    plain, with_places, found = values(
        lambda x: (max_pool(x, p), *max_pool_indices(x, p)), x)
    np.testing.assert_array_equal(plain, value)
    np.testing.assert_array_equal(with_places, value)
    np.testing.assert_array_equal(found, places)


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_max_pool(name: str) -> None:
    shape, p = CASES[name]
    rng = np.random.default_rng(len(name))
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(float)  # no ties
    value, places = largest(x, p)
    grad = rng.normal(size=value.shape)
    lead = x.ndim - p.dims
    want = np.zeros((int(np.prod(shape[:lead])), int(np.prod(shape[lead:]))))
    rows = places.reshape(len(want), -1)
    for row in range(len(want)):
        np.add.at(want[row], rows[row], grad.reshape(rows.shape)[row])
    (given,) = values(lambda g, i: (max_pool_grad(g, i, shape, p),), grad, places)
    np.testing.assert_allclose(given, want.reshape(shape))
    (derived,) = derivatives(lambda x: max_pool(x, p), grad, x)
    np.testing.assert_allclose(derived, want.reshape(shape))


@pytest.mark.parametrize(("include", "divisor"), [(True, None), (False, None), (True, 5)])
@pytest.mark.parametrize("name", CASES)
def test_avg_pool(name: str, include: bool, divisor: int | None) -> None:
    shape, p = CASES[name]
    x = np.random.default_rng(len(name)).normal(size=shape)
    want = mean(x, p, include, divisor)
    grad = np.random.default_rng(3).normal(size=want.shape)
    value, slope = values(lambda x, g: (
        avg_pool(x, p, include, divisor), avg_pool_grad(g, x.shape, p, include, divisor)), x, grad)
    np.testing.assert_allclose(value, want)
    (exact,) = gradients(lambda x: mean(x, p, include, divisor), grad, x)
    np.testing.assert_allclose(slope, exact, atol=1e-12)
    (derived,) = derivatives(lambda x: avg_pool(x, p, include, divisor), grad, x)
    np.testing.assert_allclose(derived, exact, atol=1e-12)


SIZES = [((2, 7), (3,)), ((1, 2, 5, 7), (3, 2)), ((2, 6, 8), (3, 4)), ((1, 3, 4), (5, 7)),
         ((2, 5, 5), (5, 2)), ((1, 3, 4, 5), (1, 1, 1)), ((1, 2, 3, 4), (2, 2, 3)), ((2, 4), (4,))]


def parts(x: np.ndarray, out: tuple[int, ...]):
    """(place of the result, the part of the data that it sees) by PyTorch's definition."""
    lead = x.ndim - len(out)
    for place in np.ndindex(*x.shape[:lead], *out):
        spans = tuple(
            slice(int(np.floor(i * d / o)), int(np.ceil((i + 1) * d / o)))
            for i, d, o in zip(place[lead:], x.shape[lead:], out, strict=True))
        yield place, (*place[:lead], *spans)


@pytest.mark.parametrize(("shape", "out"), SIZES)
def test_adaptive_pools(shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    lead = len(shape) - len(out)
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(float)
    flat = np.broadcast_to(np.arange(np.prod(shape[lead:])).reshape(shape[lead:]), shape)
    grad = rng.normal(size=(*shape[:lead], *out))
    want, slope = np.empty(grad.shape), np.zeros(shape)
    best, places = np.empty(grad.shape), np.empty(grad.shape, np.int64)
    for place, span in parts(x, out):
        want[place] = x[span].mean()
        slope[span] += grad[place] / x[span].size
        best[place], places[place] = x[span].max(), flat[span].flat[x[span].argmax()]
    value, given, top, found = values(lambda x, g: (
        adaptive_avg_pool(x, out), adaptive_avg_pool_grad(g, shape), *adaptive_max_pool(x, out),
    ), x, grad)
    np.testing.assert_allclose(value, want)
    np.testing.assert_allclose(given, slope, atol=1e-12)
    np.testing.assert_array_equal(top, best)
    np.testing.assert_array_equal(found, places)
    (derived,) = derivatives(lambda x: adaptive_avg_pool(x, out), grad, x)
    np.testing.assert_allclose(derived, slope, atol=1e-12)


def test_infinities_stay_in_their_windows() -> None:
    x = np.array([[1.0, 2.0, np.inf, 4.0, 5.0, np.nan, 7.0]])
    value, mean_ = values(lambda x: (adaptive_avg_pool(x, (3,)), avg_pool(x, pooling([2]))), x)
    np.testing.assert_array_equal(np.isfinite(value), [[False, False, False]])
    np.testing.assert_array_equal(mean_, [[1.5, np.inf, np.nan]])
    (slope,) = values(lambda g: (adaptive_avg_pool_grad(g, (1, 7)),), np.array([[1.0, np.inf, 0]]))
    np.testing.assert_array_equal(slope, [[1 / 3, 1 / 3, np.inf, np.inf, np.inf, 0, 0]])


def test_sums_are_wider_than_halves() -> None:
    x = np.full((1, 4096), 1, np.float16)
    value, slope = values(
        lambda x: (avg_pool(x, pooling([4096])), avg_pool_grad(x, (1, 4098), pooling([3], [1]))),
        x)
    assert value.dtype == slope.dtype == np.float16
    np.testing.assert_array_equal(value, [[1]])
    np.testing.assert_array_equal(slope[0, 2:-2], np.float16(1))


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 axes of space need as many settings"):
        pooling([2, 2], [1])
    with pytest.raises(ValueError, match="1 or more"):
        pooling([0])
    (x,) = inputs_like(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="a window of 5 does not fit into 4"):
        max_pool(x, pooling([5]))
