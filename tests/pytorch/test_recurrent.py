"""Recurrent layers are part of a graph, with nothing set; other backends see none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_harness import check, compiled, same

import tilewright as tw
from tilewright.torch import backend, recurrent, tracing

KINDS: list[tuple[type[nn.RNNBase], dict[str, Any]]] = [
    (nn.LSTM, {"num_layers": 2, "dropout": 0.5}),
    (nn.GRU, {"batch_first": True, "bidirectional": True}),
    (nn.LSTM, {"proj_size": 3, "bias": False}),
    (nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
    (nn.RNN, {"bias": False}),
]


def layer(kind: type[nn.RNNBase], more: dict[str, Any]) -> nn.RNNBase:
    return kind(4, 6, **more)


def trains(model: nn.RNNBase, **options: Any) -> Any:
    """Outputs, states and gradients are eager's; the compiled layer."""
    run, x = compiled(model, **options), torch.randn(2, 2, 4)
    found = []
    for f in (model, run):
        model.zero_grad()
        torch.manual_seed(1)
        out, state = f(x)
        states = [state] if isinstance(state, Tensor) else list(state)
        (out.square().sum() + sum(s.sum() for s in states)).backward()
        found.append([out, *states, *(p.grad for p in model.parameters())])
    same(found[1], found[0], rtol=1e-4, atol=1e-5)
    return run


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_steps_are_written_out(number: int) -> None:
    trains(layer(*KINDS[number]))


@pytest.mark.parametrize("number", (0, 1))
def test_many_steps_are_a_call(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "MOST", 1)
    run = trains(layer(*KINDS[number]), fallback=True)
    report = tw.torch.report(run)
    assert not report.breaks
    assert {f.reason for f in report.fallbacks} == {"its steps are too many to be written out"}


def test_inference() -> None:
    model = nn.LSTM(4, 6).eval()
    with torch.no_grad():
        check(lambda x: model(x)[0], torch.randn(2, 2, 4))


def test_packed_sequences_break_the_graph() -> None:
    model = nn.LSTM(4, 6)

    def f(x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
        return nn.utils.rnn.pad_packed_sequence(model(packed)[0])[0] * 2
    x, lengths = torch.randn(5, 3, 4), torch.tensor([5, 4, 2])
    same(torch.compile(f, backend=backend)(x, lengths), f(x, lengths))


def test_other_backends_are_as_before() -> None:
    seen: list[Any] = []

    def other(module: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.extend(n.target for n in module.graph.nodes)
        return module.forward
    model, x = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 6)), torch.randn(1, 5, 4)
    compiled(model)(x)
    torch._dynamo.reset()
    torch.compile(model, backend=other)(x)
    assert torch.lstm not in seen
    assert str(int(torch._dynamo.config.allow_rnn)) == "0"


def test_what_the_user_sets_holds() -> None:
    before = torch._dynamo.config.allow_rnn
    with torch._dynamo.config.patch(allow_rnn=True):
        tracing.trace_for(backend)
        assert torch._dynamo.config.allow_rnn is True
    assert torch._dynamo.config.allow_rnn is before
