"""A compiled function that runs on a device, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np

from tilewright.compiler.plan import Plan, Slot
from tilewright.errors import CompilerBug, OutOfBounds
from tilewright.ir.types import as_number
from tilewright.runtime.executable import SizedExecutable, prepare
from tilewright.runtime.gpu.driver import Driver
from tilewright.runtime.results import Layout, lay_out

STATUS_WORD = 16
"""The word of the team block that takes the code of a failed check."""

TEAM_BYTES = 8 * (STATUS_WORD + 1)


class Step(Protocol):
    """A run of one of the module's entries, for a launch of the plan or a part of it."""

    @property
    def entry(self) -> str: ...  # noqa: D102

    @property
    def launch(self) -> int: ...  # noqa: D102

    def blocks(self, sizes: dict[str, int]) -> int: ...  # noqa: D102


class Gpu(Protocol):
    """PTX of a plan: the text, its steps, threads of a block, bytes of scratch per thread."""

    text: str
    steps: tuple[Any, ...]
    threads: int

    @property
    def scratch(self) -> int: ...  # noqa: D102


class GpuExecutable:
    """PTX on a device, with the plan that it follows; call it with a list of NumPy arrays.

    Arrays go to the device and results come back. Constants and scratch memory stay there for as
    long as this object lives. Safe to call from several Python threads, which take turns.
    """

    def __init__(self, plan: Plan, program: Gpu, driver: Driver) -> None:
        self.plan, self.program, self.driver = plan, program, driver
        self.layout: Layout = lay_out(plan)
        self.grids = [step.blocks(self._sizes(step)) for step in program.steps]
        threads = max((g * program.threads for g in self.grids), default=0)
        self.owned: list[int] = []
        with driver.lock:
            self.module = driver.load(program.text) if program.steps else None
            self.constants = [self._own(c.nbytes) for c in plan.constants]
            for address, constant in zip(self.constants, plan.constants, strict=True):
                driver.write(address, np.ascontiguousarray(constant))
            self.team, self.arena = self._own(TEAM_BYTES), self._own(plan.arena)
            self.scratch = self._own(program.scratch * threads)

    def _own(self, nbytes: int) -> int:
        """Memory that lives as long as this object."""
        self.owned.append(self.driver.allocate(nbytes))
        return self.owned[-1]

    def __del__(self) -> None:
        for address in getattr(self, "owned", ()):
            self.driver.discard(address)

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """The results for one array per input of the plan.

        Raises ``ShapeError`` or ``DTypeError`` for an array of another type than planned, and
        ``OutOfBounds`` when an index is outside its axis.
        """
        plan, driver = self.plan, self.driver
        if len(arrays) != len(plan.inputs):
            raise TypeError(f"expected {len(plan.inputs)} arrays, got {len(arrays)}")
        prepared = [
            prepare(a, t, i) for i, (a, t) in enumerate(zip(arrays, plan.inputs, strict=True))]
        with driver.lock, ExitStack() as freed:
            def fresh(nbytes: int) -> int:
                address = driver.allocate(nbytes)
                freed.callback(driver.free, address)
                return address

            inputs = [fresh(a.nbytes) for a in prepared]
            outputs = [fresh(as_number(t.nbytes)) for t in plan.outputs]
            for address, array in zip(inputs, prepared, strict=True):
                driver.write(address, array)
            driver.fill(self.team, 0, TEAM_BYTES)
            self._launch({"input": inputs, "output": outputs, "constant": self.constants})
            team = np.empty(STATUS_WORD + 1, np.int64)
            driver.read(self.team, team)
            if team[STATUS_WORD]:
                self.fail(int(team[STATUS_WORD]))
            return self._results([*inputs, *outputs, *self.constants])

    def _launch(self, places: dict[str, list[int]]) -> None:
        for step, blocks in zip(self.program.steps, self.grids, strict=True):
            if not blocks:
                continue
            launch = self.plan.launches[step.launch]
            buffers = [self._address(slot, places) for slot in launch.args]
            sizes = self._sizes(step).values()
            self.driver.launch(
                self.module, step.entry, blocks, self.program.threads,
                (*buffers, *sizes, self.scratch, self.team), what=launch.kernel)

    def _address(self, slot: Slot, places: dict[str, list[int]]) -> int:
        if slot.kind in places:
            return places[slot.kind][slot.index]
        offset = slot.index
        if slot.kind == "block":
            offset = self.plan.words[len(self.plan.sizes) + slot.index]
        return self.arena + offset

    def _sizes(self, step: Step) -> dict[str, int]:
        """The numbers of the sizes of a step's kernel, in the order of its parameters."""
        launch = self.plan.launches[step.launch]
        known = dict(zip(self.plan.sizes, self.plan.words, strict=False))
        pairs = zip(launch.kernel.sizes, launch.sizes, strict=True)
        return {var.name: known[name] for var, name in pairs}

    def _results(self, entries: list[int]) -> list[np.ndarray]:
        """Copies of the results."""
        layout, arrays = self.layout, []
        of_copies = {to: source for to, source, _ in layout.copies}
        fresh = []
        for f in layout.fresh:
            array = np.empty(f.shape, f.dtype)
            self.driver.read(entries[of_copies.get(f.entry, f.entry)], array)
            fresh.append(array)
        for source in layout.sources:
            if source.kind == "fresh":
                arrays.append(fresh[source.index])
                continue
            type = self.plan.inputs[source.index]
            array = np.empty(tuple(map(as_number, type.shape)), type.dtype.numpy)
            self.driver.read(entries[source.index], array)
            arrays.append(array)
        return arrays

    def fail(self, code: int) -> None:
        """Raise what an error code of the program stands for."""
        check = self.plan.checks.get(code)
        if check is None:
            raise CompilerBug(f"the program reported the error {code}, unknown to its plan")
        raise OutOfBounds(check.message, expected=check.expected, loc=check.loc)


def gpu_executable(plan: Plan, program: Gpu, driver: Driver) -> GpuExecutable | SizedExecutable:
    """What runs a plan's PTX on arrays."""
    if plan.sizes:
        return SizedExecutable(plan, program, lambda p, g: GpuExecutable(p, g, driver))
    return GpuExecutable(plan, program, driver)
