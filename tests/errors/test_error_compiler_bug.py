"""A failure of the compiler itself: said so, with a script that fails in the same way."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright import config
from tilewright.frontend import compiled

ROOT = Path(__file__).parents[2]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def fail(*args: object, **options: object) -> None:
        raise IndexError("tuple index out of range")
    monkeypatch.setattr(compiled, "compile_graph", fail)
    with config.override(reproducers=str(tmp_path / "bugs")):
        yield tmp_path / "bugs"


def step(x, table):
    return np.tanh(x @ table) + np.array([1.0, 2.0, 3.5])


ARGUMENTS = (np.ones((2, 4)), np.ones((4, 3)))


def test_message(broken: Path) -> None:
    with pytest.raises(tw.CompilerBug) as raised:
        tw.jit(step)(*ARGUMENTS)
    message = re.sub(r"(at: +)\S+:\d+", r"\1HERE", str(raised.value))
    message = re.sub(r"python \S+tilewright_bug_[0-9a-f]{12}\.py", "python FILE", message)
    assert message == (
        "this is a bug in tilewright, not in your program: compiling step failed\n"
        "  failure:    IndexError: tuple index out of range\n"
        "  at:         HERE in test_message\n"
        "  reproducer: python FILE\n"
        "  hint:       please report it with that file"
    )
    assert isinstance(raised.value.__cause__, IndexError)


def script_of(broken: Path) -> Path:
    with pytest.raises(tw.CompilerBug):
        tw.jit(step)(*ARGUMENTS)
    (path,) = broken.iterdir()
    return path


def run(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
    )


def test_reproducer_runs_to_the_end_where_nothing_fails(broken: Path) -> None:
    done = run(script_of(broken))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "compiled and ran: the failure does not occur\n"


def test_reproducer_of_named_sizes(broken: Path) -> None:
    with pytest.raises(tw.CompilerBug):
        tw.jit(step, dynamic={"x": {0: "batch"}})(*ARGUMENTS)
    (path,) = broken.iterdir()
    assert "f64[batch, 4]" in path.read_text() and "SIZES = {'batch': 2}" in path.read_text()
    done = run(path)
    assert done.returncode == 0, done.stderr


def test_reproducer_fails_in_the_same_way(broken: Path) -> None:
    path = script_of(broken)
    breaking = (
        "import tilewright.compiler.pipeline as pipeline\n"
        "def fail(*args, **options):\n    raise IndexError('tuple index out of range')\n"
        "pipeline.compile_graph = fail\n"
    )
    path.write_text(breaking + path.read_text().replace('"""Reproduces', 'r"""Reproduces', 1))
    done = run(path)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("IndexError: tuple index out of range")


def test_errors_of_the_user_are_not_called_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise tw.Unsupported("this cannot be compiled")
    monkeypatch.setattr(compiled, "compile_graph", fail)
    with pytest.raises(tw.Unsupported, match="this cannot be compiled"):
        tw.jit(step)(*ARGUMENTS)
