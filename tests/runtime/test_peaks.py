"""The machine's peaks: plausible, and kept."""

from __future__ import annotations

from tilewright.codegen import cpu
from tilewright.runtime.peaks import Peaks, peaks


def test_peaks_are_measured_once() -> None:
    target = cpu.host_target()
    found = peaks(target, 1)
    assert found.flops > 1e8 and found.bandwidth > 1e7
    assert peaks(target, 1) is found


def test_every_tier_that_runs_here() -> None:
    found = peaks(cpu.host_target("sse2"), 2)
    assert found.flops > 1e8


def test_floor() -> None:
    limits = Peaks(flops=1e9, bandwidth=1e8)
    assert limits.seconds(2_000_000_000, 1) == 2.0
    assert limits.seconds(1, 300_000_000) == 3.0
