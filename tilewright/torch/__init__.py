"""PyTorch: the ``torch.compile`` backend, and tilewright functions as functions of tensors."""

from __future__ import annotations

from tilewright.torch.backend import backend as backend

__all__ = ["backend"]
