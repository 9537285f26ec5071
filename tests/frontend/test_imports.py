"""What importing tilewright loads, and when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tilewright as tw

ROOT = Path(__file__).parents[2]
HEAVY = ("llvmlite", "networkx", "optree", "ml_dtypes")


def loaded(statement: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


def test_importing_tilewright_loads_nothing_heavy() -> None:
    assert loaded("import tilewright") == set()


def test_decorating_a_function_loads_no_compiler() -> None:
    found = loaded("import tilewright as tw\n@tw.jit\ndef f(x): return x + 1")
    assert not found & {"llvmlite", "networkx"}


@pytest.mark.parametrize("name", [n for n in tw.__all__ if n != "__version__"])
def test_public_names_exist(name: str) -> None:
    value = getattr(tw, name)
    assert value.__doc__
    assert name in dir(tw)


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="tilewright has no attribute 'grads'"):
        tw.grads  # noqa: B018
