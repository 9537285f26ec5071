"""A training step of attention: no scores in memory, and gradients against those in f64."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attention_cases import BF16, groups, softmax
from contractions import compiled, machine

import tilewright as tw
from tilewright import config
from tilewright.codegen.cpu import host_target
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.assembler import assemble
from tilewright.compiler.interp import run_plan
from tilewright.compiler.passes.attention import attention
from tilewright.compiler.pipeline import compile_graph

Array = Any
NOTHING = np.float32(-np.inf)


def number(value: float, like: Array) -> Array:
    return like.dtype.type(value)


def wide(x: Array) -> Array:
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32)


def nothing_hidden(s: Array, seen: Array) -> Array:
    return s


def causal(s: Array, seen: Array) -> Array:
    row, key = (tw.numpy.iota(s.shape[-2:], axis) for axis in (0, 1))
    return np.where(row >= key, s, number(-np.inf, s))


def padded(s: Array, seen: Array) -> Array:
    """Causal, and rows that see nothing attend to all keys alike."""
    return np.where(np.tril(np.ones(s.shape[-2:], bool)) & seen, s, number(-1e9, s))


def window(s: Array, seen: Array) -> Array:
    row, key = (tw.numpy.iota(s.shape[-2:], axis) for axis in (0, 1))
    near = np.where(row - key <= 20, s, number(-1e9, s))
    return np.where(row >= key, np.where(seen, near, number(-1e9, s)), number(-1e9, s))


def biased(s: Array, seen: Array) -> Array:
    key = tw.numpy.iota(s.shape[-2:], 1)
    return s * number(0.5, s) + np.tanh(key.astype(s.dtype) * number(0.1, s))


def stepped(mask: Callable[[Array, Array], Array], heads_last: bool = False) -> Callable[..., Any]:
    form = ("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd") if heads_last else (
        "...qd,...kd->...qk", "...qk,...kd->...qd")

    def attend(q: Array, k: Array, v: Array, seen: Array) -> Array:
        s = wide(np.einsum(form[0], q, k))
        s = mask(s * number(0.3, s), seen)
        return np.einsum(form[1], softmax(s).astype(v.dtype), v)

    def step(q: Array, k: Array, v: Array, g: Array, seen: Array) -> Any:
        def loss(q: Array, k: Array, v: Array) -> Array:
            return (wide(attend(q, k, v, seen)) * wide(g)).sum()
        return tw.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)

    return step


def operands(rows: int, keys: int, d: int, columns: int, *batch: int) -> list[Array]:
    random = np.random.default_rng(rows + keys)
    shapes = ((rows, d), (keys, d), (keys, columns), (rows, columns))
    arrays = [random.standard_normal((*batch, *s)).astype(BF16) for s in shapes]
    seen = np.ones((rows, keys), bool)
    seen[3], seen[-1] = False, False
    return [*arrays, seen]


def compare(step: Callable[..., Any], arrays: list[Array], target: str = "sim") -> None:
    with config.override(verify=1):
        found = tw.jit(step, target=target)(*arrays)
    want = tw.jit(step)(*(a if a.dtype == bool else a.astype(np.float64) for a in arrays))
    np.testing.assert_allclose(found[0], want[0], rtol=0.05, atol=0.5)
    for x, y in zip(found[1], want[1], strict=True):
        np.testing.assert_allclose(x.astype(np.float64), y, rtol=0.05, atol=0.05)


def kernels(step: Callable[..., Any], arrays: list[Array], architecture: str = "sm_80") -> set[str]:
    return set(groups(step, *arrays, architecture=architecture))


@pytest.mark.parametrize("mask, rows, keys, d, columns, batch", [
    (nothing_hidden, 70, 130, 16, 32, (2,)), (biased, 9, 7, 32, 16, ()),
    (causal, 100, 100, 16, 16, (2,)), (padded, 90, 90, 16, 16, (1,)),
    (window, 140, 140, 16, 16, (1, 1)),
])
def test_gradients(mask: Callable[[Array, Array], Array], rows: int, keys: int, d: int,
                   columns: int, batch: tuple[int, ...]) -> None:
    step, arrays = stepped(mask), operands(rows, keys, d, columns, *batch)
    found = groups(step, *arrays)
    # Two results of unequal width are two kernels' work no more than of equal: keys and values.
    assert found.count("attention") == 1 and found.count("remade") == 2
    assert "contraction" not in found
    compare(step, arrays)


def test_heads_last() -> None:
    step = stepped(causal, heads_last=True)
    *arrays, seen = operands(80, 80, 16, 16)
    arrays = [np.stack([a[None], a[None, ::-1]], 2) for a in arrays]
    assert groups(step, *arrays, seen).count("remade") == 2
    compare(step, [*arrays, seen])


def test_nothing_of_the_size_of_the_scores_is_in_memory() -> None:
    step, arrays = stepped(causal), operands(256, 256, 16, 16)
    plan = compile_graph(tw.jit(step).trace(*arrays), gpu_target("sm_80")).plan
    sizes = [p.size for launch in plan.launches for p in launch.kernel.params]
    assert max(sizes) < 256 * 256
    assert plan.arena < 256 * 256


def test_results_in_16_bits_are_read_as_they_are() -> None:
    def step(x: Array, w: Array, v: Array, g: Array) -> Any:
        def loss(x: Array) -> Array:
            q, k = x @ w, x @ v
            s = wide(q @ k.T) * np.float32(0.2)
            out = (softmax(s).astype(x.dtype) @ k) @ g
            return (wide(out) ** np.float32(2)).sum()
        return tw.grad(loss)(x)

    random = np.random.default_rng(2)
    arrays = [(random.standard_normal((n, 64)) * 0.2).astype(BF16) for n in (200, 64, 64, 64)]
    plan = compile_graph(tw.jit(step).trace(*arrays), gpu_target("sm_80")).plan
    written = [
        p for launch in plan.launches for p in launch.kernel.params
        if p.access == "out" and p.dtype.itemsize == 4 and p.size > 200]
    assert len(written) <= 1  # the output's square alone may be a number of 32 bits


def test_what_falls_back() -> None:
    def probabilities(q: Array, k: Array, v: Array, g: Array, seen: Array) -> Any:
        def loss(q: Array) -> Array:
            shares = softmax(wide(q @ k.T)).astype(v.dtype)
            return (wide(shares @ v) * wide(g)).sum() + wide(shares)[0, 0]
        return tw.grad(loss)(q)

    arrays = operands(32, 32, 16, 16)
    assert not kernels(probabilities, arrays) & {"attention", "remade"}
    assert not kernels(stepped(causal), arrays, "sm_75") & {"attention", "remade"}
    wider = [a if a.dtype == bool else a.astype(np.float32) for a in arrays]
    assert not kernels(stepped(causal), wider) & {"attention", "remade"}


def test_graphs_for_cpus_stay_as_they_are() -> None:
    graph = tw.jit(stepped(causal)).trace(*operands(32, 32, 16, 16))
    assert attention(graph, host_target()) is graph


def test_the_gradient_by_the_largest_score_cancels() -> None:
    graph = tw.jit(stepped(causal)).trace(*operands(32, 32, 16, 16))
    optimized = compile_graph(graph, gpu_target("sm_80")).optimized
    sums = [n for n in optimized.nodes() if n.op.name == "sum"]
    # The loss, the exponentials, and the gradient with the result.
    assert len(sums) == 3
    assert not any(n.op.name == "eq" for n in optimized.nodes())


def test_the_interpreter_runs_the_plan() -> None:
    step, arrays = stepped(causal), operands(20, 70, 16, 16)
    graph = tw.jit(step).trace(*arrays)
    found = run_plan(compile_graph(graph, gpu_target("sm_80")).plan, arrays)
    want = tw.jit(step)(*(a if a.dtype == bool else a.astype(np.float64) for a in arrays))
    for x, y in zip(found[1:], want[1], strict=True):
        np.testing.assert_allclose(x.astype(np.float64), y, rtol=0.05, atol=0.05)


def test_any_order_gives_the_same_bits() -> None:
    arrays = operands(20, 70, 16, 16)
    c = compiled(tw.jit(stepped(padded)).trace(*arrays), machine("sm_80"))
    want = c.on_device(arrays)
    for x, y in zip(c.on_device(arrays, 1, "lazy"), want, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("architecture, d", [("sm_80", 64), ("sm_90a", 128), ("sm_120", 128)])
@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
def test_registers(architecture: str, d: int) -> None:
    arrays = operands(512, 512, d, d, 2)
    text = tw.jit(stepped(causal), target=f"sim:{architecture}").lower(*arrays).as_text("ptx")
    reports = assemble(text, architecture).reports.values()
    assert all(r.stack == r.spill_stores == r.spill_loads == 0 for r in reports)
    assert max(r.registers for r in reports) <= 255
