"""A plan as PTX: one module, and which of its entries run, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tilewright.codegen.gpu.bulk import MatrixMap
from tilewright.codegen.gpu.emit import Entry, emit_entry, phases
from tilewright.compiler.plan import Plan
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir import loops as k
from tilewright.ir.types import DType


@dataclass(frozen=True)
class Step:
    """A run of an entry: launch number ``launch`` of the plan, or a part of it.

    kernel   the stretch of the launch's kernel
    threads  of a block
    shared   bytes of memory of a block
    scratch  bytes of memory that a thread needs for itself
    maps     the matrices whose tensor maps are its last arguments
    """

    entry: str
    launch: int
    kernel: k.Kernel
    threads: int
    shared: int
    scratch: int
    maps: tuple[MatrixMap, ...] = ()

    def matrices(self, sizes: Mapping[str, int]) -> list[Matrix]:
        """What its tensor maps say, given the numbers of the kernel's sizes."""
        return [
            Matrix(m.buffer, m.dtype, number_of(m.first, sizes), number_of(m.rows, sizes),
                   number_of(m.columns, sizes), m.box, m.box_columns) for m in self.maps]

    def blocks(self, sizes: Mapping[str, int]) -> int:
        """Blocks of the grid, given the numbers of the kernel's sizes; 0: nothing is to do."""
        threads = 1
        known: dict[str, int] = dict(sizes)
        for s in self.kernel.body:
            if isinstance(s, k.Let) and computable(s.value, known):
                known[s.var.name] = number_of(s.value, known)
            elif isinstance(s, k.For):
                trip = -(-(number_of(s.stop, known) - number_of(s.start, known)) // s.step)
                if s.kind == "block":
                    return max(trip, 0)
                threads = max(threads, trip)
        return -(-threads // self.threads)


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


@dataclass
class GpuProgram:
    """PTX of a plan.

    text       of the module
    steps      in order
    llvm_text  of which the PTX was made
    """

    text: str
    steps: tuple[Step, ...]
    target: Target
    llvm_text: str = field(repr=False, default="")

    def asm_text(self) -> str:
        """The PTX."""
        return self.text


_emitted: dict[tuple[k.Kernel, Target], list[Entry]] = {}


def entries_of(kernel: k.Kernel, target: Target) -> list[Entry]:
    """The entries of a kernel; what differs only in its name is emitted once."""
    key = (replace(kernel, name="", loc=None), target)
    if key not in _emitted:
        _emitted[key] = [emit_entry(phase, target) for phase in phases(kernel)]
    return _emitted[key]


def build(plan: Plan, target: Target) -> GpuProgram:
    """The PTX of a plan. Raises ``Unsupported`` for what the architecture lacks."""
    from tilewright.codegen.gpu.ptx import ptx

    entries: dict[str, Entry] = {}
    steps = []
    for number, launch in enumerate(plan.launches):
        for entry in entries_of(launch.kernel, target):
            entries[entry.name] = entry
            steps.append(Step(
                entry.name, number, entry.kernel, entry.threads, entry.shared, entry.scratch,
                entry.maps))
    if not entries:
        return GpuProgram("", (), target)
    declarations = frozenset[str]().union(*(e.declarations for e in entries.values()))
    text = "\n".join([*sorted(declarations), "", *(e.text for e in entries.values()), ""])
    loc = next((launch.kernel.loc for launch in plan.launches if launch.kernel.loc), None)
    return GpuProgram(ptx(text, target, loc), tuple(steps), target, text)


# --- numbers that the host needs ---------------------------------------------------------
NUMBERS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "min": min, "max": max,
}


def computable(e: k.Expr, known: Mapping[str, int]) -> bool:
    """Whether :func:`number_of` gives the number of an expression."""
    if isinstance(e, k.Call):
        return e.op in NUMBERS and all(computable(a, known) for a in e.args)
    return k.const_int(e) is not None or (isinstance(e, k.Var) and e.name in known)


def number_of(e: k.Expr, known: Mapping[str, int]) -> int:
    """The number of index arithmetic on sizes."""
    if not computable(e, known):
        raise CompilerBug("the bounds of a parallel loop are not known before the launch")
    return _number(e, known)


def _number(e: k.Expr, known: Mapping[str, int]) -> int:
    if isinstance(e, k.Call):
        a, b = (_number(arg, known) for arg in e.args)
        return NUMBERS[e.op](a, b)
    found = k.const_int(e)
    if found is not None:
        return found
    assert isinstance(e, k.Var)
    return known[e.name]
