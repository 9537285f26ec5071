"""What the compiler hands to code generation: kernels in order, and where every buffer lives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tilewright.compiler.order import Interval
from tilewright.errors import Location
from tilewright.ir.graph import Node
from tilewright.ir.loops import Kernel
from tilewright.ir.sizes import Dim, total
from tilewright.ir.symbolic import Condition
from tilewright.ir.types import TensorType

ALIGNED = 16
"""Bytes of which the address of every buffer is a multiple, where a GPU runs a plan."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a buffer lives: the input, output or constant ``index``, or arena byte ``index``; in a
    plan with sizes, block ``index`` of the arena.
    """

    kind: Literal["input", "output", "constant", "arena", "block"]
    index: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel on its buffers. ``barrier`` is true if it must wait for earlier launches.

    sizes  the plan's sizes that the kernel's sizes stand for
    """

    kernel: Kernel
    args: tuple[Slot, ...]
    barrier: bool
    flops: Dim = 0
    bytes: Dim = 0
    sizes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckInfo:
    """What to report when a ``Check`` fails."""

    message: str
    loc: Location | None
    expected: str | None = None


@dataclass(frozen=True)
class Plan:
    """A compiled function, short of machine code.

    results   per result of the graph: the slot that holds it after the run; an 'input' slot that is
              not donated, or a 'constant' slot, must be copied before it is given to the user
    donated   per result: the input whose memory it takes over, or None
    arena     bytes of scratch memory, 64-byte aligned, contents undefined between runs
    checks    by error code, which starts at 1

    A plan with named sizes is for all their numbers. :func:`tilewright.compiler.bind.bind` makes a
    plan for some of them, which has the same machine code; only that one has an arena.

    sizes       the names, sorted
    blocks      the buffers of the arena: their bytes, and when they are in use
    conditions  what must hold of the sizes
    words       of a bound plan: the numbers of the sizes, then where the blocks start in the arena
    """

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    results: tuple[Slot, ...]
    constants: tuple[np.ndarray, ...]
    launches: tuple[Launch, ...]
    arena: int
    donated: tuple[int | None, ...] = ()
    checks: dict[int, CheckInfo] = field(default_factory=dict)
    values: dict[Slot, Node] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()
    blocks: tuple[Interval, ...] = ()
    conditions: tuple[Condition, ...] = ()
    words: tuple[int, ...] = ()

    @property
    def flops(self) -> Dim:
        return total(launch.flops for launch in self.launches)

    @property
    def bytes(self) -> Dim:
        return total(launch.bytes for launch in self.launches)
