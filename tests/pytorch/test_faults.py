"""A failure of tilewright: training goes on in PyTorch, or it is a CompilerBug with a script."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

import tilewright as tw
from tilewright import config
from tilewright.torch import BackendWarning, backend, parts, table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The row of tanh fails."""
    def fail(*args: Any, **kwargs: Any) -> None:
        raise IndexError("tuple index out of range")
    key = next(k for k in (torch.ops.aten.tanh, torch.ops.aten.tanh.default) if k in table.ROWS)
    monkeypatch.setitem(table.ROWS, key, fail)
    with config.override(reproducers=str(tmp_path)):
        yield tmp_path


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))


def test_training_goes_on(broken: Path) -> None:
    model, twin = network(), network()
    x = torch.randn(5, 3)
    compiled = torch.compile(model, backend=backend)
    torch.manual_seed(1)
    with pytest.warns(BackendWarning) as told:
        compiled(x).sum().backward()
    torch.manual_seed(1)
    twin(x).sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    (warning,) = told
    assert warning.filename == __file__
    (script,) = broken.iterdir()
    loc = f"{__file__}:{warning.lineno} in test_training_goes_on"
    assert str(warning.message) == (
        "tilewright could not compile aten.tanh.default of a forward program, which runs in "
        "PyTorch instead; this is a bug in tilewright, not in your program\n"
        "  failure:    IndexError: tuple index out of range\n"
        f"  at:         {loc}\n"
        f"  reproducer: python {script}\n"
        "  hint:       please report it with that file")
    report = tw.torch.report(compiled)
    assert [f.reproducer for f in report.faults] == [str(script)]
    assert f"reproducer: python {script}" in str(report)
    assert [f.target for f in report.fallbacks] == ["aten.tanh.default"]
    forward, backward = report.graphs[0].programs
    assert forward.kernels and backward.kernels, "the rest is compiled"


def test_the_script_runs_to_the_end_where_nothing_fails(broken: Path) -> None:
    with pytest.warns(BackendWarning):
        torch.compile(network(), backend=backend)(torch.randn(5, 3))
    (script,) = broken.iterdir()
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert done.stdout == "compiled and ran: the failure does not occur\n", done.stderr


def test_without_fallback_it_is_an_error(broken: Path) -> None:
    f = torch.compile(network(), backend=backend, options={"fallback": False})
    with pytest.raises(BackendCompilerFailed) as raised:
        f(torch.randn(5, 3))
    found = raised.value.inner_exception
    assert isinstance(found, tw.CompilerBug)
    assert "reproducer: python" in str(found)


def test_a_failure_of_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("no such schedule")
    monkeypatch.setattr(parts, "CompiledProgram", fail)
    x = torch.randn(5, 3)
    with config.override(reproducers=str(tmp_path)):
        f = torch.compile(lambda x: x.exp(), backend=backend)
        with pytest.warns(BackendWarning, match="AssertionError: no such schedule"):
            assert torch.equal(f(x), x.exp())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            f(x)  # it is said once
    (script,) = tmp_path.iterdir()
    assert "compile_graph(graph" in script.read_text()
    assert [f.reproducer for f in tw.torch.report(f).faults] == [str(script)]


@pytest.fixture
def breaks_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The compiler fails on graphs with these ops."""
    ops: set[str] = set()
    compile = parts.CompiledProgram

    def fail(graph: Any, *args: Any, **kwargs: Any) -> Any:
        if ops & {node.op.name for node in graph.nodes()}:
            raise AssertionError("no such schedule")
        return compile(graph, *args, **kwargs)
    monkeypatch.setattr(parts, "CompiledProgram", fail)
    with config.override(reproducers=str(tmp_path)):
        yield ops


def chain(x: torch.Tensor) -> torch.Tensor:
    return ((x @ x).exp() + x.sum(0).sin() @ x).exp().tanh()


def test_the_operator_that_breaks_the_compiler_runs_in_pytorch(
    breaks_at: set[str], tmp_path: Path
) -> None:
    breaks_at.add("sin")
    x, f = torch.randn(4, 4), torch.compile(chain, backend=backend)
    with pytest.warns(BackendWarning, match="compile aten.sin.default of an inference"):
        torch.testing.assert_close(f(x), chain(x))
    report = tw.torch.report(f)
    assert [f.target for f in report.fallbacks] == ["aten.sin.default"]
    assert [f.operators for f in report.faults] == ["aten.sin.default"]
    assert len(list(tmp_path.iterdir())) == 1, "the tries in between leave no scripts"


def test_all_operators_of_a_kind(breaks_at: set[str]) -> None:
    breaks_at.add("exp")
    x, f = torch.randn(4, 4), torch.compile(chain, backend=backend)
    with pytest.warns(BackendWarning, match="2 calls of aten.exp.default"):
        torch.testing.assert_close(f(x), chain(x))
    report = tw.torch.report(f)
    assert [f.reason for f in report.fallbacks] == [
        "tilewright failed: AssertionError: no such schedule"]
    assert report.graphs[0].programs[0].kernels


def test_unrelated_failures_are_a_whole_program(breaks_at: set[str]) -> None:
    breaks_at |= {"exp", "reduce_sum", "tanh", "sin", "contract", "dot"}
    x, f = torch.randn(4, 4), torch.compile(chain, backend=backend)
    with pytest.warns(BackendWarning, match="could not compile"):
        torch.testing.assert_close(f(x), chain(x))
