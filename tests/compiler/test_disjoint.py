"""Sums of tensors that are zero but for ranges apart: joined, with every bit of the sum."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.passes.disjoint import disjoint
from tilewright.compiler.passes.simplify import simplify
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.target import Target
from tilewright.ir.build import concat, pad, part, reduce
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.sizes import named
from tilewright.ir.text import show
from tilewright.ir.types import DType, TensorType, bool_, f16, f32, f64, i32
from tilewright.ir.verify import verify

TARGET = Target("test", 32, 16, 1 << 15, 1 << 20, 1 << 25, "", "", "")
SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan)


class Terms:
    """Random terms of a sum: tensors, and parts of tensors among zeros."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.dtype: DType = self.random.choice([f32, f32, f16, f64, i32, bool_])
        self.axis, self.size = self.random.randint(0, 1), self.random.randint(1, 13)
        self.inputs: list[Node] = []
        self.whole = self.tensor(self.size)

    def shape(self, count: int) -> tuple[int, int]:
        return (count, 2) if self.axis == 0 else (2, count)

    def tensor(self, count: int) -> Node:
        name = f"x{len(self.inputs)}"
        self.inputs.append(input_node(name, TensorType(self.dtype, self.shape(count))))
        return self.inputs[-1]

    def along(self, number: int, other: int = 0) -> tuple[int, int]:
        return (number, other) if self.axis == 0 else (other, number)

    def term(self) -> Node:
        if self.random.random() < 0.15:
            return self.tensor(self.size)
        step = self.random.choice([1, 1, 1, 2, 3])
        start = self.random.randrange(self.size)
        count = self.random.randint(1, (self.size - 1 - start) // step + 1)
        last = start + (count - 1) * step
        if self.random.random() < 0.4:
            x = part(self.whole, self.along(start), self.along(last + 1, 2), self.along(step, 1))
        else:
            x = self.tensor(count)
        return pad(x, self.along(start), self.along(self.size - 1 - last), self.along(step - 1))

    def sum(self) -> Node:
        total = self.term()
        for _ in range(self.random.randint(1, 5)):
            term = self.term()
            total = total + term if self.random.random() < 0.7 else term + total
        return total


def values_for(graph: Graph, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    result = []
    for n in graph.inputs:
        x = random.integers(-3, 4, n.shape).astype(n.dtype.numpy)
        if n.dtype.is_float:
            odd = random.choice(SPECIAL, n.shape)
            x = np.where(random.random(n.shape) < 0.4, odd, random.standard_normal(n.shape))
        result.append(x.astype(n.dtype.numpy))
    return result


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return False
    number = a == a
    return bool(np.array_equal(np.signbit(a[number]), np.signbit(b[number]))) if (
        a.dtype.kind == "f") else True


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes()]


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_every_bit_of_random_sums_is_kept(first: int) -> None:
    joined = 0
    for seed in range(first, first + 50):
        terms = Terms(seed)
        root = terms.sum()
        graph = simplify(Graph(tuple(terms.inputs), (root,)))
        better = disjoint(graph)
        verify(better)
        joined += better.outputs != graph.outputs
        arrays = values_for(graph, seed)
        with np.errstate(all="ignore"):
            want, got = run_graph(graph, arrays), run_graph(simplify(better), arrays)
        assert same_bits(want[0], got[0]), f"{seed}: {show(graph)} became {show(better)}"
    assert joined > 15


def inputs(*sizes: int) -> list[Node]:
    return [input_node(f"x{i}", TensorType(f32, (3, n))) for i, n in enumerate(sizes)]


def placed(x: Node, start: int, size: int = 8) -> Node:
    return pad(x, (0, start), (0, size - start - x.shape[1]), (0, 0))


def test_overlapping_ranges_stay_a_sum() -> None:
    a, b = inputs(5, 5)
    graph = Graph((a, b), (placed(a, 0) + placed(b, 3),))
    assert disjoint(graph).outputs == graph.outputs


def test_tensors_without_zeros_keep_their_order() -> None:
    a, b, c, d = inputs(2, 8, 8, 2)
    graph = Graph((a, b, c, d), (placed(a, 0) + b + c + placed(d, 2),))
    assert disjoint(graph).outputs == graph.outputs
    graph = Graph((a, b, d), (placed(a, 0) + b + placed(d, 2),))
    (root,) = disjoint(graph).outputs
    assert root.op.name == "add" and root.inputs[0] is b
    assert root.inputs[1].op.name == "concat"


def test_a_sum_that_is_read_elsewhere_stays_one() -> None:
    a, b, c = inputs(2, 2, 2)
    first = placed(a, 0) + placed(b, 2)
    graph = disjoint(Graph((a, b, c), (first, first + placed(c, 4))))
    assert ops(graph).count("concat") == 2
    arrays = values_for(graph, 0)
    x, y, z = arrays
    zeros = np.zeros((3, 2), np.float32)
    expected = [np.concatenate(p, 1) + 0 for p in ((x, y, zeros, zeros), (x, y, z, zeros))]
    for got, want in zip(run_graph(graph, arrays), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_minus_zero_around_a_tensor_is_no_zero() -> None:
    a, b = inputs(2, 6)
    graph = Graph((a, b), (pad(a, (0, 0), (0, 6), (0, 0), -0.0) + placed(b, 2),))
    assert disjoint(graph).outputs == graph.outputs


def test_named_sizes() -> None:
    n = named("n")
    a, b = (input_node(name, TensorType(f32, (n, d))) for name, d in (("a", 2), ("b", 3)))
    (root,) = disjoint(Graph((a, b), (
        pad(a, (0, 0), (0, 3), (0, 0)) + pad(b, (0, 2), (0, 0), (0, 0)),))).outputs
    assert root.op.name == "concat"
    c, d = (input_node(name, TensorType(f32, s)) for name, s in (("c", (1, 2)), ("d", (n - 1, 2))))
    (root,) = disjoint(Graph((c, d), (
        pad(c, (0, 0), (n - 1, 0), (0, 0)) + pad(d, (1, 0), (0, 0), (0, 0)),))).outputs
    assert root.op.name == "concat" and root.shape == (n, 2)
    e = input_node("e", TensorType(f32, (2, 2)))
    open_question = Graph((c, e), (
        pad(e, (n - 2, 0), (0, 0), (0, 0)) + pad(c, (0, 0), (n - 1, 0), (0, 0)),))
    assert disjoint(open_question).outputs == open_question.outputs


# --- users' programs ----------------------------------------------------------------------
def by_step(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A loop over an axis, as recurrent networks have it."""
    state = w
    for t in range(x.shape[1]):
        state = np.tanh(state + x[:, t])
    return state.sum()


def halves(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Two halves, turned."""
    half = x.shape[2] // 2
    first, second = x[:, :, :half], x[:, :, half:]
    return (np.concatenate([first - second * 0.5, second + first * 2], 2) ** 2 * w[0, 0]).sum()


def turns(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Every second element, and the others."""
    return (np.exp(x[:, ::2] * 0.1) * x[:, 1::2]).sum() * w[0, 0]


def tiles(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Parts of which one is left out."""
    return (x[:, 1:4] ** 2).sum() + np.sin(x[:, 6:]).sum() + w.sum()


PROGRAMS: dict[str, Callable[..., np.ndarray]] = {
    "by_step": by_step, "halves": halves, "turns": turns, "tiles": tiles}


def slope(f: Callable[..., np.ndarray], x: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    h = 1e-5
    return float((f(x + h * v, w) - f(x - h * v, w)) / (2 * h))


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_slices(name: str) -> None:
    f, random = PROGRAMS[name], np.random.default_rng(0)
    x, w, v = (random.standard_normal(s) for s in ((3, 8, 16), (3, 16), (3, 8, 16)))
    gradient = tw.jit(tw.grad(f))
    np.testing.assert_allclose((gradient(x, w) * v).sum(), slope(f, x, w, v), rtol=1e-6)
    kernels = gradient.lower(x, w).as_text("loops")
    assert "where(" not in kernels and " if " not in kernels, kernels


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_gradients(name: str) -> None:
    f, random = PROGRAMS[name], np.random.default_rng(1)
    x, w, v = (random.standard_normal(s) for s in ((3, 8, 16), (3, 16), (3, 8, 16)))
    gradient = tw.jit(tw.grad(f))
    along = tw.jit(tw.grad(lambda x, w: (tw.grad(f)(x, w) * v).sum()))
    h = 1e-5
    expected = (gradient(x + h * v, w) - gradient(x - h * v, w)) / (2 * h)
    np.testing.assert_allclose(along(x, w), expected, rtol=1e-5, atol=1e-7)


def test_one_term_for_each_element() -> None:
    """The gradient of a loop over 16 slices adds no more for each element than one over four."""
    w = np.ones((3, 6), np.float32)
    added = []
    for steps in (4, 16):
        text = tw.jit(tw.grad(by_step)).lower(np.ones((3, steps, 6), np.float32), w).as_text(
            "optimised graph")
        assert " pad(" not in text, text
        added.append(text.count(f"f32[3, {steps}, 6]"))
    assert added[0] == added[1]


def test_slices_of_parts_among_zeros() -> None:
    a, b = inputs(3, 5)
    whole = placed(a, 0) + placed(b, 3)
    graph = Graph((a, b), (part(whole, (0, 4), (3, 7), (1, 1)),))
    (root,) = simplify(disjoint(graph)).outputs
    assert [n.op.name for n in Graph((a, b), (root,)).nodes()].count("concat") == 0
    arrays = values_for(graph, 3)
    for got, want in zip(
        run_graph(Graph((a, b), (root,)), arrays), run_graph(graph, arrays), strict=True
    ):
        assert same_bits(got, want)


# --- kernels ------------------------------------------------------------------------------
SHAPES = {
    "outer axis": ((4, 40), (9, 40), 0), "inner axis": ((40, 24), (40, 17), 1),
    "only axis": ((70,), (33,), 0), "between": ((5, 4, 33), (5, 7, 33), 1),
    "short rows": ((5, 2, 3), (5, 6, 3), 1), "short parts": ((37, 1), (37, 3), 1),
    "more short parts": ((4, 150, 2), (4, 150, 1), 2),
    "blocks of rows": ((3000, 2, 8), (3000, 3, 8), 1), "both short": ((20, 3, 1), (20, 3, 1), 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_concat_asks_no_element_which_part_it_is_in(name: str) -> None:
    first, second, axis = SHAPES[name]
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(s, dtype=np.float32) for s in (first, second))

    def f(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([np.exp(a), b, a * 3], axis) * 2

    joined = tw.jit(f)
    np.testing.assert_allclose(joined(a, b), f(a, b), rtol=1e-6)
    text = joined.lower(a, b).as_text("loops")
    assert "where(" not in text and " if " not in text, text
    assert text.count("kernel ") == 1


def test_a_long_part_is_written_along_its_rows() -> None:
    """The edge of a pad is short, what is behind it is not."""
    x = np.random.default_rng(0).standard_normal((12, 40, 30), dtype=np.float32)
    widths = ((0, 0), (1, 1), (3, 0))
    padded = tw.jit(lambda x: np.pad(np.exp(x), widths))
    np.testing.assert_allclose(padded(x), np.pad(np.exp(x), widths), rtol=1e-6)
    text = padded.lower(x).as_text("loops")
    places = re.findall(r"out0\[(.*?)\] =", text)
    assert len(places) == 2 and all(re.search(r" \+ i\d*$", place) for place in places), text


def test_a_result_in_the_place_of_its_operand() -> None:
    x = input_node("x", TensorType(f32, (6, 40)))
    y = input_node("y", TensorType(f32, (2, 40)))
    added = x * 2.0 + pad(y, (1, 0), (3, 0), (0, 0))
    assert compile_graph(Graph((x, y), (added,)), TARGET, (0,)).plan.donated == (0,)
    moved = concat([y, part(x, (0, 0), (4, 40), (1, 1))], 0) * 2.0
    assert compile_graph(Graph((x, y), (moved,)), TARGET, (0,)).plan.donated == (None,)


def test_many_parts_are_stored_for_a_reduction() -> None:
    parts = [input_node(f"x{i}", TensorType(f32, (64, 16))) for i in range(6)]
    g = input_node("g", TensorType(f32, (64, 96)))
    total = reduce("sum", concat(parts, 1) * g, (1,))
    compiled = compile_graph(Graph((*parts, g), (total,)), TARGET)
    texts = [show(launch.kernel) for launch in compiled.plan.launches]
    assert len(texts) == 2 and not any("where(" in text for text in texts)
