"""Kernel -> LLVM IR for a GPU: an entry for each stretch between two barriers.

The threads of the grid are the team. A stretch of ``parallel`` loops has a thread for each
iteration: the grid is made large enough. A stretch of one ``block`` loop has a block for each
iteration, whose threads are those of its ``thread`` loop. Parameters of an entry are the kernel's
buffers and sizes, then the memory of all threads for themselves, then the words of the team.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tilewright.codegen.builder import Value
from tilewright.codegen.emit import Emitted
from tilewright.codegen.emit_index import Affine, plus, times
from tilewright.codegen.emit_vector import expressions, loads
from tilewright.codegen.gpu.bulk import GridBulk, MatrixMap
from tilewright.codegen.gpu.fast import functions
from tilewright.codegen.gpu.memory import KINDS
from tilewright.codegen.gpu.shuffles import exchanged
from tilewright.compiler.plan import ALIGNED
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir import loops as k
from tilewright.ir.instructions import written
from tilewright.ir.interp import sections
from tilewright.ir.types import i32, i64

THREADS = 128
"""Threads of a block, where the kernel does not say how many."""

SMALL = 64
"""Threads of a small block."""

MOST_BLOCKS = 2**31 - 1
"""Blocks of a grid."""

KEPT = {
    "!9000 = distinct !{!9000, !9001}", '!9001 = !{!"llvm.loop.unroll.disable"}',
}
"""Of loops that LLVM does not unroll."""

FEW = 4
"""Iterations of a loop that it may."""

SPECIAL = ("tid", "ctaid", "nctaid")
BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"


@dataclass(frozen=True)
class Entry:
    """A PTX kernel.

    name     of the entry
    kernel   the stretch that it runs
    threads  of a block
    shared   bytes of memory of a block
    scratch  bytes of memory that each thread needs for itself
    text     its function and the entry around it, and the declarations that they need
    maps     the matrices of its tensor copies: further parameters, the last ones
    """

    name: str
    kernel: k.Kernel
    threads: int
    shared: int
    scratch: int
    text: str
    declarations: frozenset[str]
    maps: tuple[MatrixMap, ...] = ()


class GridEmitter(GridBulk):
    """The threads of a grid as the team."""

    attributes = "alwaysinline convergent nounwind"

    def parameter(self, buffer: k.Buffer, kernel: k.Kernel) -> str:
        """Memory in which threads of a block may meet is no function's own: a barrier changes it.

        What is only read keeps its contents.
        """
        if buffer.access == "in":
            return f"{self.kind(buffer)} noalias readonly align {ALIGNED}"
        own = not (blocks_of(kernel) and buffer.name in read_buffers(kernel.body))
        return f"{self.kind(buffer)} {'noalias ' * own}align {ALIGNED}"

    def more(self) -> list[str]:
        return [f"ptr %map{n}" for n in range(len(self.maps))]

    # --- loops --------------------------------------------------------------------------
    def loop(self, s: k.For) -> None:
        """A loop that waits is the schedule's: LLVM would write all of its steps one by one."""
        few = k.const_int(s.start) == 0 and (k.const_int(s.stop) or FEW + 1) <= FEW
        waits = any(isinstance(t, k.Barrier | k.Instruction) for t in k.walk(s.body))
        if s.kind == "serial" and waits and not few:
            self.note = ", !llvm.loop !9000"
            self.b.declarations |= KEPT
        super().loop(s)
        self.note = ""

    # --- the grid -----------------------------------------------------------------------
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

    def grid(self, s: k.For) -> None:
        """The iteration of this block or of this thread in it: there is one for each."""
        # How many blocks there are is the launch's affair, and no part of the code.
        start, stop = self.bound(s.start), k.const_int(s.stop)
        trip = None if stop is None or start.number is None else stop - start.number
        if s.kind == "thread" and (start.number != 0 or trip is None or s.step != 1):
            raise CompilerBug(f"the threads {s.var.name} of a block do not begin at 0, or vary")
        count = MOST_BLOCKS if trip is None else max(1, -(-trip // s.step))
        mine = self.special("tid" if s.kind == "thread" else "ctaid", count)
        self.env[s.var.name] = plus(start, Affine(0, ((mine.name, s.step),)))
        self.statements(s.body)

    def special(self, register: str, count: int) -> Value:
        """A special register whose numbers are below ``count``."""
        name = f"llvm.nvvm.read.ptx.sreg.{register}.x"
        self.b.declarations.add(f"declare i32 @{name}()")
        short = self.b.define(i32, 1, f"call range(i32 0, {count}) i32 @{name}()")
        wide = self.b.define(i64, 1, f"zext nneg {short.typed} to i64")
        self.ranges[wide.name] = (0, count - 1)
        return wide

    # --- what threads do together -------------------------------------------------------
    def barrier(self) -> None:
        self.b.declarations.add(f"declare void @{BARRIER}(i32)")
        self.b.write(f"  call void @{BARRIER}(i32 0)")

    def machine_only(self, s: k.Shuffle | k.Instruction) -> None:
        if isinstance(s, k.Instruction):
            self.instruction(s)
            return
        value, lane = self.value(s.value), self.value(s.lane)
        if isinstance(lane, list):
            raise CompilerBug("the lanes of a vector loop ask different threads")
        if isinstance(value, list):
            self.env[s.var.name] = [exchanged(self.b, s.mode, v, lane) for v in value]
        else:
            self.env[s.var.name] = exchanged(self.b, s.mode, value, lane)


def blocks_of(kernel: k.Kernel) -> k.For | None:
    """The block loop of a stretch, if it has one. Raises ``CompilerBug`` if it has other loops."""
    loops = [s for s in kernel.body if isinstance(s, k.For)]
    found = next((s for s in loops if s.kind == "block"), None)
    if found is not None and len(loops) > 1:
        raise CompilerBug(f"{kernel.name}: a block loop and others without a barrier between them")
    return found


def threads_of(kernel: k.Kernel) -> int:
    """Threads of a block of a stretch."""
    blocks = blocks_of(kernel)
    if blocks is None:
        return THREADS
    last = blocks.body[-1] if blocks.body else None
    count = k.const_int(last.stop) if isinstance(last, k.For) and last.kind == "thread" else None
    if count is None:
        raise CompilerBug(f"{kernel.name}: a block loop does not end in a loop of a number of "
                          "threads that is known")
    return count


def phases(kernel: k.Kernel) -> list[k.Kernel]:
    """The stretches between the kernel's barriers, as kernels of the same parameters.

    Names hold beyond a barrier and are computed again; private memory does not outlive one.
    """
    found: list[k.Kernel] = []
    named: list[k.Stmt] = []
    for stretch in [part for s in sections(kernel.body) for part in apart(s)]:
        if any(isinstance(s, k.For | k.Check) for s in stretch):
            body = (*named, *stretch)
            own = {s.buffer.name for s in k.walk(body) if isinstance(s, k.Alloc)}
            if any(b.space != "global" and b.name not in own for b in stored_buffers(body)):
                raise CompilerBug(f"{kernel.name}: memory of one thread outlives a barrier")
            found.append(replace(kernel, body=body, digest=""))
        named += [s for s in stretch if isinstance(s, k.Let)]
    return found


def apart(stretch: list[k.Stmt]) -> list[list[k.Stmt]]:
    """A stretch, or its checks and then its block loop, of which there may be no block."""
    blocks = any(isinstance(s, k.For) and s.kind == "block" for s in stretch)
    if not blocks or not any(isinstance(s, k.Check) for s in stretch):
        return [stretch]
    return [[s for s in stretch if not isinstance(s, kind)] for kind in (k.For, k.Check)]


def stored_buffers(body: Iterable[k.Stmt]) -> set[k.Buffer]:
    """The buffers that statements write."""
    found: set[k.Buffer] = set()
    for s in k.walk(body):
        if isinstance(s, k.Store | k.Accumulate):
            found.add(s.buffer)
        elif isinstance(s, k.Instruction):
            found |= {load.buffer for load in written(s)}
    return found


def read_buffers(body: Iterable[k.Stmt]) -> set[str]:
    """The names of the buffers that statements read."""
    statements = list(k.walk(body))
    found = {s.buffer.name for s in statements if isinstance(s, k.Accumulate)}
    return found | {load.buffer.name for _, e in expressions(statements) for load in loads(e)}


def emit_entry(kernel: k.Kernel, target: Target) -> Entry:
    """An entry for a kernel without barriers between its loops.

    Raises as :func:`tilewright.codegen.emit`.
    """
    emitter, threads = GridEmitter(target, functions(target)), threads_of(kernel)
    emitter.numbers = {p.name: n for n, p in enumerate(kernel.params)}
    emitted = emitter.kernel(kernel)
    buffers = [f"{emitter.parameter(p, kernel)} %b{n}" for n, p in enumerate(kernel.params)]
    # Blocks that wait at barriers want others beside them, all else wants registers.
    generous = (
        not emitter.block_bytes or threads <= SMALL or "setmaxnreg" in emitted.text)
    name = "e" + emitted.name[1:]
    text = emitted.text.replace("define void", "define internal void", 1)
    declarations = {
        *emitted.declarations,
        *(f"declare i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in SPECIAL),
    }
    return Entry(
        name, kernel, threads, emitter.block_bytes, emitted.scratch,
        text + wrapper(name, emitted, buffers, threads, generous, len(emitter.maps)),
        frozenset(declarations), tuple(emitter.maps))


MAP = 'ptr byval([128 x i8]) align 64 "nvvm.grid_constant"'
"""The type of a tensor map's parameter."""


def wrapper(
    name: str, emitted: Emitted, buffers: list[str], threads: int, generous: bool, maps: int
) -> str:
    """The entry around a kernel's function, which tells the threads of the grid apart.

    generous  a thread may have all the registers that it can use
    """
    sizes = [f"i64 %n{n}" for n in range(emitted.sizes)]
    params = [*buffers, *sizes, "ptr %memory", "ptr %team"]
    params += [f"{MAP} %map{n}" for n in range(maps)]
    attributes = f'convergent nounwind "nvvm.reqntid"="{threads},1,1"'
    if generous:
        # Else ptxas rations them, so that more blocks fit, and spills; and a warpgroup can only
        # hand registers on if ptxas knows how many there are at first.
        attributes += ' "nvvm.minctasm"="1"'
    lines = [f"define ptx_kernel void @{name}({', '.join(params)}) {attributes} {{", "entry:"]
    lines += [
        line for r in SPECIAL for line in (
            f"  %{r}.short = call i32 @llvm.nvvm.read.ptx.sreg.{r}.x()",
            f"  %{r}.wide = zext i32 %{r}.short to i64")
    ]
    passed = [f"{KINDS['global']} %b{n}" for n in range(emitted.buffers)]
    passed += [*sizes, "i64 %tid", "i64 %threads", "ptr %scratch", "ptr %team"]
    passed += [f"ptr %map{n}" for n in range(maps)]
    lines += [
        f"  %before = mul nuw nsw i64 %ctaid.wide, {threads}",
        "  %tid = add nuw nsw i64 %before, %tid.wide",
        f"  %threads = mul nuw nsw i64 %nctaid.wide, {threads}",
        f"  %offset = mul nuw nsw i64 %tid, {emitted.scratch}",
        "  %scratch = getelementptr i8, ptr %memory, i64 %offset",
        f"  call void @{emitted.name}({', '.join(passed)})",
        "  ret void", "}", "",
    ]
    return "\n".join(lines)
