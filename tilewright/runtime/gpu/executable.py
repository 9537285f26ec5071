"""A compiled function that runs on a device, on arrays that live there and on NumPy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tilewright.compiler.cost import scaled
from tilewright.compiler.plan import ALIGNED, Plan, Slot
from tilewright.errors import (
    CompilerBug,
    DTypeError,
    Location,
    OutOfBounds,
    OutOfMemory,
    ShapeError,
    TilewrightError,
)
from tilewright.ir.graph import Node
from tilewright.ir.sizes import evaluate
from tilewright.ir.types import DType, TensorType, as_number, concrete
from tilewright.ptxsim.tensormap import DataType, Swizzle, TensorMap
from tilewright.runtime.executable import SizedExecutable, overlapping, prepare
from tilewright.runtime.gpu.device import Borrowed, Device, Resident, device_of
from tilewright.runtime.gpu.driver import Argument, Driver
from tilewright.runtime.gpu.graphs import FEWEST, Graphs
from tilewright.runtime.gpu.ledger import TEAM_WORDS, Ticket
from tilewright.runtime.gpu.memory import Block
from tilewright.runtime.results import Layout, lay_out

MAPS = 256
"""Tensor maps that a program keeps."""

TEAM_BYTES = 8 * TEAM_WORDS
NONE = Borrowed(0, None)
NAMED = 5
"""Buffers of the arena that a message about memory names."""


class Step(Protocol):
    """A run of one of the module's entries, for a launch of the plan or a part of it: buffers and
    sizes that are arguments, threads and bytes of shared memory of a block, bytes of memory that
    each thread has for itself.
    """

    @property
    def entry(self) -> str: ...  # noqa: D102

    @property
    def launch(self) -> int: ...  # noqa: D102

    @property
    def args(self) -> tuple[Slot, ...]: ...  # noqa: D102

    @property
    def sizes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def threads(self) -> int: ...  # noqa: D102

    @property
    def shared(self) -> int: ...  # noqa: D102

    @property
    def scratch(self) -> int: ...  # noqa: D102

    def blocks(self, sizes: dict[str, int]) -> int: ...  # noqa: D102

    def matrices(self, sizes: dict[str, int]) -> Sequence[Matrix]: ...  # noqa: D102


class Matrix(Protocol):
    """A matrix that a launch copies boxes of, in an argument."""

    @property
    def buffer(self) -> int: ...  # noqa: D102

    @property
    def dtype(self) -> DType: ...  # noqa: D102

    @property
    def first(self) -> int: ...  # noqa: D102

    @property
    def rows(self) -> int: ...  # noqa: D102

    @property
    def columns(self) -> int: ...  # noqa: D102

    @property
    def box(self) -> int: ...  # noqa: D102

    @property
    def box_columns(self) -> int: ...  # noqa: D102


class Gpu(Protocol):
    """PTX of a plan: the text and its steps; the plan with its launches."""

    text: str
    steps: tuple[Any, ...]
    plan: Callable[[], Plan]
    report: Callable[[Exception], list[str]] | None


class Blamed:
    """A launch of a program, in messages: its kernel and the user's line.

    They are asked for when something went wrong: a program from the disk cache is compiled then.
    """

    def __init__(self, program: Gpu, launch: int) -> None:
        self.program, self.launch = program, launch

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.program.plan().launches[self.launch].kernel.name

    @property
    def loc(self) -> Location | None:
        """The user's line."""
        return self.program.plan().launches[self.launch].kernel.loc

    @property
    def report(self) -> Callable[[Exception], list[str]] | None:
        """Lines for a message about it: whose fault it is, and a script that shows it."""
        return self.program.report


@dataclass(frozen=True)
class Run:
    """A step that has something to do, on so many blocks."""

    step: Step
    blocks: int
    blamed: Blamed


class GpuExecutable:
    """PTX on a device, with the plan that it follows; call it with a list of arrays.

    Returns before the results are there. Constants stay on the device for as long as this object
    lives. Safe to call from several Python threads, which take turns.
    """

    def __init__(self, plan: Plan, program: Gpu, driver: Driver) -> None:
        self.plan, self.program = plan, program
        self.device: Device = device_of(driver)
        self.layout: Layout = lay_out(plan)
        self.maps: dict[tuple[Matrix, int], bytes] = {}
        self.sizes = dict(zip(plan.sizes, plan.words, strict=False))
        grids = [(step, step.blocks(self.sizes)) for step in program.steps]
        self.runs = [Run(s, blocks, Blamed(program, s.launch)) for s, blocks in grids if blocks]
        self.scratch = max(
            (run.blocks * run.step.threads * run.step.scratch for run in self.runs), default=0)
        self.graphs = Graphs(driver, self._readers(), len(self.runs))
        self.team: Block | None = None
        with driver.lock:
            self.module = self.device.module(program.text) if program.steps else None
            self.constants = [self.device.place(c) for c in plan.constants]

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """The results for one array per input of the plan.

        Each is a NumPy array or a :class:`Resident` of the device, which is read where it is. With
        NumPy arrays alone the results are NumPy arrays, else they stay on the device. A donated
        Resident's memory becomes a result's: it must not be used afterwards.

        Raises ``ShapeError`` or ``DTypeError`` for an array of another type than planned, and
        ``OutOfMemory``. ``OutOfBounds``, for an index outside its axis, is raised when a result is
        read.
        """
        results = self.run(arrays)
        if any(isinstance(a, Resident) for a in arrays):
            return list(results)
        return [r.read() for r in results]

    def run(self, arrays: Sequence[Any]) -> list[Resident]:
        """As a call, with all results on the device."""
        plan = self.plan
        if len(arrays) != len(plan.inputs):
            raise TypeError(f"expected {len(plan.inputs)} arrays, got {len(arrays)}")
        with self.device.driver.lock:
            self.device.let_go()
            try:
                inputs = [
                    self._given(array, type, i)
                    for i, (array, type) in enumerate(zip(arrays, plan.inputs, strict=True))]
                return self._run(inputs)
            except OutOfMemory as error:
                raise self._no_memory(error) from None

    def _run(self, inputs: list[Resident]) -> list[Resident]:
        plan, device = self.plan, self.device
        self._separate(inputs)
        inputs = [device.copy(r) if r.address % ALIGNED else r for r in inputs]
        outputs = [device.result(t.dtype.numpy, concrete(t.shape)) for t in plan.outputs]
        arena, scratch = (device.memory.take(n) if n else NONE for n in (plan.arena, self.scratch))
        ticket = device.ledger.open(self.failure) if plan.checks else None
        places = {"input": inputs, "output": outputs, "constant": self.constants}

        def arguments(launch: int, team: int) -> tuple[Argument, ...]:
            return self._arguments(
                self.runs[launch].step, places, arena.address, (scratch.address, team))

        if len(self.runs) < FEWEST:
            self._launch(arguments, ticket.address if ticket else 0)
        else:
            self._replay(arguments, (*inputs, *outputs, arena, scratch), ticket)
        return self._results(inputs, outputs, ticket)

    def _readers(self) -> list[list[int]]:
        """Per input, per output, of the arena and of the scratch memory, the launches that are
        given its address.
        """
        first = {"input": 0, "output": len(self.plan.inputs)}
        arena = len(self.plan.inputs) + len(self.plan.outputs)
        readers: list[list[int]] = [[] for _ in range(arena + 2)]
        for number, run in enumerate(self.runs):
            slots = [slot for slot in run.step.args if slot.kind != "constant"]
            places = {first[s.kind] + s.index if s.kind in first else arena for s in slots}
            for place in (*places, arena + 1):
                readers[place].append(number)
        return readers

    def _replay(
        self, arguments: Callable[[int, int], tuple[Argument, ...]], memory: Sequence[Any],
        ticket: Ticket | None,
    ) -> None:
        """Launch by way of a graph. A call's words in the ledger are elsewhere each time: a graph
        has a team of its own, whose words are copied there.
        """
        addresses = tuple(m.address for m in memory)
        if ticket is None:
            self.graphs.run(
                addresses, lambda: self._launch(arguments, 0), lambda i: arguments(i, 0))
            return
        if self.team is None:
            self.team = self.device.memory.take(TEAM_BYTES)
        team, driver = self.team.address, self.device.driver

        def work() -> None:
            driver.fill(team, 0, TEAM_BYTES)
            self._launch(arguments, team)

        self.graphs.run(addresses, work, lambda i: arguments(i, team))
        driver.copy(ticket.address, team, TEAM_BYTES)

    # --- what goes in -------------------------------------------------------------------------
    def _given(self, value: Any, type: TensorType, index: int) -> Resident:
        """An input on the device."""
        if not isinstance(value, Resident):
            array = prepare(value, type, index)
            if index in self.layout.donated:
                return self.device.place(array, result=True)
            return self.device.number(array)
        if value.device is not self.device:
            raise TypeError(f"input {index} is on {value.device}, the program on {self.device}")
        if value.dtype != type.dtype.numpy:
            raise DTypeError(
                f"input {index} has the wrong dtype", expected=type.dtype.numpy, got=value.dtype)
        if value.shape != concrete(type.shape):
            raise ShapeError(
                f"input {index} has the wrong shape", expected=type.shape, got=value.shape)
        for ticket in value.tickets:
            if ticket.settled:
                ticket.check()
        return value

    def _separate(self, inputs: list[Resident]) -> None:
        """Copy each donated input that shares memory with another one."""
        if not self.layout.donated:
            return
        shared = overlapping((r.address, r.address + r.nbytes) for r in inputs)
        for i in self.layout.donated:
            if i in shared:
                inputs[i] = self.device.copy(inputs[i])

    # --- the run ------------------------------------------------------------------------------
    def _launch(self, arguments: Callable[[int, int], tuple[Argument, ...]], team: int) -> None:
        for number, run in enumerate(self.runs):
            self.device.driver.launch(
                self.module, run.step.entry, run.blocks, run.step.threads, arguments(number, team),
                run.step.shared, what=run.blamed)

    def _arguments(
        self, step: Step, places: dict[str, list[Resident]], arena: int, rest: tuple[int, int]
    ) -> tuple[Argument, ...]:
        """Of a launch: buffers, sizes, scratch memory and the team's words, tensor maps."""
        words = self.plan.words[len(self.plan.sizes):]

        def address(slot: Slot) -> int:
            if slot.kind in places:
                return places[slot.kind][slot.index].address
            return arena + (words[slot.index] if slot.kind == "block" else slot.index)

        known = self.sizes
        addresses, sizes = list(map(address, step.args)), [known[name] for name in step.sizes]
        maps = [self._map(m, addresses[m.buffer]) for m in step.matrices(known)]
        return (*addresses, *sizes, *rest, *maps)

    def _map(self, matrix: Matrix, address: int) -> bytes:
        """The tensor map of a matrix in an argument; made once for each address."""
        key = matrix, address
        found = self.maps.get(key)
        if found is None:
            if len(self.maps) >= MAPS:
                self.maps.clear()
            found = self.maps[key] = self.device.driver.tensor_map(tensor_map(matrix, address))
        return found

    # --- what comes out -----------------------------------------------------------------------
    def _results(
        self, inputs: list[Resident], outputs: list[Resident], ticket: Ticket | None
    ) -> list[Resident]:
        """The results: outputs, donated inputs, copies."""
        layout, device = self.layout, self.device
        tickets = {t for r in inputs for t in r.tickets if not t.settled}
        whole = frozenset(tickets | {ticket} if ticket else tickets)
        entries = [*inputs, *outputs, *self.constants]
        fresh = list(outputs)
        for copy, (_, at, nbytes) in zip(
            layout.fresh[len(outputs):], layout.copies, strict=True
        ):
            fresh.append(device.result(copy.dtype, copy.shape))
            device.driver.copy(fresh[-1].address, entries[at].address, nbytes)
        results = []
        for source in layout.sources:
            found = (fresh if source.kind == "fresh" else inputs)[source.index]
            results.append(Resident(device, found.memory, found.dtype, found.shape, whole))
        return results

    # --- what goes wrong ----------------------------------------------------------------------
    def failure(self, code: int) -> TilewrightError:
        """What an error code of the program stands for."""
        check = self.plan.checks.get(code)
        if check is None:
            return CompilerBug(f"the program reported the error {code}, unknown to its plan")
        return OutOfBounds(check.message, expected=check.expected, loc=check.loc)

    def _no_memory(self, error: OutOfMemory) -> OutOfMemory:
        """The error with what this program needs, by the user's lines."""
        plan = self.plan
        results = sum(as_number(t.nbytes) for t in plan.outputs)
        parts = (results, "results"), (plan.arena, "values in between"), (self.scratch, "threads")
        needs = ["for " + ", ".join(f"{name} {scaled(n, 'B')}" for n, name in parts)]
        needs += [
            f"{scaled(nbytes, 'B')} for {node.type}, {node.loc}"
            for nbytes, node in largest(self.program.plan(), self.sizes)[:NAMED]]
        return OutOfMemory(
            f"{error.what}: a program needs more", expected=error.expected,
            got="\n            ".join([str(error.got), *needs]), hint=error.hint)


ELEMENTS = {"bf16": DataType.BFLOAT16, "f16": DataType.FLOAT16, "f32": DataType.FLOAT32}
"""What tensor maps call the element types."""


def tensor_map(matrix: Matrix, address: int) -> TensorMap:
    """The tensor map of a matrix in an argument at an address, swizzled by 128 bytes."""
    itemsize = matrix.dtype.itemsize
    return TensorMap(
        ELEMENTS[matrix.dtype.name], address + matrix.first * itemsize,
        (matrix.columns, matrix.rows), (matrix.columns * itemsize,),
        (matrix.box_columns, matrix.box), (1, 1), swizzle=Swizzle.B128)


def largest(plan: Plan, numbers: Mapping[str, int]) -> list[tuple[int, Node]]:
    """The values that lie in the arena, with their bytes, the largest first."""
    found = [
        (evaluate(node.type.nbytes, numbers), node)
        for slot, node in plan.values.items() if slot.kind in ("arena", "block")]
    return sorted(found, key=lambda pair: -pair[0])


def gpu_executable(plan: Plan, program: Gpu, driver: Driver) -> GpuExecutable | SizedExecutable:
    """What runs a plan's PTX on arrays."""
    if plan.sizes:
        return SizedExecutable(plan, program, lambda p, g: GpuExecutable(p, g, driver))
    return GpuExecutable(plan, program, driver)
