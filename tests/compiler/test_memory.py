"""The buffer plan: results are right in whatever order threads run, and memory is reused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.compiler.interp import run_plan
from tilewright.compiler.lowered import LoweredKernel, Workspace
from tilewright.compiler.order import Access, Interval, Step, barriers, epochs, place
from tilewright.compiler.passes.memory import memory
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.plan import CheckInfo, Plan, Slot
from tilewright.compiler.target import Target
from tilewright.compiler.text import show_plan
from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.build import put, reshape
from tilewright.ir.graph import CONSTANTS, ConstAttrs, Graph, Node, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.loops import (
    Barrier,
    Buffer,
    Call,
    Check,
    Const,
    For,
    Kernel,
    Let,
    Store,
    Var,
    compare,
    sub,
)
from tilewright.ir.text import show
from tilewright.ir.types import TensorType, bool_, f32, i64

N = 12
TARGET = Target("test", 64, 32, 1 << 15, 1 << 20, 1 << 25, "", "", "")
TYPE = TensorType(f32, (N,))


def sum_kernel(node: Node, in_place: bool = True, team: bool = False) -> LoweredKernel:
    """out = a + b, each thread its share; with ``team`` through a workspace, turned round."""
    params = tuple(Buffer(f"b{i}", f32, N, access="in") for i in range(len(set(node.inputs))))
    sources = dict(zip(dict.fromkeys(node.inputs), params, strict=True))
    out = Buffer("out", f32, N, access="out")
    i = Var("i")
    value = Call("add", tuple(sources[n][i] for n in node.inputs), f32)
    if not team:
        body: tuple = (For(i, Const(0), Const(N), (Store(out, i, value),), "parallel"),)
        pairs = tuple((len(params), k) for k in range(len(params))) if in_place else ()
        return LoweredKernel(
            Kernel("sum", (*params, out), body), (*sources, node), N, 12 * N, inplace=pairs)
    work = Buffer("work", f32, N, access="workspace")
    body = (
        For(i, Const(0), Const(N), (Store(work, i, value),), "parallel"), Barrier(),
        For(i, Const(0), Const(N), (Store(out, sub(N - 1, i), work[sub(N - 1, i)]),), "parallel"),
    )
    return LoweredKernel(
        Kernel("sum", (*params, out, work), body), (*sources, node, Workspace(4 * N)))


def check(graph: Graph, kernels: Sequence[LoweredKernel], donated: Sequence[int] = ()) -> Plan:
    """The plan, after its results were those of the graph in both orders of threads."""
    plan = memory(graph, kernels, TARGET, donated)
    random = np.random.default_rng(0)
    arrays = [random.normal(size=n.shape).astype(np.float32) for n in graph.inputs]
    expected = run_graph(graph, arrays)
    for threads, backwards in ((1, False), (3, False), (3, True)):
        for got, want in zip(run_plan(plan, arrays, threads, backwards), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    assert len(set(s for s in plan.results if s.kind == "output")) == len(plan.outputs)
    return plan


@st.composite
def programs(draw: st.DrawFn) -> tuple[Graph, list[LoweredKernel], list[int]]:
    """Sums of inputs and sums, some of them results, some inputs donated."""
    inputs = [input_node(f"x{i}", TYPE) for i in range(draw(st.integers(1, 4)))]
    nodes: list[Node] = list(inputs)
    kernels = []
    for _ in range(draw(st.integers(1, 9))):
        a, b = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        node = a + b
        if node not in nodes:
            nodes.append(node)
            kernels.append(sum_kernel(node, draw(st.booleans()), draw(st.integers(0, 3)) == 0))
    results = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=4))
    donated = draw(st.lists(st.sampled_from(range(len(inputs))), unique=True))
    return Graph(tuple(inputs), tuple(results)), kernels, donated


@settings(max_examples=250, deadline=None)
@given(programs())
def test_plans_compute_their_graph(program: tuple[Graph, list[LoweredKernel], list[int]]) -> None:
    check(*program)


def chain(length: int) -> tuple[Graph, list[LoweredKernel]]:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    nodes = [x + y]
    for _ in range(length - 1):
        nodes.append(nodes[-1] + y)
    return Graph((x, y), (nodes[-1],)), [sum_kernel(n) for n in nodes]


def test_a_chain_is_updated_in_place() -> None:
    plan = check(*chain(6))
    assert plan.arena == 64
    assert [launch.barrier for launch in plan.launches] == [False] + [True] * 5


def test_without_in_place_a_chain_alternates_between_two_buffers() -> None:
    graph, kernels = chain(7)
    plan = check(graph, [LoweredKernel(k.kernel, k.args) for k in kernels])
    assert plan.arena == 128


def test_equal_kernels_are_one_object() -> None:
    plan = check(*chain(6))
    middle = plan.launches[1:-1]
    assert len({id(launch.kernel) for launch in middle}) == 1
    assert middle[0].kernel.name.startswith("sum_")


def test_independent_launches_need_no_barrier() -> None:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    nodes = [x + x, x + y, y + y]
    plan = check(Graph((x, y), tuple(nodes)), [sum_kernel(n) for n in nodes])
    assert not any(launch.barrier for launch in plan.launches)


def test_a_donated_input_is_updated_in_place() -> None:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    plan = check(Graph((x, y), (x + y,)), [sum_kernel(x + y)], [0])
    assert plan.results == (Slot("input", 0),)
    assert plan.donated == (0,)
    assert plan.outputs == ()
    assert [p.access for p in plan.launches[0].kernel.params] == ["inout", "in"]


def test_a_scatter_into_a_donated_input_copies_nothing() -> None:
    x = input_node("x", TensorType(f32, (300, 16)))
    i, v = input_node("i", TensorType(i64, (2,))), input_node("v", TensorType(f32, (2, 16)))
    for mode in ("set", "add"):
        graph = Graph((x, i, v), (put(x, i, v, 0, mode),))
        copying, updating = (
            compile_graph(graph, TARGET, donated).plan for donated in ((), (0,)))
        loops = [show(plan.launches[0].kernel).count("for ") for plan in (copying, updating)]
        assert loops[1] == loops[0] - 2
        data, places = np.ones((300, 16), np.float32), np.array([-1, 5])
        values = np.full((2, 16), 3, np.float32)
        (want,) = run_graph(graph, [data, places, values])
        (got,) = run_plan(updating, [data, places, values])
        np.testing.assert_array_equal(got, want)


def test_a_donated_input_is_kept_while_it_is_read() -> None:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    first = x + y
    second = first + x
    graph = Graph((x, y), (first, second))
    plan = check(graph, [sum_kernel(first), sum_kernel(second)], [0])
    assert plan.donated == (None, 0)


def test_a_donated_input_that_is_a_result_is_given_back() -> None:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    plan = check(Graph((x, y), (x, x + y, x)), [sum_kernel(x + y)], [0])
    assert plan.donated == (0, None, None)
    assert plan.results == (Slot("input", 0), Slot("output", 0), Slot("input", 0))


def test_a_result_that_stands_twice_is_copied() -> None:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    plan = check(Graph((x, y), (x + y, x + y, reshape(x + y, (3, 4)))), [sum_kernel(x + y)])
    assert plan.results == (Slot("output", 0), Slot("output", 1), Slot("output", 2))
    assert [t.shape for t in plan.outputs] == [(N,), (N,), (3, 4)]
    assert [launch.kernel.name.split("_")[0] for launch in plan.launches] == ["sum", "copy", "copy"]


def test_a_reshaped_result_is_written_where_it_belongs() -> None:
    x, y = input_node("x", TYPE), input_node("y", TYPE)
    plan = check(Graph((x, y), (reshape(x + y, (4, 3)),)), [sum_kernel(x + y)])
    assert len(plan.launches) == 1
    assert plan.outputs[0].shape == (4, 3)


def test_a_reshaped_input_is_copied() -> None:
    x = input_node("x", TYPE)
    plan = check(Graph((x,), (reshape(x, (4, 3)), x)), [])
    assert plan.results == (Slot("output", 0), Slot("input", 0))


def test_constants_have_slots() -> None:
    CONSTANTS["a constant of test_memory"] = np.arange(N, dtype=np.float32)
    c = make("const", (), ConstAttrs("a constant of test_memory"), type=TYPE)
    x = input_node("x", TYPE)
    plan = check(Graph((x,), (x + c, c)), [sum_kernel(x + c)])
    assert plan.results == (Slot("output", 0), Slot("constant", 0))


def test_empty_values_need_no_kernel() -> None:
    x = input_node("x", TensorType(f32, (0, 3)))
    plan = memory(Graph((x,), (x + x,)), [], TARGET)
    assert [a.shape for a in run_plan(plan, [np.zeros((0, 3), np.float32)])] == [(0, 3)]


def test_a_result_that_no_kernel_writes_is_refused() -> None:
    x = input_node("x", TYPE)
    with pytest.raises(ValueError, match="no kernel wrote the result <add"):
        memory(Graph((x,), (x + x,)), [], TARGET)


def test_an_operand_that_no_kernel_writes_is_refused() -> None:
    x = input_node("x", TYPE)
    y = x + x
    words = "sum reads parameter 0, <add.*which no kernel before it wrote"
    with pytest.raises(ValueError, match=words):
        memory(Graph((x,), (y + x,)), [sum_kernel(y + x), sum_kernel(y)], TARGET)


def test_checks_are_numbered_through() -> None:
    x = input_node("x", TYPE)
    first, second = x + x, (x + x) + x
    kernels = []
    for node, message in ((first, "one"), (second, "two")):
        plain = sum_kernel(node)
        index = Var("failed", bool_)
        checks = (Let(index, compare("lt", 1, 0)), Check(index, 1))
        loop = For(Var("j"), Const(0), Const(1), checks, "parallel")
        kernel = Kernel("sum", plain.kernel.params, (loop, *plain.kernel.body))
        kernels.append(LoweredKernel(kernel, plain.args, checks={1: CheckInfo(message, None)}))
    plan = memory(Graph((x,), (second,)), kernels, TARGET)
    assert {code: info.message for code, info in plan.checks.items()} == {1: "one", 2: "two"}
    assert len({launch.kernel.name for launch in plan.launches}) == 2
    with pytest.raises(IndexError, match="check 1 failed"):
        run_plan(plan, [np.zeros(N, np.float32)])


def test_plan_text(golden) -> None:
    x, y, z = (input_node(name, TYPE) for name in "xyz")
    a = x + y
    b = a + z
    c = z + z
    kernels = [sum_kernel(a, False), sum_kernel(c), sum_kernel(b, team=True), sum_kernel(b + c)]
    golden("memory/chain", show_plan(check(Graph((x, y, z), (b + c, a, a)), kernels, [2])))


# --- barriers and places --------------------------------------------------------------------
def read(space: str, start: int = 0, stop: int = 1) -> Access:
    return Access(space, start, stop, False)


def write(space: str, start: int = 0, stop: int = 1) -> Access:
    return Access(space, start, stop, True)


@pytest.mark.parametrize(("first", "second", "wait"), [
    (write("a"), read("a"), True), (read("a"), write("a"), True), (write("a"), write("a"), True),
    (read("a"), read("a"), False), (write("a"), read("b"), False),
    (write("a", 0, 64), write("a", 64, 128), False), (write("a", 0, 65), read("a", 64, 128), True),
])
def test_a_launch_waits_for_what_it_conflicts_with(
    first: Access, second: Access, wait: bool
) -> None:
    assert barriers([Step((first,)), Step((second,))]) == [False, wait]


def test_a_barrier_ends_what_is_in_flight() -> None:
    steps = [Step((write("a"),)), Step((read("a"), write("b"))), Step((read("a"),))]
    assert barriers(steps) == [False, True, False]


def test_a_barrier_inside_a_kernel_separates_those_around_it() -> None:
    steps = [Step((write("a"),)), Step((write("b"),), inner=True), Step((read("a"),)),
             Step((read("b"),))]
    assert barriers(steps) == [False, False, False, True]
    assert epochs(steps) == [(0, 0), (0, 1), (1, 1), (2, 2)]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9), st.integers(0, 5)), max_size=20))
def test_buffers_alive_together_stay_apart(rows: list[tuple[int, int, int]]) -> None:
    intervals = [Interval(nbytes, first, first + length) for nbytes, first, length in rows]
    offsets, total = place(intervals)
    for i, (a, start) in enumerate(zip(intervals, offsets, strict=True)):
        assert start % 64 == 0 and start + a.nbytes <= total
        for b, other in list(zip(intervals, offsets, strict=True))[:i]:
            together = a.first <= b.last and b.first <= a.last
            assert not together or start + a.nbytes <= other or other + b.nbytes <= start


def test_a_dead_buffers_place_is_used_again() -> None:
    _, total = place([Interval(100, 0, 1), Interval(100, 2, 3), Interval(64, 4, 4)])
    assert total == 128
