"""How the backend is found, and what it may be asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch_harness import compiled

import tilewright as tw
from tilewright import config
from tilewright.runtime.threads import threads_in_force
from tilewright.torch import backend, program

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import torch
assert "tilewright" not in sys.modules
assert "tilewright" in torch._dynamo.list_backends(), torch._dynamo.list_backends()
model = torch.nn.Linear(3, 2)
x = torch.randn(4, 3)
compiled = torch.compile(model, backend="tilewright", options={"fallback": False})
torch.testing.assert_close(compiled(x), model(x))
compiled(x).sum().backward()
from tilewright.torch import report
assert len(report(compiled).graphs) == 1
print("found")
"""


def test_found_by_name_without_an_import(tmp_path: Path) -> None:
    """The entry points of pyproject.toml, as an installation writes them."""
    text = (ROOT / "pyproject.toml").read_text()
    points = re.findall(
        r"^\[project\.entry-points\.(\w+)\]\n((?:\w.*\n)+)", text, re.MULTILINE)
    info = tmp_path / "tilewright-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tilewright\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{lines}" for group, lines in points).replace('"', ""))
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", SCRIPT], capture_output=True,
        text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr


def refused(options: Any = None, mode: Any = None) -> str:
    f = torch.compile(lambda x: x + 1, backend=backend, options=options, mode=mode)
    with pytest.raises(BackendCompilerFailed) as raised:
        f(torch.ones(3))
    found = raised.value.inner_exception
    assert isinstance(found, tw.UserError)
    assert found.loc is not None and found.loc.file == __file__
    return str(found).split("\n  at:")[0]


def test_unknown_option() -> None:
    assert refused({"thread": 2}) == (
        "the backend tilewright has no option 'thread'\n"
        "  expected: threads, target, fallback, numerics, cache\n"
        "  got:      'thread'")


@pytest.mark.parametrize("options", [[1], "fast"])
def test_options_that_are_no_dictionary(options: Any) -> None:
    assert refused(options) == (
        "the options of the backend tilewright are not a dictionary\n"
        "  expected: a dict of options: threads, target, fallback, numerics, cache\n"
        f"  got:      {options!r}")


@pytest.mark.parametrize("name, value, words", [
    ("threads", 0, "a whole number from 1 on, or None"),
    ("threads", True, "a whole number from 1 on, or None"),
    ("threads", "2", "a whole number from 1 on, or None"),
    ("target", "avx1024", "one of sse2, avx2, avx512, or None"),
    ("fallback", "no", "True or False"),
    ("cache", "", "True, False or the path of a folder"),
    ("cache", 1.5, "True, False or the path of a folder"),
    ("numerics", "exact", "one of default, strict, fast"),
    ("numerics", ["strict"], "one of default, strict, fast"),
])
def test_impossible_value(name: str, value: Any, words: str) -> None:
    assert refused({name: value}) == (
        f"the option {name!r} of the backend tilewright cannot be {value!r}\n"
        f"  expected: {words}\n"
        f"  got:      {value!r}")


def test_modes() -> None:
    assert refused(mode="max-autotun").startswith("the backend tilewright has no mode")
    x = torch.randn(3)
    for mode in ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"):
        torch._dynamo.reset()
        f = torch.compile(lambda x: x.sin(), backend=backend, mode=mode)
        torch.testing.assert_close(f(x), x.sin())


def test_threads_hold_in_the_program_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    run = program.CompiledPart.run

    def note(self: Any, slots: Any) -> None:
        seen.append(threads_in_force())
        run(self, slots)
    monkeypatch.setattr(program.CompiledPart, "run", note)
    compiled(lambda x: x + 1, threads=3)(torch.ones(3))
    assert seen == [3]
    assert threads_in_force() != 3


def test_target() -> None:
    f = compiled(lambda x, y: x @ y + 1, target="sse2")
    x, y = torch.randn(5, 6), torch.randn(6, 7)
    torch.testing.assert_close(f(x, y), x @ y + 1)
    (graph,) = tw.torch.report(f).graphs
    assert graph.programs[0].kernels >= 1


def test_cache(tmp_path: Path) -> None:
    folder, other = tmp_path / "programs", tmp_path / "default"
    x = torch.randn(7)
    with config.override(cache=str(other)):
        compiled(lambda x: (x * 3.25).sin() - 1, cache=str(folder))(x)
        assert list(folder.iterdir()) and not other.exists()
        before = set(folder.iterdir())
        compiled(lambda x: (x * 4.25).cos() - 1, cache=False)(x)
        assert set(folder.iterdir()) == before and not other.exists()
        compiled(lambda x: (x * 5.25).tan() - 1)(x)
        assert list(other.iterdir())


def test_no_fallback_is_an_error_with_the_line() -> None:
    f = torch.compile(
        lambda x: torch.linalg.eigvals(x), backend=backend, options={"fallback": False})
    with pytest.raises(BackendCompilerFailed) as raised:
        f(torch.eye(13))
    found = raised.value.inner_exception
    assert isinstance(found, tw.Unsupported)
    assert found.loc is not None and found.loc.file == __file__
    assert "eig" in str(found)


# --- numerics -------------------------------------------------------------------------------
def arithmetic(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
    return torch.where(x > y + z, ((x * y) + z) * y - x / z, (x * z - y) * 3.1 + 1), x * y - z * x


def samples(dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.randn(5000).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_strict_has_the_bits_of_eager(dtype: torch.dtype) -> None:
    args = samples(dtype)
    for made, expected in zip(
        compiled(arithmetic, numerics="strict")(*args), arithmetic(*args), strict=True
    ):
        assert torch.equal(made, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fast_rounds_16_bit_floats_once(dtype: torch.dtype) -> None:
    args = samples(dtype)
    exact = arithmetic(*[a.float() for a in args])[1]
    made = compiled(arithmetic, numerics="fast")(*args)[1]
    assert made.dtype is dtype
    assert (made == exact.to(dtype)).float().mean() > 0.99
    eager = arithmetic(*args)[1]
    assert (eager == exact.to(dtype)).float().mean() < 0.9


def test_strict_contractions_and_sums() -> None:
    x, y = torch.randn(40, 50), torch.randn(50, 30)
    f = compiled(lambda x, y: (x @ y, (x * x).sum(1)), numerics="strict")
    torch.testing.assert_close(f(x, y), (x @ y, (x * x).sum(1)))
