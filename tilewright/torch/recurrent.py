"""Recurrent layers (``nn.LSTM``, ``nn.GRU``, ``nn.RNN``) as parts of a graph.

TorchDynamo leaves them out of its graphs unless ``torch._dynamo.config.allow_rnn`` is set, which
would also change what other backends compile; ``tracing.py`` sets it for this one. What is then in
the graph is written out here, step by step, with the dropout between layers, which PyTorch's own
decomposition leaves out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from tilewright.torch import recurrent_calls  # noqa: F401 - it enters operators

State = tuple[Any, ...]
Cell = Callable[[Any, State, Any, Any], State]

MOST = 128
"""Steps, of all layers and directions together, that are written out: each costs a part of a second
when it is compiled. Longer layers run in PyTorch."""

COPIED = ("stack_trace", "nn_module_stack", "source_fn_stack")
"""What the nodes of a layer keep of it: where it stands in the user's program."""


# --- one step ---------------------------------------------------------------------------
def _lstm(x: Any, state: State, weight: Any, bias: Any) -> State:
    hidden, cell = state
    into, forget, new, out = _parts(functional.linear(hidden, weight, bias) + x, 4)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def _gru(x: Any, state: State, weight: Any, bias: Any) -> State:
    (hidden,) = state
    reset, update, new = _parts(functional.linear(hidden, weight, bias), 3)
    own_reset, own_update, own_new = _parts(x, 3)
    new = (own_new + new * (reset + own_reset).sigmoid()).tanh()
    return ((hidden - new) * (update + own_update).sigmoid() + new,)


def _plain(function: Callable[[Any], Any]) -> Cell:
    def cell(x: Any, state: State, weight: Any, bias: Any) -> State:
        return (function(functional.linear(state[0], weight, bias) + x),)
    return cell


def _parts(x: Any, count: int) -> list[Any]:
    """The equal parts of gates (batch, count * width)."""
    parts = x.chunk(count, 1)
    return [parts[i] for i in range(count)]


CELLS: dict[Any, Cell] = {
    torch.lstm: _lstm, torch.gru: _gru, torch.rnn_tanh: _plain(torch.tanh),
    torch.rnn_relu: _plain(torch.relu),
}


# --- layers -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Recurrence:
    """The arguments of PyTorch's functions for a batch of sequences of one length."""

    x: Any
    states: tuple[Any, ...]
    weights: Sequence[Any]
    biased: bool
    layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool


def _recurrence(node: fx.Node, tracer: fx.proxy.GraphAppendingTracer) -> Recurrence | None:
    """The arguments of a call; None for packed sequences, whose lengths are data."""
    if len(node.args) != 9 or not isinstance(node.args[2], list | tuple):
        return None
    x, states, weights, *rest = fx.map_arg(node.args, lambda n: fx.Proxy(n, tracer))
    rest[2] = _number(node.args[5])
    several = isinstance(states, tuple | list)
    return Recurrence(x, tuple(states) if several else (states,), weights, *rest)


def _number(value: Any) -> float:
    """A dropout rate; a symbolic one is compiled in."""
    return float(value.meta["example_value"] if isinstance(value, fx.Node) else value)


def _written_out(kind: Any, r: Recurrence, steps: int) -> tuple[Any, ...]:
    """The sequence of outputs, and the last states (layers * directions, batch, width)."""
    x = r.x.transpose(0, 1) if r.batch_first else r.x
    directions = 2 if r.bidirectional else 1
    each = len(r.weights) // (r.layers * directions)
    layer_of = _layer if steps * r.layers * directions <= MOST else _called
    lasts: list[State] = []
    for layer in range(r.layers):
        if layer and r.train and r.dropout:
            x = torch.dropout(x, r.dropout, True)
        outs = []
        for i in range(layer * directions, (layer + 1) * directions):
            weights = r.weights[each * i:each * (i + 1)]
            state = tuple(s[i] for s in r.states)
            out, last = layer_of(kind, x, state, weights, r.biased, steps, bool(i % directions))
            outs.append(out)
            lasts.append(last)
        x = outs[0] if directions == 1 else torch.cat(outs, 2)
    ends = tuple(torch.stack(list(parts), 0) for parts in zip(*lasts, strict=True))
    return (x.transpose(0, 1) if r.batch_first else x), *ends


def _layer(
    kind: Any, x: Any, state: State, weights: Sequence[Any], biased: bool, steps: int,
    backwards: bool,
) -> tuple[Any, State]:
    """One direction of a layer over x (steps, batch, width)."""
    into, again = weights[:2]
    bias, own_bias = weights[2:4] if biased else (None, None)
    projection = weights[-1] if len(weights) % 2 else None
    gates = functional.linear(x, into, bias)
    outs = []
    for t in range(steps):
        state = CELLS[kind](gates[steps - 1 - t if backwards else t], state, again, own_bias)
        if projection is not None:
            state = (functional.linear(state[0], projection), *state[1:])
        outs.append(state[0])
    return torch.stack(outs[::-1] if backwards else outs, 0), state


def _called(
    kind: Any, x: Any, state: State, weights: Sequence[Any], biased: bool, steps: int,
    backwards: bool,
) -> tuple[Any, State]:
    """The same by a call of PyTorch."""
    made = torch.ops.tilewright.recurrent_layer(
        kind.__name__, x.flip(0) if backwards else x, list(state), list(weights), biased)
    out = made[0].flip(0) if backwards else made[0]
    return out, tuple(made[i + 1] for i in range(len(state)))


def write_out(module: fx.GraphModule) -> None:
    """Replace the recurrent layers of what TorchDynamo traced by their steps, in place."""
    found = [n for n in module.graph.nodes if n.op == "call_function" and n.target in CELLS]
    tracer = fx.proxy.GraphAppendingTracer(module.graph)
    for node in found:
        recurrence = _recurrence(node, tracer)
        uses = list(node.users)
        if recurrence is None or any(u.target is not operator.getitem for u in uses):
            continue
        shape = node.args[0].meta["example_value"].shape
        steps = int(shape[1 if recurrence.batch_first else 0])
        before = set(module.graph.nodes)
        with module.graph.inserting_before(node):
            made = _written_out(node.target, recurrence, steps)
        for new in module.graph.nodes:
            if new not in before:
                new.meta.update((k, node.meta[k]) for k in COPIED if k in node.meta)
        for use in uses:
            use.replace_all_uses_with(made[use.args[1]].node)
            module.graph.erase_node(use)
        module.graph.erase_node(node)
    if found:
        module.recompile()
