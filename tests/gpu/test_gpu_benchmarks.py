"""The commands of benchmarks/gpu: on the simulator, on a pretended CUDA, and without a GPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda

from tilewright.ptxsim.recording import loads
from tilewright.ptxsim.replay import replay
from tilewright.ptxsim.simulator import Simulator

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


def script(name: str) -> ModuleType:
    """A file of benchmarks/gpu as a module, with its neighbours importable as it has them."""
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        path = FOLDER / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmarks_gpu_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        del sys.path[:2]


def command(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *words: str) -> None:
    """Run a script's main with a command line."""
    monkeypatch.setattr(sys, "argv", [module.__file__, *words])
    module.main()


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CUDA can be imported."""
    monkeypatch.setitem(sys.modules, "cuda", None)


def test_the_whole_command_on_the_simulator(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), "--target", "sim", "--out", str(out)],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["device"] == "simulator" and result["copy_gbs"] is None
    cases = script("run").TINY
    assert [row["case"] for row in result["rows"]] == list(cases)
    assert all(row["difference"] <= cases[row["case"]].tolerance for row in result["rows"])
    assert not any("min_ms" in row for row in result["rows"])
    assert "gemm_40x24x33_tf32" in done.stdout and "no times" in done.stdout


def test_cases_are_timed_by_the_events_of_a_device(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = script("run")
    monkeypatch.setattr(run, "FULL", run.TINY)
    monkeypatch.setattr(run, "MOST_CALLS", 3)
    monkeypatch.setattr(run, "MOST_COPIES", 3)
    monkeypatch.setattr(run, "peers_of", lambda options: [run.Ours(options.target)])
    monkeypatch.setattr(run.Ours, "copy_rate", lambda self, nbytes=1 << 12, times=2: 2e12)
    out = tmp_path / "gpu.json"
    command(monkeypatch, run, "--only", "softmax", "gemm_40x24x33_float32", "--rounds", "2",
            "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["softmax_9x70", "gemm_40x24x33_float32"]
    assert all(0 < row["min_ms"] <= row["median_ms"] for row in rows)
    printed = capsys.readouterr().out
    assert "GB/s" in printed and "TFLOP/s" in printed and "copies 2000 GB/s" in printed


class Fails:
    """A peer that goes wrong: when it is built, when it is first called, in a round."""

    precision = staticmethod(lambda case: nullcontext())

    def __init__(self, name: str, ours: Any) -> None:
        self.name, self.ours, self.measured = name, ours, 0

    def make(self, case: Any, inputs: Any, copies: int) -> Any:
        if self.name == "build":
            raise RuntimeError("no kernel image")
        return self.ours.make(case, inputs, copies)

    def numbers(self, result: Any) -> np.ndarray:
        return self.ours.numbers(result)

    def measure(self, calls: Any, count: int) -> float:
        self.measured += 1
        if self.measured > {"first": 0, "round": 2}[self.name]:
            raise RuntimeError("an illegal memory access\nmore of it")
        return 1.0


def test_a_peer_that_fails_is_a_line_of_the_table(fake_cuda: FakeCuda) -> None:
    run = script("run")
    ours = run.Ours("cuda")
    peers = [ours, *(Fails(name, ours) for name in ("build", "first", "round"))]
    case = run.TINY["softmax_9x70"]
    run.MOST_CALLS = 3
    rows = run.case_rows(case, peers, 2, 1 << 10)
    assert rows[0]["min_ms"] > 0 and "error" not in rows[0]
    assert [row["error"] for row in rows[1:]] == [
        "RuntimeError: no kernel image", *["RuntimeError: an illegal memory access"] * 2]
    assert not any("min_ms" in row for row in rows[1:])
    text = run.lines(case, rows, 1000.0)
    assert len(text) == 4 and text[2].strip() == "first: RuntimeError: an illegal memory access"


def test_what_a_device_copies_per_second(fake_cuda: FakeCuda) -> None:
    script("run")
    assert script("ours").Ours("cuda").copy_rate(1 << 12, 2) > 0


def test_a_wrong_result_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    run = script("run")
    wrong = {"softmax": lambda x: x}
    monkeypatch.setattr(sys.modules["ours"], "FUNCTIONS", wrong)
    with pytest.raises(SystemExit, match="wrong: softmax_9x70"):
        command(monkeypatch, run, "--target", "sim", "--only", "softmax", "--out",
                str(tmp_path / "gpu.json"))
    assert "more than 2e-05" in capsys.readouterr().out


def test_a_case_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, script("run"), "--target", "sim", "--only", "nothing")


@pytest.mark.parametrize("name", ["run", "record"])
def test_without_a_gpu_the_commands_say_so(
    without_cuda: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(SystemExit, match="there is no GPU.*(cuda-bindings|driver)"):
        command(monkeypatch, script(name))


def test_pytorch_computes_the_same() -> None:
    pytest.importorskip("torch")
    run, peer = script("run"), script("torch_peer").Torch("torch", device="cpu")
    for case in run.TINY.values():
        inputs = case.inputs(np.random.default_rng(0))
        loss = run.loss_on_cpu(case, inputs) if case.truth is None else 0.0
        with peer.precision(case):
            calls = peer.make(case, inputs, 2 if case.rotates else 1)
            result = peer.numbers(calls[-1]())
        assert run.difference(case, result, inputs, loss) <= case.tolerance, case.name


def test_copies_of_inputs_exceed_the_cache() -> None:
    run = script("run")
    case = run.FULL["gemm_512x512x512_float32"]
    inputs = case.inputs(np.random.default_rng(0))
    assert run.copies_of(case, inputs, 50 << 20) * run.nbytes(inputs) >= 100 << 20
    assert run.copies_of(run.FULL["gpt_train"], (), 50 << 20) == 1


@pytest.mark.parametrize("target", ["sim", "cuda"])
def test_a_recording_is_what_the_simulator_replays(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str
) -> None:
    out = tmp_path / "recorded.json"
    command(monkeypatch, script("record"), "--target", target, "--out", str(out), "--only",
            "ldmatrix", "tma.load.2d.", "tma.add", "wgmma.mma_async.sync.aligned.m64n16k8")
    device, cases = loads(out.read_text())
    assert device and len(cases) > 20 and any(case.maps for case in cases)
    for case in cases:
        assert case.difference(replay(case, Simulator())) == 0, case.name


def test_recording_the_simulator_needs_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, script("record"), "--target", "sim")


def test_cases_of_other_architectures_are_left_out() -> None:
    record = script("record")
    cases = {case.name: case for case in record.all_cases()}
    hopper = cases["tma.load.1d.inside"]
    everywhere = cases["ldmatrix.sync.aligned.m8n8.x1.shared.b16"]
    assert record.fits(hopper, (9, 0)) and not record.fits(hopper, (12, 0))
    assert record.fits(cases["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"], (12, 0))
    assert not record.fits(everywhere, (7, 5))
