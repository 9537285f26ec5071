"""Blocks of threads in the interpreter: values, and what it refuses."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from kernels_of_blocks import PRODUCT, SPECIALISED, SUM

from tilewright.errors import CompilerBug
from tilewright.ir.instructions import FORMS, INSTRUCTIONS, swizzled
from tilewright.ir.interp import run_kernel
from tilewright.ir.text import parse
from tilewright.ir.verify import verify
from tilewright.ptxsim import fragments
from tilewright.ptxsim.formats import FORMATS


def sums(text: str, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal(256, np.float32)
    y = np.zeros(4, np.float32)
    assert run_kernel(parse(text), [x, y], threads) == 0
    return y, x.reshape(4, 64).sum(1)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_block_sums_by_shuffles_and_shared_memory(threads: int) -> None:
    found, expected = sums(SUM, threads)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("old, new, complaint", [
    ("      barrier\n", "", "a race: thread 0 and thread 32 access part[1]"),
    ("y[b] =", "y[0] =", "a race: two blocks access y[0]"),
    ("if t == 0 {", "if t < 2 {", "a race: thread 0 and thread 1 access y[0]"),
    ("      barrier\n", "if t < 32 { barrier }", "32 of 64 threads arrive at a barrier"),
    ("part[t // 32] = v5", "part[t // 16] = v5", "outside its 2 elements"),
    ("shuffle xor(v, 16)", "shuffle lane(v, 40)", "a shuffle from thread 40 of 32"),
    ("part[t // 32] = v5", "let q: f32 = shuffle xor(v5, 1)\n part[t // 32] = q",
     "a part of 32 threads arrives at a shuffle"),
])
def test_what_no_block_may_do(old: str, new: str, complaint: str) -> None:
    assert old in SUM
    with pytest.raises(CompilerBug, match=re.escape(complaint)):
        sums(SUM.replace(old, new))


def test_threads_take_their_own_ways() -> None:
    text = """kernel f(y: i64[64] out) {
      for b in 0..2 block {
        for t in 0..32 thread {
          alloc n: i64[1] register
          n[0] = 0
          for i in b..t % 5 step 2 {
            n[0] += i
          }
          if t < 3 {
            n[0] = -1
          } else {
            if t < 7 {
              n[0] *= 10
            }
          }
          let up: i64 = shuffle up(n[0], 2)
          y[b * 32 + t] = n[0] * 100 + up
        }
      }
    }
    """
    y = np.zeros(64, np.int64)
    run_kernel(parse(text), [y])
    for b in range(2):
        n = [-1 if t < 3 else sum(range(b, t % 5, 2)) * (10 if t < 7 else 1) for t in range(32)]
        assert list(y[b * 32:b * 32 + 32]) == [
            n[t] * 100 + n[t - 2 if t >= 2 else t] for t in range(32)]


def test_a_failed_check_of_a_thread_is_the_kernels() -> None:
    text = """kernel f(x: i64[32] in, y: i64[32] out) {
      for b in 0..1 block {
        for t in 0..32 thread {
          if t < 30 {
            check x[t] < 5 else 7
          }
          y[t] = x[t]
        }
      }
    }
    """
    x, y = np.zeros(32, np.int64), np.zeros(32, np.int64)
    x[31] = 9
    assert run_kernel(parse(text), [x, y]) == 0
    x[3] = 9
    assert run_kernel(parse(text), [x, y]) == 7


def product(text: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.standard_normal((16, 64)).astype(ml_dtypes.bfloat16)
    w = random.standard_normal((8, 64)).astype(ml_dtypes.bfloat16)
    y = np.zeros(512, np.float32)
    run_kernel(parse(text), [x.reshape(-1), w.reshape(-1), y])
    return y[:128].reshape(16, 8), x.astype(np.float32) @ w.astype(np.float32).T


def test_a_product_by_asynchronous_copies_ldmatrix_and_mma() -> None:
    np.testing.assert_allclose(*product(PRODUCT), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("old, new, complaint", [
    ("      barrier\n", "", "a race"),
    ("async_wait(0)", "async_wait(1)", "still under way"),
    ("run async_commit()\n", "", "still under way"),
    ("x[t * 32 + i * 8]", "x[t * 32 + i * 8 + 1]", "aligned to 16 bytes"),
    ("t // 16 * 8])", "t // 16 * 8 + 1024])", "outside its 1024 elements"),
])
def test_copies_that_are_not_waited_for(old: str, new: str, complaint: str) -> None:
    assert old in PRODUCT
    with pytest.raises(CompilerBug, match=complaint):
        product(PRODUCT.replace(old, new))


def specialised(text: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    a = random.standard_normal((64, 256)).astype(ml_dtypes.bfloat16)
    w = np.zeros(16384, ml_dtypes.bfloat16)
    matrix = random.standard_normal((100, 160)).astype(ml_dtypes.bfloat16)
    w[:16000] = matrix.reshape(-1)
    y = np.zeros(8192, np.float32)
    run_kernel(parse(text), [a.reshape(-1), w, y])
    expected = np.zeros((64, 128), np.float32)
    expected[:, :100] = a[:, :160].astype(np.float32) @ matrix.astype(np.float32).T
    return y.reshape(64, 128), expected


def test_warps_that_copy_and_warps_that_multiply() -> None:
    np.testing.assert_allclose(*specialised(SPECIALISED), rtol=1e-4, atol=1e-4)
    verify(parse(SPECIALISED))


@pytest.mark.parametrize("old, new, complaint", [
    ("run mbarrier_wait(bars[k % 2 + 2], (k // 2 + 1) % 2)", "", "more than 1 threads arrive"),
    ("run mbarrier_arrive(bars[k % 2 + 2])", "", "none is left to complete it"),
    ("run mbarrier_expect(bars[k % 2], 16384)", "run mbarrier_expect(bars[k % 2], 16000)",
     "none is left to complete it"),
    ("run mbarrier_init(bars[i + 2], 128)", "run mbarrier_init(bars[i + 2], 129)",
     "none is left to complete it"),
    ("run mbarrier_wait(bars[k % 2], k // 2)", "", "none is left to complete it"),
    ("      barrier\n", "", "a race: thread"),
    ("run mbarrier_init(bars[i], 1)", "", "is not set up"),
    ("as[k % 2 * 4096], a[0]", "as[k % 2 * 4096 + 64], a[0]", "not aligned"),
])
def test_mbarriers_that_are_used_wrongly(old: str, new: str, complaint: str) -> None:
    assert old in SPECIALISED
    with pytest.raises(CompilerBug, match=complaint):
        specialised(SPECIALISED.replace(old, new))


# --- the meaning of instructions, against the fragments of the simulator -------------------
@pytest.mark.parametrize("name, shape, kind", [
    ("mma_m16n8k16", "m16n8k16", "bf16"), ("mma_m16n8k8", "m16n8k8", "f16"),
    ("mma_m16n8k8_tf32", "m16n8k8", "tf32"),
])
def test_multiplications_of_a_warp(name: str, shape: str, kind: str) -> None:
    found = fragments.shape_of(shape)
    a = fragments.multiplicand("a", found, FORMATS[kind])
    b = fragments.multiplicand("b", found, FORMATS[kind])
    c = fragments.accumulator(found)
    random = np.random.default_rng(0)
    left, right = random.integers(-8, 8, (found.m, found.k)), random.integers(
        -8, 8, (found.k, found.n))
    start = random.integers(-8, 8, (found.m, found.n))
    meaning = INSTRUCTIONS[name].meaning
    assert meaning is not None
    held = [m[layout.rows, layout.cols].astype(np.float32) for m, layout in (
        (start, c), (left, a), (right, b))]
    np.testing.assert_array_equal(
        meaning(*held), (start + left @ right)[c.rows, c.cols].astype(np.float32))


@pytest.mark.parametrize("left", ["row", "col"])
@pytest.mark.parametrize("right", ["row", "col"])
def test_multiplications_of_groups_of_eight_threads(left: str, right: str) -> None:
    a, b = fragments.volta_multiplicand("a", left), fragments.volta_multiplicand("b", right)
    c = fragments.volta_accumulator(FORMATS["f32"])
    random = np.random.default_rng(0)
    one, other, start = (random.integers(-8, 8, s) for s in ((32, 4), (16, 8), (32, 8)))
    total = start.reshape(4, 8, 8) + one.reshape(4, 8, 4) @ other.reshape(4, 4, 8)
    meaning = INSTRUCTIONS[f"mma_m8n8k4_{left}_{right}"].meaning
    assert meaning is not None
    held = [m[layout.rows, layout.cols].astype(np.float32) for m, layout in (
        (start, c), (one, a), (other, b))]
    np.testing.assert_array_equal(
        meaning(*held), total.reshape(32, 8)[c.rows, c.cols].astype(np.float32))


def tile_of(matrix: np.ndarray, across: bool) -> np.ndarray:
    """Lines of 64 contracted elements, or across in squares of 64, as a swizzled tile."""
    lines = len(matrix)
    squares = matrix.reshape(lines // 64, 64, 64)
    flat = squares.transpose(0, 2, 1).reshape(-1) if across else matrix.reshape(-1)
    tile = np.zeros(lines * 64)
    tile[swizzled(np.arange(lines * 64))] = flat
    return tile


@pytest.mark.parametrize("form", FORMS)
def test_multiplications_of_a_warpgroup(form: str) -> None:
    random = np.random.default_rng(0)
    left, right = random.integers(-8, 8, (64, 64)), random.integers(-8, 8, (64, 128))
    a, b = (tile_of(x, across) for x, across in zip((left, right.T), FORMS[form], strict=True))
    warp = fragments.wgmma_accumulator(128)
    rows = np.concatenate([warp.rows + 16 * w for w in range(4)])
    cols = np.concatenate([warp.cols] * 4)
    row = INSTRUCTIONS["wgmma_m64n128k16" + form]
    assert row.meaning is not None
    total = np.zeros((128, 64), np.float32)
    for k in range(4):
        i, j = (k * 16 * (64 if across else 1) for across in FORMS[form])
        total = row.meaning(total, a, i, b, j)
    np.testing.assert_array_equal(total, (left @ right)[rows, cols])
