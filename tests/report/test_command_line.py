"""``python -m tilewright``: what it prints, where errors go, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tilewright import config
from tilewright.__main__ import main
from tilewright.ir.text import parse
from tilewright.report import graphfile

GRAPH = """\
graph shifted(%x: f32[8, 5], %i: i64[3]) -> (f32[8, 5], f32[8, 3]) {
  %0 = max(%x, 0.0) : f32[8, 5]
  %1 = sum(%0) [axes=(1,)] : f32[8]
  %2 = broadcast(%1) [shape=(8, 5), axes=(0,)] : f32[8, 5]
  %3 = sub(%0, %2) : f32[8, 5]
  %4 = take(%0, %i) [axis=1] : f32[8, 3]
  return %3, %4
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shifted.tw"
    path.write_text(GRAPH)
    return path


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    with config.override(target="sse2", num_threads=3):
        assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for line in ("3 (chosen by override)", "'sse2' (override)", "compiled, ran and agrees"):
        assert line in text
    assert "TILEWRIGHT_DEBUG        0 (default)" in text
    titles = [line for line in text.splitlines() if not line.startswith(" ")]
    assert titles == ["versions", "machine", "gpus", "threads", "switches", "self-check"]


def test_doctor_finds_a_target_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with config.override(target="z80"):
        assert main(["doctor"]) == 1
    assert capsys.readouterr().out.count("there is no target 'z80'") == 2


def test_doctor_finds_a_switch_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", "many")
    assert main(["doctor"]) == 1
    found = "TILEWRIGHT_NUM_THREADS  cannot be read: 'many', expected a whole number, 0 or more"
    assert found in capsys.readouterr().out


def test_where_a_switch_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILEWRIGHT_DEBUG", raising=False)
    assert config.source("debug") == "default"
    monkeypatch.setenv("TILEWRIGHT_DEBUG", "1")
    assert config.source("debug") == "TILEWRIGHT_DEBUG"
    with config.override(debug=2):
        assert config.source("debug") == "override"


def test_opt_prints_what_changed_and_the_times(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["opt", str(file)]) == 0
    parts = capsys.readouterr().out.split("# --- ")
    titles = [part.split(" ---")[0] for part in parts[1:]]
    assert titles == ["trace", "fuse", "lower", "memory", "codegen", "times"]
    assert parts[1].split("---\n")[1].rstrip() == GRAPH.rstrip()
    assert "total" in parts[-1] and "(unchanged)" in parts[-1]


@pytest.mark.parametrize("stage, words", [
    ("graph", "graph shifted"), ("optimised", "graph shifted"), ("kernels", "arena"),
    ("loops", "kernel "), ("llvm", "define "), ("asm", ".text"), ("expand", "graph shifted"),
    ("fuse", "rows [8, 5] over [1]"), ("memory", "result 0 = "),
])
def test_opt_prints_one_stage(
    file: Path, capsys: pytest.CaptureFixture[str], stage: str, words: str
) -> None:
    assert main(["opt", str(file), "--stage", stage]) == 0
    text = capsys.readouterr().out
    assert words in text and "# ---" not in text


def test_a_graph_stage_is_itself_a_file_to_run(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["opt", str(file), "--stage", "optimised graph"])
    file.write_text(capsys.readouterr().out)
    assert main(["run", str(file)]) == 0


def test_run_is_compared_with_the_interpreter(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(file), "--seed", "3"]) == 0
    first = capsys.readouterr().out
    lines = first.splitlines()
    assert [line.split(":")[0] for line in lines if line[0] != " "] == [
        "input x", "input i", "result 0", "result 1"
    ]
    assert sum("largest difference to the interpreter" in line for line in lines) == 2
    main(["run", str(file), "--seed", "3"])
    assert capsys.readouterr().out == first
    main(["run", str(file), "--seed", "4"])
    assert capsys.readouterr().out != first


def test_run_fails_where_the_interpreter_gives_something_else(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = graphfile.run_graph
    monkeypatch.setattr(
        graphfile, "run_graph", lambda graph, inputs: [2 * a + 1 for a in right(graph, inputs)])
    assert main(["run", str(file)]) == 1


def test_difference_sees_what_is_not_finite() -> None:
    graph = parse(GRAPH)
    node = graph.outputs[0]
    zeros = graphfile.random_input(node, graphfile.np.random.default_rng(0)) * 0
    other = zeros.copy()
    other[0, 0] = float("nan")
    assert graphfile.difference(node, other, other)[0]
    assert not graphfile.difference(node, zeros, other)[0]
    other[0, 0] = float("inf")
    assert not graphfile.difference(node, -other, other)[0]


@pytest.mark.parametrize("command", ["opt", "run"])
@pytest.mark.parametrize("text, message", [
    (GRAPH.replace("max(", "mux("), """\
line 2, column 8: there is no op called mux
      %0 = mux(%x, 0.0) : f32[8, 5]
           ^"""),
    (GRAPH.replace("i64[3]", "f64[3]"), "# error: take: the index has element type f64"),
    ("graph g(%x: f32[n]) -> (f32[n]) {\n  return %x\n}\n", "the input x has a size without"),
    ("kernel k(x: f32[4] out) {\n  x[0] = 1.0:f32\n}\n", "holds a kernel"),
    ("", "expected graph or kernel, found the end of the text"),
])
def test_wrong_files_are_errors_without_a_traceback(
    file: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, message: str
) -> None:
    file.write_text(text)
    assert main([command, str(file)]) == 1
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.startswith("tilewright: ")
    assert printed.out == ""


def test_a_file_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.tw"
    assert main(["run", str(path)]) == 1
    expected = f"tilewright: {path} cannot be read: No such file or directory\n"
    assert capsys.readouterr().err == expected


def test_a_stage_that_does_not_exist(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["opt", str(file), "--stage", "lop"]) == 1
    assert capsys.readouterr().err == (
        "tilewright: there is no such stage\n"
        "  expected: graph, optimised graph, kernels, loops, llvm, asm, ptx, sass, simplify, "
        "disjoint, sums, expand, fold, attention, fuse, lower, memory\n"
        "  got:      lop\n"
    )


def test_as_a_program(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tilewright", "opt", str(file), "--stage", "loops"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "kernel " in done.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "tilewright", "polish"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )
    assert wrong.returncode == 2 and "usage: " in wrong.stderr


def test_doctor_shows_the_disk_cache(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with config.override(cache=str(tmp_path / "here"), cache_size=3):
        assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"disk cache  {tmp_path / 'here'} (override)" in text
    assert "entries, " in text and "of at most 3 MiB" in text
    with config.override(cache="off"):
        assert main(["doctor"]) == 0
    assert "disk cache  none: switched off by override" in capsys.readouterr().out


def test_cache_commands(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def said(*words: str) -> str:
        assert main(["cache", *words]) == 0
        return capsys.readouterr().out

    with config.override(cache=str(tmp_path / "cache")):
        before = said("why", str(file))
        assert "missing " in before and "found " not in before
        graphfile.run(graphfile.load(file), 0)
        after = said("why", str(file))
        assert "missing " not in after
        assert re.search(r"^found +[0-9a-f]{12}  program shifted$", after, re.MULTILINE)
        kernels = re.findall(r"^found +([0-9a-f]{12})  kernel \S+$", after, re.MULTILINE)
        listed = said("ls")
        assert all(key in listed for key in kernels)
        assert re.search(r"program +\w+ +shifted$", listed, re.MULTILINE)
        count = len(kernels) + 1
        assert said("verify") == f"{count} of {count} entries are in order\n"
        assert said("clear") == f"{count} entries removed\n"
        assert said("verify") == "0 of 0 entries are in order\n"


def test_cache_why_of_a_gpu(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with config.override(cache=str(tmp_path / "cache"), target="sim"):
        assert main(["cache", "why", str(file)]) == 0
        assert capsys.readouterr().out.count("missing ") == 2
        graphfile.run(graphfile.load(file), 0)
        assert main(["cache", "why", str(file)]) == 0
        text = capsys.readouterr().out
    assert re.search(r"^found +[0-9a-f]{12}  program shifted$", text, re.MULTILINE)
    assert re.search(r"^found +[0-9a-f]{12}  PTX of its kernels$", text, re.MULTILINE)


def test_cache_verify_removes_what_is_damaged(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with config.override(cache=str(tmp_path / "cache")):
        graphfile.run(graphfile.load(file), 0)
        path = next((tmp_path / "cache").glob("*.twc"))
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert main(["cache", "verify"]) == 1
        text = capsys.readouterr().out
        assert f"{path.name[:12]} " in text and "refused: the checksum differs" in text
        assert not path.exists()
        assert main(["cache", "verify"]) == 0


def test_cache_commands_without_a_cache(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    with config.override(cache="off"):
        for words in (["ls"], ["clear"], ["verify"], ["why", str(file)]):
            assert main(["cache", *words]) == 0
    text = capsys.readouterr().out
    assert "none: switched off by override" in text
    assert "0 entries removed" in text and "no cache" in text
