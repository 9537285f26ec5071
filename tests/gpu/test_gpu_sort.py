"""Sorts on a GPU: the same bits as on the CPU, whatever the order of warps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from on_sim import plan_of

import tilewright as tw
from tilewright.codegen import cpu, gpu
from tilewright.codegen.gpu.assembler import assemble
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.plan import Plan
from tilewright.compiler.schedules.gpu import long_sort, sort
from tilewright.ir import loops as k
from tilewright.ir.graph import Graph, Node, apply, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.ordered import argsort, kth_value, places_of, topk
from tilewright.ir.ordered import sort as sort_of
from tilewright.ir.sizes import named
from tilewright.ir.symbolic import specialise
from tilewright.ir.types import DTYPES, DType, TensorType, dtype_of
from tilewright.ptxsim.simulator import Simulator
from tilewright.runtime.executable import Executable
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import SimDriver

Builder = Callable[[Node], Sequence[Node]]
RANDOM = np.random.default_rng(15)
SIM = gpu.named("sim:sm_80")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 threads, four elements each: tiles of 256 elements."""
    monkeypatch.setattr(sort, "THREADS", 64)
    monkeypatch.setattr(sort, "MOST", 1 << 11)
    monkeypatch.setattr(sort, "EACH", 4)
    monkeypatch.setattr(long_sort, "LEAST", 1 << 8)
    monkeypatch.setattr(long_sort, "LONGEST", 1 << 10)


def ties(dtype: DType, *shape: int) -> np.ndarray:
    """Few different values, among them the extremes, both zeros and NaN."""
    if dtype.kind == "b":
        return RANDOM.random(shape) < 0.5
    special: list[Any] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-3]
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        special = [info.min, info.max, 0, 1, info.max - 1]
    values = np.array(special, object).astype(dtype.numpy)
    numbers = RANDOM.normal(0, 50, shape).astype(np.int8).astype(dtype.numpy)
    return np.where(RANDOM.random(shape) < 0.5, RANDOM.choice(values, shape), numbers)


def graph_of(make: Builder, array: np.ndarray) -> Graph:
    x = input_node("x", TensorType(dtype_of(array), array.shape))
    return Graph((x,), tuple(make(x)))


def bits(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def check(make: Builder, array: np.ndarray, interpreted: bool = False) -> Plan:
    """The simulator, in order and in a random order, gives the bits of the CPU, and perhaps so does
    the interpreter, whose kernels keep the rules; returns the plan.
    """
    graph, host = graph_of(make, array), cpu.host_target()
    on_host = compile_graph(graph, host).plan
    want = Executable(on_host, cpu.build(on_host, host))([array])
    plan = plan_of(graph) if interpreted else compile_graph(graph, SIM).plan
    program = gpu.build(plan, SIM)
    found = [
        gpu_executable(plan, program, SimDriver(Simulator(order)))([array]) for order in (None, 1)]
    if interpreted:
        found.append(run_plan(plan, [array], 2))
    for results in found:
        for got, expected in zip(results, want, strict=True):
            assert got.dtype == expected.dtype and got.shape == expected.shape
            np.testing.assert_array_equal(bits(got), bits(expected))
    return plan


def launches(plan: Plan) -> int:
    return sum(isinstance(s, k.For) for launch in plan.launches for s in launch.kernel.body)


# --- rows that fit into a block -----------------------------------------------------------
@pytest.mark.parametrize("shape", [
    (1, 1), (3, 2), (5, 33), (0, 5), (3, 0), (2, 9, 3)],
    ids=str)
def test_short_rows(shape: tuple[int, ...]) -> None:
    array = ties(DTYPES["f32"], *shape)
    plan = check(lambda x: [n for axis in range(2) for n in sort_of(x, axis, axis == 1)], array)
    assert launches(plan) == 2


def test_several_rows_in_a_block_and_one_in_several_warps() -> None:
    check(lambda x: sort_of(x, 1), ties(DTYPES["f32"], 70, 5), True)
    check(lambda x: sort_of(x, 1), ties(DTYPES["f32"], 1, 256))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_types(dtype: DType) -> None:
    check(lambda x: sort_of(x, 1, dtype.itemsize > 2), ties(dtype, 2, 15))


def test_keys_alone_and_what_is_computed_around() -> None:
    def around(x: Node) -> Sequence[Node]:
        values, places = sort_of(x * -1, 1)
        return apply("square", values), places * 2

    for array in (ties(DTYPES["i32"], 3, 40), ties(DTYPES["u8"], 5, 7)):
        assert launches(check(lambda x: (sort_of(x, 1)[0],), array)) == 1
    assert launches(check(around, ties(DTYPES["i64"], 3, 20), True)) == 1


# --- longer rows --------------------------------------------------------------------------
@pytest.mark.parametrize("length, merges", [(257, 1), (600, 2)])
def test_long_rows(length: int, merges: int) -> None:
    array = ties(DTYPES["f32"], 2, length)
    plan = check(lambda x: sort_of(x, 1, length == 600), array[:1 + (length < 600)], length == 257)
    assert launches(plan) == 1 + merges


def test_rows_off_the_innermost_axis() -> None:
    check(lambda x: sort_of(x, 0), ties(DTYPES["f16"], 270, 2))


def test_long_rows_of_other_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "MOST", 1 << 12)
    check(lambda x: sort_of(x, 1), ties(DTYPES["f64"], 1, 300))
    check(lambda x: (sort_of(x, 1)[0],), ties(DTYPES["i8"], 1, 520))


def test_selections_from_long_rows() -> None:
    """Only the first places of each run are merged."""
    array = ties(DTYPES["f32"], 2, 1030)
    assert blocks(check(lambda x: topk(x, 5, 1), array[:1, :770])) == [4, 2, 1]
    assert blocks(compile_graph(graph_of(lambda x: topk(x, 5, 1), array), SIM).plan) == [
        10, 6, 4, 2]
    assert blocks(compile_graph(graph_of(lambda x: topk(x, 300, 1), array), SIM).plan) == [
        10, 10, 6, 4]
    check(lambda x: (places_of(x, 1, True, 260, 290)[1], kth_value(x, 256, 1)[0]), array[1:, :300])


def blocks(plan: Plan) -> list[int]:
    """Of each launch."""
    return [step.blocks({}) for step in gpu.build(plan, SIM).steps]


def test_rows_of_named_lengths() -> None:
    def f(x: Any) -> Any:
        order = np.argsort(x, axis=1, kind="stable")
        return np.sort(x, axis=1) * 2, order, np.median(x, axis=1)

    of_any = tw.jit(f, dynamic={"x": {0: "m", 1: "n"}}, target="sim")
    for shape in ((2, 40), (1, 600)):
        array = ties(DTYPES["f32"], *shape)
        for got, want in zip(of_any(array), tw.jit(f)(array), strict=True):
            np.testing.assert_array_equal(bits(got), bits(want))


def test_selections_from_rows_of_named_lengths() -> None:
    n = named("n")
    x = input_node("x", TensorType(DTYPES["i32"], (1, n)))
    graph = Graph((x,), (*topk(x, 7, 1), kth_value(x, n - 2, 1)[0]))
    plan = plan_of(graph, n=300)
    run = gpu_executable(plan, gpu.build(plan, SIM), SimDriver(Simulator(1)))
    for size in (600, 7):
        array = ties(DTYPES["i32"], 1, size)
        want = run_graph(specialise(graph, {"n": size}), [array])
        for got, expected in zip(run([array]), want, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_what_is_built_on_sorts() -> None:
    """Several keys, quantiles, ranks."""
    def f(x: Any, y: Any) -> Any:
        order = np.lexsort((y, x))
        return order, np.quantile(y, 0.3), np.argsort(np.argsort(y))

    x, y = ties(DTYPES["i32"], 90), RANDOM.standard_normal(90)
    for got, want in zip(tw.jit(f, target="sim")(x, y), tw.jit(f)(x, y), strict=True):
        np.testing.assert_array_equal(got, want)


# --- what goes wrong is found -------------------------------------------------------------
def barriers(body: Sequence[k.Stmt]) -> int:
    return sum(isinstance(s, k.Barrier) for s in k.walk(body))


def without(body: Sequence[k.Stmt], number: int) -> tuple[k.Stmt, ...]:
    """Statements without the barrier of this number."""
    made: list[k.Stmt] = []
    for s in body:
        inner = barriers([s])
        if isinstance(s, k.Barrier) and number == 0:
            number = -1
            continue
        if isinstance(s, k.For) and 0 <= number < inner:
            s = replace(s, body=without(s.body, number))
            number = -1
        number -= inner
        made.append(s)
    return tuple(made)


def test_each_barrier_is_needed() -> None:
    """Without one of them threads read what others are still writing, which is found."""
    array = RANDOM.permutation(200).astype(np.int32)[None]
    plan = plan_of(graph_of(lambda x: (argsort(x, 1),), array))
    (launch,) = plan.launches
    count = barriers(launch.kernel.body)
    assert count == 4
    for number in range(count):
        kernel = replace(launch.kernel, body=without(launch.kernel.body, number), digest="")
        assert barriers(kernel.body) == count - 1
        with pytest.raises(Exception, match="race"):
            run_plan(replace(plan, launches=[replace(launch, kernel=kernel)]), [array], 2)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90a", "sm_120"])
def test_nothing_is_spilled(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the blocks of large arrays."""
    monkeypatch.undo()
    target = gpu.named(f"sim:{architecture}")
    plan = compile_graph(graph_of(lambda x: sort_of(x, 1), np.zeros((1, 2500), int)), target).plan
    for report in assemble(gpu.build(plan, target).text, architecture).reports.values():
        assert report.stack == report.spill_stores == report.spill_loads == 0, report
        assert report.registers <= 72, report
