"""The exact text of errors: index arrays, and copies with some places changed."""

from __future__ import annotations

import numpy as np
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)
I = np.array([0, 1])  # noqa: E741


def test_one_of_two_indices_found_outside_while_running() -> None:
    @tw.jit
    def f(x, i, j):
        return x[i, j]

    assert message(tw.OutOfBounds, f, X, np.array([0, 0]), np.array([0, 5])) == text("""
        index outside an axis of size 4
          expected: -4 to 3
          at:       HERE in f
                    return x[i, j]
    """)


def test_place_found_outside_while_running() -> None:
    @tw.jit
    def f(x, i, j):
        return x.at[i, j].set(0)

    assert message(tw.OutOfBounds, f, X, np.array([0, -4]), np.array([0, 1])) == text("""
        index outside an axis of size 3
          expected: -3 to 2
          at:       HERE in f
                    return x.at[i, j].set(0)
    """)


def test_known_index_outside_its_axis() -> None:
    f = tw.jit(lambda x: x.at[0, [1, 4]].add(1))
    assert message(tw.OutOfBounds, f, X) == text("""
        index 4 is outside axis 1
          expected: -4 to 3
          got:      4 on f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x.at[0, [1, 4]].add(1))
    """)


def test_index_arrays_that_do_not_broadcast() -> None:
    @tw.jit
    def f(x, i):
        return x[i, np.array([0, 1, 2])]

    assert message(tw.ShapeError, f, X, I) == text("""
        an index: the shapes do not broadcast
          expected: sizes that are equal or 1, aligned at the last axis
          got:      i64[2] (argument i) and i64[3]
          at:       HERE in f
                    return x[i, np.array([0, 1, 2])]
          hint:     insert an axis with x[:, None], or check the transposes
    """)


def test_values_that_do_not_fit() -> None:
    @tw.jit
    def f(x, i):
        return x.at[i].max(np.ones(3))

    assert message(tw.ShapeError, f, X, I) == text("""
        x.at[...]: the values do not fit
          expected: (2, 4)
          got:      (3,)
          at:       HERE in f
                    return x.at[i].max(np.ones(3))
    """)


def test_mask_that_does_not_fit() -> None:
    @tw.jit
    def f(x, m):
        return x.at[m].set(0)

    assert message(tw.ShapeError, f, X, np.ones(4, bool)) == text("""
        x.at[mask]: the mask does not fit
          expected: a mask of the first axes of f32[3, 4] (argument x)
          got:      bool[4] (argument m)
          at:       HERE in f
                    return x.at[m].set(0)
    """)


def test_traced_mask_with_one_value_for_each_place() -> None:
    @tw.jit
    def f(x, v):
        return x.at[x > 0].set(v)

    assert message(tw.TraceError, f, X, np.ones(5)) == text("""
        x.at[mask] with a traced mask and one value for each place that it chooses
          got:      f64[5] (argument v)
          at:       HERE in f
                    return x.at[x > 0].set(v)
          hint:     give a value that fits all of them, or use np.where(mask, values, x) with \
values of the shape of x
    """)


def test_ufunc_at() -> None:
    @tw.jit
    def f(x, i):
        np.add.at(x, i, 1)
        return x

    assert message(tw.TraceError, f, X, I) == text("""
        the ufunc method np.add.at cannot be traced
          at:       HERE in f
                    np.add.at(x, i, 1)
          hint:     it changes an array in place: use y = x.at[indices].add(values), or .multiply, \
.max, .min
    """)


def test_put_along_axis_in_place() -> None:
    @tw.jit
    def f(x, i):
        np.put_along_axis(x, i, 0, 1)
        return x

    assert message(tw.TraceError, f, X, I) == text("""
        np.put_along_axis changes an array in place, which cannot be traced
          got:      f32[3, 4] (argument x)
          at:       HERE in f
                    np.put_along_axis(x, i, 0, 1)
          hint:     use y = tw.put_along_axis(x, indices, values, axis), which gives a copy
    """)


def test_put_along_axis_with_an_index_that_does_not_fit() -> None:
    f = tw.jit(lambda x, i: tw.put_along_axis(x, i, 0, 1))
    assert message(tw.ShapeError, f, X, np.zeros((2, 2), int)) == text("""
        tw.put_along_axis: the shape of the index does not fit
          expected: (3, 2)
          got:      i64[2, 2] (argument i)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x, i: tw.put_along_axis(x, i, 0, 1))
    """)


def test_put_along_axis_with_an_unknown_mode() -> None:
    f = tw.jit(lambda x: tw.put_along_axis(x, np.zeros((3, 1), int), 0, 1, "mean"))
    assert message(tw.ShapeError, f, X) == text("""
        tw.put_along_axis: there is no such mode
          expected: 'set', 'add', 'mul', 'max' or 'min'
          got:      'mean'
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: tw.put_along_axis(x, np.zeros((3, 1), int), 0, 1, "mean"))
    """)
