"""The tests of this folder need PyTorch; without it none of them is collected."""

from __future__ import annotations

import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Every test compiles anew and starts from the same random numbers."""
    import torch

    torch._dynamo.reset()
    torch._functorch.config.enable_autograd_cache = False
    torch.manual_seed(0)
