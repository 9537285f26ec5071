"""The exact text of errors: arguments, results and options that do not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)


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


def test_donated_name_that_is_misspelt() -> None:
    def call():
        return tw.jit(lambda params, x: params, donate_argnames="param")

    assert message(tw.TraceError, call) == text("""
        donate_argnames names 'param', which is no parameter
          expected: names among params, x
          got:      param
          at:       HERE in call
                    return tw.jit(lambda params, x: params, donate_argnames="param")
          hint:     did you mean 'params'?
    """)


def test_jit_of_something_that_is_no_function() -> None:
    def call():
        return tw.jit("x")

    assert message(tw.TraceError, call) == text("""
        tw.jit takes a function
          expected: a callable
          got:      str 'x'
          at:       HERE in call
                    return tw.jit("x")
          hint:     options go by name: @tw.jit(static_argnames=...)
    """)


@pytest.mark.parametrize("value", ["many", "-1", "1.5"])
def test_switch_that_cannot_be_read(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", value)
    assert message(tw.UserError, tw.config.get, "num_threads") == text(f"""
        the environment variable TILEWRIGHT_NUM_THREADS cannot be read
          expected: a whole number, 0 or more
          got:      {value!r}
          hint:     threads of a program; 0: the cores this process may use
    """)


def test_target_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_TARGET", "AVX2")
    assert message(tw.UserError, tw.jit(lambda x: x + 1), X) == text("""
        there is no target 'AVX2'
          expected: sse2, avx2, avx512, cpu, sim, cuda, pycuda
          got:      AVX2
          at:       HERE in message
                    function(*args, **kwargs)
          hint:     did you mean 'avx2'? see the switch TILEWRIGHT_TARGET
    """)


@pytest.mark.parametrize(("name", "meant"), [
    ("gpu", "cuda"), ("CUDA:1", "cuda:1"), ("sm_80", "sim:sm_80"), ("cpu:0", "cpu"), ("Sim", "sim"),
])
def test_names_of_targets_that_were_meant(name: str, meant: str) -> None:
    for use in (lambda: tw.jit(lambda x: x + 1, target=name)(X), lambda: tw.to_device(X, name)):
        assert f"hint:     did you mean {meant!r}?" in message(tw.UserError, use)


def test_target_that_is_no_name() -> None:
    assert "a target is given by its name" in message(
        tw.UserError, tw.jit(lambda x: x + 1, target=0), X)


def test_the_cpu_by_name() -> None:
    f = tw.jit(lambda x: x + 1, target="cpu")
    assert f(X).shape == X.shape
    assert "expected: an array on the CPU" in message(tw.UserError, f, tw.to_device(X, "sim"))


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


def test_stage_that_does_not_exist() -> None:
    f = tw.jit(lambda x: x)

    def look():
        return f.lower(X).as_text("hlo")

    assert message(tw.TraceError, look) == text("""
        as_text: no such stage
          expected: 'graph', 'optimised graph', 'kernels', 'loops', 'llvm', 'asm', 'ptx', 'sass'
          got:      'hlo'
          at:       HERE in look
                    return f.lower(X).as_text("hlo")
    """)


@pytest.mark.parametrize("error", [tw.ShapeError, tw.DTypeError, tw.TraceError, tw.OutOfBounds])
def test_user_errors_are_pythons_own_kinds_too(error: type[Exception]) -> None:
    assert issubclass(error, tw.UserError)
    assert issubclass(error, (ValueError, TypeError, IndexError))
