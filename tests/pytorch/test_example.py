"""The example trains: the same losses eagerly and compiled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

import tilewright
import tilewright.torch

ROOT = Path(__file__).parents[2]


def test_torch_train() -> None:
    script = ROOT / "examples" / "torch_train.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    eager, ours = re.findall(r"loss ([\d.]+) .*\.\.\. ([\d.]+);", done.stdout)
    assert eager[0] == ours[0] and float(ours[1]) < float(ours[0]) - 0.3
    apart = re.search(r"losses differ by (\S+) at most", done.stdout)
    assert apart is not None and float(apart[1]) < 1e-4, done.stdout
    assert script.read_text().count('torch.compile(model, backend="tilewright")') == 1


def test_what_the_readme_says() -> None:
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    torch._dynamo.list_backends()  # registers what is installed
    scope = {
        "torch": torch, "tilewright": tilewright, "model": torch.nn.Linear(3, 2),
        "x": torch.randn(4, 3)}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
