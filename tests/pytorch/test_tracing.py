"""What TorchDynamo does otherwise for this backend, and for no other."""

from __future__ import annotations

import functools
import gc
import logging
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_harness import compiled

from tilewright.torch import backend, tracing


class Logger(logging.Logger):
    """With a method that says every message once, as that of ``transformers``."""

    @functools.lru_cache(None)  # noqa: B019 - that it remembers is what is tested
    def warning_once(self, *args: Any, **kwargs: Any) -> None:
        self.warning(*args, **kwargs)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of a logger of its own."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda r: found.append(r.getMessage())  # type: ignore[method-assign]
    made = Logger("of this test")
    made.addHandler(handler)
    monkeypatch.setitem(globals(), "logger", made)
    return found


logger: Any = None


def warns_once(x: Tensor) -> Tensor:
    y = x.sin()
    logger.warning_once(f"of {x.shape[0]} rows")
    return y * 2


def warns_always(x: Tensor) -> Tensor:
    logger.warning("again")
    return x * 2


def warns_wrongly(x: Tensor) -> Tensor:
    logger.warning_once("with a list", [1])
    return x * 2


def warns_of_numbers(x: Tensor) -> Tensor:
    logger.warning_once("the first is %s", x[0])
    return x * 2


def test_what_is_said_once_is_said_while_the_graph_is_traced(said: list[str]) -> None:
    run, x = compiled(warns_once), torch.randn(3)
    for _ in range(3):
        torch.testing.assert_close(run(x), x.sin() * 2)
    assert said == ["of 3 rows"]
    warns_once(x)
    assert said == ["of 3 rows"]


@pytest.mark.parametrize("function", (warns_always, warns_of_numbers))
def test_what_is_not_known_then_ends_the_graph(function: Any, said: list[str]) -> None:
    with pytest.raises(torch._dynamo.exc.Unsupported, match="logging.Logger"):
        compiled(function)(torch.randn(3))
    assert said == []
    run = torch.compile(function, backend=backend)
    for _ in range(2):
        run(torch.ones(3))
    assert said == (["again"] * 2 if function is warns_always else ["the first is tensor(1.)"] * 2)


def test_what_it_raises_is_raised_by_python(said: list[str]) -> None:
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        torch.compile(warns_wrongly, backend=backend)(torch.randn(3))


def test_loggers_end_the_graphs_of_other_backends(said: list[str]) -> None:
    compiled(warns_once)(torch.randn(4))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="logging.Logger"):
        torch.compile(warns_once, backend="eager", fullgraph=True)(torch.randn(3))


def test_entries_of_a_user_are_ignored(said: list[str]) -> None:
    with torch._dynamo.config.patch(ignore_logging_functions={logging.Logger.warning}):
        tracing.trace_for(backend)
        compiled(warns_always)(torch.randn(3))
    torch._dynamo.reset()
    torch._dynamo.config.ignore_logging_functions.add(logging.Logger.warning)
    try:
        compiled(warns_always)(torch.randn(3))
    finally:
        torch._dynamo.config.ignore_logging_functions.remove(logging.Logger.warning)
    assert said == []


def test_settings_hold_in_other_threads(said: list[str]) -> None:
    found = []
    model = nn.LSTM(2, 2)

    def work() -> None:
        found.append(compiled(lambda x: warns_once(model(x)[0]))(torch.randn(3, 1, 2)))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [tuple(f.shape) for f in found] == [(3, 1, 2)]
    assert said == ["of 3 rows"]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_while_our_graphs_are_traced(enabled: bool) -> None:
    torch._dynamo.reset()
    tracing.collector_rests_for(backend)  # PyTorch forgets such functions when it is reset
    found: list[bool] = []

    def f(x: Tensor) -> Tensor:
        found.append(gc.isenabled())  # in a frame that TorchDynamo reads, which calls it
        return x.sin()
    f = torch.compiler.allow_in_graph(f)  # called as the graph is traced, with fake tensors
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        torch.compile(lambda x: f(x), backend=backend)(torch.randn(3))
        assert found and not any(found) and gc.isenabled() is enabled
        found.clear()
        torch.compile(lambda x: f(x) + 1, backend="aot_eager")(torch.randn(3))
        assert found and all(seen is enabled for seen in found) and gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
        torch._dynamo.reset()
        tracing.collector_rests_for(backend)
