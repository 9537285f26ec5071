"""What a schedule hands to the buffer plan: a kernel, and which values its parameters hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from tilewright.compiler.plan import CheckInfo
from tilewright.ir.graph import Node
from tilewright.ir.loops import Kernel
from tilewright.ir.sizes import Dim


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """Scratch memory of one kernel, shared by the team; contents undefined on entry.

    Two workspaces are never the same one: they compare by identity. A workspace that stands in the
    arguments of several kernels lives from the first of them to the last.
    """

    nbytes: Dim


Argument: TypeAlias = "Node | Workspace"


@dataclass(frozen=True)
class LoweredKernel:
    """A kernel and the values that its parameters hold.

    args     in the order of ``kernel.params``: the Node whose value lives in that buffer, in
             row-major order, or a :class:`Workspace`
    flops    floating point operations of one run
    bytes    bytes of global memory that one run reads and writes at least
    checks   what the codes of the kernel's ``Check`` statements mean; codes count from 1 in every
             kernel, the plan renumbers them
    inplace  (parameter written, parameter read) pairs that may share their memory: every element of
             the one is written after, and by the same thread as, the last read of that element of
             the other, and both have the same number of bytes
    """

    kernel: Kernel
    args: tuple[Argument, ...]
    flops: Dim = 0
    bytes: Dim = 0
    checks: dict[int, CheckInfo] = field(default_factory=dict)
    inplace: tuple[tuple[int, int], ...] = ()
