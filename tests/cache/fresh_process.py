"""What makes this process like one that has just begun."""

from __future__ import annotations

import pytest

from tilewright.codegen.cpu import library
from tilewright.codegen.gpu import program, ptx

KEPT = (
    (library, "_emitted"), (library, "_kernels"), (library, "_linked"),
    (program, "_emitted"), (ptx, "_written"),
)
"""The modules and tables where a process keeps what it has compiled."""


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process does not know."""
    for module, name in KEPT:
        monkeypatch.setattr(module, name, {})
