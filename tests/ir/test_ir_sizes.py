"""Sizes that are known when the program runs: arithmetic in normal form, against numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import VerifyError
from tilewright.ir.decide import Undecided
from tilewright.ir.graph import Graph, full, make
from tilewright.ir.hints import estimate, hints
from tilewright.ir.interp import run_graph, run_kernel
from tilewright.ir.lex import Reader
from tilewright.ir.loops import Buffer, Const, For, Kernel, Store, Var, add, floordiv, mod, mul
from tilewright.ir.sizes import (
    Dim,
    Size,
    bounds,
    ceil_div,
    evaluate,
    evaluator,
    largest,
    less,
    may_equal,
    named,
    names_of,
    smallest,
    substitute,
)
from tilewright.ir.symbolic import conditions, places_of, specialise
from tilewright.ir.text import parse, show
from tilewright.ir.types import TensorType, f32, i64
from tilewright.ir.verify import verify

n, m = named("n"), named("m")


@st.composite
def dims(draw: st.DrawFn, depth: int = 3) -> Dim:
    """An expression of ``n``, ``m`` and numbers."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([n, m, *range(-3, 9)]))
    a, b = draw(dims(depth - 1)), draw(dims(depth - 1))
    op = draw(st.sampled_from("+-*/%<>"))
    if op in "/%":
        divisor = draw(st.sampled_from([1, 2, 3, 4, 8, n + 1, 2 * m + 2, n * m + n + m + 1]))
        return a // divisor if op == "/" else a % divisor
    if op in "<>":
        return (smallest if op == "<" else largest)(a, b)
    return a + b if op == "+" else a - b if op == "-" else a * b


VALUES = [{"n": x, "m": y} for x in (0, 1, 2, 7, 12) for y in (0, 1, 3, 8)]


def by_python(text: str, values: dict[str, int]) -> int:
    space = {"min": min, "max": max, "floordiv": lambda a, b: a // b}
    return int(eval(text, space, dict(values)))


@given(dims(), dims())
def test_arithmetic_means_what_numbers_do(a: Dim, b: Dim) -> None:
    for values in VALUES:
        x, y = evaluate(a, values), evaluate(b, values)
        assert evaluate(a + b, values) == x + y
        assert evaluate(a - b, values) == x - y
        assert evaluate(a * b, values) == x * y
        assert evaluate(smallest(a, b), values) == min(x, y)
        assert evaluate(largest(a, b), values) == max(x, y)
        for divisor in (1, 3, 4, 8):
            assert evaluate(a // divisor, values) == x // divisor
            assert evaluate(a % divisor, values) == x % divisor
            assert evaluate(ceil_div(a, divisor), values) == -(-x // divisor)
        assert less(a, b) in (None, x < y)
        low, high = bounds(a)
        assert (low is None or low <= x) and (high is None or x <= high)
        assert a != b or x == y
        assert may_equal(a, b) or any(evaluate(a - b, v) for v in VALUES)


@given(dims())
def test_text_reads_back(dim: Dim) -> None:
    assert Reader(str(dim)).dim() == dim
    for values in VALUES:
        assert by_python(str(dim), values) == evaluate(dim, values)
        assert evaluator([dim], ["n", "m"])(values["n"], values["m"]) == (evaluate(dim, values),)


def test_normal_form() -> None:
    assert (n + m) * (n - m) == n * n - m * m
    assert hash(n + m) == hash(m + n)
    assert n - n == 0 and isinstance(n - n, int)
    assert (4 * n + 8) // 4 == n + 2
    assert (64 * n + 64) // (n + 1) == 64
    assert (n * m * 6) // (2 * m) == 3 * n
    assert (4 * n) % 4 == 0
    assert n // 2 // 3 == n // 6
    assert (4 * n) // 8 == n // 2
    assert str((2 * n * m - n) // 4 + 1) == "floordiv(2*m*n - n, 4) + 1"
    assert 10 // named("k") * 0 == 0
    assert sum([n, 1, m]) == n + m + 1


def test_comparisons_hold_for_all_values_or_are_refused() -> None:
    assert n >= 0 and n + 1 > 0 and n < n + 1 and m * n + 2 > 1
    assert smallest(3, n) <= 3 and largest(3, n) >= 3 and n * 0 == 0
    assert smallest(n, n + 1) == n and largest(n, 0) == n
    for compare in (lambda: n < 3, lambda: n > m, lambda: max(n, 2), lambda: n <= 2 * m):
        with pytest.raises(Undecided, match="is known when the program runs"):
            compare()


def test_estimates_come_from_the_hints() -> None:
    assert estimate(7) == 7 and estimate(0) == 0
    assert estimate(n) == 64
    with hints({"n": 10, "m": 0}):
        assert estimate(n * 3 + 1) == 31
        assert estimate(m) == 1  # nothing is decided for what has no elements
    assert estimate(n) == 64


def test_names() -> None:
    assert names_of([2, n * m, n // 4, smallest(n, named("k"))]) == ("k", "m", "n")
    assert substitute(n * m + n // 2, {"n": 2 * m}) == 2 * m * m + m
    with pytest.raises(KeyError, match="m"):
        evaluate(n * m, {"n": 2})
    for bad in ("", "1n", "a b", "for", "min", "in", "ünicode"):
        with pytest.raises(ValueError, match="a size cannot be called"):
            named(bad)


# --- graphs and kernels with sizes ----------------------------------------------------------
GRAPH = """\
graph f(%x: f32[n, 6], %y: f32[2*m + 1, 6]) -> (f32[3*n, 2], f32[2*m + n + 1, 6], f32[n]) {
  %0 = reshape(%x) [shape=(3*n, 2)] : f32[3*n, 2]
  %1 = concat(%x, %y) [axis=0] : f32[2*m + n + 1, 6]
  %2 = sum(%x) [axes=(1,)] : f32[n]
  %3 = size() [size=6*n] : f32[n]
  %4 = div(%2, %3) : f32[n]
  return %0, %1, %4
}
"""


def test_graphs_with_sizes_print_and_parse() -> None:
    graph = parse(GRAPH)
    assert isinstance(graph, Graph)
    verify(graph)
    assert show(graph) == GRAPH
    assert parse(show(graph)).outputs == graph.outputs


def test_a_graph_means_what_its_numbers_make_of_it() -> None:
    graph = parse(GRAPH)
    assert isinstance(graph, Graph)
    x, y = np.ones((4, 6), np.float32), np.zeros((5, 6), np.float32)
    numbers = specialise(graph, {"n": 4, "m": 2})
    assert [node.type for node in numbers.inputs] == [
        TensorType(f32, (4, 6)), TensorType(f32, (5, 6))]
    shares = run_graph(numbers, [x, y])[2]
    assert np.array_equal(shares, np.full(4, 6 / 24, np.float32))


def test_where_sizes_are_read() -> None:
    assert places_of([(2 * n, 3), (4, n), (n * m, m + 2)]) == {
        "n": (1, 1, 1, 0), "m": (2, 1, 1, 2)}
    with pytest.raises(ValueError, match="the size m does not follow"):
        places_of([(n * m,), (n,)])


def test_what_is_taken_for_granted_is_listed() -> None:
    graph = parse("""\
graph f(%x: f32[n, 8]) -> (f32[floordiv(n, 2), 16], f32[4, 8], f32[n, 4, 2]) {
  %0 = reshape(%x) [shape=(floordiv(n, 2), 16)] : f32[floordiv(n, 2), 16]
  %1 = slice(%x) [starts=(0, 0), stops=(4, 8), steps=(1, 1)] : f32[4, 8]
  %2 = reshape(%x) [shape=(n, 4, 2)] : f32[n, 4, 2]
  return %0, %1, %2
}
""")
    assert isinstance(graph, Graph)
    found = [(c.a, c.relation, c.b) for c in conditions(graph.nodes())]
    assert found == [(8 * n, "==", 16 * (n // 2)), (4, "<=", n)]
    with pytest.raises(ValueError, match="reshape: 24 elements do not fill"):
        specialise(graph, {"n": 3})


KERNEL = """\
kernel scale(n: i64, x: f32[6*n] in, y: f32[6*n] out) {
  for r in 0..n parallel {
    for c in 0..6 vector(4, 1) {
      y[r * 6 + c] = x[(n - 1 - r) * 6 + c] * cast<f32>(n)
    }
  }
}
"""


def test_kernels_with_sizes() -> None:
    kernel = parse(KERNEL)
    assert isinstance(kernel, Kernel)
    verify(kernel)
    assert show(kernel) == KERNEL
    for size in (0, 1, 3):
        x, y = np.arange(6 * size, dtype=np.float32), np.empty(6 * size, np.float32)
        assert run_kernel(kernel, [x, y], 2, {"n": size}) == 0
        assert np.array_equal(y.reshape(size, 6), x.reshape(size, 6)[::-1] * size)


def test_sizes_of_kernels_are_verified() -> None:
    x = Buffer("x", f32, n * m, "global", "out")
    body = (For(Var("i"), Const(0), Var("n"), (Store(x, Var("i"), Const(0.0, f32)),), "parallel"),)
    verify(Kernel("k", (x,), body, sizes=(Var("m"), Var("n"))))
    with pytest.raises(VerifyError, match="m is no size of the kernel"):
        verify(Kernel("k", (x,), body, sizes=(Var("n"),)))
    with pytest.raises(VerifyError, match="the size n is f32, not i64"):
        verify(Kernel("k", (x,), body, sizes=(Var("m"), Var("n", f32))))


def test_index_arithmetic_takes_sizes() -> None:
    i = Var("i")
    assert mul(i, 1) == i and mul(i, 0) == Const(0)
    assert mul(i, n) == mul(n, i)
    assert floordiv(0, n) == mod(Const(0), n) == Const(0)
    assert add(n, 0) == Var("n")
    assert isinstance(n * 2, Size) and add(2 * n, 1).dtype is i64


def test_full_of_a_size_is_an_op_of_its_own() -> None:
    node = full(TensorType(f32, (2,)), 2 * n)
    assert node.op.name == "size" and node is make("size", (), node.attrs, type=node.type)
