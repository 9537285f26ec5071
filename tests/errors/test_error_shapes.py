"""The exact text of errors: shapes, element types and indices that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)


def test_shape_mismatch() -> None:
    @tw.jit
    def f(params, x):
        return x + params["bias"][0]

    assert message(tw.ShapeError, f, {"bias": [np.ones(5, np.float32)]}, X) == text("""
        np.add: the shapes do not broadcast
          expected: sizes that are equal or 1, aligned at the last axis
          got:      f32[3, 4] (argument x) and f32[5] (argument params['bias'][0])
          at:       HERE in f
                    return x + params["bias"][0]
          hint:     insert an axis with x[:, None], or check the transposes
    """)


def test_matmul_mismatch() -> None:
    @tw.jit
    def f(x, w):
        return x @ w

    assert message(tw.ShapeError, f, X, w=X) == text("""
        np.matmul: the shapes do not fit
          expected: equal sizes on the axes that are summed, not 4 and 3
          got:      f32[3, 4] (argument x) and f32[3, 4] (argument w)
          at:       HERE in f
                    return x @ w
          hint:     transpose an operand, or check the order of the operands
    """)


def test_reshape_mismatch() -> None:
    f = tw.jit(lambda x: x.reshape(5, -1))
    assert message(tw.ShapeError, f, X) == text("""
        np.reshape: the elements do not fill the shape
          expected: 12 elements
          got:      f32[3, 4] (argument x) to (5, -1)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x.reshape(5, -1))
    """)


def test_dtype_mismatch() -> None:
    @tw.jit
    def f(x, bits):
        return bits & x

    assert message(tw.DTypeError, f, X, np.arange(4)) == text("""
        np.bitwise_and has no meaning for these element types
          got:      i64[4] (argument bits), f32[3, 4] (argument x)
          at:       HERE in f
                    return bits & x
          hint:     NumPy does not define it either: convert with .astype
    """)


def test_python_integer_that_does_not_fit() -> None:
    f = tw.jit(lambda x: x + 300)
    assert message(tw.DTypeError, f, np.ones(3, np.uint8)) == text("""
        the Python integer 300 does not fit its partner's element type
          expected: 0 to 255 (u8)
          got:      300
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x + 300)
          hint:     convert the array to a wider type first, with .astype
    """)


@pytest.mark.parametrize("name, function", [
    ("np.where", lambda a, b: np.where(a > 0, a, b)),
    ("np.concatenate", lambda a, b: np.concatenate([a, b])),
    ("np.stack", lambda a, b: np.stack([a, b])),
    ("np.dot", lambda a, b: np.dot(a, b)),
])
def test_types_without_a_common_one(name: str, function: Callable[..., Any]) -> None:
    @tw.jit
    def f(a, b):
        return function(a, b)

    a, b = np.ones(3, ml_dtypes.bfloat16), np.ones(3, np.int32)
    assert message(tw.DTypeError, f, a, b).splitlines()[:2] == [
        f"{name}: the operands have no common element type",
        "  got:      bf16 and i32",
    ]


def test_index_outside_its_axis() -> None:
    f = tw.jit(lambda x: x[:, 7])
    assert message(tw.OutOfBounds, f, X) == text("""
        index 7 is outside axis 1
          expected: -4 to 3
          got:      7 on f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x[:, 7])
    """)


def test_maximum_of_nothing() -> None:
    f = tw.jit(lambda x: x[:0].max(axis=0))
    assert message(tw.ShapeError, f, X) == text("""
        np.max of no elements has no value
          got:      f32[0, 4]
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x[:0].max(axis=0))
          hint:     give initial=, or reduce over an axis that has elements
    """)


def test_axis_that_does_not_exist() -> None:
    f = tw.jit(lambda x: x.sum(axis=2))
    assert message(tw.ShapeError, f, X) == text("""
        np.sum: there is no axis 2
          expected: -2 to 1
          got:      2
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x.sum(axis=2))
    """)


def test_index_found_outside_while_running() -> None:
    @tw.jit
    def f(x, i):
        return np.take(x, i, axis=1)

    found = message(tw.OutOfBounds, f, X, np.array([0, 4]))
    assert found == text("""
        index outside an axis of size 4
          expected: -4 to 3
          at:       HERE in f
                    return np.take(x, i, axis=1)
    """)


def test_axis_that_is_no_integer() -> None:
    f = tw.jit(lambda x: x.sum(axis=1.5))
    assert message(tw.DTypeError, f, X) == text("""
        np.sum: an axis is not an integer
          expected: an int
          got:      1.5
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x.sum(axis=1.5))
    """)


def test_einsum_label_that_is_no_letter() -> None:
    f = tw.jit(lambda x: np.einsum("i?->i", x))
    assert message(tw.ShapeError, f, X) == text("""
        np.einsum: '?' is no label
          expected: letters, with one ... per operand, commas and one ->
          got:      i?->i
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.einsum("i?->i", x))
    """)


def test_index_that_is_no_integer() -> None:
    f = tw.jit(lambda x, i: x[i])
    assert message(tw.DTypeError, f, X, np.array([0.0, 1.0])) == text("""
        an array is indexed with something that is not an integer
          expected: integers, slices, None, ... or integer arrays
          got:      f64[2] (argument i)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x, i: x[i])
          hint:     convert it with .astype(int)
    """)
