"""What report and explain tell of a model."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn

import tilewright as tw
from tilewright.torch import backend
from tilewright.torch.records import regions


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.softmax(q @ k.transpose(-1, -2), -1) @ v)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), Attention(width)
        self.batch = nn.BatchNorm1d(13)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.batch(self.attn(self.norm(x)))


class Model(nn.Module):
    def __init__(self, breaks: bool = False, inverse: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(16) for _ in range(2)])
        self.head = nn.Linear(16, 13)
        self.breaks, self.inverse = breaks, inverse

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        if self.breaks:
            torch._dynamo.graph_break()
        x = self.head(x)
        if self.inverse:
            x = torch.linalg.eigvals(x).real.diag_embed()
        return x


def made(**options: Any) -> tuple[Model, Any, torch.Tensor]:
    model = Model(**options)
    return model, torch.compile(model, backend=backend), torch.randn(4, 13, 16)


def line_of(text: str) -> int:
    with open(__file__) as source:
        return next(i for i, line in enumerate(source, 1) if line.strip() == text)


def test_nothing_compiled_yet() -> None:
    model, compiled, _ = made()
    report = tw.torch.report(compiled)
    assert report.graphs == ()
    assert str(report) == "Model: nothing has been compiled with the backend tilewright"
    assert tw.torch.report(model).graphs == ()


def test_one_graph() -> None:
    model, compiled, x = made()
    compiled(x).sum().backward()
    for asked in (compiled, model):
        report = tw.torch.report(asked)
        (graph,) = report.graphs
        assert [p.kind for p in graph.programs] == ["forward", "backward"]
        assert all(p.kernels > 0 and p.versions == 1 for p in graph.programs)
        assert report.fallbacks == report.faults == report.breaks == ()
    assert tw.torch.report(Model()).graphs == ()


def test_fallbacks_have_line_module_and_reason() -> None:
    _, compiled, x = made(inverse=True)
    compiled(x)
    report = tw.torch.report(compiled)
    found = [f for f in report.fallbacks if "eig" in f.target]
    assert found and "eig" in str(report)
    assert found[0].loc is not None
    assert (found[0].loc.file, found[0].loc.line) == (
        __file__, line_of("x = torch.linalg.eigvals(x).real.diag_embed()"))
    assert "12 columns" in found[0].reason


def test_graph_breaks() -> None:
    _, compiled, x = made(breaks=True)
    compiled(x)
    report = tw.torch.report(compiled)
    assert len(report.graphs) == 2
    (found,) = report.breaks
    assert found.loc is not None
    assert (found.loc.file, found.loc.line) == (__file__, line_of("torch._dynamo.graph_break()"))
    assert "graph_break" in found.reason
    assert f"graph break at {found}" in str(report)


def test_modules_of_pytorch_alone() -> None:
    """There is no line of the user's in the graph: modules say where they are."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.GELU(), nn.Linear(4, 2)))
    found = tw.torch.explain(torch.compile(model, backend=backend), torch.randn(5, 3))
    assert {"0", "1.1"} <= {m for k in found.kernels for m in k.modules}
    assert found.programs[0].name == "the model"
    loc = found.programs[0].loc
    assert loc is not None and loc.file == __file__


def test_a_break_before_any_operator() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x * 2
    compiled = torch.compile(f, backend=backend)
    compiled(torch.ones(3))
    (found,) = tw.torch.report(compiled).breaks
    assert found.loc is not None and found.loc.file == __file__


def test_what_can_be_asked_for() -> None:
    model, x = Model(), torch.randn(4, 13, 16)

    @torch.compile(backend=backend)
    def step(x: torch.Tensor) -> torch.Tensor:
        return model(x).sum()
    step(x)
    assert len(tw.torch.report(step).graphs) == 1
    assert len(tw.torch.report(model).graphs) == 1
    other = Model()
    other.compile(backend=backend)
    other(x)
    assert len(tw.torch.report(other).graphs) == 1
    assert len(tw.torch.report(step).graphs) == 1


def test_records_die_with_their_programs() -> None:
    before = len(regions())
    _, compiled, x = made()
    compiled(x)
    assert len(regions()) == before + 1
    del compiled, _
    torch._dynamo.reset()
    gc.collect()
    assert len(regions()) <= before


# --- explain --------------------------------------------------------------------------------
def test_explain_training() -> None:
    model, compiled, x = made()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    found = tw.torch.explain(compiled, x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    assert [p.kind for p in found.programs] == ["forward", "backward"]
    assert found.backward is not None and found.forward > 0
    assert found.recompiled == 0
    for p in found.programs:
        assert p.graphs and p.graphs[0].startswith("graph ") and p.nodes > 10
        assert p.seconds > 0
        assert all(k.seconds >= 0 and k.bytes > 0 and k.floor > 0 for k in p.kernels)
        modules = {m for k in p.kernels for m in k.modules}
        assert {"blocks.0.attn.qkv", "blocks.1.attn.out", "head"} <= modules
        assert any(k.loc is not None and k.loc.file == __file__ for k in p.kernels)
    assert sum(k.flops for k in found.kernels) > 0
    text = str(found)
    assert "blocks.1.attn.qkv" in text and "peaks measured here" in text
    for kernel in found.kernels:
        assert kernel.name in text


def test_explain_breaks_and_fallbacks() -> None:
    _, compiled, x = made(breaks=True, inverse=True)
    found = tw.torch.explain(compiled, x)
    first, second = found.programs[:2]
    assert first.ends is not None and first.gap is not None and first.gap > 0
    assert second.ends is None
    assert [c for c in found.fallbacks if "eig" in c.target and c.seconds > 0]
    assert "graph break at" in str(found) and "until the next graph" in str(found)


def test_explain_compiles_what_is_not_compiled() -> None:
    found = tw.torch.explain(nn.Linear(3, 4), torch.randn(2, 3))
    assert [p.kind for p in found.programs] == ["forward", "backward"]
    found = tw.torch.explain(lambda x: x.sin().sum(), torch.randn(50))
    assert [p.kind for p in found.programs] == ["inference"]
    assert found.backward is None


def test_explain_says_that_nothing_is_compiled() -> None:
    found = tw.torch.explain(torch.compile(Model(), backend="eager"), torch.randn(4, 13, 16))
    assert not found.programs and "nothing of it is compiled with the backend" in str(found)


def test_explain_restores_arguments() -> None:
    x = torch.ones(8)
    found = tw.torch.explain(lambda x: x.mul_(2), x)
    assert torch.equal(x, torch.ones(8))
    assert len(found.kernels) == 1


def test_kernels_one_by_one_give_the_same_results() -> None:
    model, compiled, x = made()
    from tilewright.torch.profile import Profile, watching
    expected = compiled(x)
    programs = [p for r in regions() for record in r.records for p in record.programs]
    profile = Profile()
    with watching(programs, profile, kernels=True):
        torch.testing.assert_close(compiled(x), expected)
    assert profile.kernels
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_explain_says_on_how_many_threads(threads: int) -> None:
    with tw.threads(threads):
        found = tw.torch.explain(lambda x: x.sin(), torch.randn(50))
    assert found.threads == threads
    chosen = torch.compile(lambda x: x.cos(), backend=backend, options={"threads": threads})
    assert tw.torch.explain(chosen, torch.randn(50)).threads == threads
