"""A plan as one native function that a team of threads runs together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.codegen.builder import Builder
from tilewright.codegen.cpu.library import (
    Callee,
    Library,
    callee_of,
    emitted,
    functions,
    module_text,
)
from tilewright.codegen.cpu.worker import Worker
from tilewright.compiler.collector import collector_at_rest
from tilewright.compiler.plan import Launch, Plan, Slot
from tilewright.compiler.target import Target

if TYPE_CHECKING:
    from tilewright.codegen.llvm import Code

__all__ = ["NativeProgram", "build", "functions", "module_text", "program_text"]

ENTRY = "tw_program"

PART = 16
"""Launches of one function: LLVM's time grows with the square of the calls in a row. A program of
several parts is so long that the quality of the code between its kernels does not matter."""


@dataclass
class NativeProgram:
    """Machine code of a plan.

    address    of ``void tw_program(ptr table, i64 tid, i64 nthreads, ptr scratch, ptr team)``; the
               table holds the pointers of inputs, outputs, constants and the arena, in this order,
               then the numbers of the plan's sizes and the places of its blocks in the arena
    scratch    bytes of private memory per thread, 64-byte aligned
    keys       of the kernels, under which the disk cache has them
    main       the object file of the entry, which calls the kernels
    The caller sets the status word of the team block to 0 before a run; a failed check leaves its
    code there.
    """

    address: int
    scratch: int
    target: Target
    make_text: Callable[[], str] = field(repr=False)
    keys: tuple[str, ...] = field(repr=False, default=())
    main: bytes = field(repr=False, default=b"")
    code: tuple[Code, ...] = field(repr=False, default=())

    @functools.cached_property
    def llvm_text(self) -> str:
        """The module with the entry and all of the plan's kernels."""
        return self.make_text()

    def asm_text(self) -> str:
        """The assembly of the whole program."""
        from tilewright.codegen import llvm

        return llvm.assembly(self.llvm_text, self.target)


@collector_at_rest()
def build(plan: Plan, target: Target) -> NativeProgram:
    """Machine code of a plan for this process' machine.

    Only kernels that neither an earlier plan nor the disk cache has are assembled, while the
    following ones are emitted. Raises ``Unsupported`` for an op without code.
    """
    worker: Worker[None] = Worker()
    with worker:
        library = Library(target, worker)
        order = [library.callee(launch.kernel) for launch in plan.launches]
        main = assemble_entry(plan, order, target)
    worker.results()
    scratch = max((c.scratch for c in order), default=0)
    return _linked(library, main, scratch, functools.partial(program_text, plan, target))


def load(
    keys: Sequence[str], main: bytes, scratch: int, target: Target, plan: Callable[[], Plan]
) -> NativeProgram | None:
    """A program that was built before, from its :class:`NativeProgram`'s facts.

    None if a kernel is in the disk cache no longer. ``plan`` is asked for its texts only.
    """
    library = Library(target, Worker())
    if not all(library.known(key) for key in keys):
        return None
    return _linked(library, main, scratch, lambda: program_text(plan(), target))


def _linked(
    library: Library, main: bytes, scratch: int, text: Callable[[], str]
) -> NativeProgram:
    """The program of these kernels and ``main``, linked."""
    code, needed = library.link(main, ENTRY)
    keys = tuple(library.keys)
    return NativeProgram(code.address(ENTRY), scratch, library.target, text, keys, main, needed)


def assemble_entry(plan: Plan, order: Sequence[Callee], target: Target) -> bytes:
    """The object file of ``tw_program``."""
    from tilewright.codegen import llvm

    more = {c.declaration for c in order}
    text = module_text([], entry(plan, order), target, more)
    return llvm.object_code(text, target, rough=len(order) > PART)


def program_text(plan: Plan, target: Target) -> str:
    """The LLVM IR of a plan, for any target: all kernels and the entry."""
    order = [emitted(launch.kernel, target) for launch in plan.launches]
    kernels = {e.name: e for e in order}
    main = entry(plan, [callee_of(e) for e in order])
    return module_text(list(kernels.values()), main, target, set())


def entry(plan: Plan, order: Sequence[Callee]) -> str:
    """The text of ``tw_program``; ``order`` has the kernel of every launch."""
    pairs = list(zip(plan.launches, order, strict=True))
    if len(pairs) <= PART:
        return run_text(plan, ENTRY, pairs)
    parts = [pairs[i:i + PART] for i in range(0, len(pairs), PART)]
    texts = [run_text(plan, f"part{i}", part, "internal ") for i, part in enumerate(parts)]
    passed = "ptr %table, i64 %tid, i64 %nthreads, ptr %scratch, ptr %team"
    calls = [f"  call void @part{i}({passed})" for i in range(len(parts))]
    main = [f"define void @{ENTRY}({passed}) nounwind {{", *calls, "  ret void", "}"]
    return "".join(texts) + "\n".join(main) + "\n"


def run_text(
    plan: Plan, name: str, launches: Sequence[tuple[Launch, Callee]], linkage: str = ""
) -> str:
    """The text of a function that runs some launches of a plan."""
    b = Builder()
    passed = "ptr %table, i64 %tid, i64 %nthreads, ptr %scratch, ptr %team"
    b.write(f"define {linkage}void @{name}({passed}) nounwind {{")
    b.label("entry")
    bases: dict[tuple[str, int], str] = {}
    first = first_size(plan)
    for launch, kernel in launches:
        if launch.barrier:
            b.write("  call void @tw_barrier(ptr %team, i64 %nthreads)")
        places = [f"ptr {pointer(b, plan, slot, bases)}" for slot in launch.args]
        sizes = [f"i64 {word(b, first + plan.sizes.index(n), 'i64', bases)}" for n in launch.sizes]
        rest = ["i64 %tid", "i64 %nthreads", "ptr %scratch", "ptr %team"]
        b.write(f"  call void @{kernel.symbol}({', '.join([*places, *sizes, *rest])})")
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
