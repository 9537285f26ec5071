"""The real cuda-bindings, on a library that stands for the driver: it takes what we pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_cuda_bindings_take_our_calls(tmp_path: Path) -> None:
    """The tests that want hardware pass with it."""
    pytest.importorskip("cuda.bindings.driver")
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        pytest.skip("there is no C compiler to make the library with")
    done = subprocess.run(
        [sys.executable, str(HERE / "fake_libcuda.py"), str(tmp_path), "-q", "-rs",
         "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "hardware and not pycuda",
         str(HERE / "test_drivers.py"), str(HERE / "test_jit_on_cuda.py")],
        capture_output=True, text=True, cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path])})
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 15, done.stdout
    assert "skipped" not in done.stdout, done.stdout
