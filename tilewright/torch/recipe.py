"""What a traced program becomes: steps over numbered slots that hold tensors while it runs.

The first slots are the program's arguments; every step fills slots of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pickle import PicklingError
from typing import Any

import torch

from tilewright.errors import Location
from tilewright.ir.graph import Graph
from tilewright.ir.portable import Packed, pack, unpack
from tilewright.torch.dtypes import Sizes


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for the value of a slot in the arguments of a call."""

    index: int


@dataclass(frozen=True, slots=True)
class Export:
    """A result of a compiled part.

    strides  of the tensor to allocate, which the part fills as a row-major buffer
    copied   the strides that the result must have where that buffer cannot have them
    into     the slot whose tensor should take the result in place
    """

    slot: int
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    dtype: torch.dtype
    copied: tuple[Any, ...] | None = None
    into: int | None = None


@dataclass(frozen=True)
class Part:
    """A compiled part: its inputs by slot, of which some are made contiguous, and its results.

    The memory of ``lazy`` inputs may stand for their conjugates or negatives, which it must not.
    """

    graph: Graph
    inputs: tuple[int, ...]
    copied: frozenset[int]
    exports: tuple[Export, ...]
    lazy: frozenset[int] = frozenset()

    def __reduce__(self) -> Any:
        """A graph is kept as tuples."""
        return _part, (pack(self.graph), self.inputs, self.copied, self.exports, self.lazy)


def _part(packed: Packed, *rest: Any) -> Part:
    return Part(unpack(packed), *rest)


@dataclass(frozen=True)
class Eager:
    """A call of PyTorch; ``args`` is (arguments, keywords) with :class:`Slot` for tensors.

    ``strides`` are those that tracing foretold of each result, on which compiled parts rely.
    """

    target: Any
    args: Any
    outs: tuple[int | None, ...]
    several: bool
    strides: tuple[tuple[Any, ...] | None, ...]

    def __reduce__(self) -> Any:
        """Operators are kept by name. Raises ``PicklingError`` for any other function."""
        named = (_named(self.target), _named(self.args))
        return _eager, (*named, self.outs, self.several, self.strides)


@dataclass(frozen=True, slots=True)
class _Name:
    """Stands for an operator in what is pickled."""

    path: str


def _named(value: Any) -> Any:
    """Arguments with names for operators. Raises ``PicklingError`` for other functions."""
    if isinstance(value, torch._ops.OpOverload):
        return _Name(str(value))
    if isinstance(value, torch._ops.HigherOrderOperator):
        return _Name(f"higher_order.{value.name()}")
    if type(value) in (tuple, list):
        return type(value)(map(_named, value))
    if isinstance(value, dict):
        return {k: _named(v) for k, v in value.items()}
    if callable(value) and not isinstance(value, type):
        raise PicklingError(f"{value} is no operator")
    return value


def _found(value: Any) -> Any:
    if isinstance(value, _Name):
        target: Any = torch.ops
        for part in value.path.split("."):
            target = getattr(target, part)
        return target
    if type(value) in (tuple, list):
        return type(value)(map(_found, value))
    return {k: _found(v) for k, v in value.items()} if isinstance(value, dict) else value


def _eager(target: Any, args: Any, *rest: Any) -> Eager:
    return Eager(_found(target), _found(args), *rest)


@dataclass(frozen=True, slots=True)
class Alias:
    """A view of the tensor in another slot; ``offset`` in elements.

    ``counted``: changes of either in place count as changes of both, which PyTorch looks at before
    it computes gradients from what is saved.
    """

    slot: int
    base: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """An argument that gets new contents; ``placed`` if the compiled part may have done so."""

    slot: int
    value: int
    placed: bool


@dataclass(frozen=True, slots=True)
class Fallback:
    """An operator that runs in PyTorch, and why."""

    target: str
    reason: str
    loc: Location | None
    module: str


@dataclass(frozen=True)
class Recipe:
    """The steps of a program. Slots ``constants`` are filled before it runs."""

    inputs: int
    slots: int
    steps: tuple[Part | Eager | Alias, ...]
    results: tuple[int | None, ...]
    updates: tuple[Update, ...]
    constants: dict[int, Any]
    fallbacks: tuple[Fallback, ...]
    sizes: Sizes = field(default_factory=dict)


def last_reads(recipe: Recipe) -> list[list[int]]:
    """Per step, the slots that no later step reads; what leaves the program is not among them."""
    kept = {s for s in recipe.results if s is not None}
    kept |= {s for update in recipe.updates for s in (update.slot, update.value)}
    found: list[list[int]] = []
    for step in reversed(recipe.steps):
        read = set(_reads(step)) - kept
        kept |= read
        found.append(sorted(read))
    return found[::-1]


def _reads(step: Part | Eager | Alias) -> Iterator[int]:
    if isinstance(step, Part):
        yield from step.inputs
    elif isinstance(step, Alias):
        yield step.base
    else:
        yield from _slots(step.args)


def _slots(value: Any) -> Iterator[int]:
    if isinstance(value, Slot):
        yield value.index
    elif isinstance(value, tuple | list | dict):
        for v in value.values() if isinstance(value, dict) else value:
            yield from _slots(v)
