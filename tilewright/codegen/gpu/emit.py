"""Kernel -> LLVM IR for a GPU: an entry for each stretch between two barriers.

The threads of the grid are the team. A ``parallel`` loop has a thread for each iteration: the grid
is made large enough. Parameters of an entry are the kernel's buffers and sizes, then the memory of
all threads for themselves, then the words of the team.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tilewright.codegen.emit import Emitted, Emitter
from tilewright.codegen.emit_index import Affine, plus, times
from tilewright.codegen.vecmath import MATH
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir import loops as k
from tilewright.ir.interp import sections
from tilewright.ir.types import i64

THREADS = 128
"""Threads of a block."""

SPECIAL = ("tid", "ctaid", "nctaid")


@dataclass(frozen=True)
class Entry:
    """A PTX kernel.

    name     of the entry
    kernel   the stretch that it runs
    scratch  bytes of memory that each thread needs for itself
    text     its function and the entry around it, and the declarations that they need
    """

    name: str
    kernel: k.Kernel
    scratch: int
    text: str
    declarations: frozenset[str]


class GridEmitter(Emitter):
    """The threads of a grid as the team."""

    def parallel(self, s: k.For) -> None:
        """The iteration of this thread's number, if there is one."""
        start, stop = self.bound(s.start), self.bound(s.stop)
        trip = plus(stop, times(start, -1))
        if trip.number is not None and trip.number <= 0:
            return
        # A name for this loop alone: what is known of its range holds for no other loop.
        number = self.b.define(i64, 1, "add i64 %tid, 0").name
        mine = plus(start, Affine(0, ((number, s.step),)))
        inside = self.b.compare("icmp slt", self.sum_terms(mine), self.sum_terms(stop))
        if trip.number is not None:
            self.ranges[number] = (0, -(-trip.number // s.step) - 1)
        self.env[s.var.name] = mine
        self.branch(inside, lambda: self.statements(s.body))

    def barrier(self) -> None:
        raise CompilerBug("a barrier inside of an entry")


def phases(kernel: k.Kernel) -> list[k.Kernel]:
    """The stretches between the kernel's barriers, as kernels of the same parameters.

    Names hold beyond a barrier and are computed again; private memory does not outlive one.
    """
    found: list[k.Kernel] = []
    named: list[k.Stmt] = []
    for stretch in sections(kernel.body):
        if any(isinstance(s, k.For | k.Check) for s in stretch):
            body = (*named, *stretch)
            own = {s.buffer.name for s in walk(body) if isinstance(s, k.Alloc)}
            stored = {s.buffer for s in walk(body) if isinstance(s, k.Store | k.Accumulate)}
            if any(b.space != "global" and b.name not in own for b in stored):
                raise CompilerBug(f"{kernel.name}: memory of one thread outlives a barrier")
            found.append(replace(kernel, body=body, digest=""))
        named += [s for s in stretch if isinstance(s, k.Let)]
    return found


def walk(body: Iterable[k.Stmt]) -> Iterator[k.Stmt]:
    """All statements, inner ones too."""
    for s in body:
        yield s
        if isinstance(s, k.For):
            yield from walk(s.body)
        elif isinstance(s, k.If):
            yield from walk((*s.body, *s.orelse))


def emit_entry(kernel: k.Kernel, target: Target) -> Entry:
    """An entry for a kernel without barriers. Raises as :func:`tilewright.codegen.emit`."""
    emitted = GridEmitter(target, MATH).kernel(kernel)
    name = "e" + emitted.name[1:]
    text = emitted.text.replace("define void", "define internal void", 1)
    declarations = {
        *emitted.declarations,
        *(f"declare i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in SPECIAL),
    }
    return Entry(
        name, kernel, emitted.scratch, text + wrapper(name, emitted), frozenset(declarations))


def wrapper(name: str, emitted: Emitted) -> str:
    """The entry around a kernel's function, which tells the threads of the grid apart."""
    buffers = [f"ptr %b{n}" for n in range(emitted.buffers)]
    sizes = [f"i64 %n{n}" for n in range(emitted.sizes)]
    params = [*buffers, *sizes, "ptr %memory", "ptr %team"]
    lines = [f"define ptx_kernel void @{name}({', '.join(params)}) {{", "entry:"]
    lines += [
        line for r in SPECIAL for line in (
            f"  %{r}.short = call i32 @llvm.nvvm.read.ptx.sreg.{r}.x()",
            f"  %{r}.wide = zext i32 %{r}.short to i64")
    ]
    passed = [*buffers, *sizes, "i64 %tid", "i64 %threads", "ptr %scratch", "ptr %team"]
    lines += [
        f"  %before = mul nuw nsw i64 %ctaid.wide, {THREADS}",
        "  %tid = add nuw nsw i64 %before, %tid.wide",
        f"  %threads = mul nuw nsw i64 %nctaid.wide, {THREADS}",
        f"  %offset = mul nuw nsw i64 %tid, {emitted.scratch}",
        "  %scratch = getelementptr i8, ptr %memory, i64 %offset",
        f"  call void @{emitted.name}({', '.join(passed)})",
        "  ret void", "}", "",
    ]
    return "\n".join(lines)
