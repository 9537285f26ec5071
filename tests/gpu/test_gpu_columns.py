"""Columns, and reductions of everything, on a GPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from on_sim import agree, compare, program_of
from opcodes import count, opcodes

import tilewright as tw
from tilewright.compiler.schedules.gpu import columns, shares
from tilewright.ir.loops import For, Kernel

RANDOM = np.random.default_rng(12)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def launches(kernel: Kernel) -> int:
    return len([s for s in kernel.body if isinstance(s, For)])


@pytest.mark.parametrize("shape, axes", [
    ((64, 256), 0), ((5, 3), 0), ((1, 300), 0), ((200, 10), 0), ((3, 4, 5, 68), (0, 2)),
    ((90, 7, 20), 0), ((2, 40, 9), 1), ((0, 7), 0), ((7, 0), 0),
], ids=str)
def test_columns(shape: tuple[int, ...], axes: Any) -> None:
    x = f32(*shape)
    plan = agree(lambda x: (x.sum(axis=axes), x.mean(axis=axes) * 2, (x > 1).any(axis=axes)), x)
    assert all(launches(launch.kernel) == 1 for launch in plan.launches)
    if x.size:
        agree(lambda x: (x.max(axis=axes), x.min(axis=axes)), x)


@pytest.mark.parametrize("shape", [(601, 40), (512, 33)], ids=str)
def test_shares_of_the_rows(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "SHARE", 2)
    plan = agree(lambda x: (x.sum(axis=0), x.max(axis=0), x.mean(axis=0)), f32(*shape))
    assert launches(plan.launches[0].kernel) == 2


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.bool_])
def test_element_types_of_columns(dtype: Any) -> None:
    x = (f32(33, 48) * 3).astype(dtype)
    agree(lambda x: (x.sum(axis=0), x.max(axis=0)), x)


@pytest.mark.parametrize("shapes", [((70, 33),), ((2051,),), ((1024,), (31, 40))], ids=str)
def test_reductions_of_everything(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As arrays of more than 32768 elements have them; domains may differ."""
    monkeypatch.setattr("tilewright.compiler.schedules.cluster.SMALL_FULL", 512)
    monkeypatch.setattr(shares, "SHARE", 512)
    plan = agree(
        lambda *xs: [(x.sum() / xs[0].mean(), x.max(), (x * x).mean()) for x in xs],
        *(f32(*shape) for shape in shapes))
    assert launches(plan.launches[0].kernel) == 2


def test_sizes_with_names() -> None:
    def f(x: Any) -> Any:
        return x.sum(axis=0), x.max(axis=0), (x * x).sum()

    compiled = tw.jit(f, dynamic={"x": {0: "n", 1: "m"}}, target="sim")
    for shape in ((1, 1), (3, 40), (200, 5)):
        x = f32(*shape)
        compare(compiled(x), tw.jit(f)(x))


def test_each_element_of_a_column_is_read_once() -> None:
    """16 bytes at a time, 8 rows of a block; their sums meet in shared memory."""
    x = np.zeros((64, 768), np.float32)
    text = program_of(lambda x: x.sum(axis=0), x, architecture="sm_90a").text
    counts = sum(opcodes(text).values(), Counter())
    assert count(counts, "ld.global.nc.v4") == count(counts, "ld.global")
    assert count(counts, "st.global.v4") == count(counts, "st.global") == 1
    assert count(counts, "bar.sync") == 1 and count(counts, "shfl", "atom", "red") == 0
