"""What a traced program becomes: steps over numbered slots that hold tensors while it runs.

The first slots are the program's arguments; every step fills slots of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pickle import PicklingError
from typing import Any, TypeAlias

import torch

from tilewright.errors import Location
from tilewright.ir.graph import Graph
from tilewright.ir.portable import Packed, pack, unpack
from tilewright.torch.dtypes import Sizes

Tensors = list[Any]
"""The slots of a run."""


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step of a loop reads or puts a tensor.

    offset  of the slice along the first axis, from the step's number; None: the tensor is no slice
    ring    the tensor has two slices, which take turns; the last step puts its result into the
            first
    """

    slot: int
    offset: int | None = None
    ring: bool = False

    def slice(self, steps: int, run: int, number: int) -> int:
        """The slice of the step with this number, when ``run`` steps have run before it."""
        assert self.offset is not None
        return (steps - run + self.offset) % 2 if self.ring else number + self.offset


@dataclass(frozen=True)
class Loop:
    """A compiled part that runs once per step of a recurrence, on slices of tensors.

    part       the step: the slots of its inputs, and results of the shape of a slice
    reads      where each input of the part stands
    fills      where each of its results goes
    buffers    the tensors that results go to, to be allocated
    starts     where the first step reads what is there before it, and the slot of the value
               (None: zeros)
    steps      how many there are
    backwards  whether the last one runs first
    """

    part: Part
    reads: tuple[Place, ...]
    fills: tuple[Place, ...]
    buffers: tuple[Export, ...]
    starts: tuple[tuple[Place, int | None], ...]
    steps: Any
    backwards: bool

    def numbers(self) -> range:
        """The numbers of the steps in the order in which they run."""
        return range(self.steps)[::-1] if self.backwards else range(self.steps)


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


Step: TypeAlias = Part | Loop | Eager | Alias


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
    steps: tuple[Step, ...]
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


def parts_of(recipe: Recipe) -> list[Part]:
    """What of a recipe is compiled."""
    return [
        s if isinstance(s, Part) else s.part for s in recipe.steps if isinstance(s, Part | Loop)]


def _reads(step: Step) -> Iterator[int]:
    if isinstance(step, Part):
        yield from step.inputs
    elif isinstance(step, Loop):
        yield from step.part.inputs
        yield from (slot for _, slot in step.starts if slot is not None)
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
