"""Named sizes in ``torch.compile``: one compile for all numbers, right for each of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tilewright.errors import UnsupportedSize
from tilewright.ir.sizes import Size
from tilewright.torch.records import regions
from tilewright.torch.report import report

sized, backend = (importlib.import_module(f"tilewright.torch.{n}") for n in ("sized", "backend"))


class Compiles:
    """What was compiled: graphs with named sizes, and programs for one combination of numbers."""

    def __init__(self) -> None:
        self.named = 0
        self.specialised = 0


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiles]:
    """Counts from here on."""
    torch._dynamo.reset()
    found = Compiles()
    compile_part, built = sized.compile_part, sized.built

    def count_named(*args: Any) -> Any:
        found.named += 1
        return compile_part(*args)

    def count_specialised(*args: Any) -> Any:
        found.specialised += 1
        return built(*args)

    monkeypatch.setattr(sized, "compile_part", count_named)
    for module in (sized, backend):
        monkeypatch.setattr(module, "built", count_specialised)
    yield found
    torch._dynamo.reset()


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(20, 48), nn.LayerNorm(48), nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.gelu(self.norm(self.up(x))))


class Block(nn.Module):
    """A transformer's block between an embedding and its transpose."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(50, width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        batch, time, width = x.shape
        split = self.project(self.first(x)).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        x = x + self.feed(self.second(x))
        return x @ self.embedding.weight.T


def gradients(
    run: Callable[..., torch.Tensor], model: nn.Module, x: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    """The loss and the gradients of all parameters."""
    model.zero_grad()
    scores = run(x)
    loss = functional.cross_entropy(scores.flatten(0, -2), labels.flatten())
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def compare(model: nn.Module, compiled: Any, x: torch.Tensor, labels: torch.Tensor) -> None:
    got, want = gradients(compiled, model, x, labels), gradients(model, model, x, labels)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


def compiled_of(model: Any, **more: Any) -> Any:
    return torch.compile(model, backend="tilewright", options={"fallback": False}, **more)


def test_a_network_is_compiled_once_for_all_batches(compiles: Compiles) -> None:
    model = Classifier()
    compiled = compiled_of(model, dynamic=True)
    for batch in (8, 33, 2, 100, 500, 8):
        compare(model, compiled, torch.randn(batch, 20), torch.randint(0, 5, (batch,)))
    assert (compiles.named, compiles.specialised) == (2, 0)
    assert [p.versions for g in report(compiled).graphs for p in g.programs] == [1, 1]


def test_a_transformer_is_compiled_once_for_all_batches_and_lengths(compiles: Compiles) -> None:
    model = Block()
    compiled = compiled_of(model, dynamic=True)
    for batch, time in ((3, 17), (2, 9), (5, 33), (4, 64), (7, 2)):
        tokens, labels = (torch.randint(0, 50, (batch, time)) for _ in range(2))
        compare(model, compiled, tokens, labels)
    assert (compiles.named, compiles.specialised) == (2, 0)


def test_the_second_size_makes_sizes_dynamic(compiles: Compiles) -> None:
    """Automatic dynamic shapes: one program for the first size, one for all that follow."""
    model = Classifier()
    compiled = compiled_of(model)
    for batch in (8, 9, 30, 77):
        compare(model, compiled, torch.randn(batch, 20), torch.randint(0, 5, (batch,)))
    assert (compiles.named, compiles.specialised) == (2, 2)


def test_sizes_of_one_and_none(compiles: Compiles) -> None:
    compiled = compiled_of(lambda x: torch.tanh(x) * 2 + x.sum(0), dynamic=True)
    for batch in (5, 1, 0, 7, 1):
        x = torch.randn(batch, 3)
        torch.testing.assert_close(compiled(x), torch.tanh(x) * 2 + x.sum(0))


def test_guards_of_torch_are_honoured(compiles: Compiles) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 10 else x[: x.shape[0] // 2] - 1

    compiled = compiled_of(f, dynamic=True)
    for batch in (4, 20, 9, 30, 10, 11):
        x = torch.randn(batch, 3)
        torch.testing.assert_close(compiled(x), f(x))
    assert (compiles.named, compiles.specialised) == (2, 0)


def test_results_that_are_views_and_sizes(compiles: Compiles) -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
        y = torch.exp(x)
        return y.t(), y[:, 1:], x.shape[0] * 2, torch.cat([x, y]).flatten()

    compiled = compiled_of(f, dynamic=True)
    for batch in (4, 7, 19):
        x = torch.randn(batch, 6)
        for a, b in zip(compiled(x), f(x), strict=True):
            if isinstance(b, int):
                assert a == b
            else:
                assert a.stride() == b.stride()
                torch.testing.assert_close(a, b)
    assert compiles.specialised == 0


def test_what_takes_numbers_only_is_compiled_for_them(
    compiles: Compiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that cannot do with a named size: one program per number; the record says why."""
    convert = sized.convert

    def numbers_only(module: Any, sizes: Any, kind: str) -> Any:
        if any(isinstance(size, Size) for size in sizes.values()):
            raise UnsupportedSize("no sort along a named size")
        return convert(module, sizes, kind)

    monkeypatch.setattr(sized, "convert", numbers_only)
    compiled = compiled_of(lambda x: torch.tanh(x) * 2, dynamic=True)
    for batch in (5, 12, 5):
        x = torch.randn(batch, 3)
        torch.testing.assert_close(compiled(x), torch.tanh(x) * 2)
    assert (compiles.named, compiles.specialised) == (0, 2)
    assert regions()[-1].records[-1].specialised == "UnsupportedSize: no sort along a named size"
    told = "the inference is compiled for each number of its sizes: UnsupportedSize: no sort"
    assert told in str(report(compiled))


MORE: dict[str, Callable[[torch.Tensor], Any]] = {
    "slices": lambda x: (x[2:], x[:-1], x[-3:], x[::2] * 2, x[:, :2], x[1], x[-1]),
    "joins": lambda x: (
        torch.cat([x, x[1:]]), torch.stack([x, x]), functional.pad(x, (1, 0, 2, 1))),
    "splits": lambda x: torch.split(torch.cat([x, x]), x.shape[0]),
    "means": lambda x: (x.mean(), x.mean(0), x.var(0), x.std(), functional.layer_norm(x, (6,))),
    "extremes": lambda x: (x.max(0), x.argmin(0), x.amax(), x.softmax(0), x.logsumexp(0)),
    "floats": lambda x: (x * x.shape[0] ** 0.5, x / (x.shape[0] - 1), x * (1.5 / x.shape[0])),
    "batch norm": lambda x: functional.batch_norm(
        x, torch.zeros(6), torch.ones(6), training=True),
    "convolution": lambda x: functional.conv1d(
        x[:, None], torch.linspace(-1, 1, 12).view(4, 1, 3), padding=1).relu(),
    "counts": lambda x: (torch.arange(x.shape[0]) * 2, torch.ones(x.shape[0], 2), x * x.shape[0]),
    "triangle": lambda x: torch.tril(x @ x.t()),
    "views": lambda x: (x.view(-1), x.view(x.shape[0], 2, 3).permute(1, 0, 2), x.repeat(2, 1),
                        x.expand(3, -1, -1), x.flip(0), x.unsqueeze(0)),
    "losses": lambda x: (functional.mse_loss(x, x * 0.5), functional.nll_loss(
        x.log_softmax(1), x.argmax(1))),
}


@pytest.mark.parametrize("name", MORE)
def test_operators_with_named_sizes(compiles: Compiles, name: str) -> None:
    f = MORE[name]
    compiled = compiled_of(f, dynamic=True)
    for batch in (5, 8, 31):
        x = torch.randn(batch, 6)
        torch.testing.assert_close(compiled(x), f(x), rtol=1e-4, atol=1e-5)
    assert compiles.specialised == 0


def test_no_growth_over_many_sizes(compiles: Compiles) -> None:
    compiled = compiled_of(lambda x: x.softmax(0), dynamic=True)
    for batch in range(2, 300):
        x = torch.randn(batch)
        torch.testing.assert_close(compiled(x), x.softmax(0))
    assert (compiles.named, compiles.specialised) == (1, 0)
