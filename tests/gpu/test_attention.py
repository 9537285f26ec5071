"""Attention as one kernel: what is recognised, its values, its code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attention_cases import exact, groups, qkv, softmax
from contractions import compiled, machine
from opcodes import count, opcodes

import tilewright as tw
from tilewright import config
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.assembler import assemble
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import compile_graph

Array = Any


def plain(q: Array, k: Array, v: Array) -> Array:
    s = (q @ k.swapaxes(-1, -2)).astype(np.float32) * np.float32(0.3)
    return softmax(s).astype(v.dtype) @ v


def causal(q: Array, k: Array, v: Array) -> Array:
    s = (q @ k.swapaxes(-1, -2)).astype(np.float32) * np.float32(0.3)
    rows, keys = s.shape[-2:]
    seen = tw.numpy.iota((rows, keys), 0) + 1 >= tw.numpy.iota((rows, keys), 1)
    return softmax(np.where(seen, s, np.float32(-np.inf))).astype(v.dtype) @ v


def heads_last(q: Array, k: Array, v: Array) -> Array:
    """[batch, rows, heads, columns], and something after it."""
    s = np.einsum("bqhd,bkhd->bhqk", q, k).astype(np.float32)
    shares = softmax(s * np.float32(0.3)).astype(v.dtype)
    return np.einsum("bhqk,bkhd->bqhd", shares, v) * v.dtype.type(2) + q[..., :v.shape[-1]]


@pytest.mark.parametrize("function", [plain, causal])
@pytest.mark.parametrize("rows, keys, d, columns, batch", [
    (64, 64, 16, 16, (2,)), (70, 130, 32, 48, ()), (9, 7, 16, 32, ()), (65, 64, 128, 16, (1, 1)),
])
def test_values(function: Callable[..., Any], rows: int, keys: int, d: int, columns: int,
                batch: tuple[int, ...]) -> None:
    arrays = qkv(rows, keys, d, columns, *batch)
    assert groups(function, *arrays) == ["attention"]
    with config.override(verify=1):
        found = tw.jit(function, target="sim")(*arrays)
    np.testing.assert_allclose(
        found.astype(np.float32), exact(function, arrays), rtol=0.03, atol=0.03)


def test_other_layouts_epilogues_and_f16() -> None:
    q, k, v = (a.reshape(1, -1, 2, a.shape[-1]) for a in qkv(80, 144, 32, 16, dtype=np.float16))
    assert groups(heads_last, q, k, v) == ["attention", "pointwise"]
    found = tw.jit(heads_last, target="sim")(q, k, v)
    np.testing.assert_allclose(
        found.astype(np.float32), exact(heads_last, [q, k, v]), rtol=0.01, atol=0.01)


def test_the_interpreter_runs_the_plan() -> None:
    arrays = qkv(70, 130, 32, 16)
    compiled = compile_graph(tw.jit(causal).trace(*arrays), gpu_target("sm_80"))
    (found,) = run_plan(compiled.plan, arrays)
    np.testing.assert_allclose(
        found.astype(np.float32), exact(causal, arrays), rtol=0.03, atol=0.03)


def test_rows_without_keys_are_nan_and_scores_without_end_too() -> None:
    def masked(q: Array, k: Array, v: Array, seen: Array) -> Array:
        s = np.where(seen, (q @ k.T).astype(np.float32), np.float32(-np.inf))
        return softmax(s).astype(v.dtype) @ v

    q, k, v = qkv(16, 130, 16, 16)
    seen = np.ones((16, 130), bool)
    seen[3], seen[5, :128], seen[6, 1:] = False, False, False
    assert groups(masked, q, k, v, seen) == ["attention"]
    found = tw.jit(masked, target="sim")(q, k, v, seen).astype(np.float32)
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, 0)).all()
    np.testing.assert_allclose(found[6], v[0].astype(np.float32), rtol=1e-2)


def test_what_is_not_one_kernel() -> None:
    def shares_too(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        shares = softmax((q @ k.T).astype(np.float32)).astype(v.dtype)
        return shares @ v, shares

    def scores_too(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        s = (q @ k.T).astype(np.float32)
        return softmax(s).astype(v.dtype) @ v, s.sum()

    arrays = qkv(32, 32, 16, 16)
    assert "attention" not in groups(shares_too, *arrays)
    assert "attention" not in groups(scores_too, *arrays)
    assert "attention" not in groups(plain, *arrays, architecture="sm_75")
    assert "attention" not in groups(plain, *(a.astype(np.float32) for a in arrays))
    assert "attention" not in groups(plain, *qkv(32, 32, 16, 20))
    assert "attention" not in groups(plain, *qkv(32, 32, 144, 16))


def test_any_order_gives_the_same_bits() -> None:
    arrays = qkv(20, 150, 16, 16)
    c = compiled(tw.jit(plain).trace(*arrays), machine("sm_80"))
    (want,) = c.on_device(arrays)
    for schedule in (1, 2):
        np.testing.assert_array_equal(c.on_device(arrays, schedule, "lazy")[0], want)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_120"])
@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
def test_registers(architecture: str) -> None:
    arrays = qkv(4096, 4096, 128, 128)
    text = tw.jit(causal, target=f"sim:{architecture}").lower(*arrays).as_text("ptx")
    (report,) = assemble(text, architecture).reports.values()
    assert report.stack == report.spill_stores == report.spill_loads == 0
    assert report.registers <= 168
    (found,) = opcodes(text).values()
    # 64 keys of 128 columns, and 128 columns of 64 values, for the 16 rows of a warp.
    assert count(found, "mma.sync") == 2 * 8 * 8
    # One load of fragments of queries serves all keys; four matrices of keys serve two products.
    assert count(found, "ldmatrix") == 8 + 32 + 32
    assert not re.search(r"\b(ld|st)\.local", text) and not count(found, "ld.global.b16")
