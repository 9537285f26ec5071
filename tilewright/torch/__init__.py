"""PyTorch: the ``torch.compile`` backend, and tilewright functions as functions of tensors."""

from __future__ import annotations

import importlib.util

_found = importlib.util.find_spec("torch")
if _found is None or _found.origin is None:
    raise ImportError(
        "tilewright.torch needs PyTorch, which is not installed; "
        "to install it: pip install 'tilewright[torch]'", name="torch")

from tilewright.torch.backend import backend as backend  # noqa: E402
from tilewright.torch.explain import explain as explain  # noqa: E402
from tilewright.torch.faults import BackendWarning as BackendWarning  # noqa: E402
from tilewright.torch.function import function as function  # noqa: E402
from tilewright.torch.report import report as report  # noqa: E402

__all__ = ["BackendWarning", "backend", "explain", "function", "report"]
