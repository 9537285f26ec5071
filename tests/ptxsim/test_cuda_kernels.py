"""Kernels of the CUDA headers, compiled by nvcc, in the simulator: results against NumPy.

Beside each PTX text in data/ lies its source. They are written against the headers' own wmma,
pipelines, barriers and cuda::ptx, or as CUDA examples address matrices, and so do not share what
tilewright's generator might misread in a manual.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tilewright.ptxsim.simulator import Simulator
from tilewright.ptxsim.tensormap import Swizzle

BF16 = ml_dtypes.bfloat16
RNG = np.random.default_rng(7)


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def integers(low: int, high: int, *shape: int, dtype: type = np.int32) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def exact(a: np.ndarray) -> np.ndarray:
    return a.astype(np.int64 if a.dtype.kind in "iu" else np.float64)


@pytest.mark.parametrize("kernel, m, n, k, of, to", [
    ("wmma_f16", 16, 16, 16, np.float16, np.float32),
    ("wmma_bf16", 32, 8, 16, BF16, np.float32),
    ("wmma_s8", 8, 32, 16, np.int8, np.int32),
    ("wmma_f64", 8, 8, 4, np.float64, np.float64),
])
def test_wmma(simulator: Simulator, cuda, kernel, m, n, k, of, to) -> None:
    a, b, c = (RNG.integers(-9, 9, s).astype(t) for s, t in
               (((m, k), of), ((n, k), of), ((m, n), to)))
    d = np.zeros((m, n), to)
    simulator.run(cuda("wmma"), kernel, (1,), (32,), [a, b, c, d])
    assert np.array_equal(d, exact(a) @ exact(b).T + 2 * exact(c))


def test_wmma_tf32_with_strides(simulator: Simulator, cuda) -> None:
    a, b, d = normal(8, 20), normal(8, 24), np.full((16, 17), 7, np.float32)
    simulator.run(cuda("wmma"), "wmma_tf32", (1,), (32,), [a, b, d, 20, 24, 17])
    assert np.allclose(d[:, :16].T, a[:, :16].T @ b[:, :16], atol=1e-2)
    assert (d[:15, 16] == 7).all()


def test_wmma_accumulates_tiles_in_f16(simulator: Simulator, cuda) -> None:
    a, b = integers(-3, 4, 32, 48, dtype=np.float16), integers(-3, 4, 48, 16, dtype=np.float16)
    d = np.zeros((32, 16), np.float16)
    simulator.run(cuda("wmma"), "wmma_f16_tiles", (1,), (64,), [a, b, d, 48])
    assert np.array_equal(exact(d), exact(a) @ exact(b))


def test_pipeline_primitives(simulator: Simulator, cuda) -> None:
    rows, out = normal(5, 128, 4), np.zeros((128, 4), np.float32)
    simulator.run(cuda("pipeline"), "pipeline_primitives", (2,), (64,), [rows, out, 128, 5])
    total = np.zeros((128, 4), np.float32)
    for row in rows:
        total += row
    assert np.array_equal(out, total)


def test_copies_fill_with_zeros(simulator: Simulator, cuda) -> None:
    rows, out = normal(32, 4), np.zeros((32, 4), np.float32)
    simulator.run(cuda("pipeline"), "pipeline_zfill", (1,), (32,), [rows, out, 8])
    rows[:4, 2:] = 0
    assert np.array_equal(out, rows[np.arange(32) ^ 1])


def test_copies_arrive_on_a_barrier(simulator: Simulator, cuda) -> None:
    rows, out = integers(0, 100, 6, 128), np.zeros(128, np.int32)
    simulator.run(cuda("pipeline"), "pipeline_barrier", (1,), (128,), [rows, out, 6])
    assert np.array_equal(out, (rows[:, ::-1] * np.arange(1, 7)[:, None]).sum(0))


def test_halves_of_a_block_hand_over_through_barriers(simulator: Simulator, cuda) -> None:
    rows, out = integers(0, 100, 6, 32), np.zeros(32, np.int32)
    simulator.run(cuda("pipeline"), "barrier_halves", (1,), (64,), [rows, out, 6])
    expected = np.zeros(32, np.int64)
    for row in rows:
        expected = expected * 3 + row[::-1]
    assert np.array_equal(out, expected)


def test_a_group_copies_a_row(simulator: Simulator, cuda) -> None:
    row, out = integers(-128, 128, 200, dtype=np.int8), np.zeros(200, np.int8)
    simulator.run(cuda("pipeline"), "group_copy", (1,), (64,), [row, out, 200], shared=256)
    assert np.array_equal(out, row[::-1])


def test_mma_by_ldmatrix(simulator: Simulator, cuda) -> None:
    a, b = integers(-9, 9, 16, 16, dtype=BF16), integers(-9, 9, 16, 8, dtype=BF16)
    d = np.zeros((16, 8), np.float32)
    simulator.run(cuda("mma"), "mma_bf16", (1,), (32,), [a, b, d])
    assert np.array_equal(d, exact(a) @ exact(b))


def test_ldmatrix_and_stmatrix_transpose(simulator: Simulator, cuda) -> None:
    a, d = integers(0, 9999, 16, 16, dtype=np.uint16), np.zeros((16, 16), np.uint16)
    simulator.run(cuda("mma"), "transpose", (1,), (32,), [a, d])
    assert np.array_equal(d, a.T)


def test_movmatrix_and_stmatrix_trans(simulator: Simulator, cuda) -> None:
    a, d = integers(0, 9999, 8, 8, dtype=np.uint16), np.zeros((16, 8), np.uint16)
    simulator.run(cuda("mma"), "there_and_back", (1,), (32,), [a, d])
    assert np.array_equal(d[:8], a.T) and np.array_equal(d[8:], a)


def test_mma_of_bytes_saturates(simulator: Simulator, cuda) -> None:
    a, b = integers(-128, 128, 16, 32, dtype=np.int8), integers(0, 256, 8, 32, dtype=np.uint8)
    a[0], b[0] = 127, 255
    d = integers(-9, 9, 16, 8)
    d[0, 0] = 2**31 - 5
    expected = np.clip(exact(d) + exact(a) @ exact(b).T, -(2**31), 2**31 - 1)
    simulator.run(cuda("mma"), "mma_s8", (1,), (32,), [a, b, d])
    assert np.array_equal(d, expected) and d[0, 0] == 2**31 - 1


def test_bulk_copies_there_and_back(simulator: Simulator, cuda) -> None:
    rows, out = normal(3, 256), np.zeros((3, 256), np.float32)
    simulator.run(cuda("bulk"), "bulk_twice", (3,), (64,), [rows, out])
    assert np.array_equal(out, 2 * rows)


def test_bulk_copies_add(simulator: Simulator, cuda) -> None:
    rows, out = integers(-99, 99, 3, 64), np.ones(64, np.int32)
    simulator.run(cuda("bulk"), "bulk_reduce", (3,), (64,), [rows, out])
    assert np.array_equal(out, 1 + rows.sum(0))


@pytest.mark.parametrize("x, y", [(0, 0), (30, -4), (-2, 40)])
def test_a_tensor_copy_through_a_swizzle(
    simulator: Simulator, on_device, cuda, x: int, y: int
) -> None:
    source = on_device(normal(50, 72, dtype=BF16))
    target = on_device(np.zeros((50, 72), BF16))
    maps = source.map((64, 32), swizzle=Swizzle.B128), target.map((64, 32))
    simulator.launch(simulator.load(cuda("bulk")), "tensor_copy", (1,), (64,), [*maps, x, y])
    expected = np.zeros((50, 72), BF16)
    inside = slice(max(y, 0), y + 32), slice(max(x, 0), x + 64)
    expected[inside] = source.array[inside]
    assert np.array_equal(target.back(), expected)


def test_a_tensor_is_added_in_a_cluster_of_one(
    simulator: Simulator, on_device, cuda
) -> None:
    source = on_device(integers(-99, 99, 4, 16, 8, dtype=np.float32))
    target = on_device(np.ones((4, 16, 8), np.float32))
    maps = source.map((8, 4, 4)), target.map((8, 4, 4))
    simulator.launch(simulator.load(cuda("bulk")), "tensor_add", (4,), (128,), [*maps])
    threads = np.tile(np.arange(128).reshape(4, 4, 8), (1, 4, 1))
    assert np.array_equal(target.back(), 1 + source.array + threads)


def test_wgmma_through_a_swizzle(simulator: Simulator, cuda) -> None:
    a, b = integers(-9, 9, 64, 64, dtype=BF16), integers(-9, 9, 16, 64, dtype=BF16)
    d = np.zeros((64, 16), np.float32)
    simulator.run(cuda("wgmma"), "wgmma_swizzled", (1,), (128,), [a, b, d])
    assert np.array_equal(d, -(exact(a) @ exact(b).T))


def test_wgmma_of_transposed_operands(simulator: Simulator, cuda) -> None:
    a = integers(-9, 9, 16, 64, dtype=np.float16)
    b = integers(-9, 9, 16, 16, dtype=np.float16)
    d = np.zeros((64, 16), np.float32)
    simulator.run(cuda("wgmma"), "wgmma_transposed", (1,), (128,), [a, b, d])
    assert np.array_equal(d, 100 - exact(a).T @ exact(b))


def test_wgmma_with_a_in_registers(simulator: Simulator, cuda) -> None:
    a, b = integers(-9, 9, 64, 16, dtype=BF16), integers(-9, 9, 16, 16, dtype=BF16)
    d = np.zeros((64, 16), np.float32)
    simulator.run(cuda("wgmma"), "wgmma_registers", (1,), (128,), [a, b, d])
    assert np.array_equal(d, exact(a) @ exact(b).T)
