"""The backend compiles for CPUs, and says so to who asks for a GPU."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from tilewright import config
from tilewright.torch import backend


def test_a_gpu_is_refused() -> None:
    compiled = torch.compile(lambda x: x + 1, backend=backend)
    with config.override(target="sim"):
        with pytest.raises(BackendCompilerFailed, match="the backend for PyTorch compiles for CPU"):
            compiled(torch.ones(3))
    torch._dynamo.reset()
