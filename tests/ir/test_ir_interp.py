"""The interpreter of both languages, against NumPy and against itself without vector loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from ir_strategies import arrays_for, graphs, kernels

from tilewright.errors import CompilerBug
from tilewright.ir.attrs import ContractAttrs, IndexAttrs, ReduceAttrs
from tilewright.ir.graph import Graph, apply, full, input_node, make
from tilewright.ir.interp import run_graph, run_kernel
from tilewright.ir.loops import For, If, Kernel, Stmt
from tilewright.ir.text import parse
from tilewright.ir.types import DTYPES, FLOATS, INTS, TensorType, bf16, f16, f32, i32


# --- graphs ---------------------------------------------------------------------------------
@settings(max_examples=80, deadline=None)
@given(graphs())
def test_results_have_the_types_of_their_nodes(graph: Graph) -> None:
    for node, array in zip(graph.outputs, run_graph(graph, arrays_for(graph)), strict=True):
        assert TensorType(node.dtype, array.shape) == node.type
        assert array.dtype == node.dtype.numpy


def test_a_layer() -> None:
    x = input_node("x", TensorType(f32, (5, 3)))
    w = input_node("w", TensorType(f32, (3, 4)))
    y = make("contract", (x, w), ContractAttrs((0, 1), (1, 2), (0, 2)))
    total = make("sum", (apply("max", y, 0),), ReduceAttrs((1,)))
    random = np.random.default_rng(0)
    a, b = random.normal(size=(5, 3)).astype("f"), random.normal(size=(3, 4)).astype("f")
    (result,) = run_graph(Graph((x, w), (total,)), [a, b])
    np.testing.assert_allclose(result, np.maximum(a @ b, 0).sum(1), rtol=1e-6)


def test_results_are_fresh_arrays() -> None:
    x = input_node("x", TensorType(f32, (2,)))
    a = np.ones(2, np.float32)
    first, second = run_graph(Graph((x,), (x, x)), [a])
    first[0] = 5
    assert a[0] == second[0] == 1


@pytest.mark.parametrize("dtype", (f16, bf16), ids=repr)
def test_half_floats_are_computed_in_f32_and_rounded_once(dtype) -> None:
    x = input_node("x", TensorType(dtype, (1000,)))
    a = np.random.default_rng(1).normal(size=1000).astype(dtype.numpy)
    graph = Graph((x,), (apply("exp", x), make("sum", (x,), ReduceAttrs((0,)))))
    exp, total = run_graph(graph, [a])
    np.testing.assert_array_equal(exp, np.exp(a.astype(np.float32)).astype(dtype.numpy))
    assert total == a.astype(np.float32).sum().astype(dtype.numpy)


@pytest.mark.parametrize("dtype", INTS, ids=repr)
def test_integer_division_never_traps(dtype) -> None:
    x, y = (input_node(n, TensorType(dtype, (3,))) for n in "xy")
    least = np.iinfo(dtype.numpy).min
    a = np.array([7, 0, least], dtype.numpy)
    b = np.array([0, 0, -1 if least else 1], dtype.numpy)
    quotient, rest = run_graph(
        Graph((x, y), (apply("floordiv", x, y), apply("mod", x, y))), [a, b])
    np.testing.assert_array_equal(quotient, [0, 0, least])
    np.testing.assert_array_equal(rest, [0, 0, 0])


@pytest.mark.parametrize("dtype", INTS, ids=repr)
def test_shifts_past_the_width_give_0_or_the_sign(dtype) -> None:
    x = input_node("x", TensorType(dtype, (2,)))
    far = full(x.type, dtype.bits)
    a = np.array([1, -1 if dtype.kind == "i" else 3], dtype.numpy)
    left, right = run_graph(Graph((x,), (apply("shl", x, far), apply("shr", x, far))), [a])
    np.testing.assert_array_equal(left, [0, 0])
    np.testing.assert_array_equal(right, [0, -1 if dtype.kind == "i" else 0])


def test_wrong_arrays_and_inputs_are_refused() -> None:
    x = input_node("x", TensorType(f32, (2,)))
    graph = Graph((x,), (x,))
    with pytest.raises(ValueError, match="0 arrays for 1 inputs"):
        run_graph(graph, [])
    with pytest.raises(ValueError, match=r"input x is f32\[2\], got float64\[2\]"):
        run_graph(graph, [np.zeros(2)])
    with pytest.raises(CompilerBug, match="the graph uses x, which is not one of its inputs"):
        run_graph(Graph((), (x,)), [])


def test_an_index_outside_its_axis_is_an_error() -> None:
    x, i = input_node("x", TensorType(f32, (3,))), input_node("i", TensorType(i32, (2,)))
    graph = Graph((x, i), (make("take", (x, i), IndexAttrs(0)),))
    a = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(run_graph(graph, [a, np.array([-1, 0], np.int32)])[0], [2, 0])
    with pytest.raises(IndexError, match="index outside an axis of size 3"):
        run_graph(graph, [a, np.array([3, 0], np.int32)])


# --- kernels --------------------------------------------------------------------------------
def without_vectors(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """The same statements with serial loops for vector loops."""
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            kind = "serial" if s.kind == "vector" else s.kind
            s = dataclasses.replace(s, body=without_vectors(s.body), kind=kind)
        elif isinstance(s, If):
            s = If(s.condition, without_vectors(s.body), without_vectors(s.orelse))
        result.append(s)
    return tuple(result)


@settings(max_examples=150, deadline=None)
@given(kernels())
def test_a_vector_loop_means_what_a_serial_loop_means(kernel: Kernel) -> None:
    serial = dataclasses.replace(kernel, body=without_vectors(kernel.body))
    random = np.random.default_rng(0)
    results = []
    for k in (kernel, serial):
        random = np.random.default_rng(0)
        arrays = [(random.normal(size=b.size) * 3).astype(b.dtype.numpy) for b in k.params]
        code = run_kernel(k, arrays)
        results.append((code, arrays))
    assert results[0][0] == results[1][0]
    for left, right in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(left, right)


def run(text: str, *arrays: np.ndarray, threads: int = 1) -> int:
    kernel = parse(text)
    assert isinstance(kernel, Kernel)
    return run_kernel(kernel, arrays, threads)


SOFTMAX = """
kernel softmax(x: f32[84] in, y: f32[84] out) {
  alloc t: f32[12] stack
  for r in 0..7 parallel {
    alloc m: f32[1] register
    m[0] = -inf:f32
    for c in 0..12 vector(8, 2) { m[0] max= x[r * 12 + c] }
    alloc s: f32[1] register
    s[0] = 0.0:f32
    for c in 0..12 vector(8, 2) {
      let e: f32 = exp(x[r * 12 + c] - m[0])
      t[c] = e
      s[0] += e
    }
    for c in 0..12 vector(8, 2) { y[r * 12 + c] = t[c] / s[0] }
  }
}
"""


@pytest.mark.parametrize("threads", (1, 2, 5, 9))
def test_softmax(threads: int) -> None:
    x = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    y = np.zeros_like(x)
    assert run(SOFTMAX, x, y, threads=threads) == 0
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-6)


def test_a_register_tile() -> None:
    text = """
    kernel tile(a: f32[60] in, b: f32[96] in, c: f32[32] out) {
      for once in 0..1 parallel {
        alloc acc: f32[32] register
        for i in 0..4 unroll { for j in 0..8 vector(4, 2) { acc[i * 8 + j] = 0.0:f32 } }
        for k in 0..12 {
          for i in 0..4 unroll {
            for j in 0..8 vector(4, 2) { acc[i * 8 + j] += a[i * 15 + k] * b[k * 8 + j] }
          }
        }
        for i in 0..4 unroll { for j in 0..8 vector(4, 2) { c[i * 8 + j] = acc[i * 8 + j] } }
      }
    }
    """
    random = np.random.default_rng(0)
    a, b = random.normal(size=(4, 15)).astype("f"), random.normal(size=(12, 8)).astype("f")
    c = np.zeros((4, 8), np.float32)
    run(text, a, b, c)
    np.testing.assert_allclose(c, a[:, :12] @ b, rtol=1e-4, atol=1e-6)


def test_masked_lanes_read_and_write_nothing() -> None:
    text = """
    kernel masked(x: f32[3] in, y: f32[8] out) {
      for i in 0..1 parallel {
        for v in 0..8 vector(4, 1) {
          y[v if v != 1] = x[v if v < 3 else 9.0:f32] + x[v - 5 if v >= 5]
        }
      }
    }
    """
    y = np.full(8, -1, np.float32)
    run(text, np.array([1, 2, 3], np.float32), y)
    np.testing.assert_array_equal(y, [1, -1, 3, 9, 9, 10, 11, 12])


def test_accumulating_over_lanes() -> None:
    text = """
    kernel sums(x: i32[9] in, n: i64[1] inout, h: i32[3] inout, b: bool[2] inout) {
      for i in 0..1 parallel {
        for v in 0..9 vector(4, 1) {
          n[0] += 1
          n[0 if x[v] > 6:i32] += 100
          h[v % 3] max= x[v]
          b[0] += x[v] == 4:i32
          b[1] and= x[v] < 8:i32
        }
      }
    }
    """
    n, h, b = np.zeros(1, np.int64), np.zeros(3, np.int32), np.array([False, True])
    run(text, np.arange(9, dtype=np.int32), n, h, b)
    assert (n[0], h.tolist(), b.tolist()) == (209, [6, 7, 8], [True, False])


def test_half_floats_accumulate_in_f32() -> None:
    text = """
    kernel half(x: bf16[300] in, s: bf16[1] inout) {
      for i in 0..1 parallel { for v in 0..300 vector(8, 1) { s[0] += x[v] } }
    }
    """
    s = np.zeros(1, bf16.numpy)
    run(text, np.ones(300, bf16.numpy), s)
    assert s[0] == 300


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=repr)
def test_undefined_contents_show(dtype) -> None:
    text = """
    kernel undefined(w: TYPE[2] workspace, y: TYPE[8] out) {
      for i in 0..1 parallel {
        alloc t: TYPE[2] stack
        for v in 0..4 vector(4, 1) {
          alloc p: TYPE[1] register
          y[v] = p[0]
        }
        y[4] = t[1]
        y[5] = w[1]
      }
    }
    """
    y, w = np.zeros(8, dtype.numpy), np.zeros(2, dtype.numpy)
    run(text.replace("TYPE", dtype.name), w, y)
    if dtype in FLOATS:
        assert np.isnan(y[:6].astype(float)).all()
    else:
        assert set(y[:6].tobytes()) == {1 if dtype.kind == "b" else 0xAB}
    assert not y[6:].any()


def test_a_missing_barrier_shows() -> None:
    text = """
    kernel turn(x: f32[8] in, w: f32[8] workspace, y: f32[8] out) {
      for i in 0..8 parallel { w[i] = x[i] }
      barrier
      for i in 0..8 parallel { y[i] = w[7 - i] }
    }
    """
    x, w, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32), np.zeros(8, np.float32)
    run(text, x, w, y, threads=2)
    np.testing.assert_array_equal(y, x[::-1])
    run(text.replace("barrier", ""), x, w, y, threads=2)
    assert np.isnan(y).any()


def test_the_first_failed_check_is_reported_and_execution_goes_on() -> None:
    text = """
    kernel checks(x: i64[4] in, y: i64[4] out) {
      for i in 0..4 parallel {
        check x[i] < 3 else 7
        check x[i] < 2 else 8
        y[i] = x[i]
      }
      for i in 0..1 parallel { for v in 0..4 vector(4, 1) { check x[v] >= 0 else 9 } }
    }
    """
    y = np.zeros(4, np.int64)
    assert run(text, np.array([0, 1, 1, 1]), y) == 0
    assert run(text, np.array([0, 2, 1, 3]), y) == 8
    assert run(text, np.array([0, 1, 1, -1]), y) == 9
    assert y.tolist() == [0, 1, 1, -1]


def test_index_arithmetic_wraps_as_i64() -> None:
    text = """
    kernel wrap(y: i64[3] out) {
      for i in 0..1 parallel {
        let big: i64 = 9223372036854775807
        y[0] = big + 1
        y[1] = (0 - big - 1) // (0 - 1)
        y[2] = 5 // i + 7 % i + (1 << 64)
      }
    }
    """
    y = np.ones(3, np.int64)
    run(text, y)
    assert y.tolist() == [-(2**63), -(2**63), 0]


BAD = {
    "store outside": ("y[i + 8] = 0.0:f32", r"y\[8\] is outside its 8 elements"),
    "load outside": ("y[i] = y[i - 1]", r"y\[-1\] is outside its 8 elements"),
    "lane outside": (
        "for v in 0..9 vector(4, 1) { y[v] = 0.0:f32 }", r"y\[8\] is outside its 8 elements"),
    "lanes collide": (
        "for v in 0..4 vector(4, 1) { y[v // 2] = cast<f32>(v) }",
        "lanes of a vector loop store to the same place of y"),
    "lanes disagree": (
        "for v in 0..4 vector(4, 1) { if v < 2 { y[v] = 0.0:f32 } }",
        "a condition differs between the lanes"),
    "bounds disagree": (
        "for v in 0..4 vector(4, 1) { for k in 0..v { y[v] = 0.0:f32 } }",
        "a bound differs between the lanes"),
    "vector in vector": (
        "for v in 0..4 vector(4, 1) { for w in 0..4 vector(4, 1) { y[w] = 0.0:f32 } }",
        "the vector loop over w is inside a vector loop"),
    "barrier inside": ("barrier", "a barrier below the top level"),
}


@pytest.mark.parametrize("name", BAD)
def test_forbidden_things_are_reported(name: str) -> None:
    line, message = BAD[name]
    text = f"kernel bad(y: f32[8] out) {{ for i in 0..8 parallel {{ {line} }} }}"
    with pytest.raises(CompilerBug, match=f"kernel bad: .*{message}"):
        run(text, np.zeros(8, np.float32))


def test_arrays_must_fit_the_parameters() -> None:
    text = "kernel k(y: f32[4] out) { for i in 0..4 parallel { y[i] = 0.0:f32 } }"
    for array, message in (
        (np.zeros(4), r"k: y is f32\[4\], got float64\[4\]"),
        (np.zeros(5, np.float32), r"k: y is f32\[4\], got float32\[5\]"),
        (np.zeros((2, 4), np.float32)[:, ::2], "k: the array for y is not contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            run(text, array)
    with pytest.raises(ValueError, match="k: 0 arrays for 1 parameters"):
        run(text)


def test_empty_loops_and_buffers() -> None:
    text = """
    kernel empty(x: f32[0] in, y: f32[2] inout) {
      for i in 0..2 parallel {
        for v in 0..0 vector(4, 1) { y[v] = x[v] }
        for v in 3..1 vector(4, 1) { y[v] = x[v] }
        for v in 0..1 vector(4, 1) { y[i] = x[v if v < 0 else 4.0:f32] }
      }
    }
    """
    y = np.zeros(2, np.float32)
    run(text, np.zeros(0, np.float32), y)
    assert y.tolist() == [4, 4]
