"""Recordings of hardware: the format, and the cases that a GPU is to run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tilewright.ptxsim.recording import Case, MapOf, dumps, loads

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

from instructions import all_cases  # noqa: E402


def one_case() -> Case:
    return Case(
        "a name", "text", 64, (np.arange(6, dtype=np.uint16).reshape(2, 3),),
        (np.array([1.0, np.inf, -2.0], np.float32).view(np.uint32),),
        (MapOf(0, "UINT16", (3, 2), (6,), (3, 2), (1, 1)),), tolerance=0.01,
    )


def test_a_recording_is_read_as_it_was_written() -> None:
    device, cases = loads(dumps("a device", "2026-01-02", [one_case()]))
    assert device == "a device" and len(cases) == 1
    found, wanted = cases[0], one_case()
    assert (found.name, found.ptx, found.threads) == ("a name", "text", 64)
    assert found.maps == wanted.maps and found.tolerance == 0.01
    assert np.array_equal(found.inputs[0], wanted.inputs[0])
    assert found.outputs[0].dtype == np.uint32
    assert np.array_equal(found.outputs[0], wanted.outputs[0])


def test_another_version_is_refused() -> None:
    text = dumps("a device", "2026-01-02", []).replace('"version": 1', '"version": 9')
    with pytest.raises(ValueError, match="version 9"):
        loads(text)


@pytest.mark.parametrize("values, expected", [
    ([1.0, np.inf, -2.0], 0.0), ([1.0, np.inf, -2.02], 0.01), ([1.0, 5.0, -2.0], np.inf),
    ([1.0, np.nan, -2.0], np.inf),
])
def test_differences_are_relative_to_the_greatest(values: list, expected: float) -> None:
    other = (np.array(values, np.float32).view(np.uint32),)
    assert one_case().difference(other) == pytest.approx(expected, rel=1e-4)


def test_without_a_tolerance_bits_are_compared() -> None:
    case = replace(one_case(), tolerance=0.0)
    assert case.difference(case.outputs) == 0
    assert case.difference((case.outputs[0] ^ 1,)) == 1


def test_cases_have_names_of_their_own_and_do_not_change() -> None:
    cases, again = all_cases(), all_cases()
    assert len({c.name for c in cases}) == len(cases) > 100
    for one, other in zip(cases, again, strict=True):
        assert one.ptx == other.ptx
        assert all(map(np.array_equal, one.inputs, other.inputs))


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="needs ptxas")
def test_ptxas_takes_every_case(tmp_path: Path) -> None:
    texts = {}
    for case in all_cases():
        texts.setdefault(case.name.split(".")[0] + case.name.rsplit(".", 2)[0][-12:], case.ptx)
    for i, text in enumerate(texts.values()):
        (tmp_path / f"{i}.ptx").write_text(text)
    for i, name in enumerate(texts):
        done = subprocess.run(
            ["ptxas", "-arch=sm_90a", "-o", str(tmp_path / "out"), str(tmp_path / f"{i}.ptx")],
            capture_output=True, text=True,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}{done.stdout}"
