"""The exact text of errors: what would need the contents of a traced value."""

from __future__ import annotations

import numpy as np
import pytest
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)
KEPT: list[object] = []


def test_python_if() -> None:
    @tw.jit
    def f(x):
        if x.sum() > 0:
            return x
        return -x

    assert message(tw.TraceError, f, X) == text("""
        the truth of a traced value is not known while it is traced
          got:      bool[]
          at:       HERE in f
                    if x.sum() > 0:
          hint:     instead of Python's if, while, and, or, not use np.where and np.logical_and, \
or make the argument static with static_argnames
    """)


def test_float() -> None:
    @tw.jit
    def f(x, rate):
        return x * float(rate)

    assert message(tw.TraceError, f, X, 0.1) == text("""
        float() of a traced value: its contents are not known while it is traced
          got:      f64[] (argument rate)
          at:       HERE in f
                    return x * float(rate)
          hint:     use x.astype(float), or call float() on the result outside the jitted function
    """)


def test_int() -> None:
    f = tw.jit(lambda x: x * int(x[0, 0]))
    assert message(tw.TraceError, f, X) == text("""
        int() of a traced value: its contents are not known while it is traced
          got:      f32[]
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x * int(x[0, 0]))
          hint:     use x.astype(int), or make the argument static with static_argnames
    """)


def test_index() -> None:
    @tw.jit
    def f(x, n):
        return [x for _ in range(n)]

    assert message(tw.TraceError, f, X, 3) == text("""
        a traced value cannot be used as a Python index, size or range
          got:      i64[] (argument n)
          at:       HERE in f
                    return [x for _ in range(n)]
          hint:     sizes must be known while tracing: use x.shape, or make the argument static \
with static_argnames
    """)


def test_item() -> None:
    f = tw.jit(lambda x: x.sum().item())
    assert message(tw.TraceError, f, X) == text("""
        .item() of a traced value: its contents are not known while it is traced
          got:      f32[]
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x.sum().item())
          hint:     call it on the result outside the jitted function
    """)


def test_iteration() -> None:
    @tw.jit
    def f(n):
        return [i for i in n]

    assert message(tw.TraceError, f, np.float32(3)) == text("""
        iteration over a traced 0-d array
          got:      f32[] (argument n)
          at:       HERE in f
                    return [i for i in n]
          hint:     its contents are not known while it is traced; iterate over a Python sequence, \
or make the argument static with static_argnames
    """)


def test_length_of_a_number() -> None:
    f = tw.jit(lambda x: len(x.sum()))
    assert message(tw.TraceError, f, X) == text("""
        len() of a traced 0-d array
          got:      f32[]
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: len(x.sum()))
          hint:     use x.size
    """)


def test_format() -> None:
    @tw.jit
    def f(x):
        print(f"{x.mean():.3f}")

    assert message(tw.TraceError, f, X) == text("""
        a traced value has no digits to format with '.3f'
          got:      f32[]
          at:       HERE in f
                    print(f"{x.mean():.3f}")
          hint:     return it from the jitted function and print it outside
    """)


def test_numpy_function_that_cannot_be_traced() -> None:
    f = tw.jit(lambda x: np.linalg.svd(x))
    assert message(tw.TraceError, f, X) == text("""
        the NumPy function np.linalg.svd cannot be traced
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.linalg.svd(x))
          hint:     write it with functions that can (see dir(tw.numpy)), or call it outside the \
jitted function and pass the result in
    """)


def test_ufunc_that_cannot_be_traced() -> None:
    f = tw.jit(lambda x: np.gcd(x, 2))
    assert message(tw.TraceError, f, np.arange(3)) == text("""
        the NumPy function np.gcd cannot be traced
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.gcd(x, 2))
          hint:     write it with functions that can (see dir(tw.numpy)), or call it outside the \
jitted function and pass the result in
    """)


def test_ufunc_method_that_cannot_be_traced() -> None:
    f = tw.jit(lambda x: np.add.reduceat(x, [0, 1]))
    assert message(tw.TraceError, f, X) == text("""
        the ufunc method np.add.reduceat cannot be traced
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.add.reduceat(x, [0, 1]))
          hint:     write it with slices and reductions
    """)


def test_array_method_that_cannot_be_traced() -> None:
    f = tw.jit(lambda x: x.tolist())
    assert message(tw.TraceError, f, X) == text("""
        the array method or attribute .tolist cannot be traced
          got:      f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x.tolist())
          hint:     write it with functions that can (see dir(tw.numpy))
    """)


def test_argument_that_cannot_be_traced() -> None:
    f = tw.jit(lambda x: np.exp(x, where=x > 0))
    assert message(tw.TraceError, f, X) == text("""
        the argument where= of np.exp cannot be traced
          got:      bool[3, 4]
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.exp(x, where=x > 0))
          hint:     choose with np.where(condition, a, b) afterwards
    """)


def test_conversion_to_numpy() -> None:
    f = tw.jit(lambda x: np.asarray(x))
    assert message(tw.TraceError, f, X) == text("""
        a traced value cannot become a NumPy array: its contents are not known yet
          got:      f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.asarray(x))
          hint:     use functions that dispatch (np.stack, np.where, ...) or tw.numpy.asarray
    """)


def test_boolean_mask() -> None:
    f = tw.jit(lambda x: x[x > 0])
    assert message(tw.TraceError, f, X) == text("""
        indexing with a traced boolean mask: the result has no fixed size
          got:      f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x[x > 0])
          hint:     use np.where(mask, x, 0), or a reduction with where=mask
    """)


def test_use_after_the_trace() -> None:
    @tw.jit
    def f(x):
        KEPT.append(x)
        return x

    f(X)

    def later():
        return KEPT[-1] * 2

    assert message(tw.TraceError, later) == text("""
        use of a traced value after the trace of f has ended
          got:      f32[3, 4] (argument x)
          at:       HERE in later
                    return KEPT[-1] * 2
          hint:     a traced function must return its results, not store them in an outer variable
    """)


def test_size_of_a_numpy_array() -> None:
    # NumPy itself would say "expected a sequence of integers or a single integer".
    f = tw.jit(lambda x, n: x[: np.zeros(n).size], static_argnames=())
    found = message(tw.TraceError, f, X, 3)
    assert found.startswith("a traced value cannot be used as a Python index, size or range")
    assert "i64[] (argument n)" in found


def test_an_error_of_the_users_own_stays_what_it_is() -> None:
    @tw.jit
    def f(x):
        try:
            float(x)
        except TypeError:
            pass
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        f(X)


def test_round() -> None:
    f = tw.jit(lambda x: round(x.sum()))
    assert message(tw.TraceError, f, X) == text("""
        round() of a traced value: its contents are not known while it is traced
          got:      f32[]
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: round(x.sum()))
          hint:     use np.round(x), which gives an array
    """)
