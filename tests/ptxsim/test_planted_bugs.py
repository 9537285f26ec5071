"""Bugs planted in a pipelined matrix product, each of which a schedule of the simulator catches.

What a wrong kernel does in the simulator is a fault, a deadlock or a wrong result; the table says
which message or kind is expected, and how the kernel has to run for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tilewright.ptxsim.faults import Deadlock, Fault
from tilewright.ptxsim.simulator import Simulator
from tilewright.ptxsim.tensormap import Swizzle

sys.path.insert(0, str(Path(__file__).parent))

from on_device import OnDevice  # noqa: E402
from pipelined import A_BYTES, B_BYTES, STAGE_BYTES, gemm  # noqa: E402

STEPS = 6
ANY = [(seed, copies) for copies in ("lazy", "eager") for seed in (None, 1, 2, 3)]
LAZY = [(seed, "lazy") for seed in (None, 1, 2, 3)]


def run(text: str, seed: int | None, copies: str, races: bool = True) -> bool:
    """Whether the result of a kernel is right."""
    simulator = Simulator(seed, copies, limit=200_000, races=races)
    rng = np.random.default_rng(11)
    k = 64 * STEPS
    a, b = (OnDevice(simulator, rng.integers(-4, 5, (rows, k)).astype(ml_dtypes.bfloat16))
            for rows in (64, 16))
    c = OnDevice(simulator, np.zeros((64, 16), np.float32))
    maps = (a.map((64, 64), swizzle=Swizzle.B128), b.map((64, 16), swizzle=Swizzle.B128),
            c.map((16, 64)))
    simulator.launch(simulator.load(text), "gemm", (1,), (160,), [*maps, STEPS])
    expected = a.array.astype(np.float64) @ b.array.astype(np.float64).T
    return np.array_equal(c.back(), expected)


@pytest.mark.parametrize("seed, copies", ANY)
def test_the_kernel_without_bugs_is_right(seed: int | None, copies: str) -> None:
    assert run(gemm(), seed, copies)


WAIT = """  mbarrier.try_wait.parity.shared::cta.b64 %p1, [%empty], %phase;
  @!%p1 bra EMPTY;
"""
FLIP = "  xor.b32 %phase, %phase, 1;\nSAME:"
ARRIVE = "  mbarrier.arrive.shared::cta.b64 %d4, [%released];\n"
FENCE = "  fence.proxy.async.shared::cta;\n"

# name: (old, new, occurrences, ways of which each catches it, what is seen)
BUGS = {
    "wait_group in the loop off by one":
        ("wait_group.sync.aligned 1", "wait_group.sync.aligned 2", 1, LAZY, "wrong"),
    "last wait_group off by one":
        ("wait_group.sync.aligned 0", "wait_group.sync.aligned 1", 1, ANY, "touches %f0"),
    "no commit_group":
        ("  wgmma.commit_group.sync.aligned;\n", "", 1, ANY, "touches %f0"),
    "offset of a stage":
        (f"mad.lo.u32 %tile, %stage, {STAGE_BYTES}, %r2;\n  shr",
         f"mad.lo.u32 %tile, %stage, {STAGE_BYTES - 1024}, %r2;\n  shr", 1, ANY, "wrong"),
    "offset of B in a stage":
        (f"add.u64 %d1, %d0, {A_BYTES >> 4};", f"add.u64 %d1, %d0, {B_BYTES >> 4};", 1, ANY,
         "wrong"),
    "swizzle of the descriptor":
        (f"or.b64 %d0, %d0, {1 << 62 | 1024 >> 4 << 32 | 1 << 16}",
         f"or.b64 %d0, %d0, {2 << 62 | 1024 >> 4 << 32 | 1 << 16}", 1, ANY, "wrong"),
    "no swizzle in the descriptor":
        (f"or.b64 %d0, %d0, {1 << 62 | 1024 >> 4 << 32 | 1 << 16}",
         f"or.b64 %d0, %d0, {1024 >> 4 << 32 | 1 << 16}", 1, ANY, "wrong"),
    "stride of the descriptor":
        (f"or.b64 %d0, %d0, {1 << 62 | 1024 >> 4 << 32 | 1 << 16}",
         f"or.b64 %d0, %d0, {1 << 62 | 512 >> 4 << 32 | 1 << 16}", 1, ANY, "wrong"),
    "step of K in the descriptor":
        ("add.u64 %d2, %d0, 4;", "add.u64 %d2, %d0, 2;", 1, ANY, "wrong"),
    "expect_tx too short":
        (f"[%full], {STAGE_BYTES};", f"[%full], {A_BYTES};", 1, ANY, "deadlock or wrong"),
    "expect_tx too long":
        (f"[%full], {STAGE_BYTES};", f"[%full], {STAGE_BYTES + 16};", 1, ANY, "deadlock"),
    "no wait for an empty stage":
        (WAIT, "", 1, ANY, "deadlock or wrong or 0 of 1 are pending"),
    "phase of the consumer not flipped":
        (FLIP, "SAME:", 1, ANY, "deadlock or wrong"),
    "first phase of the producer":
        ("mov.u32 %phase, 1;", "mov.u32 %phase, 0;", 1, ANY, "deadlock"),
    "no proxy fence before the store":
        (FENCE, "", 1, ANY, "no fence.proxy.async"),
    "an arrive lost":
        (ARRIVE, "", 1, ANY, "deadlock"),
    "an mbarrier for too many":
        ("[%r1+8], 128;", "[%r1+8], 129;", 1, ANY, "deadlock"),
    "an mbarrier for too few":
        ("[%r1+8], 128;", "[%r1+8], 64;", 1, ANY, "deadlock or wrong"),
    "an mbarrier not initialised":
        ("  mbarrier.init.shared::cta.b64 [%r0+8], 1;\n", "", 1, ANY, "no mbarrier"),
    "no wait for the store to read":
        ("  cp.async.bulk.wait_group.read 0;\n", "", 1, LAZY, "no wait_group followed"),
    "a barrier in divergent code":
        ("  bar.sync 0;\n", "  @%p0 bra LATE;\n  bar.sync 0;\nLATE:\n", 1, ANY,
         "deadlock or no mbarrier"),
    "a misaligned tile":
        (f"add.u32 %r13, %tile, {A_BYTES};", f"add.u32 %r13, %tile, {A_BYTES - 64};", 1, ANY,
         "not aligned"),
}

# What is seen in every way if races are watched, where that is something else.
SEEN_AS_RACES = {
    "wait_group in the loop off by one": "a race for 0x0 of shared memory",
    "no commit_group": "a race for 0x0 of shared memory",
    "offset of a stage": "a race for 0x2400 of shared memory",
    "expect_tx too short": "a race for 0x2000 of shared memory",
    "a barrier in divergent code": "a race for 0x60 or no mbarrier",
}

# Races: whether their results are wrong depends on the order of the warps.
RACES = {
    "no barrier before the store": ("  bar.sync 1, 128;\n", ""),
    "no barrier after the mbarriers' initialisation": ("  bar.sync 0;\n", ""),
    "no wait for a full stage": (
        "  mbarrier.try_wait.parity.shared::cta.b64 %p1, [%full], %phase;\n  @!%p1 bra FULL;\n",
        ""),
}


def seen(text: str, seed: int | None, copies: str, races: bool = True) -> str:
    try:
        return "right" if run(text, seed, copies, races) else "wrong"
    except Deadlock:
        return "deadlock"
    except Fault as fault:
        return str(fault)


@pytest.mark.parametrize("bug", list(BUGS))
def test_a_planted_bug_is_caught(bug: str) -> None:
    old, new, count, ways, expected = BUGS[bug]
    text = gemm(old, new, count)
    for way in ways:
        what = seen(text, *way, races=bug not in SEEN_AS_RACES)
        assert any(part in what for part in expected.split(" or ")), (way, what)


@pytest.mark.parametrize("bug", list(SEEN_AS_RACES))
def test_a_planted_bug_is_a_race(bug: str) -> None:
    old, new, count, _, _ = BUGS[bug]
    for way in ANY:
        what = seen(gemm(old, new, count), *way)
        assert any(part in what for part in SEEN_AS_RACES[bug].split(" or ")), (way, what)


@pytest.mark.parametrize("bug", list(RACES))
def test_a_race_is_caught_in_every_order(bug: str) -> None:
    text = gemm(*RACES[bug])
    whats = {way: seen(text, *way) for way in ANY}
    assert all(w.startswith("a race") or w == "deadlock" or "no mbarrier" in w
               for w in whats.values()), whats


@pytest.mark.parametrize("bug", list(RACES))
def test_a_race_is_seen_in_the_results_of_some_order(bug: str) -> None:
    text = gemm(*RACES[bug])
    whats = [seen(text, seed, "lazy", races=False) for seed in range(8)]
    assert set(whats) != {"right"}, whats


LAST_WAIT = "  wgmma.wait_group.sync.aligned 0;\n"
OF_A_WARP = "  setp.lt.u32 %p7, %t, 32;\n  @%p7 wgmma.wait_group.sync.aligned 0;\n"


@pytest.mark.parametrize("way", ANY)
def test_each_warp_waits_for_its_own_groups(way: tuple[int | None, str]) -> None:
    others = "  @!%p7 wgmma.wait_group.sync.aligned 0;\n"
    assert run(gemm(LAST_WAIT, OF_A_WARP + others), *way)
    # The first warp goes on to the barrier, the others end; then the first one skips its wait.
    assert seen(gemm(LAST_WAIT, OF_A_WARP + "  @!%p7 bra DONE;\n"), *way) == "deadlock"
    what = seen(gemm(LAST_WAIT, OF_A_WARP + "  @%p7 bra DONE;\n"), *way)
    assert "touches %f0" in what
