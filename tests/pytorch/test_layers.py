"""Equal layers are equal parts of a program: compiled once, and what they read is freed early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_harness import compiled, same

from tilewright.torch import layers
from tilewright.torch.lines import module_path
from tilewright.torch.recipe import Alias, Eager, Part, Recipe, Slot, last_reads
from tilewright.torch.records import Record, regions_of


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "LEAST_NODES", 4)
    monkeypatch.setattr(layers, "LEAST_BYTES", 1)


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up = nn.BatchNorm1d(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.norm(x)).tanh()


def deep(count: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), *(Layer(16) for _ in range(count)), nn.Linear(16, 3))


def records(run: Any) -> dict[str, Record]:
    return {r.kind: r for region in regions_of(run) for r in region.records}


def trained(model: nn.Module, run: Any, x: Tensor) -> list[Tensor]:
    made = [run(x)]
    for p in model.parameters():
        p.grad = None
    made[0].square().sum().backward()
    return [*made, *(p.grad for p in model.parameters()), *(b.clone() for b in model.buffers())]


def test_layers_are_compiled_once() -> None:
    model, x = deep(6), torch.randn(5, 8)
    run = compiled(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    expected = trained(model, model, x)
    model.load_state_dict(state)
    same(trained(model, run, x), expected, rtol=1e-4, atol=1e-5)
    for kind in ("forward", "backward"):
        parts = records(run)[kind].programs[0].parts
        assert len(parts) >= 6
        assert len({part.native.address for part in parts}) <= 4, kind
    places = [{module_path(n.loc) for n in part.made.graph.nodes()} for part in parts[1:5]]
    assert not set.intersection(*places) - {""}, "lines and modules are of each layer"


def test_running_statistics_are_updated_in_place() -> None:
    model, x = deep(4), torch.randn(5, 8)
    run = compiled(model)
    run(x)
    updates = records(run)["forward"].programs[0].recipe.updates
    # The number of batches is no input of a part.
    assert sum(update.placed for update in updates) >= 8


def test_sizes_with_names() -> None:
    model = deep(4).eval()
    run = torch.compile(model, backend="tilewright", fullgraph=True, dynamic=True)
    for count in (5, 7):
        x = torch.randn(count, 8)
        same(run(x), model(x), rtol=1e-4, atol=1e-5)


def test_programs_without_layers_are_one_part() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1))
    run = compiled(model)
    run(torch.randn(3, 4))
    assert len(records(run)["forward"].programs[0].parts) == 1


def repetitions(keys: str) -> list[tuple[int, int, int]]:
    return list(layers._repetitions(np.array([ord(c) for c in keys]), 0))


def test_repetitions() -> None:
    assert repetitions("abcdefg") == []
    assert repetitions("abcdabcd") == [], "two are not worth it"
    assert repetitions("x" + 3 * "abcd" + "y") == [(1, 13, 4)]
    assert repetitions(3 * "abcde" + "-" + 5 * "hijk") == [(16, 36, 4), (0, 15, 5)]
    assert repetitions(3 * (3 * "abcd" + "z")) == [(0, 39, 13)], "the longest"


def test_last_reads() -> None:
    recipe = Recipe(
        3, 7,
        (
            Part(None, (0, 1), frozenset(), ()),  # type: ignore[arg-type]
            Eager(None, ((Slot(3), [Slot(1)]), {}), (4,), False, (None,)),
            Alias(5, 4, (1,), (1,), 0),
            Part(None, (2, 5, 4), frozenset(), ()),  # type: ignore[arg-type]
        ),
        (6,), (), {}, ())
    assert last_reads(recipe) == [[0], [1, 3], [], [2, 4, 5]]
