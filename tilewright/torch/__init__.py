"""PyTorch: the ``torch.compile`` backend, and tilewright functions as functions of tensors."""

from __future__ import annotations

from tilewright.torch.backend import backend as backend
from tilewright.torch.explain import explain as explain
from tilewright.torch.faults import BackendWarning as BackendWarning
from tilewright.torch.function import function as function
from tilewright.torch.report import report as report

__all__ = ["BackendWarning", "backend", "explain", "function", "report"]
