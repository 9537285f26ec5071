"""The exact text of errors: assignments to arrays while tracing."""

from __future__ import annotations

import numpy as np
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)
TABLE = np.arange(6.0)


def test_assignment_to_a_traced_array() -> None:
    @tw.jit
    def f(x):
        x[0] = 1
        return x

    assert message(tw.TraceError, f, X) == text("""
        in-place assignment to a traced array
          got:      f32[3, 4] (argument x)
          at:       HERE in f
                    x[0] = 1
          hint:     use y = x.at[index].set(value) or x.at[index].add(value), or np.where
    """)


def test_in_place_operator_on_an_argument() -> None:
    @tw.jit
    def f(x):
        x += 1
        return x

    assert message(tw.TraceError, f, X) == text("""
        in-place assignment to a traced array
          got:      f32[3, 4] (argument x)
          at:       HERE in f
                    x += 1
          hint:     NumPy would change the caller's array: write x = x + y instead of x += y
    """)


def test_in_place_operator_on_a_view() -> None:
    @tw.jit
    def f(x):
        y = x * 2
        row = y[0]
        y += 1
        return row

    assert message(tw.TraceError, f, X) == text("""
        in-place assignment to a traced array that shares memory with another (a view)
          got:      f32[3, 4]
          at:       HERE in f
                    y += 1
          hint:     write x = x + y instead of x += y
    """)


def test_in_place_operator_that_would_change_the_type() -> None:
    @tw.jit
    def f(i):
        y = i * 2
        y /= 3
        return y

    assert message(tw.DTypeError, f, np.arange(3)) == text("""
        in-place assignment cannot change the element type of an array
          expected: i64[3]
          got:      f64[3]
          at:       HERE in f
                    y /= 3
          hint:     write x = x + y instead of x += y, or convert with .astype
    """)


def test_assignment_to_a_captured_array() -> None:
    @tw.jit
    def f(x):
        TABLE[2] = x[0, 0]
        return x

    assert message(tw.TraceError, f, X) == text("""
        in-place assignment of a traced value to a NumPy array
          got:      f32[]
          at:       HERE in f
                    TABLE[2] = x[0, 0]
          hint:     a traced function cannot change an array in place: build the result with \
np.where, np.concatenate, np.stack or x.at[index].set(value)
    """)


def test_slice_assignment_to_a_captured_array() -> None:
    @tw.jit
    def f(x):
        TABLE[:4] = x[0]
        return x

    assert "in-place assignment of a traced value to a NumPy array" in message(tw.TraceError, f, X)


def test_in_place_operator_on_a_captured_array() -> None:
    table = np.zeros((3, 4), np.float32)

    @tw.jit
    def f(x):
        nonlocal table
        table += x
        return x

    assert message(tw.TraceError, f, X) == text("""
        in-place assignment of a traced value to a NumPy array
          got:      f32[3, 4]
          at:       HERE in f
                    table += x
          hint:     a traced function cannot change an array in place: write x = x + y instead of \
x += y or out=x, or create x with tw.numpy
    """)
