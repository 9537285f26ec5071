"""What a device must offer so that a compiled program can run on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tilewright.compiler.cost import scaled
from tilewright.errors import CompilerBug, Location, OutOfMemory
from tilewright.ptxsim.tensormap import TensorMap

Argument = int | bytes
"""Of a kernel: 64 bits, or the bytes of a structure that is passed by value (a tensor map)."""

Grid = int | tuple[int, ...]
"""How many blocks or threads there are: of one dimension, or of up to three, x first."""


@dataclass(frozen=True)
class Properties:
    """What a device says of itself.

    title            its maker's name for it
    multiprocessors  how many there are
    memory           bytes of global memory
    l2               bytes of L2 cache
    shared           bytes of shared memory that every block may use
    shared_most      bytes that a block may use if its launch asks for more
    """

    title: str
    multiprocessors: int
    memory: int
    l2: int
    shared: int
    shared_most: int


class Named(Protocol):
    """What a launch is for, in messages: a kernel and the user's line."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def loc(self) -> Location | None: ...  # noqa: D102


class Driver(Protocol):
    """One device. Memory is known by its address there.

    Work is put into a stream, which does it in order; calls return before it is done. Streams keep
    no order between each other but by events. A stream is a number: CUDA's handle where the device
    has CUDA. Where a call is given none it uses ``stream``.

    What goes wrong on the device is raised by a later :meth:`read` or :meth:`synchronise`, as
    ``CompilerBug`` if one of our kernels did it. After that, and if the device cannot be used at
    all, every call raises ``DeviceError``.

    name        as a target is written: ``sim``, ``cuda:0``
    capability  major and minor number of the compute capability
    ptx         the newest PTX that it reads, 78 for 7.8
    properties  what else it says of itself
    stream      the stream that the driver has for its own
    lock        held by the thread that works with the device, in every call but :meth:`discard`
    exact       whether accesses are checked against the size that was allocated: sizes must then
                not be rounded up, nor memory be used again with its old contents
    """

    name: str
    capability: tuple[int, int]
    ptx: int
    properties: Properties
    stream: int
    lock: AbstractContextManager[object]
    exact: bool

    def allocate(self, nbytes: int) -> int:
        """The address of fresh memory, 256-byte aligned, for work of the driver's own stream, and
        of others that wait for an event of it. Raises ``OutOfMemory``.
        """

    def free(self, address: int) -> None:
        """Give memory back, after the work that the driver's own stream was asked for before."""

    def discard(self, address: int) -> None:
        """Free memory before the next allocation; any thread may say so, at any time."""

    def write(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        """Copy a C-contiguous array to the device; it may change afterwards."""

    def read(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        """Fill a C-contiguous array from the device, after the work that was asked for before."""

    def copy(self, address: int, source: int, nbytes: int, stream: int | None = None) -> None:
        """Copy within the device."""

    def fill(self, address: int, byte: int, nbytes: int, stream: int | None = None) -> None:
        """Set every byte of a piece of memory."""

    def new_stream(self) -> int:
        """Another stream."""

    def end_stream(self, stream: int) -> None:
        """Give a stream of :meth:`new_stream` back; its work will still be done."""

    def synchronise(self, stream: int | None = None) -> None:
        """Wait until the work of a stream is done."""

    def record(self, stream: int | None = None) -> Any:
        """An event: reached when the work that the stream was asked for before is done."""

    def wait(self, event: Any, stream: int | None = None) -> None:
        """Let the further work of a stream begin after an event."""

    def reached(self, event: Any) -> bool:
        """Whether an event is reached."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that are reached."""

    def load(self, ptx: str) -> Any:
        """A module of kernels, on the device for as long as the object lives.

        Raises ``DeviceError`` if the driver is too old for the PTX, ``CompilerBug`` if it is wrong.
        """

    def launch(
        self, module: Any, kernel: str, blocks: Grid, threads: Grid,
        arguments: tuple[Argument, ...], shared: int = 0, stream: int | None = None,
        what: Named | None = None,
    ) -> None:
        """Run a kernel on ``blocks`` blocks of ``threads`` threads.

        shared  bytes of dynamic shared memory of a block
        what    whose name and line messages tell
        """

    def tensor_map(self, tensor: TensorMap) -> bytes:
        """The argument by which a kernel's tensor copies (TMA) know a tensor.

        Raises ``UserError`` for a map that breaks a rule of CUDA, ``Unsupported`` on a device
        without tensor copies.
        """

    def capture(self, work: Callable[[], None]) -> Any:
        """A graph of what ``work`` asks the driver's own stream for, which is not done now.

        That may be launches, copies and fills, with the addresses that they have now. Anything else
        raises ``CompilerBug``, and there is no graph if ``work`` raises.
        """

    def replay(self, graph: Any, stream: int | None = None) -> None:
        """Let a stream do what a graph has, in its order."""

    def update(self, graph: Any, launch: int, arguments: tuple[Argument, ...]) -> None:
        """Give a launch of a graph other arguments of the same kinds, from the next replay on.

        launch  its number among the graph's launches
        """


def three(grid: Grid) -> tuple[int, int, int]:
    """A grid with all three dimensions."""
    x, y, z = (*((grid,) if isinstance(grid, int) else grid), 1, 1)[:3]
    return x, y, z


class Bookkeeping:
    """What every driver notes: memory to be freed, and whether work is being captured."""

    def __init__(self) -> None:
        self._discarded: deque[int] = deque()
        self._capturing = False
        self.stream = 0

    def discard(self, address: int) -> None:
        """See :meth:`Driver.discard`."""
        self._discarded.append(address)

    def _into_graph(self, stream: int | None) -> bool:
        """Whether work for a stream becomes a part of a graph, and is not done now."""
        return self._capturing and stream in (None, self.stream)

    def _only_now(self, what: str) -> None:
        """Refuse what a graph cannot hold."""
        if self._capturing:
            raise CompilerBug(f"a captured graph cannot {what}: do it before or after")


def out_of_memory(name: str, nbytes: int, free: int, total: int) -> OutOfMemory:
    """The error for an allocation that does not fit."""
    return OutOfMemory(
        f"the memory of {name} is used up", expected=f"at most {scaled(free, 'B')}, "
        f"which are free of {scaled(total, 'B')}", got=f"{scaled(nbytes, 'B')} more",
        hint="run on less at a time, or end other programs that use the device",
    )

