"""What the compiler hands to code generation: kernels in order, and where every buffer lives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tilewright.errors import Location
from tilewright.ir.graph import Node
from tilewright.ir.loops import Kernel
from tilewright.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a buffer lives: the input, output or constant ``index``, or arena byte ``index``."""

    kind: Literal["input", "output", "constant", "arena"]
    index: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel on its buffers. ``barrier`` is true if it must wait for earlier launches."""

    kernel: Kernel
    args: tuple[Slot, ...]
    barrier: bool
    flops: int = 0
    bytes: int = 0


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

    @property
    def flops(self) -> int:
        return sum(launch.flops for launch in self.launches)

    @property
    def bytes(self) -> int:
        return sum(launch.bytes for launch in self.launches)
