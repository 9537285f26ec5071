"""DistributedDataParallel over gloo: two processes train one model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this build of PyTorch has no gloo")
def test_two_processes_train_as_in_eager(tmp_path: Path) -> None:
    store, results = tmp_path / "store", tmp_path / "results"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    team = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(store), str(results)], env=env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=300)[0] for process in team]
    finally:
        for process in team:
            process.kill()
    assert [p.returncode for p in team] == [0, 0], "\n".join(told)
    first, second = (torch.load(f"{results}.{rank}") for rank in range(2))
    for a, b, c, d in zip(
        first["compiled"], first["eager"], second["compiled"], second["eager"], strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert torch.equal(a, c) and torch.equal(b, d), "all processes have the same gradients"
    assert len(first["compiled"]) == 3 * 10
    # One graph per bucket: a bucket is sent while the backward of the others still runs.
    assert first["graphs"] > 1 and not first["faults"]
