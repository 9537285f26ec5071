"""A loop of a recipe while it is written: what a step reads, and where its results go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from tilewright.errors import Location
from tilewright.ir.build import place
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.types import TensorType
from tilewright.torch.depths import types_of
from tilewright.torch.dtypes import THEIRS, Sizes, numbers_of
from tilewright.torch.recipe import Alias, Export, Loop, Part, Place
from tilewright.torch.strides import contiguous

LoopRow: TypeAlias = "Callable[..., None]"
"""A row of :data:`LOOPS`, which writes the steps: ``f(steps, wanted, *arguments)``. Tensors are
:class:`Tensor`, numbers and text are themselves; ``wanted`` are the results that somebody reads.
"""

LOOPS: dict[Any, LoopRow] = {}
"""The operators that are loops, by overload packet."""


def loop_row(target: Any) -> Callable[[LoopRow], LoopRow]:
    """Enter a function for an operator."""
    def enter(function: LoopRow) -> LoopRow:
        LOOPS[target] = function
        return function
    return enter


def find_loop(target: Any) -> LoopRow | None:
    """The row of an operator, if it is a loop."""
    return LOOPS.get(getattr(target, "overloadpacket", None))


@dataclass(frozen=True)
class Tensor:
    """A tensor outside of a loop. ``dense``: its memory is a row-major buffer of its numbers."""

    type: TensorType
    slot: int
    dense: bool = True

    @property
    def slice(self) -> TensorType:
        """The type of a slice along the first axis."""
        return self.type.with_shape(self.type.shape[1:])


def outside(meta: torch.Tensor, sizes: Sizes, slot: int) -> Tensor:
    """The tensor in a slot, by what tracing knows of it."""
    type: TensorType = types_of(meta, sizes)
    shape: Any = type.shape
    dense = numbers_of(meta.stride(), sizes) == contiguous(shape)
    return Tensor(type, slot, dense and not meta.is_neg())


@dataclass
class Steps:
    """A loop of ``count`` steps. ``slot`` gives the number of a free slot; ``results`` are
    the slots of the operator's results.
    """

    name: str
    slot: Callable[[], int]
    count: Any = 0
    backwards: bool = False
    results: dict[int, int] = field(default_factory=dict)
    inputs: dict[Place, tuple[Node, bool]] = field(default_factory=dict)
    outputs: list[tuple[Place, Node]] = field(default_factory=list)
    buffers: list[Export] = field(default_factory=list)
    starts: list[tuple[Place, int | None]] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)

    # --- what a step reads --------------------------------------------------------------
    def whole(self, tensor: Tensor) -> Node:
        """All of a tensor."""
        return self._input(Place(tensor.slot), tensor.type, tensor.dense)

    def slice(self, tensor: Tensor, offset: int = 0) -> Node:
        """The slice of a tensor whose number is the step's and ``offset``."""
        return self._input(Place(tensor.slot, offset), tensor.slice, tensor.dense)

    def _input(self, at: Place, type: TensorType, dense: bool) -> Node:
        if at not in self.inputs:
            self.inputs[at] = input_node(f"{self.name}_{len(self.inputs)}", type), dense
        return self.inputs[at][0]

    # --- where results go ---------------------------------------------------------------
    def buffer(self, type: TensorType) -> Tensor:
        """A new tensor, for slices of results."""
        shape: Any = type.shape
        export = Export(self.slot(), shape, contiguous(shape), THEIRS[type.dtype])
        self.buffers.append(export)
        return Tensor(type, export.slot)

    def begins(self, tensor: Tensor, offset: int, value: Tensor) -> None:
        """Give a new tensor the slice that the first step reads at ``offset``."""
        self.starts.append((Place(tensor.slot, offset), value.slot))

    def fill(self, tensor: Tensor, value: Node, offset: int = 0) -> None:
        """Put a result of a step into a slice of a new tensor."""
        self.outputs.append((Place(tensor.slot, offset), value))

    def carried(self, type: TensorType) -> tuple[Tensor, Node]:
        """A value that a step hands to the next one, zeros at first: what is passed to
        :meth:`carry`, and the value before the step.
        """
        ring = self.buffer(type.with_shape((2, *type.shape)))
        before = Place(ring.slot, 0, ring=True)
        self.starts.append((before, None))
        return ring, self._input(before, type, True)

    def carry(self, ring: Tensor, value: Node) -> int:
        """The value after the step; the slot of the last one."""
        self.outputs.append((Place(ring.slot, -1, ring=True), value))
        shape = value.shape
        self.aliases.append(Alias(self.slot(), ring.slot, shape, contiguous(shape), 0))
        return self.aliases[-1].slot

    # --- the recipe's step --------------------------------------------------------------
    def loop(self, loc: Location | None) -> Loop:
        """The loop, which stands on this line of the user's."""
        outputs = tuple(place(node, (), loc) for _, node in self.outputs)
        used = {id(n) for n in Graph((), outputs).nodes()}
        reads = [(p, n, dense) for p, (n, dense) in self.inputs.items() if id(n) in used]
        graph = Graph(tuple(n for _, n, _ in reads), outputs, self.name)
        exports = tuple(
            Export(p.slot, n.shape, contiguous(n.shape), THEIRS[n.dtype])
            for p, n in self.outputs)
        copied = frozenset(i for i, (_, _, dense) in enumerate(reads) if not dense)
        part = Part(graph, tuple(p.slot for p, _, _ in reads), copied, exports, lazy=copied)
        return Loop(
            part, tuple(p for p, _, _ in reads), tuple(p for p, _ in self.outputs),
            tuple(self.buffers), tuple(self.starts), self.count, self.backwards)
