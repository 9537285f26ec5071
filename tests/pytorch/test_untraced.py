"""What the report tells of functions that TorchDynamo gives up."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import tilewright as tw
from tilewright.torch import backend

LOCK = threading.Lock()


def in_a_try(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    try:
        torch._dynamo.graph_break()  # here
    except ValueError:
        pass
    return y + 1


def in_a_loop(x: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        x = x.sin()
        torch._dynamo.graph_break()  # here
    return x


def in_the_rest(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    torch._dynamo.graph_break()
    with LOCK:  # here
        return y + 1


class Model(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.function(x))


def line_in(function: Any, text: str = "# here") -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


@pytest.mark.parametrize("function", [in_a_try, in_a_loop, in_the_rest])
def test_a_function_that_is_given_up(function: Any) -> None:
    torch._dynamo.reset()
    run = torch.compile(function, backend=backend)
    run(torch.ones(4))
    found = tw.torch.report(run)
    assert len(found.untraced) == 1, found
    untraced = found.untraced[0]
    assert untraced.loc.function == function.__name__ and untraced.loc.file == __file__
    assert untraced.why.loc is not None and untraced.why.loc.line == line_in(function)
    assert untraced.why.reason in str(found) and f"{__file__}:{line_in(function)}" in str(found)
    assert ("the rest of" in str(untraced)) == (function is in_the_rest)
    other = torch.compile(function, backend=backend)
    other(torch.ones(4))  # it is not traced again
    assert [u.why for u in tw.torch.report(other).untraced] == [untraced.why]


def test_within_a_model() -> None:
    torch._dynamo.reset()
    run = torch.compile(Model(in_a_loop), backend=backend)
    run(torch.ones(2, 4))
    assert [u.loc.function for u in tw.torch.report(run).untraced] == ["in_a_loop"]
    plain = torch.compile(lambda x: x.sin(), backend=backend)
    plain(torch.ones(2))
    assert not tw.torch.report(plain).untraced and not tw.torch.report(plain).breaks


def test_breaks_without_a_graph() -> None:
    def nothing(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()  # here
        return x
    run = torch.compile(nothing, backend=backend)
    run(torch.ones(2))
    found = tw.torch.report(run)
    assert not found.graphs
    assert [b.loc.line for b in found.breaks if b.loc] == [line_in(nothing)]


def test_what_torchdynamo_is_not_asked_for() -> None:
    class Disabled(nn.Module):
        @torch.compiler.disable
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    def generator(x: torch.Tensor) -> Iterator[torch.Tensor]:
        yield x + 1
    for model, why in ((Disabled(), "torch.compiler.disable"), (generator, "a generator")):
        run = torch.compile(model, backend=backend)  # type: ignore[arg-type]
        run(torch.ones(2))
        found = tw.torch.report(run)
        assert found.kept_out is not None and why in found.kept_out and why in str(found)
        assert f"{__file__}:" in str(found)
