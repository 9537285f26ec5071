"""Scans, sorts and searches as kernels: what shares a kernel, long rows, ties, and all lengths."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import config
from tilewright.codegen.cpu import build, host_target
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import ShapeError
from tilewright.ir import ops, ordered
from tilewright.ir.attrs import IotaAttrs
from tilewright.ir.graph import Graph, apply, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.sizes import named
from tilewright.ir.symbolic import specialise
from tilewright.ir.types import DTYPES, TensorType, dtype_of
from tilewright.runtime.executable import Executable, SizedExecutable

assert ops
TARGET = host_target()


def compiled(builder, *arrays):
    """(the plan, its results, what the interpreter of graphs gives)."""
    nodes = [input_node(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    found = builder(*nodes)
    graph = Graph(tuple(nodes), found if isinstance(found, tuple) else (found,))
    with config.override(verify=1):
        plan = compile_graph(graph, TARGET).plan
    return plan, Executable(plan, build(plan, TARGET))(arrays), run_graph(graph, arrays)


def same(got, want):
    """Equal, NaN and the sign of zero included."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        if dtype_of(a).is_float:
            a, b = a.astype(np.float64), b.astype(np.float64)
        np.testing.assert_array_equal(a, b)
        if a.dtype.kind == "f":
            number = b == b
            np.testing.assert_array_equal(np.signbit(a)[number], np.signbit(b)[number])


def ties(dtype, shape, seed=0):
    """Few different values, among them the extremes, both zeros and NaN."""
    random = np.random.default_rng(seed)
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    if dtype.is_float:
        special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-3]
    else:
        info = np.iinfo(dtype.numpy)
        special = [info.min, info.max, 0, 1, info.max - 1]
    values = np.array(special, object).astype(dtype.numpy)
    return np.where(random.random(shape) < 0.5, random.choice(values, shape),
                    random.normal(0, 50, shape).astype(np.int8).astype(dtype.numpy))




@pytest.mark.parametrize(("builder", "shape"), [
    (lambda x: ordered.sort(apply("exp", x), 1), (5, 40)),
    (lambda x: ordered.topk(x, 3, 1), (4, 500)),
    (lambda x: ordered.cumulative_extreme("max", x * 2, 1), (9, 30)),
    (lambda x: ordered.cumulative_extreme("min", x, 0), (30, 9)),
    (lambda x: ordered.scan("add", apply("square", x), 1) + x, (3, 30)),
    (lambda x: (ordered.sort(x, 1)[0] * x, ordered.argsort(x, 1)), (5, 200)),
])
def test_one_kernel(builder, shape):
    """Values and positions share a kernel; what is elementwise joins it, before and after."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    plan, got, want = compiled(builder, x)
    assert len(plan.launches) == 1
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("descending", [False, True])
def test_ties(dtype, descending):
    def builder(short, long):
        return (*ordered.sort(short, 1, descending), *ordered.sort(long, 1, descending),
                *ordered.topk(long, 3, 1, descending), *ordered.kth_value(long, 200, 1))
    _, got, want = compiled(builder, ties(dtype, (3, 40)), ties(dtype, (2, 400), 1))
    same(got, want)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 64, 65, 255, 511, 512, 3000, 20000])
def test_lengths_of_sorts(size):
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    wide = np.random.default_rng(size).integers(-2**62, 2**62, size)
    few = np.random.default_rng(size).integers(0, 3, size)
    middle = size // 2
    _, got, want = compiled(
        lambda x, y, z: (*ordered.sort(x, 0), *ordered.sort(y, 0, True), *ordered.sort(z, 0),
                         *ordered.places_of(x, 0, False, middle, middle + 1),
                         *ordered.places_of(z, 0, True, size - 1, size)), x, wide, few)
    same(got, want)


@pytest.mark.parametrize("name", ["add", "max", "recurrence", "argmin", "logcumsumexp"])
@pytest.mark.parametrize("shape", [(7681,), (3841,), (9, 481), (8, 961), (16, 7), (2, 3, 5, 130)])
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_of_scans(name, shape, reverse):
    """Around the blocks, segments and rows that run side by side; across them on two axes."""
    random = np.random.default_rng(0)
    x = random.normal(size=shape)
    factors = random.uniform(-1, 1, shape)

    def one(x, factors, axis):
        if name == "recurrence":
            return ordered.recurrence(factors, x, axis, reverse)
        if name == "argmin":
            return ordered.cumulative_extreme("min", x, axis, reverse)[1]
        if name == "logcumsumexp":
            return ordered.logcumsumexp(x, axis, reverse)
        return ordered.scan(name, x, axis, reverse)
    _, got, want = compiled(
        lambda x, f: tuple(one(x, f, axis) for axis in (0, -1)), x, factors)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_row_of_nothing_but_infinities():
    x = np.full((3, 1000), -np.inf)
    x[1, 500], x[2, 3] = 1.0, np.inf
    _, got, want = compiled(lambda x: ordered.logcumsumexp(x, 1), x)
    np.testing.assert_allclose(got[0], want[0])


def test_integers_wrap():
    x = np.full((2, 1000), 100, np.int8)
    _, got, want = compiled(lambda x: (ordered.scan("add", x, 1), ordered.scan("mul", x, 1)), x)
    same(got, want)


def test_a_team_gives_what_one_thread_gives():
    x = ties(DTYPES["f32"], (11, 150))
    nodes = (input_node("x", TensorType(DTYPES["f32"], x.shape)),)
    results = (*ordered.sort(nodes[0], 1), *ordered.topk(nodes[0], 2, 0),
               *ordered.cumulative_extreme("max", nodes[0], 1))
    graph = Graph(nodes, results)
    plan = compile_graph(graph, TARGET).plan
    want = run_graph(graph, [x])
    for threads, backwards in ((1, False), (3, True)):
        same(run_plan(plan, [x], threads, backwards), want)


def test_a_search_in_computed_rows_reads_them_from_memory():
    """The rows are computed once, not at each step of the search."""
    rows, values = np.arange(50.0), np.linspace(-1, 60, 300)
    plan, got, want = compiled(
        lambda a, v: ordered.searchsorted(apply("exp", a * 0.1), apply("exp", v * 0.1)) * 2,
        rows, values)
    assert len(plan.launches) == 2
    same(got, want)


def test_a_search_that_two_kernels_read_is_stored():
    rows, values = np.arange(50.0), np.linspace(-1, 60, 40)

    def builder(a, v):
        found = ordered.searchsorted(a, v)
        wide = make("iota", (), IotaAttrs(0), type=found.type)
        return ordered.scan("add", found, 0), ordered.scan("max", found - wide, 0, True)
    plan, got, want = compiled(builder, rows, values)
    assert len(plan.launches) == 3
    same(got, want)


def test_selections_from_rows_of_any_length():
    """Compiled for long rows, which are narrowed first; right for short ones as well."""
    n = named("n")
    x = input_node("x", TensorType(DTYPES["f32"], (2, n)))
    results = (*ordered.topk(x, 5, 1), *ordered.kth_value(x, n // 2, 1),
               *ordered.median(x, 1), *ordered.mode(x, 1), ordered.argsort(x, 1, True))
    graph = Graph((x,), results)
    plan = compile_graph(graph, TARGET, hints={"n": 5000}).plan
    run = SizedExecutable(plan, build(plan, TARGET))
    for size in (5, 6, 100, 6000):
        array = ties(DTYPES["f32"], (2, size), size)
        same(run([array]), run_graph(specialise(graph, {"n": size}), [array]))
    with pytest.raises(ShapeError, match="places 0 to 5 of a sorted axis of size n"):
        run([ties(DTYPES["f32"], (2, 4))])
