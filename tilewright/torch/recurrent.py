"""Recurrent layers (``nn.LSTM``, ``nn.GRU``, ``nn.RNN``) as parts of a graph.

TorchDynamo leaves them out of its graphs unless ``torch._dynamo.config.allow_rnn`` is set, which
would also change what other backends compile; ``tracing.py`` sets it for this one. What is then in
the graph is taken apart here: for each layer and direction, one product of the inputs of all steps
with their weight, and one operator for the steps; between layers, dropout.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from tilewright.torch import recurrent_calls  # noqa: F401 - it defines operators
from tilewright.torch.instead import instead_of_formulas
from tilewright.torch.recurrent_cells import CELLS

State = tuple[Any, ...]

KINDS = {getattr(torch, name): name for name in CELLS}
"""PyTorch's functions, and what they are called."""

COPIED = ("stack_trace", "nn_module_stack", "source_fn_stack")
"""What the nodes of a layer keep of it: where it stands in the user's program."""


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


def _taken_apart(kind: str, r: Recurrence) -> tuple[Any, ...]:
    """The sequence of outputs, and the last states (layers * directions, batch, width).

    Functions alone are called, no methods: PyTorch's cache keeps no programs with methods of values
    that TorchDynamo has not seen.
    """
    x = torch.transpose(r.x, 0, 1) if r.batch_first else r.x
    directions = 2 if r.bidirectional else 1
    each = len(r.weights) // (r.layers * directions)
    lasts: list[State] = []
    for layer in range(r.layers):
        if layer and r.train and r.dropout:
            x = torch.dropout(x, r.dropout, True)
        outs = []
        for i in range(layer * directions, (layer + 1) * directions):
            weights = r.weights[each * i:each * (i + 1)]
            state = tuple(s[i] for s in r.states)
            out, last = _layer(kind, x, state, weights, r.biased, bool(i % directions))
            outs.append(out)
            lasts.append(last)
        x = outs[0] if directions == 1 else torch.cat(outs, 2)
    ends = tuple(torch.stack(list(parts), 0) for parts in zip(*lasts, strict=True))
    return (torch.transpose(x, 0, 1) if r.batch_first else x), *ends


def all_steps(
    kind: str, x: torch.Tensor, states: Any, weights: Sequence[torch.Tensor], *settings: Any
) -> tuple[Any, ...]:
    """What PyTorch's function of this name gives for its arguments, by the operators that it is
    taken apart into.
    """
    before = (states,) if isinstance(states, torch.Tensor) else tuple(states)
    return _taken_apart(kind, Recurrence(x, before, weights, *settings))


def _layer(
    kind: str, x: Any, state: State, weights: Sequence[Any], biased: bool, backwards: bool
) -> tuple[Any, State]:
    """One direction of a layer over x (steps, batch, width)."""
    into, again = weights[:2]
    bias: Any = None
    own_bias: Any = None
    if biased:
        bias, own_bias = weights[2:4]
    rest = [weights[-1]] if len(weights) % 2 else []
    if biased and kind == "gru":
        rest = [own_bias]  # it is within a product with another gate
    elif biased:
        bias = bias + own_bias
    gates = functional.linear(x, into, bias)
    # Autocast may have made them shorter numbers.
    states, own = (
        [torch.ops.aten.type_as(t, gates) for t in given] for given in (state, (again, *rest)))
    every = torch.ops.tilewright.recurrent_steps(kind, backwards, gates, states, own)
    last = 0 if backwards else -1
    outs = every[0][:-1] if backwards else every[0][1:]
    return outs, tuple(every[i][last] for i in range(len(state)))


for _kind in CELLS:
    # PyTorch's formulas go through all steps, whose number is then that of one trace.
    instead_of_formulas(getattr(torch.ops.aten, _kind).input)(functools.partial(all_steps, _kind))


def take_apart(module: fx.GraphModule) -> None:
    """Take apart the recurrent layers of what TorchDynamo traced, in place."""
    found = [n for n in module.graph.nodes if n.op == "call_function" and n.target in KINDS]
    tracer = fx.proxy.GraphAppendingTracer(module.graph)
    for node in found:
        recurrence = _recurrence(node, tracer)
        uses = list(node.users)
        if recurrence is None or any(u.target is not operator.getitem for u in uses):
            continue
        before = set(module.graph.nodes)
        with module.graph.inserting_before(node):
            made = _taken_apart(KINDS[node.target], recurrence)
        for new in module.graph.nodes:
            if new not in before:
                new.meta.update((k, node.meta[k]) for k in COPIED if k in node.meta)
        for use in uses:
            use.replace_all_uses_with(made[use.args[1]].node)
            module.graph.erase_node(use)
        module.graph.erase_node(node)
    if found:
        module.recompile()
