"""PyTorch goes on working after its threads were sent home."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tilewright.torch.openmp import release_threads

TASKS = Path("/proc/self/task")


@pytest.mark.skipif(not TASKS.exists(), reason="this system does not list threads")
@pytest.mark.skipif(sys.platform != "linux", reason="the library is looked for on Linux")
def test_threads_end_and_come_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        x = torch.randn(512, 512)
        expected = x @ x
        torch.exp(torch.randn(1 << 20))
        if not release_threads():
            pytest.skip("PyTorch brought no OpenMP library that can")
        fewer = len(list(TASKS.iterdir()))
        torch.exp(torch.randn(1 << 20))
        assert len(list(TASKS.iterdir())) >= fewer
        torch.testing.assert_close(x @ x, expected)
        assert release_threads() and release_threads()
    finally:
        torch.set_num_threads(before)
