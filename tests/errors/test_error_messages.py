"""The exact text of every error that a user's mistake while tracing can cause."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)
TABLE = np.arange(6.0)
KEPT: list[object] = []


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
          hint:     instead of Python's if, while, and, or, not use np.where and np.logical_and, or \
make the argument static with static_argnames
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
          hint:     sizes must be known while tracing: use x.shape, or make the argument static with \
static_argnames
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
          hint:     its contents are not known while it is traced; iterate over a Python sequence, or \
make the argument static with static_argnames
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
    f = tw.jit(lambda x: np.add.accumulate(x))
    assert message(tw.TraceError, f, X) == text("""
        the ufunc method np.add.accumulate cannot be traced
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.add.accumulate(x))
          hint:     use a loop over x[i], or a matrix product with a triangle of ones
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


def test_index_outside_its_axis() -> None:
    f = tw.jit(lambda x: x[:, 7])
    assert message(tw.OutOfBounds, f, X) == text("""
        index 7 is outside axis 1
          expected: -4 to 3
          got:      7 on f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x[:, 7])
    """)


def test_unhashable_static_argument() -> None:
    @tw.jit(static_argnames="axes")
    def f(x, axes):
        return x.sum(axes)

    def call():
        return f(X, axes=[0, 1])

    assert message(tw.TraceError, call) == text("""
        the static argument 'axes' is not hashable
          expected: a value with __hash__ and __eq__, such as a number, a string, a tuple or a \
frozen dataclass
          got:      list [0, 1]
          at:       HERE in call
                    return f(X, axes=[0, 1])
          hint:     make it a tuple, or leave it out of static_argnames if it holds arrays
    """)


def test_static_name_that_is_no_parameter() -> None:
    def decorate():
        return tw.jit(lambda x, n: x, static_argnames="m")

    assert message(tw.TraceError, decorate) == text("""
        static_argnames names 'm', which is no parameter
          expected: names among x, n
          got:      m
          at:       HERE in decorate
                    return tw.jit(lambda x, n: x, static_argnames="m")
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
          got:      float32[3, 4]
          at:       HERE in f
                    table += x
          hint:     a traced function cannot change an array in place: write x = x + y instead of \
x += y or out=x, or create x with tw.numpy
    """)


def test_unsupported_dtype() -> None:
    f = tw.jit(lambda params: params)

    def call():
        return f({"w": [X, np.ones(3, np.complex128)]})

    assert message(tw.DTypeError, call) == text("""
        the argument params['w'][1] has a type that is not supported
          expected: a NumPy array or number of one of bool, i8, i16, i32, i64, u8, u16, u32, u64, \
f16, bf16, f32, f64
          got:      an array of dtype complex128
          at:       HERE in call
                    return f({"w": [X, np.ones(3, np.complex128)]})
          hint:     convert it with .astype before the call
    """)


def test_object_array() -> None:
    f = tw.jit(lambda x: x)

    def call():
        return f(np.array([1, None]))

    assert message(tw.DTypeError, call) == text("""
        the argument x has a type that is not supported
          expected: a NumPy array or number of one of bool, i8, i16, i32, i64, u8, u16, u32, u64, \
f16, bf16, f32, f64
          got:      an array of dtype object
          at:       HERE in call
                    return f(np.array([1, None]))
          hint:     object arrays hold Python objects: convert to a numeric dtype with .astype
    """)


@dataclasses.dataclass
class Config:
    name: str
    scale: object


def test_argument_that_is_no_array() -> None:
    f = tw.jit(lambda x, config: x * config.scale)

    def call():
        return f(X, Config("a", 2.0))

    assert message(tw.DTypeError, call) == text("""
        the argument config.name has a type that is not supported
          expected: a NumPy array or number of one of bool, i8, i16, i32, i64, u8, u16, u32, u64, \
f16, bf16, f32, f64
          got:      builtins.str
          at:       HERE in call
                    return f(X, Config("a", 2.0))
          hint:     pass it as a static argument with static_argnames, or leave it out
    """)


def test_captured_object_array() -> None:
    names = np.array(["a", "b"])
    f = tw.jit(lambda x: x[:, :2] * names)
    assert message(tw.DTypeError, f, X) == text("""
        an operand of np.multiply has an element type that is not supported
          expected: one of bool, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64
          got:      <U1
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: x[:, :2] * names)
          hint:     convert it with .astype before it goes in
    """)


def test_integer_argument_that_does_not_fit() -> None:
    f = tw.jit(lambda n: n + 1)

    def call():
        return f(2**70)

    assert message(tw.DTypeError, call) == text("""
        the argument n is a Python integer that does not fit
          expected: -2**63 to 2**63 - 1 (i64)
          got:      1180591620717411303424
          at:       HERE in call
                    return f(2**70)
          hint:     pass np.uint64(value) or a float
    """)


def test_result_that_is_no_array() -> None:
    @tw.jit
    def f(x):
        return {"x": x, "name": "f"}

    def call():
        return f(X)

    assert message(tw.DTypeError, call) == text("""
        result['name'] cannot be returned from a traced function
          expected: arrays and numbers in dicts, lists, tuples and dataclasses
          got:      'f'
          at:       HERE in f
                    @tw.jit
    """)


def test_different_tree_structure() -> None:
    @tw.jit
    def f(params, grads):
        return tw.tree.map(lambda p, g: p - g, params, grads)

    params = {"layers": [{"w": X, "b": X}, {"w": X}]}
    grads = {"layers": [{"w": X, "b": X}, {"w": X, "b": X}]}
    assert message(tw.TraceError, f, params, grads) == text("""
        tree.map: tree 2 has another structure
          expected: dict with the keys ['w'] at ['layers'][1]
          got:      dict with the keys ['b', 'w'] at ['layers'][1]
          at:       HERE in f
                    return tw.tree.map(lambda p, g: p - g, params, grads)
          hint:     compare tw.tree.structure of both; None is a tree without leaves
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


def test_stage_that_does_not_exist() -> None:
    f = tw.jit(lambda x: x)

    def look():
        return f.lower(X).as_text("ptx")

    assert message(tw.TraceError, look) == text("""
        as_text: no such stage
          expected: 'graph', 'optimised graph', 'kernels', 'loops', 'llvm', 'asm'
          got:      'ptx'
          at:       HERE in look
                    return f.lower(X).as_text("ptx")
    """)


def test_index_found_outside_while_running() -> None:
    @tw.jit
    def f(x, i):
        return np.take(x, i, axis=1)

    found = message(tw.OutOfBounds, f, X, np.array([0, 4]))
    assert found == text("""
        index outside an axis of size 4
          at:       HERE in f
                    return np.take(x, i, axis=1)
    """)


@pytest.mark.parametrize("error", [tw.ShapeError, tw.DTypeError, tw.TraceError, tw.OutOfBounds])
def test_user_errors_are_pythons_own_kinds_too(error: type[Exception]) -> None:
    assert issubclass(error, tw.UserError)
    assert issubclass(error, (ValueError, TypeError, IndexError))
