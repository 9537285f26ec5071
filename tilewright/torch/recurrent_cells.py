"""One step of a recurrent layer and of its gradient, on tensors or on nodes of a graph.

The formulas are those of PyTorch's documentation of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``. A layer
is its cell at every step: the gates' part that the inputs give is one product for all steps, made
before, and so are the gradients of weights, made behind; what a step computes is the part that the
state before it gives, and the state after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.torch.nodes import expand, number

Values: TypeAlias = tuple[Any, ...]


class Maths(Protocol):
    """What the formulas need beside ``+ - *`` of values (batch, width)."""

    def sigmoid(self, x: Any) -> Any: ...  # noqa: D102

    def tanh(self, x: Any) -> Any: ...  # noqa: D102

    def relu(self, x: Any) -> Any: ...  # noqa: D102

    def where_positive(self, x: Any, y: Any) -> Any:
        """``y`` where ``x`` is above 0, else 0."""

    def parts(self, x: Any, count: int) -> Sequence[Any]:
        """Equal parts side by side."""

    def joined(self, parts: Sequence[Any]) -> Any:
        """Such parts as one."""

    def with_bias(self, x: Any, bias: Any) -> Any: ...  # noqa: D102

    def product(self, x: Any, weight: Any) -> Any:
        """``x`` (batch, k) with ``weight`` (n, k)."""

    def product_back(self, x: Any, weight: Any) -> Any:
        """``x`` (batch, n) with ``weight`` (n, k)."""


class OnTensors:
    """The maths of PyTorch's tensors."""

    sigmoid, tanh, relu = (staticmethod(f) for f in (torch.sigmoid, torch.tanh, torch.relu))

    def where_positive(self, x: Any, y: Any) -> Any:  # noqa: D102
        return torch.where(x > 0, y, 0)

    def parts(self, x: Any, count: int) -> Sequence[Any]:  # noqa: D102
        found: Sequence[Any] = x.chunk(count, 1)
        return found

    def joined(self, parts: Sequence[Any]) -> Any:  # noqa: D102
        return torch.cat(list(parts), 1)

    def with_bias(self, x: Any, bias: Any) -> Any:  # noqa: D102
        return x + bias

    def product(self, x: Any, weight: Any) -> Any:  # noqa: D102
        return x @ weight.t()

    def product_back(self, x: Any, weight: Any) -> Any:  # noqa: D102
        return x @ weight


class OnNodes:
    """The maths of nodes of a graph."""

    def sigmoid(self, x: Node) -> Node:  # noqa: D102
        return make("sigmoid", (x,))

    def tanh(self, x: Node) -> Node:  # noqa: D102
        return make("tanh", (x,))

    def relu(self, x: Node) -> Node:  # noqa: D102
        return make("max", (x, number(0, x.dtype, x.shape)))

    def where_positive(self, x: Node, y: Node) -> Node:  # noqa: D102
        return build.where(x > 0, y, 0, y)

    def parts(self, x: Node, count: int) -> Sequence[Node]:  # noqa: D102
        rows, width = x.shape[0], x.shape[1] // count
        return [
            build.part(x, (0, i * width), (rows, (i + 1) * width), (1, 1)) for i in range(count)]

    def joined(self, parts: Sequence[Node]) -> Node:  # noqa: D102
        return build.concat(parts, 1)

    def with_bias(self, x: Node, bias: Node) -> Node:  # noqa: D102
        return x + expand(bias, x.shape)

    def product(self, x: Node, weight: Node) -> Node:  # noqa: D102
        return build.contract(x, weight, (0, 1), (2, 1), (0, 2))

    def product_back(self, x: Node, weight: Node) -> Node:  # noqa: D102
        return build.contract(x, weight, (0, 1), (1, 2), (0, 2))


@dataclass(frozen=True)
class Cell:
    """One kind of layer.

    gates   how many times as wide as the state the gates are
    states  how many tensors the state is
    kept    how many values beside the states the gradient needs
    apart   whether the gradients of the two parts of the gates, of the input and of the state,
            are different
    """

    gates: ClassVar[int]
    states: ClassVar[int] = 1
    kept: ClassVar[int] = 0
    apart: ClassVar[bool] = False

    def forward(self, m: Maths, x: Any, hidden: Any, before: Values) -> tuple[Values, Values]:
        """The state after a step and what is kept, from the two parts of the gates."""
        raise NotImplementedError

    def backward(
        self, m: Maths, totals: Values, before: Values, after: Values, kept: Values
    ) -> tuple[Any, Any, Values]:
        """The gradients of both parts of the gates, and of the state before the step where it is
        read beside them (None: nowhere), from the gradients of the state after it.
        """
        raise NotImplementedError


class Lstm(Cell):
    """States: hidden, cell. Kept: the gates and the tangent of the cell."""

    gates, states, kept = 4, 2, 5

    def forward(  # noqa: D102
        self, m: Maths, x: Any, hidden: Any, before: Values
    ) -> tuple[Values, Values]:
        into, forget, new, out = m.parts(x + hidden, 4)
        into, forget, new, out = m.sigmoid(into), m.sigmoid(forget), m.tanh(new), m.sigmoid(out)
        cell = forget * before[1] + into * new
        bent = m.tanh(cell)
        return (out * bent, cell), (into, forget, new, out, bent)

    def backward(  # noqa: D102
        self, m: Maths, totals: Values, before: Values, after: Values, kept: Values
    ) -> tuple[Any, Any, Values]:
        into, forget, new, out, bent = kept
        cell = totals[1] + totals[0] * out * (1 - bent * bent)
        gates = m.joined((
            cell * new * (into * (1 - into)), cell * before[1] * (forget * (1 - forget)),
            cell * into * (1 - new * new), totals[0] * bent * (out * (1 - out))))
        return gates, gates, (None, cell * forget)


class Gru(Cell):
    """State: hidden. Kept: the gates, and what the state gives to the new gate."""

    gates, kept, apart = 3, 4, True

    def forward(  # noqa: D102
        self, m: Maths, x: Any, hidden: Any, before: Values
    ) -> tuple[Values, Values]:
        own_reset, own_update, own_new = m.parts(x, 3)
        reset, update, share = m.parts(hidden, 3)
        reset, update = m.sigmoid(reset + own_reset), m.sigmoid(update + own_update)
        new = m.tanh(own_new + share * reset)
        return ((before[0] - new) * update + new,), (reset, update, new, share)

    def backward(  # noqa: D102
        self, m: Maths, totals: Values, before: Values, after: Values, kept: Values
    ) -> tuple[Any, Any, Values]:
        reset, update, new, share = kept
        total = totals[0]
        fresh = total * (1 - update) * (1 - new * new)
        first = fresh * share * (reset * (1 - reset))
        second = total * (before[0] - new) * (update * (1 - update))
        x = m.joined((first, second, fresh))
        hidden = m.joined((first, second, fresh * reset))
        return x, hidden, (total * update,)


class Plain(Cell):
    """State: hidden. ``bend`` is the name of its function."""

    gates = 1

    def __init__(self, bend: str) -> None:
        object.__setattr__(self, "bend", bend)

    bend: str

    def forward(  # noqa: D102
        self, m: Maths, x: Any, hidden: Any, before: Values
    ) -> tuple[Values, Values]:
        return (getattr(m, self.bend)(x + hidden),), ()

    def backward(  # noqa: D102
        self, m: Maths, totals: Values, before: Values, after: Values, kept: Values
    ) -> tuple[Any, Any, Values]:
        if self.bend == "tanh":
            gates = totals[0] * (1 - after[0] * after[0])
        else:
            gates = m.where_positive(after[0], totals[0])
        return gates, gates, (None,)


CELLS: dict[str, Cell] = {
    "lstm": Lstm(), "gru": Gru(), "rnn_tanh": Plain("tanh"), "rnn_relu": Plain("relu")}
"""By the name of PyTorch's function."""


def projected(kind: str, weights: Sequence[Any]) -> bool:
    """Whether a layer's hidden state is projected; its weights are those of the steps alone."""
    return kind == "lstm" and len(weights) > 1


def step(
    m: Maths, kind: str, x: Any, before: Values, weights: Sequence[Any]
) -> tuple[Values, Values]:
    """The state after a step (batch, width each), and what the gradient needs beside the states.

    ``x`` (batch, gates * width) is what the inputs give to the gates; ``weights`` are that of the
    hidden state, and a bias (GRU) or a projection (LSTM), if there is one.
    """
    cell, rest = CELLS[kind], weights[1:]
    hidden = m.product(before[0], weights[0])
    if rest and not projected(kind, weights):
        hidden = m.with_bias(hidden, rest[0])
    after, kept = cell.forward(m, x, hidden, before)
    if projected(kind, weights):
        kept, after = (*kept, after[0]), (m.product(after[0], rest[0]), *after[1:])
    return after, kept


def step_back(
    m: Maths, kind: str, totals: Values, before: Values, after: Values, kept: Values,
    weights: Sequence[Any],
) -> tuple[Values, Values]:
    """The gradients of the state before a step, and those of which all steps' are wanted.

    The latter are the gradients of the gates' part of the inputs; if it is another one, of their
    part of the hidden state; and, with a projection, of its result.
    """
    cell = CELLS[kind]
    more: Values = ()
    if projected(kind, weights):
        more = (totals[0],)
        totals = (m.product_back(totals[0], weights[1]), *totals[1:])
    gates, hidden, (beside, *rest) = cell.backward(m, totals, before, after, kept[:cell.kept])
    first = m.product_back(hidden, weights[0])
    if beside is not None:
        first = first + beside
    return (first, *rest), (gates, *((hidden,) if cell.apart else ()), *more)
