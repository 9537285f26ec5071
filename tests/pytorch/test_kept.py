"""PyTorch's AOTAutograd cache keeps our programs: the same model in another process is not traced
to operators, differentiated and partitioned again."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional
from torch_harness import compiled

import tilewright as tw

sized = importlib.import_module("tilewright.torch.sized")

PROGRAM = """
import sys
import torch
from torch._dynamo.utils import counters
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
x = torch.randn(6, 4)
run = torch.compile(model, backend="tilewright", options={"threads": int(sys.argv[1])})
loss = run(x).square().mean()
loss.backward()
found = counters["aot_autograd"]
assert "torch._inductor.lowering" not in sys.modules, "Inductor's code generators were loaded"
print(loss.item(), model[0].weight.grad.sum().item(), found["autograd_cache_hit"])
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._functorch.config, "enable_autograd_cache", True)
    return tmp_path


def run(threads: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_another_process_finds_the_program(cache: Path) -> None:
    loss, gradient, hits = run(1)
    assert hits == "0"
    assert run(1) == [loss, gradient, "1"]
    assert run(2)[2] == "0", "other options are another program"


def test_loops_are_kept(cache: Path) -> None:
    model, x = nn.GRU(3, 4), torch.randn(5, 2, 3)
    found = []
    for hits in (0, 1):
        torch._dynamo.reset()
        counters.clear()
        model.zero_grad()
        out = compiled(model)(x)[0]
        out.square().sum().backward()
        found.append([out, *(p.grad for p in model.parameters())])
        assert counters["aot_autograd"]["autograd_cache_hit"] == hits
    torch.testing.assert_close(found[1], found[0])


def test_calls_of_pytorch_are_kept(cache: Path) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(torch.linalg.inv(x @ x.t() + torch.eye(3)) * 2, 0.5)
    x = torch.randn(3, 3)
    results = []
    for hits in (0, 1):
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(1)
        results.append(compiled(f, fallback=True)(x))
        assert counters["aot_autograd"]["autograd_cache_hit"] == hits
    torch.testing.assert_close(results[1], results[0])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))


def test_named_sizes_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is traced to operators or converted, whatever the numbers."""
    model = network()
    for hits, sizes in enumerate(((5, 9), (7, 3, 64))):
        torch._dynamo.reset()
        counters.clear()
        run = torch.compile(model, backend="tilewright", dynamic=True)
        if hits:
            monkeypatch.setattr(sized, "convert", None)
        for size in sizes:
            x = torch.randn(size, 4)
            torch.testing.assert_close(run(x), model(x))
            model.zero_grad()
            run(x).square().sum().backward()
            found = [p.grad for p in model.parameters()]
            model.zero_grad(set_to_none=True)
            model(x).square().sum().backward()
            torch.testing.assert_close(found, [p.grad for p in model.parameters()])
        assert counters["aot_autograd"]["autograd_cache_hit"] == hits
        report = tw.torch.report(run)
        assert not any(p.specialised for g in report.graphs for p in g.programs)


def test_numbers_that_a_kept_program_does_not_serve(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was traced is kept too, and is compiled for them."""
    model = network()
    for hits in (0, 1):
        torch._dynamo.reset()
        counters.clear()
        run = torch.compile(model, backend="tilewright", dynamic=True)
        x = torch.randn(5 + hits, 4)
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x))
        assert counters["aot_autograd"]["autograd_cache_hit"] == hits
        monkeypatch.setattr(sized.NamedRecipe, "serves", lambda *args: False)

