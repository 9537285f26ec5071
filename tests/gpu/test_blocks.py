"""Block and thread loops as PTX: grids, shared memory, barriers, shuffles, masks, control flow."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from block_kernels import compiled, entries, launched, run
from opcodes import count, opcodes

from tilewright.codegen.cpu import host_target
from tilewright.codegen.emit import emit_kernel
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.assembler import assemble
from tilewright.codegen.gpu.emit import emit_entry, phases
from tilewright.codegen.vecmath import MATH
from tilewright.errors import CompilerBug
from tilewright.ir.text import parse
from tilewright.ir.types import DTYPES
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.simulator import Simulator

RANDOM = np.random.default_rng(3)
SCHEDULES = [None, 1, 2]

SUMS = """kernel sums(n: i64, x: f32[n] in, y: f32[n] out) {
  for b in 0..(n + 127) // 128 block {
    let base: i64 = b * 128
    alloc tile: f32[128] shared
    alloc parts: f32[4] shared
    for t in 0..128 thread {
      tile[127 - t] = x[base + t if base + t < n]
      barrier
      let mine: f32 = tile[t]
      alloc total: f32[1] register
      total[0] = mine
      for d in 0..5 unroll {
        let other: f32 = shuffle xor(total[0], 16 >> d)
        total[0] += other
      }
      if t % 32 == 0 {
        parts[t // 32] = total[0]
      }
      barrier
      y[base + t if base + t < n] = mine + ((parts[0] + parts[1]) + (parts[2] + parts[3]))
    }
  }
}
"""
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [1, 128, 300])
def test_shared_memory_barriers_and_shuffles(n: int, schedule: int | None) -> None:
    x = RANDOM.standard_normal(n).astype(np.float32)
    _, y = run(SUMS, [x, np.zeros_like(x)], simulator=Simulator(schedule), n=n)
    full = np.zeros(-(-n // 128) * 128, np.float32)
    full[:n] = x
    blocks = full.reshape(-1, 128)
    want = blocks[:, ::-1] + blocks.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(y, want.ravel()[:n], rtol=1e-4, atol=1e-5)


def test_accesses_name_their_memory() -> None:
    (found,) = opcodes(compiled(SUMS)).values()
    assert count(found, "ld.shared.b32") == 5
    assert count(found, "st.shared") == 2
    assert count(found, "ld.global") == count(found, "st.global") == 1
    assert count(found, "bar.sync") == 2 and count(found, "shfl.sync.bfly") == 5
    assert not {name for name in found if name.startswith(("ld.b", "ld.u", "ld.f", "ld.v",
                                                           "st.b", "st.u", "st.f", "st.v"))}
    assert not count(found, "ld.local", "st.local", "call")


def test_a_launch_knows_its_threads_and_bytes() -> None:
    (entry,) = entries(SUMS)
    assert (entry.threads, entry.shared) == (128, 512 + 16)
    assert ".reqntid 128" in compiled(SUMS)
    step = launched(entry)
    assert [step.blocks({"n": n}) for n in (0, 1, 128, 129)] == [0, 1, 1, 2]


EXCHANGE = """kernel exchange(x: {0}[32] in, y: {0}[128] out) {{
  for b in 0..1 block {{
    for t in 0..32 thread {{
      let v: {0} = x[t]
      let a: {0} = shuffle xor(v, 5)
      let c: {0} = shuffle up(v, 3)
      let d: {0} = shuffle down(v, t // 32 + 3)
      let e: {0} = shuffle lane(v, (t * 7) % 32)
      y[t] = a
      y[32 + t] = c
      y[64 + t] = d
      y[96 + t] = e
    }}
  }}
}}
"""


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values()], ids=str)
def test_values_of_other_threads(dtype) -> None:
    x = RANDOM.integers(-100, 100, 32).astype(dtype.numpy) if dtype.name[0] in "iu" else \
        RANDOM.standard_normal(32).astype(dtype.numpy)
    if dtype.bits == 1:
        x = RANDOM.integers(0, 2, 32).astype(bool)
    y = run(EXCHANGE.format(dtype.name), [x, np.zeros(128, dtype.numpy)], "sm_50")[1]
    t = np.arange(32)
    up, down = np.where(t < 3, t, t - 3), np.where(t > 28, t, t + 3)
    want = np.concatenate([x[t ^ 5], x[up], x[down], x[t * 7 % 32]])
    np.testing.assert_array_equal(y, want)


MASKS = """kernel masks(n: i64, x: f32[n] in, i: i64[64] in, y: f32[256] out, z: f32[256] out) {
  for b in 0..2 block {
    for t in 0..32 thread {
      let first: i64 = (b * 32 + t) * 4
      for v in 0..4 vector(4, 1) {
        y[first + v] = x[first + v if first + v < n else 7.0:f32]
      }
      for v in 0..4 vector(4, 1) {
        z[255 - (first + v) if t % 2 == 0] = x[first + v if t < 20 & first + 4 <= n else -1.0:f32]
      }
      for v in 0..3 vector(4, 1) {
        z[255 - (first + v) if t % 2 == 1] = x[i[v] + t if v != 1]
      }
      z[252 - first if t % 2 == 1] = 5.0:f32
    }
  }
}
"""


def test_masks_and_gathers() -> None:
    n = 201
    x = RANDOM.standard_normal(n).astype(np.float32)
    i = RANDOM.integers(0, n - 32, 64)
    empty = np.full(256, -9, np.float32)
    _, _, y, z = run(MASKS, [x, i, empty, empty], n=n)
    at = np.arange(256)
    padded = np.append(x, np.full(55, 7, np.float32))
    np.testing.assert_array_equal(y, padded)
    t = at // 4 % 32
    even = np.where((t < 20) & (at // 4 * 4 + 4 <= n), padded, -1)
    v = at % 4
    odd = np.where(v == 1, 0, x[i[v] + t])
    odd = np.where(v == 3, 5, odd)
    np.testing.assert_array_equal(z[::-1], np.where(t % 2 == 0, even, odd).astype(np.float32))


FLOW = """kernel flow(n: i64, x: f32[n] in, y: f32[64] out) {
  for b in 0..2 block {
    alloc line: f32[32] shared
    for t in 0..32 thread {
      alloc best: f32[2] register
      alloc many: f32[64] stack
      best[0] = -inf:f32
      best[1] = 0.0:f32
      for i in 0..n // 64 {
        let v: f32 = x[(i * 2 + b) * 32 + t]
        many[i] = v
        if v > best[0] {
          best[0] = v
          best[1] = cast<f32>(i)
        }
        line[t] = v
        barrier
        best[1] += line[(t + 1) % 32]
        barrier
      }
      if t % 3 == 0 {
        best[0] = best[0] * 2.0:f32
      } else {
        if t % 3 == 1 {
          best[0] = many[n // 64 - 1]
        }
      }
      y[b * 32 + t] = best[0] + best[1]
    }
  }
}
"""


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_loops_and_branches(schedule: int | None) -> None:
    n = 6 * 64
    x = RANDOM.standard_normal(n).astype(np.float32)
    y = run(FLOW, [x, np.zeros(64, np.float32)], simulator=Simulator(schedule), n=n)[1]
    rows = x.reshape(6, 2, 32)
    best = np.full((2, 32), -np.inf, np.float32)
    where = np.zeros((2, 32), np.float32)
    for i, row in enumerate(rows):
        where = np.where(row > best, np.float32(i), where)
        best = np.maximum(best, row)
        where = where + np.roll(row, -1, axis=1)
    t = np.arange(32) % 3
    best = np.where(t == 0, best * 2, np.where(t == 1, rows[-1], best))
    np.testing.assert_allclose(y.reshape(2, 32), best + where, rtol=1e-6)


MEETING = """kernel meeting(y: f32[64] inout) {
  for b in 0..1 block {
    for t in 0..64 thread {
      y[t] = cast<f32>(t)
      barrier
      let v: f32 = y[(t + 1) % 64]
      barrier
      y[t] = v + 0.5:f32
      barrier
      if t == 0 {
        y[0] = y[1] + y[63]
      }
    }
  }
}
"""


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_meet_in_global_memory(schedule: int | None) -> None:
    (y,) = run(MEETING, [np.zeros(64, np.float32)], simulator=Simulator(schedule))
    want = np.roll(np.arange(64, dtype=np.float32), -1) + 0.5
    want[0] = want[1] + want[63]
    np.testing.assert_array_equal(y, want)


KEPT = """kernel kept(x: f32[64] in, y: f32[64] inout) {
  for b in 0..1 block {
    alloc tile: f32[64] shared
    for t in 0..64 thread {
      tile[t] = x[t]
      y[t] = x[t]
      barrier
      if t == 5 {
        tile[7] = 1.0:f32
        y[9] = 2.0:f32
      }
      barrier
      y[t] = tile[t] + y[t]
    }
  }
}
"""


def test_a_barrier_may_change_what_a_thread_stored() -> None:
    x = RANDOM.standard_normal(64).astype(np.float32)
    _, y = run(KEPT, [x, np.zeros_like(x)])
    tile, out = x.copy(), x.copy()
    tile[7], out[9] = 1, 2
    np.testing.assert_array_equal(y, tile + out)
    (found,) = opcodes(compiled(KEPT)).values()
    assert found["ld.shared.b32"] == found["ld.global.b32"] == found["ld.global.nc.b32"] == 1


STAGES = """kernel stages(n: i64, x: f32[n] in, w: f32[n] workspace, y: f32[n] out) {
  let half: i64 = n // 2
  for i in 0..n parallel {
    w[i] = x[i] * 2.0:f32
  }
  barrier
  check half > 0 else 3
  for b in 0..half // 32 block {
    for t in 0..32 thread {
      y[b * 32 + t] = w[half + b * 32 + t]
      y[half + b * 32 + t] = w[b * 32 + t]
    }
  }
}
"""


def test_launches_of_both_kinds() -> None:
    x = RANDOM.standard_normal(256).astype(np.float32)
    y = run(STAGES, [x, np.zeros_like(x), np.zeros_like(x)], n=256)[2]
    np.testing.assert_array_equal(y, np.roll(2 * x, 128))
    assert [e.threads for e in entries(STAGES)] == [128, 128, 32]
    with pytest.raises(AssertionError, match="a check failed: 3"):
        run(STAGES, [x[:1], x[:1], x[:1]], n=1)


LARGE = """kernel large(i: i64[64] in, y: f32[64] inout, z: bool[64] out) {
  for b in 0..2 block {
    alloc sum: f32[32] shared
    for t in 0..32 thread {
      alloc many: f32[5000] stack
      check i[b * 32 + t] < 5000 else 7
      for k in 0..5 {
        many[min(i[b * 32 + t], 4995) + k] = cast<f32>(min(i[b * 32 + t], 4995) + k + t)
      }
      sum[t] = many[min(i[b * 32 + t], 4999)]
      sum[t] += 1.0:f32
      sum[t] max= 100.0:f32
      y[b * 32 + t if t != 3] += sum[t] * 2.0:f32
      let odd: bool = shuffle down(t % 2 == 1, 1)
      z[b * 32 + t] = odd
    }
  }
}
"""


def test_large_memory_of_threads_checks_and_accumulations() -> None:
    i = RANDOM.integers(0, 5000, 64)
    y = np.ones(64, np.float32)
    (entry,) = entries(LARGE)
    assert entry.scratch >= 20000
    _, got, odd = run(LARGE, [i, y, np.zeros(64, bool)])
    t = np.arange(64) % 32
    want = np.where(t == 3, 1, 1 + 2 * np.maximum(i + t + 1, 100))
    np.testing.assert_array_equal(got, want.astype(np.float32))
    np.testing.assert_array_equal(odd, np.where(t == 31, True, t % 2 == 0))
    with pytest.raises(AssertionError, match="a check failed: 7"):
        run(LARGE, [i + 5000, y, np.zeros(64, bool)])


def test_a_missing_barrier_is_seen() -> None:
    """The tests above can fail: without its barriers the kernel of sums is wrong in some order."""
    text = SUMS.replace("      barrier\n", "")
    x = RANDOM.standard_normal(128).astype(np.float32)
    want = run(SUMS, [x, np.zeros_like(x)], n=128)[1]
    for schedule in range(8):
        try:
            got = run(text, [x, np.zeros_like(x)], simulator=Simulator(schedule), n=128)[1]
        except Fault:
            return
        if not np.array_equal(got, want):
            return
    pytest.fail("no schedule saw it")


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90a"])
def test_ptxas_takes_them_without_a_stack(architecture: str) -> None:
    for text in (SUMS, MASKS, MEETING, EXCHANGE.format("f64")):
        for report in assemble(compiled(text, architecture), architecture).reports.values():
            assert report.stack == report.spill_stores == report.spill_loads == 0, report


# --- what is refused -------------------------------------------------------------------------
def refused(text: str, *replacements: tuple[str, str]) -> str:
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(CompilerBug) as caught:
        for phase in phases(parse(text)):
            emit_entry(phase, gpu_target("sm_80"))
    return str(caught.value)


def test_no_cpu_runs_blocks() -> None:
    with pytest.raises(CompilerBug, match="a block loop in a kernel for"):
        emit_kernel(parse(MEETING), host_target(""), MATH)


def test_loops_that_are_no_grid() -> None:
    assert "a block loop and others" in refused(STAGES, ("  barrier\n", ""))
    assert "a number of threads that is known" in refused(MEETING, ("t in 0..64", "t in 1..1 + b"))
    assert "do not begin at 0" in refused(MEETING, ("t in 0..64", "t in 1..64"))
