"""Fixtures for all tests: golden files, accepted with ``--bless``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Set before NumPy and PyTorch are loaded: their idle threads would spin on cores that the other
# processes of the tests need. OpenMP's are as many as before, and sleep.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes that they start, neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="write the golden files")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("simplify/add-zero", text)`` compares text with ``golden/simplify/add-zero.tw``.

    The folder ``golden`` stands beside the test's file. A name with a suffix keeps it. A missing
    or different file fails with the command that accepts the text; ``--bless`` accepts it.
    """
    folder = Path(request.path).parent / "golden"
    bless = request.config.getoption("--bless")
    command = f"python -m pytest '{request.node.nodeid}' --bless"

    def compare(name: str, text: str) -> None:
        path = folder / (name if Path(name).suffix else f"{name}.tw")
        text = text.rstrip("\n") + "\n"
        if bless:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        if not path.exists():
            pytest.fail(f"there is no golden file {shown}; to accept the text: {command}\n{text}")
        before = path.read_text()
        if before != text:
            lines = difflib.unified_diff(
                before.splitlines(), text.splitlines(), f"{shown}", "this run", lineterm=""
            )
            listed = "\n".join(lines)
            pytest.fail(f"{shown} differs; to accept the text: {command}\n{listed}")

    return compare
