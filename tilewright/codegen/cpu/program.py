"""A plan as one native function that a team of threads runs together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tilewright.codegen.builder import Builder, Value
from tilewright.codegen.cpu.support import barrier
from tilewright.codegen.cpu.worker import Worker
from tilewright.codegen.emit import Emitted, emit_kernel
from tilewright.codegen.vecmath import MATH
from tilewright.compiler.collector import collector_at_rest
from tilewright.compiler.plan import Plan, Slot
from tilewright.compiler.target import Target
from tilewright.ir.loops import Kernel

if TYPE_CHECKING:
    from tilewright.codegen.llvm import Code

ENTRY = "tw_program"


@dataclass
class NativeProgram:
    """Machine code of a plan.

    address    of ``void tw_program(ptr table, i64 tid, i64 nthreads, ptr scratch, ptr team)``; the
               table holds the pointers of inputs, outputs, constants and the arena, in this order,
               then the numbers of the plan's sizes and the places of its blocks in the arena
    scratch    bytes of private memory per thread, 64-byte aligned
    llvm_text  the module with the entry and all of the plan's kernels
    The caller sets the status word of the team block to 0 before a run; a failed check leaves its
    code there.
    """

    address: int
    scratch: int
    llvm_text: str
    target: Target
    code: tuple[Code, ...] = field(repr=False, default=())

    def asm_text(self) -> str:
        """The assembly of the whole program."""
        from tilewright.codegen import llvm

        return llvm.assembly(self.llvm_text, self.target)


_emitted: dict[tuple[Kernel, Target], Emitted] = {}
_compiled: dict[tuple[str, Target], Code] = {}
"""Kernels that this process has emitted, and compiled by name; equal kernels share their code."""


def functions() -> dict[str, Callable[..., Value]]:
    """The vector functions by op name."""
    return MATH


def emitted(kernel: Kernel, target: Target) -> Emitted:
    """A kernel's text; what differs only in its name is emitted once."""
    key = (replace(kernel, name="", loc=None), target)
    found = _emitted.get(key)
    if found is None:
        found = _emitted[key] = emit_kernel(kernel, target, functions())
    return found


def module_text(kernels: list[Emitted], rest: str, target: Target, more: set[str]) -> str:
    """A module with these kernels and ``rest``, and the barrier if they call it."""
    declarations = more.union(*(k.declarations for k in kernels))
    texts = [*(k.text for k in kernels), rest]
    if any("@tw_barrier(" in t for t in texts):
        text, needed = barrier(target.triple)
        declarations |= needed
        texts.insert(0, text)
    return "\n".join([*sorted(declarations), "", *texts, "!0 = !{i32 1}", ""])


MODULE_SIZE = 40_000
"""Characters of kernels after which a module goes to the assembler while the next is written."""

MANY_LOOPS = 6
"""From this many loops on, LLVM's search for cheaper induction variables takes more time than all
the rest. Tiles of contractions have as many, and inner loops in which that search finds nothing."""


class Assembler:
    """Kernels to object files, on a thread of its own: LLVM runs without the interpreter's lock."""

    def __init__(self, target: Target, worker: Worker[bytes]) -> None:
        self.target, self.worker = target, worker
        self.names: list[str] = []
        self.waiting: dict[bool, list[Emitted]] = {False: [], True: []}

    def add(self, kernel: Emitted) -> None:
        """Assemble a kernel, together with others that need the same passes."""
        self.names.append(kernel.name)
        quick = kernel.loops >= MANY_LOOPS
        self.waiting[quick].append(kernel)
        if sum(len(k.text) for k in self.waiting[quick]) >= MODULE_SIZE:
            self.submit(quick)

    def submit(self, quick: bool, rest: str = "", more: set[str] | None = None) -> None:
        """Begin with a module of the kernels that wait, and ``rest``."""
        from tilewright.codegen import llvm

        text = module_text(self.waiting[quick], rest, self.target, more or set())
        self.waiting[quick] = []
        self.worker.submit(functools.partial(llvm.object_code, text, self.target, quick=quick))

    def finish(self, main: str, others: Mapping[str, Emitted]) -> None:
        """Assemble what waits, and ``main``, which calls all of ``others``."""
        if self.waiting[True]:
            self.submit(True)
        here = {k.name for k in self.waiting[False]}
        more = {
            f"declare void @{n}({', '.join(parameters(e))})"
            for n, e in others.items()
            if n not in here
        }
        self.submit(False, main, more)


@collector_at_rest()
def build(plan: Plan, target: Target) -> NativeProgram:
    """Machine code of a plan for this process' machine.

    Only kernels that no earlier plan had are assembled, while the following ones are emitted; they
    are linked to the others. Raises ``Unsupported`` for an op without code.
    """
    from tilewright.codegen import llvm

    kernels: dict[str, Emitted] = {}
    known: dict[str, Code] = {}
    order = []
    worker: Worker[bytes] = Worker()
    with worker:
        assembler = Assembler(target, worker)
        seen: dict[int, Emitted] = {}
        for launch in plan.launches:
            e = seen.get(id(launch.kernel)) or emitted(launch.kernel, target)
            seen[id(launch.kernel)] = e
            order.append(e)
            if e.name in kernels:
                continue
            kernels[e.name] = e
            code = _compiled.get((e.name, target))
            if code is None:
                assembler.add(e)
            else:
                known[e.name] = code
        main = entry(plan, order)
        assembler.finish(main, kernels)
    imported = {name: code.address(name) for name, code in known.items()}
    code = llvm.Code(worker.results(), [ENTRY, *assembler.names], imported)
    for name in assembler.names:
        _compiled[(name, target)] = code
    whole = module_text(list(kernels.values()), main, target, set())
    scratch = max((e.scratch for e in kernels.values()), default=0)
    return NativeProgram(code.address(ENTRY), scratch, whole, target, (code, *known.values()))


def program_text(plan: Plan, target: Target) -> str:
    """The LLVM IR of a plan, for any target: all kernels and the entry."""
    order = [emitted(launch.kernel, target) for launch in plan.launches]
    kernels = {e.name: e for e in order}
    return module_text(list(kernels.values()), entry(plan, order), target, set())


def parameters(e: Emitted) -> list[str]:
    """The types of a kernel's parameters."""
    return ["ptr"] * e.buffers + ["i64"] * e.sizes + ["i64", "i64", "ptr", "ptr"]


def entry(plan: Plan, order: Sequence[Emitted]) -> str:
    """The text of ``tw_program``; ``order`` has the kernel of every launch."""
    b = Builder()
    passed = "ptr %table, i64 %tid, i64 %nthreads, ptr %scratch, ptr %team"
    b.write(f"define void @{ENTRY}({passed}) nounwind {{")
    b.label("entry")
    bases: dict[tuple[str, int], str] = {}
    for launch, kernel in zip(plan.launches, order, strict=True):
        if launch.barrier:
            b.write("  call void @tw_barrier(ptr %team, i64 %nthreads)")
        places = [f"ptr {pointer(b, plan, slot, bases)}" for slot in launch.args]
        first = first_size(plan)
        sizes = [f"i64 {word(b, first + plan.sizes.index(n), 'i64', bases)}" for n in launch.sizes]
        rest = ["i64 %tid", "i64 %nthreads", "ptr %scratch", "ptr %team"]
        b.write(f"  call void @{kernel.name}({', '.join([*places, *sizes, *rest])})")
    b.write("  ret void")
    b.write("}")
    return "\n".join(b.lines) + "\n"


def first_size(plan: Plan) -> int:
    """The word of the table that has the first size."""
    return len(plan.inputs) + len(plan.outputs) + len(plan.constants) + 1


def word(b: Builder, number: int, kind: str, known: dict[tuple[str, int], str]) -> str:
    """The name of a word of the table, which is loaded once."""
    found = known.get((kind, number))
    if found is None:
        place, found = b.fresh("t"), b.fresh("t")
        b.write(f"  {place} = getelementptr ptr, ptr %table, i64 {number}")
        b.write(f"  {found} = load {kind}, ptr {place}, align 8")
        known[kind, number] = found
    return found


def pointer(b: Builder, plan: Plan, slot: Slot, known: dict[tuple[str, int], str]) -> str:
    """The name of a slot's pointer."""
    before = {
        "input": 0,
        "output": len(plan.inputs),
        "constant": len(plan.inputs) + len(plan.outputs),
    }.get(slot.kind)
    if before is not None:
        return word(b, before + slot.index, "ptr", known)
    base = word(b, first_size(plan) - 1, "ptr", known)
    if slot.kind == "block":
        at = word(b, first_size(plan) + len(plan.sizes) + slot.index, "i64", known)
        name = known.get(("block", slot.index))
        if name is None:
            name = known["block", slot.index] = b.fresh("t")
            b.write(f"  {name} = getelementptr i8, ptr {base}, i64 {at}")
        return name
    if slot.index == 0:
        return base
    name = b.fresh("t")
    b.write(f"  {name} = getelementptr i8, ptr {base}, i64 {slot.index}")
    return name
