"""The simulator: PTX text in, launches, what they leave in memory out."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.gang import Dim, Gang, Launch
from tilewright.ptxsim.link import linked
from tilewright.ptxsim.memory import Memory
from tilewright.ptxsim.ops import meaning_of
from tilewright.ptxsim.parse import parse
from tilewright.ptxsim.races import Habits, habits, watched
from tilewright.ptxsim.schedule import Scheduler
from tilewright.ptxsim.syntax import Kernel, Module, Variable

MOST_THREADS = 1024
MOST_SHARED = 227 * 1024
GANG_LANES = 8192
"""Blocks run together until they have so many lanes."""

ASYNCHRONOUS = ("wgmma", "fence.proxy.async", "cp.async.bulk", "cp.reduce")


class Program:
    """A loaded PTX text: its kernels, and its variables in memory."""

    def __init__(self, text: str, memory: Memory) -> None:
        self.source = source_of(text)
        self.module, self.lines = self.source.module, self.source.lines
        self.memory = memory
        self.globals = {
            v.name: _placed(v, memory) for v in self.module.variables
            if v.space in ("global", "const")
        }


class Source:
    """A PTX text, and what is found out of it."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.module: Module = parse(text)
        self.code: dict[str, list[Any]] = {}
        self._linked: dict[str, Kernel] = {}
        self._habits: dict[str, Habits] = {}

    def linked(self, name: str) -> Kernel:
        """A kernel with the functions that it calls; Fault if there is none of this name."""
        if name not in self.module.kernels:
            raise Fault(f"there is no kernel {name}; there are: {', '.join(self.module.kernels)}")
        if name not in self._linked:
            self._linked[name] = linked(self.module, self.module.kernels[name])
        return self._linked[name]

    def prepared(self, kernel: Kernel) -> list[Any]:
        """The instructions of a kernel with their meanings. UnknownInstruction if one has none."""
        if kernel.name not in self.code:
            self.code[kernel.name] = [(i, meaning_of(i.parts)) for i in kernel.code]
        return self.code[kernel.name]

    def habits(self, kernel: Kernel) -> Habits:
        """What the text of a kernel tells of its accesses."""
        if kernel.name not in self._habits:
            self._habits[kernel.name] = habits(kernel)
        return self._habits[kernel.name]


@lru_cache(maxsize=32)
def source_of(text: str) -> Source:
    """What is found out of a text does not depend on the simulator that loads it."""
    return Source(text)


def _placed(variable: Variable, memory: Memory) -> int:
    address = memory.allocate(variable.size or 0)
    data = variable.data.ljust(variable.size or 0, b"\0")
    memory.put(address, np.frombuffer(data, np.uint8))
    return address


class Simulator:
    """A device without hardware.

    schedule  None runs all threads in lockstep, an integer is the seed of a random order of warps
    copies    "eager" performs asynchronous work at once, "lazy" as late as waits allow
    races     whether accesses of the same memory that nothing orders are faults, see `races`
    limit     instructions after which a launch is taken for endless
    """

    def __init__(
        self, schedule: int | None = None, copies: str = "eager", limit: int = 20_000_000,
        races: bool = True,
    ) -> None:
        if copies not in ("eager", "lazy"):
            raise ValueError(f"copies: expected 'eager' or 'lazy', got {copies!r}")
        self.schedule, self.copies, self.limit, self.races = schedule, copies, limit, races
        self.memory = Memory()

    def load(self, text: str) -> Program:
        """Parse a PTX text and place its variables."""
        return Program(text, self.memory)

    def run(
        self, text: str, kernel: str, grid: Sequence[int], block: Sequence[int],
        arguments: Sequence[Any], shared: int = 0,
    ) -> None:
        """Load and launch once: arrays go in by copy and come back in place after the launch.

        Integers, floats and bytes (a tensor map) are passed by value.
        """
        arrays: dict[int, tuple[int, NDArray[Any]]] = {}
        values: list[Any] = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                if id(argument) not in arrays:
                    arrays[id(argument)] = self.memory.allocate(argument.nbytes), argument
                    self.memory.put(arrays[id(argument)][0], argument)
                values.append(arrays[id(argument)][0])
            else:
                values.append(argument)
        self.launch(self.load(text), kernel, grid, block, values, shared)
        for address, array in arrays.values():
            raw = self.memory.get(address, array.nbytes)
            array[...] = raw.view(array.dtype).reshape(array.shape)
            self.memory.free(address)

    def launch(
        self, program: Program, kernel: str, grid: Sequence[int], block: Sequence[int],
        arguments: Sequence[Any], shared: int = 0,
    ) -> int:
        """Run a kernel; arguments are addresses, numbers or bytes. How many instructions ran."""
        entry = program.source.linked(kernel)
        dims = _dim(grid), _dim(block)
        _check_block(entry, dims[1])
        parameters = self._parameters(entry, arguments)
        launch = self._launch(program, entry, dims, parameters, shared, arguments)
        executed = 0
        try:
            with np.errstate(all="ignore"):
                for blocks in self._gangs(launch):
                    scheduler = Scheduler(Gang(launch, blocks), self.schedule, self.limit)
                    executed += scheduler.run()
        finally:
            self.memory.free(parameters)
        return executed

    def _gangs(self, launch: Launch) -> Iterator[list[Dim]]:
        x, y, z = launch.grid
        blocks = ((i, j, k) for k, j, i in itertools.product(range(z), range(y), range(x)))
        together = 1 if self.schedule is not None else max(1, GANG_LANES // launch.threads)
        together = max(1, min(together, (64 << 20) // max(launch.shared_size, 1)))
        while gang := list(itertools.islice(blocks, together)):
            yield gang

    def _parameters(self, entry: Kernel, arguments: Sequence[Any]) -> int:
        if len(arguments) != len(entry.parameters):
            raise Fault(f"{entry.name} takes {len(entry.parameters)} arguments, got "
                        f"{len(arguments)}")
        data = bytearray()
        for parameter, argument in zip(entry.parameters, arguments, strict=True):
            data += bytes(-len(data) % parameter.alignment)
            data += _argument_bytes(parameter.name, parameter.size, argument)
        address = self.memory.allocate(max(len(data), 1))
        if data:
            self.memory.put(address, np.frombuffer(bytes(data), np.uint8))
        return address

    def _launch(
        self, program: Program, entry: Kernel, dims: tuple[Dim, Dim], parameters: int, shared: int,
        arguments: Sequence[Any],
    ) -> Launch:
        symbols = dict(program.globals)
        offset = 0
        for parameter in entry.parameters:
            offset = -(-offset // parameter.alignment) * parameter.alignment
            symbols[parameter.name] = parameters + offset
            offset += parameter.size
        variables = [*program.module.variables, *entry.variables]
        sizes = {space: _lay_out(variables, space, symbols) for space in ("shared", "local")}
        dynamic = [v for v in variables if v.space == "shared" and v.size is None]
        static = sizes["shared"]
        for variable in dynamic:
            static = -(-static // variable.alignment) * variable.alignment
            symbols[variable.name] = static
        total = static + shared
        if total > MOST_SHARED:
            raise Fault(f"{total} bytes of shared memory, at most {MOST_SHARED} are possible")
        symbols.update(entry.labels)
        code = program.source.prepared(entry)
        asynchronous = any(i.name.startswith(ASYNCHRONOUS) for i, _ in code)
        names = (parameter.name for parameter in entry.parameters)
        values = program.globals | dict(zip(names, arguments, strict=True))
        watch = watched(program.source.habits(entry), self.memory, values) if self.races else None
        return Launch(
            entry, program.module.functions, code, program.lines, self.memory, symbols, *dims,
            total, shared, -(-sizes["local"] // 8) * 8, self.copies == "lazy", asynchronous, watch,
        )


def _lay_out(variables: list[Variable], space: str, symbols: dict[str, int]) -> int:
    """Offsets of the variables of a space into `symbols`; their size together."""
    offset = 0
    for variable in variables:
        if variable.space == space and variable.size is not None:
            offset = -(-offset // variable.alignment) * variable.alignment
            symbols[variable.name] = offset
            offset += variable.size
    return offset


def _dim(sizes: Sequence[int]) -> Dim:
    x, y, z = (*sizes, 1, 1)[:3]
    return int(x), int(y), int(z)


def _check_block(entry: Kernel, block: Dim) -> None:
    threads = block[0] * block[1] * block[2]
    if not 0 < threads <= MOST_THREADS:
        raise Fault(f"{threads} threads per block: 1 to {MOST_THREADS} are possible")
    if any(size > 1 for size in entry.cluster):
        raise Fault(f"{entry.name} runs in clusters of {entry.cluster}: only clusters of one "
                    "block are simulated")
    if entry.threads is not None and _dim(entry.threads) != block:
        raise Fault(f"{entry.name} requires blocks of {_dim(entry.threads)}, got {block}")


def _argument_bytes(name: str, size: int, argument: Any) -> bytes:
    if isinstance(argument, bytes):
        raw = argument
    elif isinstance(argument, float | np.floating):
        raw = struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], argument)
    else:
        raw = (int(argument) & (1 << 8 * size) - 1).to_bytes(size, "little")
    if len(raw) != size:
        raise Fault(f"the parameter {name} has {size} bytes, got {len(raw)}")
    return raw
