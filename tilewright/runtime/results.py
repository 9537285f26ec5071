"""Where the results of a plan come from: fresh memory, a donated input, or a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tilewright.compiler.plan import Plan, Slot
from tilewright.ir.types import TensorType, as_number, concrete, dtype_of


@dataclass(frozen=True, slots=True)
class Source:
    """One result: fresh array ``index``, or the array that was given as input ``index``."""

    kind: Literal["fresh", "input"]
    index: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """An array to make for a call: the table entry of its memory, its dtype and shape."""

    entry: int
    dtype: np.dtype
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The program's table and what becomes of it.

    The table holds the inputs, the outputs, the constants, the arena and the plan's words; behind
    them, entries that the program does not know, for results that are copies.

    copies   (to, from, bytes): table entries to copy once the program has run
    donated  the inputs whose memory results take over
    """

    entries: int
    constants_at: int
    arena: int
    fresh: tuple[Fresh, ...]
    copies: tuple[tuple[int, int, int], ...]
    sources: tuple[Source, ...]
    donated: frozenset[int]


def lay_out(plan: Plan) -> Layout:
    """The table of a plan, with every result in memory of its own."""
    inputs, outputs, constants = len(plan.inputs), len(plan.outputs), len(plan.constants)
    starts = {"input": 0, "output": inputs, "constant": inputs + outputs}
    arena = inputs + outputs + constants
    fresh = [_fresh(inputs + i, t) for i, t in enumerate(plan.outputs)]
    copies: list[tuple[int, int, int]] = []
    sources: list[Source] = []
    used: set[Slot] = set()
    donations = plan.donated or (None,) * len(plan.results)
    for slot, donation in zip(plan.results, donations, strict=True):
        first = slot not in used
        used.add(slot)
        if first and slot.kind == "output":
            sources.append(Source("fresh", slot.index))
        elif first and slot.kind == "input" and donation == slot.index:
            sources.append(Source("input", slot.index))
        else:
            entry = arena + 1 + len(plan.words) + len(copies)
            sources.append(Source("fresh", len(fresh)))
            fresh.append(_fresh(entry, _type_of(plan, slot)))
            copies.append((entry, starts[slot.kind] + slot.index, fresh[-1].bytes))
    return Layout(
        arena + 1 + len(plan.words) + len(copies), starts["constant"], arena, tuple(fresh),
        tuple(copies), tuple(sources), frozenset(s.index for s in sources if s.kind == "input"),
    )


def _fresh(entry: int, type: TensorType) -> Fresh:
    return Fresh(entry, type.dtype.numpy, concrete(type.shape), as_number(type.nbytes))


def _type_of(plan: Plan, slot: Slot) -> TensorType:
    if slot.kind == "constant":
        node = plan.values.get(slot)
        if node is not None:
            return node.type
        array = plan.constants[slot.index]
        return TensorType(dtype_of(array), array.shape)
    return (plan.inputs if slot.kind == "input" else plan.outputs)[slot.index]
