"""The graph of one depth of a program while it is written, and how tensors lie in memory for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tilewright.ir.build import place
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.types import DType, TensorType
from tilewright.torch.dtypes import OURS, PARTS, Sizes, numbers_of
from tilewright.torch.nodes import cast, number
from tilewright.torch.pairs import Pair, apart
from tilewright.torch.recipe import Alias, Eager, Export, Loop, Part
from tilewright.torch.strides import Layout, layout_of, read
from tilewright.torch.table import Call

Geometry = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides."""


@dataclass
class Depth:
    """The graph of one depth: by slot its inputs, those made contiguous, those that may stand for
    their conjugates or negatives, and their values; the results, and what runs after it.
    """

    inputs: dict[int, Node] = field(default_factory=dict)
    copied: set[int] = field(default_factory=set)
    lazy: set[int] = field(default_factory=set)
    read: dict[int, Node | Pair] = field(default_factory=dict)
    exports: list[tuple[Export, Node]] = field(default_factory=list)
    after: list[Loop | Eager | Alias] = field(default_factory=list)

    def value(self, slot: int, meta: torch.Tensor, geometry: Geometry, name: str) -> Node | Pair:
        """A tensor of an earlier step as an input of the graph."""
        if slot not in self.read:
            dtype = meta.dtype
            shape, strides = in_memory(dtype, geometry)
            # What stands for its conjugate or negative is computed, into memory of its own.
            computed = meta.is_conj() or meta.is_neg()
            layout = None if computed else layout_of(shape, strides)
            if layout is None:
                self.copied.add(slot)
                layout = row_major(shape)
            buffer = input_node(name, TensorType(element(dtype), layout.shape))
            self.inputs[slot] = buffer
            found = read(buffer, layout, shape)
            if dtype in PARTS or computed:
                self.lazy.add(slot)
            self.read[slot] = apart(found) if dtype in PARTS else found
        return self.read[slot]

    def part(self, name: str) -> Part:
        """The step that runs the graph."""
        exports = tuple(e for e, _ in self.exports)
        outputs = tuple(n for _, n in self.exports)
        used = {id(n) for n in Graph((), outputs).nodes()}
        pairs = [
            (slot, n) for slot, n in self.inputs.items()
            if id(n) in used or any(e.into == slot for e in exports)
        ]
        graph = Graph(tuple(n for _, n in pairs), outputs, name)
        slots = tuple(slot for slot, _ in pairs)
        copied = frozenset(i for i, slot in enumerate(slots) if slot in self.copied)
        lazy = frozenset(i for i, slot in enumerate(slots) if slot in self.lazy)
        return Part(graph, slots, copied, exports, lazy)


def finished(made: Any, call: Call) -> Any:
    """What a row gave, in the types that PyTorch gives its results."""
    if isinstance(made, Pair):
        if not call.paired:
            raise AssertionError(f"{call.target} is real, its row gave a pair")
        return made.each(lambda part: finished(part, replace(call, paired=False)))
    if isinstance(made, Node) and call.paired:
        return finished(Pair(made, number(0, made.dtype, made.shape)), call)
    if isinstance(made, Node):
        made = cast(made, call.type.dtype)
        if made.shape != call.type.shape:
            raise AssertionError(
                f"{call.target} has the shape {call.type.shape}, its row gave {made.shape}")
        return place(made, (), call.loc)
    return [
        None if m is None or t is None else finished(m, replace(
            call, out=t, paired=isinstance(m, Pair)))
        for m, t in zip(made, call.out, strict=True)
    ]


def any_complex(metas: Any) -> bool:
    """Whether a tensor among these is complex."""
    if isinstance(metas, tuple | list):
        return any(map(any_complex, metas))
    return isinstance(metas, torch.Tensor) and metas.dtype in PARTS


def element(dtype: torch.dtype) -> DType:
    """The type of the numbers in memory."""
    return PARTS[dtype] if dtype in PARTS else OURS[dtype]


def types_of(meta: Any, sizes: Sizes) -> Any:
    """Our types of tensors; of complex ones, those of their parts. None for what is no tensor."""
    if isinstance(meta, torch.Tensor):
        return TensorType(element(meta.dtype), numbers_of(meta.shape, sizes))
    return [types_of(m, sizes) for m in meta] if isinstance(meta, tuple | list) else None


def in_memory(dtype: torch.dtype, geometry: Geometry) -> Geometry:
    """Shape and strides of the numbers in memory: of a complex tensor, those of its parts."""
    shape, strides = geometry
    if dtype in PARTS:
        return (*shape, 2), (*(2 * s for s in strides), 1)
    return shape, strides


def row_major(shape: tuple[int, ...]) -> Layout:
    """The buffer of a contiguous tensor."""
    return Layout(shape, tuple(range(len(shape))), shape, False)


def read_later(slot: int, depth: int, depths: Mapping[int, Depth]) -> bool:
    """Whether anything may read an input once the part of this depth has run."""
    return any(made.after for made in depths.values()) or any(
        slot in made.read for d, made in depths.items() if d > depth)
