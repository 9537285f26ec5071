"""NumPy's functions, methods and indexing on traced values: NumPy's types, shapes and values."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from frontend_harness import BF16, agrees, interpret, sample
from trace_cases import CASES, ROW, B, I, N, T, V, W, X, Y

REDUCTIONS = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "var": np.var,
    "std": np.std,
    "any": np.any,
    "all": np.all,
    "ptp": np.ptp,
    "count_nonzero": np.count_nonzero,
}
AXES = (None, 0, -1, (0, 2), (1,), ())


@pytest.mark.parametrize("dtype", ("?", "i1", "i4", "u8", "f2", "f4", "f8", BF16), ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str, dtype: object) -> None:
    function, x = REDUCTIONS[name], sample((2, 3, 4), dtype, 7)
    if dtype == "?" and name == "ptp":
        pytest.skip("NumPy does not subtract truth values")
    for axis in AXES:
        if axis == () and name in ("ptp", "mean", "var", "std"):
            continue
        agrees(lambda a, k=axis: function(a, axis=k), x)
        agrees(lambda a, k=axis: function(a, axis=k, keepdims=True), x)


@pytest.mark.parametrize("name", ("argmax", "argmin"))
@pytest.mark.parametrize("dtype", ("?", "i1", "u8", "f2", "f4", "f8"))
def test_positions(name: str, dtype: str) -> None:
    function, x = getattr(np, name), sample((3, 4, 5), dtype, 8)
    for axis in (None, 0, 1, -1):
        agrees(lambda a, k=axis: function(a, axis=k), x)
        agrees(lambda a, k=axis: function(a, axis=k, keepdims=True), x)
    agrees(
        lambda a: function(a, axis=1), np.where(x > x.dtype.type(0), x.dtype.type(0), x)
    )  # equals


def test_positions_find_the_first_nan() -> None:
    agrees(lambda x: (np.argmax(x, 1), np.argmin(x, 1), x.max(1), x.min(0)), N)


@pytest.mark.parametrize("name", CASES)
def test_function(name: str) -> None:
    def run(x, y, i, b, v, w, t, n, k):
        return CASES[name](SimpleNamespace(x=x, y=y, i=i, b=b, v=v, w=w, t=t, n=n, k=k))

    agrees(run, X, Y, I, B, V, W, T, N, ROW)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1,), ()])
def test_small_and_empty(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, "f4")
    agrees(
        lambda x: (x + 1, np.sum(x), np.prod(x), np.any(x), np.all(x), x.reshape(-1), x.T, -x), x
    )
    if shape:
        agrees(
            lambda x: (x.sum(0), np.concatenate([x, x]), x[:0], np.flip(x), np.tile(x, 2), x @ x.T),
            x,
        )


@pytest.mark.parametrize("dtype", ("i4", "f2", BF16, "?"), ids=str)
def test_products_of_other_types(dtype: object) -> None:
    x, y = sample((3, 4), dtype, 1), sample((4, 5), dtype, 2)
    if dtype == "?":
        agrees(lambda x, y: x @ y, x, y)
        return
    agrees(lambda x, y: (np.dot(x, y), np.tensordot(x, y, 1)), x, y)
    if dtype != BF16:
        agrees(lambda x, y: x @ y, x, y)


def test_bf16_products_stay_bf16() -> None:
    x, y = sample((3, 4), BF16, 1), sample((4, 5), BF16, 2)
    result = interpret(lambda x, y: x @ y, x, y)
    assert result.dtype == BF16
    np.testing.assert_allclose(
        result.astype("f4"), x.astype("f4") @ y.astype("f4"), rtol=1e-2, atol=1e-2
    )


def test_mixed_products_promote() -> None:
    agrees(lambda x, y: (x @ y.T, np.einsum("ij,ij->i", x, y)), X, Y)
    agrees(lambda x, i: (x @ i.T, np.dot(i, x.T)), X, I)


def test_in_place_operators_change_every_name_of_the_value() -> None:
    def run(x):
        total = x * 2
        alias = total
        total += 1
        total *= x
        alias -= 3
        return total, alias

    agrees(run, X)


def test_in_place_operators_keep_the_type() -> None:
    def run(x, y):
        total = x * 2
        total += y  # f32 += f64
        return total

    agrees(run, X, Y)


def test_in_place_operators_on_numbers_rebind() -> None:
    def run(x):
        total = x.sum()
        before = total
        total += 1
        return before, total

    agrees(run, X)
