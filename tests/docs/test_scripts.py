"""The documents and examples that are programs run, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs").glob("*.py"))


def run(*command: object) -> str:
    """Standard output of a Python program that must succeed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment,
        stdin=subprocess.DEVNULL, cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_document_runs(script: Path) -> None:
    assert run(script)


def test_digits_reach_the_goal() -> None:
    out = run(ROOT / "examples" / "digits.py", "--quiet", "--epochs", 20)
    assert float(re.findall(r"test accuracy +([\d.]+)%", out)[-1]) >= 97
