"""An empty disk cache for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_process import forget

from tilewright import config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty disk cache, for a process that has compiled nothing."""
    forget(monkeypatch)
    with config.override(cache=str(tmp_path / "cache")):
        yield tmp_path / "cache"
