"""The simulator as a device: the PTX runs here, on NumPy."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from tilewright.errors import CompilerBug
from tilewright.ptxsim import tensormap
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.simulator import Program, Simulator
from tilewright.runtime.gpu.driver import (
    Argument,
    Bookkeeping,
    Grid,
    Named,
    Properties,
    out_of_memory,
    three,
)
from tilewright.runtime.gpu.launching import reports

MEMORY = 64 << 30
"""Bytes that the simulated device has. Only what is in use takes memory of this machine."""


@dataclass
class Work:
    """What a stream is asked for.

    do      does it
    always  it happens also if earlier work of the stream failed
    """

    do: Callable[[], None]
    always: bool = False


@dataclass
class Event:
    """A place in a stream. ``seconds`` of a clock when it was reached, if it was."""

    stream: int
    seconds: float | None = None


@dataclass
class Graph:
    """Work that was captured, and its launches: where each of them is, what makes it."""

    work: list[Work]
    launches: list[tuple[int, Callable[[tuple[Argument, ...]], Callable[[], None]]]]


class SimDriver(Bookkeeping):
    """A device that any machine has; slow, and strict: see :mod:`tilewright.ptxsim`.

    A stream's work is done as late as possible: when someone waits for it, or for an event of it.
    So work that forgot to wait for another stream finds memory without contents. A kernel that goes
    wrong takes the rest of its stream's work with it, but not the device.

    memory  bytes that it has
    """

    def __init__(self, simulator: Simulator | None = None, memory: int = MEMORY) -> None:
        from tilewright.codegen.gpu.architectures import KIB, NEWEST_PTX, architecture

        super().__init__()
        chip = architecture("sm_90a")
        self.name, self.capability, self.ptx = "sim", (9, 0), NEWEST_PTX
        self.properties = Properties(
            "simulator", chip.multiprocessors, memory, chip.l2 * KIB, 48 * KIB,
            chip.shared_most * KIB)
        self.simulator = simulator or Simulator()
        self.lock: AbstractContextManager[object] = threading.RLock()
        self.stream, self.exact = 1, True
        self._streams = 1
        self._queues: dict[int, deque[Work]] = {self.stream: deque()}
        self._captured = Graph([], [])
        self._used = 0

    # --- memory --------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> int:
        self._only_now("allocate memory")
        while self._discarded:
            self.free(self._discarded.popleft())
        if self._used + nbytes > self.properties.memory:
            self.synchronise()  # memory may be about to be freed
        free = self.properties.memory - self._used
        if nbytes > free:
            raise out_of_memory(self.name, nbytes, free, self.properties.memory)
        self._used += nbytes
        return self.simulator.memory.allocate(max(nbytes, 1))

    def free(self, address: int) -> None:
        self._only_now("free memory")
        if self._queues[self.stream]:
            self._queues[self.stream].append(Work(lambda: self._free(address), always=True))
        else:
            self._free(address)

    def _free(self, address: int) -> None:
        self._used -= self.simulator.memory.sizes.get(address, 0)
        self.simulator.memory.free(address)

    def write(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        self._only_now("read arrays of the host")
        if array.nbytes:
            raw = array.reshape(-1).view(np.uint8).copy()
            self._ask(lambda: self.simulator.memory.put(address, raw), stream)

    def read(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        self._only_now("write to arrays of the host")
        self.synchronise(stream)
        if array.nbytes:
            raw = self.simulator.memory.get(address, array.nbytes)
            array.reshape(-1).view(np.uint8)[...] = raw

    def copy(self, address: int, source: int, nbytes: int, stream: int | None = None) -> None:
        memory = self.simulator.memory
        if nbytes:
            self._ask(lambda: memory.put(address, memory.get(source, nbytes)), stream)

    def fill(self, address: int, byte: int, nbytes: int, stream: int | None = None) -> None:
        if nbytes:
            memory = self.simulator.memory
            self._ask(lambda: memory.put(address, np.full(nbytes, byte, np.uint8)), stream)

    # --- streams and events --------------------------------------------------------------
    def new_stream(self) -> int:
        self._streams += 1
        self._queues[self._streams] = deque()
        return self._streams

    def end_stream(self, stream: int) -> None:
        self.synchronise(stream)
        del self._queues[stream]

    def synchronise(self, stream: int | None = None) -> None:
        self._only_now("wait")
        self._run(self._queue(stream))

    def record(self, stream: int | None = None) -> Event:
        event = Event(self.stream if stream is None else stream)

        def reach() -> None:
            event.seconds = time.perf_counter()

        self._only_now("record events")
        self._queue(stream).append(Work(reach, always=True))
        return event

    def wait(self, event: Event, stream: int | None = None) -> None:
        self._only_now("wait")
        self._queue(stream).append(Work(lambda: self._reach(event)))

    def reached(self, event: Event) -> bool:
        """Whether an event is reached; who asks wants to know, so its stream gets on with it."""
        self._reach(event)
        return event.seconds is not None

    def elapsed(self, start: Event, end: Event) -> float:
        assert start.seconds is not None and end.seconds is not None, "an event is not reached yet"
        return (end.seconds - start.seconds) * 1e3

    def _queue(self, stream: int | None) -> deque[Work]:
        number = self.stream if stream is None else stream
        if number not in self._queues:
            raise CompilerBug(f"{self.name} has no stream {number}")
        return self._queues[number]

    def _ask(self, do: Callable[[], None], stream: int | None) -> None:
        """Put work into a stream, or into the graph that is being captured."""
        if self._into_graph(stream):
            self._captured.work.append(Work(do))
        else:
            self._queue(stream).append(Work(do))

    def _reach(self, event: Event) -> None:
        if event.seconds is None:
            self._run(self._queue(event.stream), event)

    def _run(self, queue: deque[Work], until: Event | None = None) -> None:
        """Do the work of a stream, all of it or up to an event."""
        while queue and (until is None or until.seconds is None):
            try:
                queue.popleft().do()
            except BaseException:
                left = [work for work in queue if work.always]
                queue.clear()
                for work in left:
                    work.do()
                raise

    # --- kernels -------------------------------------------------------------------------
    def load(self, ptx: str) -> Program:
        return self.simulator.load(ptx)

    def launch(
        self, module: Program, kernel: str, blocks: Grid, threads: Grid,
        arguments: tuple[Argument, ...], shared: int = 0, stream: int | None = None,
        what: Named | None = None,
    ) -> None:
        grid, block = three(blocks), three(threads)

        def made(arguments: tuple[Argument, ...]) -> Callable[[], None]:
            def run() -> None:
                try:
                    self.simulator.launch(module, kernel, grid, block, arguments, shared)
                except Fault as fault:
                    raise CompilerBug(wrong_code(fault, what)) from fault

            return run

        if self._into_graph(stream):
            self._captured.launches.append((len(self._captured.work), made))
        self._ask(made(arguments), stream)

    def tensor_map(self, tensor: tensormap.TensorMap) -> bytes:
        return tensormap.record(tensor)

    def capture(self, work: Callable[[], None]) -> Graph:
        self._only_now("capture another")
        self._captured, self._capturing = Graph([], []), True
        try:
            work()
        finally:
            self._capturing = False
        return self._captured

    def replay(self, graph: Graph, stream: int | None = None) -> None:
        self._only_now("replay another")
        self._queue(stream).extend(graph.work)

    def update(self, graph: Graph, launch: int, arguments: tuple[Argument, ...]) -> None:
        self._only_now("change another")
        place, made = graph.launches[launch]
        graph.work[place] = Work(made(arguments))


def wrong_code(fault: Fault, what: Named | None) -> str:
    """The message for a kernel that does what is forbidden."""
    lines = [f"the code for a GPU is wrong: {fault}"]
    if what is not None:
        lines += [f"  kernel:   {what.name}", f"  at:       {what.loc}", *reports([what], fault)]
    return "\n".join(lines)


@functools.cache
def sim_driver() -> SimDriver:
    """The simulator that programs run on unless they are given one."""
    return SimDriver()
