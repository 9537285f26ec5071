"""Rows on a GPU: some threads of a warp, a warp, a block or several blocks for each."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from on_sim import agree, compare, program_of
from opcodes import count, opcodes

import tilewright as tw
from tilewright.codegen.gpu.assembler import assemble
from tilewright.compiler.schedules.gpu import long_rows, rows, shares
from tilewright.ir.loops import For, const_int
from tilewright.ir.text import show

RANDOM = np.random.default_rng(11)
Function = Callable[..., Any]


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def softmax(x: Any) -> Any:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def normalised(x: Any) -> Any:
    apart = x - x.mean(axis=-1, keepdims=True)
    return apart / np.sqrt((apart * apart).mean(axis=-1, keepdims=True) + np.float32(1e-5))


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    return normalised(x) * scale + shift


def layer_norm_gradient(x: Any, scale: Any, shift: Any, d: Any) -> Any:
    return tw.vjp(layer_norm, x, scale, shift)[1](d)


def cross_entropy(x: Any, label: Any) -> Any:
    shifted = x - x.max(axis=1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -np.take_along_axis(log, label[:, None], axis=1)[:, 0]


def several(x: Any) -> Any:
    """Reductions of all kinds, a wide result before the last, values of rows."""
    top = x.max(axis=1, keepdims=True)
    shifted = x - top
    sums = shifted.sum(axis=1), shifted.mean(axis=1)
    return shifted, *sums, x.min(axis=1) * 2, (x > 0).any(axis=1)


SHAPES = [
    (1, 1), (3, 1), (5, 3), (1, 7), (4, 10), (130, 16), (7, 33), (3, 100), (6, 128), (2, 1000),
    (3, 1025), (2, 2048), (1, 4097), (0, 5), (0, 2000),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chains_of_reductions(shape: tuple[int, int]) -> None:
    rows, length = shape
    x, scale, shift = f32(*shape), f32(length), f32(length)
    agree(lambda x, scale, shift: (softmax(x), layer_norm(x, scale, shift)), x, scale, shift)
    agree(several, x)


@pytest.mark.parametrize("length", [10, 1300])
def test_gradients_and_gathers(length: int) -> None:
    x, d = f32(5, length), f32(5, length)
    agree(layer_norm_gradient, x, f32(length), f32(length), d)
    labels = RANDOM.integers(-length, length, 5)
    agree(lambda x, y: tw.value_and_grad(lambda x: cross_entropy(x, y).mean())(x), x, labels)
    table = f32(9, length)
    agree(lambda t, i: normalised(t[i]), table, RANDOM.integers(0, 9, 6))


@pytest.mark.parametrize("shape, blocks", [((1, 701), 3), ((3, 1024), 4)], ids=str)
def test_several_blocks_for_a_row(
    shape: tuple[int, int], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rows of 65536 elements and more have them."""
    monkeypatch.setattr(long_rows, "LONG", 512)
    monkeypatch.setattr(shares, "SHARE", 256)
    for module in (long_rows, shares):
        monkeypatch.setattr(module, "TEAM", 64)
    plan = agree(lambda x: (softmax(x), x.max(axis=1)), f32(*shape))
    loops = [s for s in plan.launches[0].kernel.body if isinstance(s, For)]
    assert len(loops) == 2
    assert all(const_int(loop.stop) == shape[0] * blocks for loop in loops)
    agree(lambda x: (normalised(x.astype(np.float64)), several(x)), f32(*shape))
    agree(log_of_sum, infinite(f32(5, shape[1])))


def log_of_sum(x: Any) -> Any:
    top = x.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis=1, keepdims=True)))[:, 0]


def infinite(x: np.ndarray) -> np.ndarray:
    """Rows that begin with -infinity, have nothing else, or +infinity, or NaN."""
    x[0, :100], x[1], x[2, 7], x[3, 9] = -np.inf, -np.inf, np.inf, np.nan
    return x


@pytest.mark.parametrize("shape, loops", [((5, 1025), 2), ((4, 2052), 1)], ids=str)
def test_a_maximum_and_a_sum_in_one_pass(
    shape: tuple[int, int], loops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rows that are too long for registers have them."""
    monkeypatch.setattr(rows, "HELD", 0)
    plan = agree(log_of_sum, infinite(f32(*shape)))
    assert show(plan.launches[0].kernel).count("step") == loops
    agree(lambda x: (log_of_sum(x), x.max(axis=1) + 1), f32(*shape))


def test_rows_that_are_not_kept() -> None:
    """More than fits is read again in each pass."""
    agree(lambda x: softmax(x.astype(np.float64)), f32(1, 40007))


@pytest.mark.parametrize("shape, dtype", [
    *(((3, 40), dtype) for dtype in (np.float16, np.int32, np.uint8, np.int64)),
    *(((2, 1104), dtype) for dtype in (np.float64, ml_dtypes.bfloat16, np.int8, np.bool_)),
], ids=str)
def test_element_types(shape: tuple[int, int], dtype: Any) -> None:
    x = (f32(*shape) * 3).astype(dtype)
    if dtype is np.bool_:
        agree(lambda x: (x.all(axis=1), x.any(axis=1), x.sum(axis=1), x.argmax(axis=1)), x)
        return
    agree(lambda x: (x.sum(axis=1), x.max(axis=1), x - x.min(axis=1, keepdims=True)), x)
    if np.dtype(dtype).kind not in "iu":
        agree(lambda x: softmax(x), x)


def test_axes_that_are_not_the_last() -> None:
    agree(lambda x: (x.sum(axis=(0, 2)), x - x.mean(axis=(0, 2), keepdims=True)), f32(5, 3, 44))
    agree(lambda x: softmax(x.transpose(0, 2, 1)), f32(3, 50, 8))
    agree(lambda x: softmax(x[:, 1:-1]), f32(4, 66))
    agree(lambda x: softmax(np.concatenate([x, x[:, :3]], axis=1)), f32(4, 66))
    agree(lambda x: (x.sum(), x.max(), x - x.mean()), f32(30, 20))


def test_not_a_number_and_infinity() -> None:
    x = f32(4, 300)
    x[0, 7], x[1, 299], x[2] = np.nan, -np.inf, -np.inf
    agree(lambda x: (softmax(x), x.max(axis=1), x.min(axis=1), x.argmax(axis=1)), x)
    zeros = np.full((2, 64), -0.0, np.float32)
    (total,) = (tw.jit(lambda x: x.sum(axis=1), target="sim")(zeros),)
    assert not np.signbit(total).any()


def test_sizes_with_names() -> None:
    def f(x: Any, scale: Any) -> Any:
        return softmax(x), normalised(x) * scale, x.sum(axis=1)

    rows = tw.jit(f, dynamic={"x": {0: "n"}}, target="sim")
    for n in (1, 5, 130):
        x, scale = f32(n, 36), f32(36)
        compare(rows(x, scale), tw.jit(f)(x, scale))
    both = tw.jit(f, dynamic={"x": {0: "n", 1: "m"}, "scale": {0: "m"}}, target="sim")
    for n, m in ((3, 10), (3, 1), (2, 33), (5, 256), (1, 700)):
        x, scale = f32(n, m), f32(m)
        compare(both(x, scale), tw.jit(f)(x, scale))
    # Up to four times the length of the first call are kept in registers, as one version has them.
    (kernel,) = [launch.kernel for launch in both.compile(x, scale).plan.launches]
    assert "if short {" in show(kernel) and "if not(short) {" in show(kernel)
    # One thread for a row, of which nothing may be left.
    few = tw.jit(lambda x: x[1::3].sum(), dynamic={"x": {0: "n"}}, target="sim")
    for n in (3, 1, 5, 40):
        x = f32(n)
        np.testing.assert_allclose(few(x), x[1::3].sum(), rtol=1e-5, atol=1e-6)


# --- what the code looks like ---------------------------------------------------------------
def counted(f: Function, *arrays: np.ndarray) -> Counter[str]:
    """Opcodes of all kernels of a function."""
    text = program_of(f, *arrays, architecture="sm_90a").text
    return sum(opcodes(text).values(), Counter())


def accesses(counts: Counter[str]) -> tuple[int, int, int, int]:
    """Reads and writes of 16 bytes, shuffles, barriers; there are no others but of one element."""
    return tuple(count(counts, name) for name in (  # type: ignore[return-value]
        "ld.global.nc.v4", "st.global.v4", "shfl", "bar.sync"))


def test_each_element_is_read_and_written_once() -> None:
    # A warp: 1024 elements are 8 times 4 for each thread; two butterflies of 5.
    counts = counted(softmax, f32(64, 1024))
    assert accesses(counts) == (8, 8, 10, 0)
    assert count(counts, "ld.global", "st.global", "ld.shared", "st.shared") == 16
    # 256 threads: 4 times 4; 5 exchanges in a warp and 3 for 8 warps, twice.
    counts = counted(softmax, f32(64, 4096))
    assert accesses(counts) == (4, 4, 16, 2)
    assert count(counts, "ld.global", "st.global") == 8
    assert count(counts, "ld.shared", "st.shared") == 4
    # Scale and shift are read beside x.
    assert accesses(counted(layer_norm, f32(64, 768), f32(768), f32(768))) == (18, 6, 10, 0)
    # One label, the element there, and the result of a row.
    counts = counted(cross_entropy, f32(64, 1024), np.zeros(64, np.int64))
    assert accesses(counts)[:3] == (8, 0, 10)
    assert count(counts, "ld.global.nc.b32") == 1 and count(counts, "st.global.b32") == 1


def test_long_rows_are_read_once_for_a_maximum_and_a_sum() -> None:
    counts = counted(log_of_sum, np.zeros((200, 65600), np.float32))
    assert count(counts, "ld.global.nc.v4") == count(counts, "ld.global") == 5
    assert accesses(counts)[2:] == (20, 2)


def test_long_rows_stay_in_shared_memory() -> None:
    """50257 elements are too many for registers: their pieces are stored and read there."""
    counts = counted(softmax, np.zeros((300, 50257), np.float32))
    reads = count(counts, "ld.global")
    assert count(counts, "st.shared") >= reads and count(counts, "ld.shared") > 2


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90a", "sm_120"])
def test_nothing_is_spilled(architecture: str) -> None:
    def f(a: Any, b: Any, c: Any, scale: Any, labels: Any) -> Any:
        return softmax(a), softmax(b), layer_norm(a, scale, scale), cross_entropy(c, labels)

    arrays = f32(64, 1024), f32(64, 4096), f32(64, 1000), f32(1024), np.zeros(64, np.int64)
    assembled = assemble(program_of(f, *arrays, architecture=architecture).text, architecture)
    assert len(assembled.reports) >= 3
    for report in assembled.reports.values():
        assert report.stack == report.spill_stores == report.spill_loads == 0, report
        assert report.registers <= 96, report
