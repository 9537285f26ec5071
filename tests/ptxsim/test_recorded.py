"""The simulator against what hardware did: every recording in recorded/ is replayed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tilewright.ptxsim.recording import Case, blank, dumps, loads
from tilewright.ptxsim.replay import replay
from tilewright.ptxsim.simulator import Simulator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

from instructions import all_cases  # noqa: E402

FILES = sorted((Path(__file__).parent / "recorded").glob("*.json"))


def agrees(case: Case, copies: str) -> bool:
    return case.difference(replay(case, Simulator(None, copies))) <= case.tolerance


@pytest.mark.skipif(not FILES, reason="nothing was recorded on hardware yet")
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
@pytest.mark.parametrize("copies", ["eager", "lazy"])
def test_hardware_agrees(file: Path, copies: str) -> None:
    device, cases = loads(file.read_text())
    wrong = [case.name for case in cases if not agrees(case, copies)]
    assert wrong == [], f"unlike {device}"


@pytest.mark.parametrize("case", all_cases(), ids=lambda c: c.name)
def test_a_case_fills_its_outputs_alike_in_every_schedule(case: Case) -> None:
    first = replay(case, Simulator())
    for seed, copies in ((None, "lazy"), (3, "lazy")):
        again = replay(case, Simulator(seed, copies))
        assert all(map(np.array_equal, first, again))
    if case.maps and case.maps[0].array:  # stores to a part of a tensor
        assert any((a != b).any() for a, b in zip(first, case.blank(), strict=True))
    else:  # random bytes may be like those of a blank array, here and there
        assert all((a == b).mean() < 0.05 for a, b in zip(first, case.blank(), strict=True))


def test_a_recording_is_replayed_and_a_wrong_one_is_noticed() -> None:
    cases = [c for c in all_cases() if "m16n8k16" in c.name or "span128" in c.name][:6]
    done = [case.with_outputs(replay(case, Simulator())) for case in cases]
    _, read = loads(dumps("the simulator", "2026-01-02", done))
    assert all(agrees(case, "lazy") for case in read)
    for case in read:
        case.outputs[0].view(np.uint8)[..., 1::4] ^= 0x40
        assert not agrees(case, "lazy")


def test_outputs_start_blank() -> None:
    assert blank((2, 3), "uint16").tobytes() == bytes([0x5A]) * 12
