"""A plan as PTX: one module, and which of its entries run, in order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tilewright.codegen.gpu import formulas
from tilewright.codegen.gpu.emit import Entry, emit_entry, phases
from tilewright.codegen.gpu.formulas import Formula
from tilewright.compiler.plan import Launch, Plan, Slot
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.types import DTYPES, DType


@dataclass(frozen=True)
class Map:
    """A matrix that a step copies boxes of; sizes are those of the plan. As
    :class:`tilewright.codegen.gpu.bulk.MatrixMap`.
    """

    buffer: int
    dtype: DType
    first: Formula
    rows: Formula
    columns: Formula
    box: int
    box_columns: int


@dataclass(frozen=True)
class Matrix:
    """A matrix that a launch copies boxes of: [rows, columns] from the element ``first`` of an
    argument on, in boxes of [box, box_columns].
    """

    buffer: int
    dtype: DType
    first: int
    rows: int
    columns: int
    box: int
    box_columns: int


@dataclass(frozen=True)
class Step:
    """A run of an entry: launch number ``launch`` of the plan, or a part of it. It is plain data.

    args     the buffers that are the kernel's arguments
    sizes    the plan's sizes that are its next arguments
    threads  of a block
    shared   bytes of memory of a block
    scratch  bytes of memory that a thread needs for itself
    grid     how many blocks there are
    maps     the matrices whose tensor maps are its last arguments
    """

    entry: str
    launch: int
    args: tuple[Slot, ...]
    sizes: tuple[str, ...]
    threads: int
    shared: int
    scratch: int
    grid: Formula
    maps: tuple[Map, ...] = ()

    def matrices(self, sizes: Mapping[str, int]) -> list[Matrix]:
        """What its tensor maps say, given the numbers of the plan's sizes."""
        return [
            Matrix(m.buffer, m.dtype, formulas.number(m.first, sizes),
                   formulas.number(m.rows, sizes), formulas.number(m.columns, sizes),
                   m.box, m.box_columns) for m in self.maps]

    def blocks(self, sizes: Mapping[str, int]) -> int:
        """Blocks of the grid, given the numbers of the plan's sizes; 0: nothing is to do."""
        return max(formulas.number(self.grid, sizes), 0)


@dataclass
class GpuProgram:
    """PTX of a plan.

    text   of the module
    steps  in order
    key    under which the disk cache has the text
    plan   the plan with its launches, for who wants to read about it
    report   lines for the message of a kernel that went wrong: they name a reproducer
    """

    text: str
    steps: tuple[Step, ...]
    target: Target
    key: str = field(repr=False)
    plan: Callable[[], Plan] = field(repr=False)
    report: Callable[[Exception], list[str]] | None = field(repr=False, default=None)

    @functools.cached_property
    def llvm_text(self) -> str:
        """Of which the PTX was made."""
        return module_text(self.plan(), self.target) if self.steps else ""

    def asm_text(self) -> str:
        """The PTX."""
        return self.text

    def facts(self) -> dict[str, Any]:
        """What :func:`load` makes the program of, as JSON can hold it."""
        return {"ptx": self.key, "steps": [
            [s.entry, s.launch, [[slot.kind, slot.index] for slot in s.args], s.sizes, s.threads,
             s.shared, s.scratch, s.grid,
             [[m.buffer, m.dtype.name, m.first, m.rows, m.columns, m.box, m.box_columns]
              for m in s.maps]]
            for s in self.steps]}


def load(facts: Mapping[str, Any], target: Target, plan: Callable[[], Plan]) -> GpuProgram | None:
    """A program that was built before, from its :meth:`GpuProgram.facts`.

    None if its PTX is in the disk cache no longer. ``plan`` is asked for its texts only. Raises
    what Python raises for facts of another form.
    """
    from tilewright.codegen.gpu.ptx import kept

    steps = tuple(
        Step(entry, launch, tuple(Slot(kind, index) for kind, index in args), tuple(sizes),
             threads, shared, scratch, formulas.read(grid),
             tuple(Map(buffer, DTYPES[dtype], formulas.read(first), formulas.read(rows),
                       formulas.read(columns), box, box_columns)
                   for buffer, dtype, first, rows, columns, box, box_columns in maps))
        for entry, launch, args, sizes, threads, shared, scratch, grid, maps in facts["steps"])
    text = kept(facts["ptx"]) if steps else ""
    return None if text is None else GpuProgram(text, steps, target, facts["ptx"], plan)


_emitted: dict[tuple[k.Kernel, Target], list[Entry]] = {}


def entries_of(kernel: k.Kernel, target: Target) -> list[Entry]:
    """The entries of a kernel; what differs only in its name is emitted once."""
    key = (replace(kernel, name="", loc=None), target)
    if key not in _emitted:
        _emitted[key] = [emit_entry(phase, target) for phase in phases(kernel)]
    return _emitted[key]


def build(plan: Plan, target: Target) -> GpuProgram:
    """The PTX of a plan. Raises ``Unsupported`` for what the architecture lacks."""
    from tilewright.codegen.gpu.ptx import ptx_key, ptx_of

    steps = tuple(
        step_of(entry, number, launch) for number, launch in enumerate(plan.launches)
        for entry in entries_of(launch.kernel, target))
    if not steps:
        return GpuProgram("", (), target, "", lambda: plan)
    text = module_text(plan, target)
    loc = next((launch.kernel.loc for launch in plan.launches if launch.kernel.loc), None)
    key = ptx_key(text, target, loc)
    program = GpuProgram(ptx_of(key, text, target, loc), steps, target, key, lambda: plan)
    program.llvm_text = text
    return program


def step_of(entry: Entry, number: int, launch: Launch) -> Step:
    """The step that an entry of a launch's kernel is."""
    pairs = zip(launch.kernel.sizes, launch.sizes, strict=True)
    known: dict[str, Formula] = {var.name: name for var, name in pairs}
    maps = tuple(
        Map(m.buffer, m.dtype, formulas.formula(m.first, known), formulas.formula(m.rows, known),
            formulas.formula(m.columns, known), m.box, m.box_columns) for m in entry.maps)
    return Step(
        entry.name, number, launch.args, launch.sizes, entry.threads, entry.shared, entry.scratch,
        formulas.blocks(entry.kernel, entry.threads, known), maps)


def module_text(plan: Plan, target: Target) -> str:
    """The LLVM IR of a plan's kernels."""
    entries = {
        entry.name: entry for launch in plan.launches
        for entry in entries_of(launch.kernel, target)}
    declarations = frozenset[str]().union(*(e.declarations for e in entries.values()))
    return "\n".join([*sorted(declarations), "", *(e.text for e in entries.values()), ""])
