"""Threads together: kernels of data/threads.cu, in every schedule, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.simulator import Simulator

RNG = np.random.default_rng(3)
LANES = np.arange(32)


def shuffled(values: np.ndarray, source: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.where(valid, values[np.where(valid, source, LANES)], values)


def test_exchanges_of_a_warp(simulator: Simulator, cuda) -> None:
    v = RNG.integers(0, 100, 32).astype(np.int32)
    out = np.zeros((11, 32), np.int32)
    simulator.run(cuda("threads"), "exchange", (1,), (32,), [v, out])
    within = LANES % 16
    bits = (1 << LANES.astype(np.int64))
    odd = v[LANES ^ 2] + 16
    expected = [
        v[LANES ^ 5],
        shuffled(v, LANES - 3, within >= 3),
        shuffled(v, LANES + 7, LANES % 8 + 7 < 8),
        v[LANES // 16 * 16 + (LANES * 3 + 1) % 16],
        np.full(32, (bits * (v > 50)).sum().astype(np.uint32).view(np.int32)),
        np.full(32, 3),
        [(bits * (v // 20 == x // 20)).sum().astype(np.uint32).view(np.int32) for x in v],
        np.full(32, v.sum()),
        np.full(32, v.max()),
        np.where(LANES % 2 == 1, odd, 0),
        np.repeat(v.reshape(4, 8).min(1), 8),
    ]
    for row, (got, wanted) in enumerate(zip(out, expected, strict=True)):
        assert np.array_equal(got, wanted), row


@pytest.mark.parametrize("n", [1, 500])
def test_blocks_sum_rows(simulator: Simulator, cuda, n: int) -> None:
    rows, out = RNG.integers(-9, 9, (5, n)).astype(np.float32), np.zeros(5, np.float32)
    simulator.run(cuda("threads"), "sum_rows", (5,), (96,), [rows, out, n])
    assert np.array_equal(out, rows.sum(1) * np.array([0.5, -1, 2, 4, 0.5], np.float32))


def test_atomics(simulator: Simulator, cuda) -> None:
    ints, floats = np.zeros(9, np.int32), np.zeros(3, np.float32)
    ints[2] = 1000
    wide, old = np.ones(1, np.uint64), np.zeros(128, np.int32)
    program = simulator.load(cuda("threads"))
    arrays = [ints, floats, wide, old]
    at = [simulator.memory.allocate(a.nbytes) for a in arrays]
    for address, array in zip(at, arrays, strict=True):
        simulator.memory.put(address, array)
    simulator.launch(program, "atomics", (2,), (64,), at)
    visits = simulator.memory.allocate(12)
    simulator.launch(program, "read_visits", (1,), (3,), [visits])
    got = [simulator.memory.get(p, a.nbytes).view(a.dtype) for p, a in zip(at, arrays, strict=True)]
    t = np.arange(128)
    xor = np.bitwise_xor.reduce(t)
    expected = [128, (t * 7 % 101).max(), 0, xor, 128 % 10, 384, 256, t[::2].sum(), t[1::2].sum()]
    assert np.array_equal(got[0], expected)
    assert np.array_equal(got[1], [0.5 * (t % 3 == i).sum() for i in range(3)])
    assert got[2][0] == 1 + (128 << 33)
    assert sorted(got[3]) == list(range(128))
    counts = [10 + 43, 20 + 43, 30 + 42]
    assert np.array_equal(simulator.memory.get(visits, 12).view(np.int32), counts)


def collatz(start: int) -> int:
    history, v, steps = [0] * 8, start, 0
    while v != 1 and steps < 100:
        v = 3 * v + 1 if v & 1 else v // 2
        history[v & 7] += 1
        steps += 1
    extra = {0: steps * 3, 1: steps + 100, 2: history[2], 3: history[start & 7] - 5,
             4: steps ^ 21, 5: -steps}.get(start % 7, history[4] << 4)
    return steps * 1000 + extra


def test_threads_part_and_meet_again(simulator: Simulator, cuda) -> None:
    n = 75
    starts, out = np.arange(1, n + 1, dtype=np.int32), np.full(80, -1, np.int32)
    simulator.run(cuda("threads"), "diverge", (2,), (40,), [starts, out, n])
    assert np.array_equal(out[:n], [collatz(int(s)) for s in starts])
    assert (out[n:] == -1).all()


def test_barriers_count_votes(simulator: Simulator, cuda) -> None:
    v, out = RNG.integers(0, 9, 64).astype(np.int32), np.zeros(64, np.int32)
    simulator.run(cuda("threads"), "votes", (1,), (64,), [v, out])
    assert np.array_equal(out, np.full(64, (v > 3).sum() + 2000))
    v[3] = 9
    simulator.run(cuda("threads"), "votes", (1,), (64,), [v, out])
    assert np.array_equal(out, np.full(64, (v > 3).sum() + 1000))


def test_the_last_block_adds_up(simulator: Simulator, cuda) -> None:
    rows, parts = RNG.integers(-9, 9, (6, 32)).astype(np.float32), np.zeros((6, 32), np.float32)
    ticket, out = np.zeros(1, np.uint32), np.zeros(32, np.float32)
    simulator.run(cuda("threads"), "last_block", (6,), (32,), [rows, parts, ticket, out])
    assert np.array_equal(out, 2 * rows.sum(0))
