"""Recurrent layers are part of a graph, with nothing set; other backends see none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_harness import check, compiled, same

import tilewright as tw
from tilewright.torch import backend, recurrent, steps, tracing
from tilewright.torch.faults import BackendWarning
from tilewright.torch.loops import CompiledLoop
from tilewright.torch.recipe import Loop, Part
from tilewright.torch.records import Record, regions_of

KINDS: list[tuple[type[nn.RNNBase], dict[str, Any]]] = [
    (nn.LSTM, {"num_layers": 2, "dropout": 0.5}),
    (nn.GRU, {"batch_first": True, "bidirectional": True}),
    (nn.LSTM, {"proj_size": 3, "bias": False, "bidirectional": True}),
    (nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
    (nn.RNN, {"bias": False}),
    (nn.GRU, {"bias": False, "dtype": torch.float64}),
]


def layer(kind: type[nn.RNNBase], more: dict[str, Any], width: int = 6) -> nn.RNNBase:
    return kind(4, width, **more)


def states_of(model: nn.RNNBase, batch: int) -> Any:
    """States before the first step."""
    count = model.num_layers * (2 if model.bidirectional else 1)
    dtype = model.weight_ih_l0.dtype
    hidden = torch.randn(count, batch, model.proj_size or model.hidden_size, dtype=dtype)
    if not isinstance(model, nn.LSTM):
        return hidden
    return hidden, torch.randn(count, batch, model.hidden_size, dtype=dtype)


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def outcome(f: Any, model: nn.RNNBase, x: Tensor, before: Any) -> list[Tensor]:
    """Outputs, last states, and the gradients of the input, the first states and the weights."""
    model.zero_grad()
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    given = [s.clone().requires_grad_() for s in flat(before)]
    out, state = f(x, given[0] if isinstance(before, Tensor) else tuple(given))
    weights = torch.linspace(0, 1, out.numel(), dtype=out.dtype).view_as(out)
    ((out * weights).sum() + sum((s * s).sum() for s in flat(state))).backward()
    gradients = [t.grad for t in (x, *given, *model.parameters())]
    assert all(g is not None for g in gradients)
    return [out, *flat(state), *gradients]  # type: ignore[list-item]


def trains(
    model: nn.RNNBase, sizes: Sequence[tuple[int, int]] = ((2, 3),), run: Any = None,
    **options: Any
) -> Any:
    """All that comes out is eager's, for (batch, steps) of these sizes; the compiled layer."""
    run = compiled(model, **options) if run is None else run
    for batch, count in sizes:
        shape = (batch, count) if model.batch_first else (count, batch)
        x = torch.randn(*shape, 4, dtype=model.weight_ih_l0.dtype)
        before = states_of(model, batch)
        expected = outcome(model, model, x, before)
        same(outcome(run, model, x, before), expected, rtol=1e-4, atol=1e-5)
    return run


def records(run: Any) -> dict[str, Record]:
    return {r.kind: r for region in regions_of(run) for r in region.records}


def loops(record: Record) -> list[Loop]:
    return [s for s in record.programs[0].recipe.steps if isinstance(s, Loop)]


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_layers(number: int) -> None:
    trains(layer(*KINDS[number]))


@pytest.mark.parametrize(("width", "batch", "count"), [(16, 2, 5), (5, 1, 1), (6, 0, 3)])
def test_slices_that_are_aligned_or_not_or_empty(width: int, batch: int, count: int) -> None:
    trains(layer(nn.LSTM, {}, width), [(batch, count)])


def test_results_that_are_not_aligned_are_put_elsewhere_first(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompiledLoop, "streams", True)
    trains(nn.GRU(4, 6), [(2, 4)])


def test_what_is_compiled_does_not_grow_with_steps_or_layers() -> None:
    run = trains(nn.GRU(4, 4, num_layers=3), [(2, 150)])
    for record in records(run).values():
        assert record.faults == []
        assert [loop.steps for loop in loops(record)] == [150] * 3
        addresses = {p.native.address for p in record.programs[0].parts if p.times > 1}
        assert len(addresses) == 1, "layers of one shape are compiled once"


def test_weights_take_one_product_each() -> None:
    run = trains(nn.GRU(4, 6), [(2, 7)])
    backward = records(run)["backward"].programs[0].recipe.steps
    of_loops = [s.part for s in backward if isinstance(s, Loop)]
    outside = [s for s in backward if isinstance(s, Part)]

    def products(parts: list[Part]) -> int:
        return sum(n.op.kind == "contract" for part in parts for n in part.graph.nodes())
    assert products(of_loops) == 1
    assert products(outside) == 3, "of the weights of input and hidden state, and of the input"


def test_any_batch_and_any_length() -> None:
    model = nn.LSTM(4, 6, bidirectional=True)
    run = torch.compile(
        model, backend=backend, fullgraph=True, dynamic=True, options={"fallback": False})
    trains(model, [(3, 5), (4, 7), (2, 150)], run)
    for record in records(run).values():
        assert record.specialised is None
        assert len(record.programs) == 3


def test_16_bits() -> None:
    model = nn.GRU(4, 6, dtype=torch.bfloat16)
    x, before = torch.randn(3, 2, 4, dtype=torch.bfloat16), states_of(model, 2)
    expected = outcome(model, model, x, before)
    same(outcome(compiled(model), model, x, before), expected, rtol=5e-2, atol=5e-2)


def test_inference() -> None:
    model = nn.LSTM(4, 6).eval()
    with torch.no_grad():
        run = compiled(lambda x: model(x)[0])
        x = torch.randn(3, 2, 4)
        same(run(x), model(x)[0])
    loop, = loops(records(run)["inference"])
    assert len(loop.buffers) == 2, "without a gradient, of the values of a step only states stay"


def test_a_network_in_inference_mode() -> None:
    model = nn.GRU(4, 6).eval()
    with torch.no_grad():
        check(lambda x: model(x)[0], torch.randn(2, 2, 4))


def test_explain_counts_the_steps() -> None:
    model = nn.GRU(4, 6)
    found = tw.torch.explain(compiled(model), torch.randn(5, 2, 4))
    forward = found.programs[0]
    assert {k.runs for k in forward.kernels} == {1, 5}
    step = max((k for k in forward.kernels if k.runs == 5), key=lambda k: k.flops)
    assert step.flops >= 5 * 2 * 2 * 6 * 18
    assert f"5 x {step.name}" in str(found)


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_what_the_operators_mean(number: int) -> None:
    kind, more = KINDS[number]
    model = layer(kind, {**more, "dtype": torch.float64})
    name = {"LSTM": "lstm", "GRU": "gru"}.get(model.mode) or model.mode.lower()

    def by_operators(x: Tensor, before: Any) -> tuple[Tensor, Any]:
        out, *last = recurrent.all_steps(
            name, x, before, model._flat_weights, model.bias, model.num_layers, model.dropout,
            model.training, model.bidirectional, model.batch_first)
        return out, last[0] if len(last) == 1 else tuple(last)
    trains(model, run=by_operators)


def test_operators_of_which_a_loop_fails_run_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise AssertionError("no loop")
    for target in list(steps.LOOPS):
        monkeypatch.setitem(steps.LOOPS, target, fails)
    with pytest.warns(BackendWarning, match="recurrent_(steps|gradient)"):
        run = trains(nn.RNN(4, 6), fallback=True)
    assert {f.operators for r in records(run).values() for f in r.faults} == {
        "tilewright.recurrent_steps.default", "tilewright.recurrent_gradient.default"}


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
