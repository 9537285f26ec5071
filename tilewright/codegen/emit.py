"""Kernel -> LLVM IR text: one function per kernel.

``define void @name(ptr %b0, ..., i64 %n0, ..., i64 %tid, i64 %nthreads, ptr %scratch, ptr %team)``:
a pointer per buffer, a number per size, this thread's number and the team's size, the thread's
private memory, and the team's shared words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tilewright.codegen.builder import Value, llvm_type
from tilewright.codegen.convert import memory
from tilewright.codegen.emit_core import Val
from tilewright.codegen.emit_index import Affine
from tilewright.codegen.emit_vector import Vectors
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Barrier,
    Buffer,
    Check,
    For,
    If,
    Instruction,
    Kernel,
    Let,
    Load,
    Prefetch,
    Shuffle,
    Stmt,
    Store,
)
from tilewright.ir.types import as_number, i64

STACK_LIMIT = 16 * 1024
"""Bytes above which a stack buffer lives in the thread's scratch memory."""

LARGEST_SIZE = 1 << 40
"""No size that a kernel is given is larger."""

STATUS_WORD = 16
"""The word of the team block that takes the code of a failed check."""


@dataclass(frozen=True)
class Emitted:
    """A kernel as text.

    name          the function's name, made from its text: equal kernels have equal names
    text          the definition
    declarations  what it calls, one line each
    scratch       bytes of private memory that it needs per thread
    buffers       number of buffer parameters
    sizes         number of sizes
    loops         number of loops in the text
    """

    name: str
    text: str
    declarations: frozenset[str]
    scratch: int
    buffers: int
    loops: int
    sizes: int = 0


def emit_kernel(
    kernel: Kernel, target: Target, functions: dict[str, Callable[..., Value]]
) -> Emitted:
    """The LLVM IR of one kernel; ``functions`` are the vector functions by op name.

    Raises ``Unsupported`` for an op without code and ``CompilerBug`` for a kernel that breaks the
    rules of the language.
    """
    return Emitter(target, functions).kernel(kernel)


class Emitter(Vectors):
    """Statements and the function around them."""

    attributes = "nounwind"
    """Of the function."""

    def kernel(self, kernel: Kernel) -> Emitted:
        self.scratch = 0
        for number, buffer in enumerate(kernel.params):
            self.pointers[buffer.name] = f"%b{number}"
            if self.kind(buffer) != "ptr":
                self.b.kinds[f"%b{number}"] = self.kind(buffer)
        for number, var in enumerate(kernel.sizes):
            self.env[var.name] = Affine(0, ((f"%n{number}", 1),))
            self.ranges[f"%n{number}"] = (0, LARGEST_SIZE)
        self.statements(kernel.body)
        self.fence()
        body = self.b.text()
        params = [f"{self.parameter(p, kernel)} %b{n}" for n, p in enumerate(kernel.params)]
        params += [f"i64 %n{n}" for n in range(len(kernel.sizes))]
        params += ["i64 %tid", "i64 %nthreads", "ptr noalias %scratch", "ptr %team", *self.more()]
        lines = [
            f"({', '.join(params)}) {self.attributes} {{",
            "entry:",
            *self.b.allocas.values(),
            body,
            "  ret void",
            "}",
        ]
        text = "\n".join(line for line in lines if line)
        name = "k" + hashlib.sha256(text.encode()).hexdigest()[:16]
        declarations = set(self.b.declarations)
        if self.zeros:
            declarations.add("@tw_zeros = private constant [64 x i8] zeroinitializer, align 64")
        text = f"define void @{name}{text}\n"
        loops = text.count("\nloop")
        return Emitted(
            name, text, frozenset(declarations), self.scratch, len(kernel.params), loops,
            len(kernel.sizes))

    def more(self) -> list[str]:
        """Further parameters."""
        return []

    def kind(self, buffer: Buffer) -> str:
        """The type of pointers to a buffer."""
        return "ptr"

    def parameter(self, buffer: Buffer, kernel: Kernel) -> str:
        """The type and the attributes of a buffer's parameter."""
        return "ptr noalias readonly" if buffer.access == "in" else "ptr noalias"

    def statements(self, body: Iterable[Stmt]) -> None:
        for s in body:
            self.statement(s)

    def statement(self, s: Stmt) -> None:
        if isinstance(s, Accumulate):
            self.accumulate(s)
        elif isinstance(s, For):
            self.loop(s)
        elif isinstance(s, Let):
            found = self.linear(s.value) if s.var.dtype is i64 else self.value(s.value)
            self.env[s.var.name] = found
        elif isinstance(s, Store):
            self.store(s)
        elif isinstance(s, If):
            self.condition(s)
        elif isinstance(s, Alloc):
            self.allocate(s.buffer)
        elif isinstance(s, Check):
            self.check(s)
        elif isinstance(s, Prefetch):
            self.prefetch(s)
        elif isinstance(s, Barrier):
            self.barrier()
        else:
            self.machine_only(s)

    def machine_only(self, s: Shuffle | Instruction) -> None:
        """What only some machines have."""
        raise CompilerBug(f"{type(s).__name__.lower()} in a kernel for {self.target.name}")

    # --- statements ---------------------------------------------------------------------
    def prefetch(self, s: Prefetch) -> None:
        """A hint to the caches, for reading or writing."""
        index = self.linear(s.index)
        if not isinstance(index, Affine):
            raise CompilerBug("a prefetch of a place that is not the same in all lanes")
        self.b.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        where, written = self.b.typed(self.address(s.buffer, index)), int(s.buffer.access != "in")
        self.b.write(f"  call void @llvm.prefetch.p0({where}, i32 {written}, i32 3, i32 1)")

    def store(self, s: Store) -> None:
        mask = self.value(s.mask) if s.mask is not None else None
        if isinstance(mask, Value) and mask.name in ("true", "false"):
            if mask.name == "false":
                return
            mask = None
        index, value = self.linear(s.index), self.value(s.value)
        if s.buffer.space == "register":
            self.store_register(
                s.buffer, index, value if mask is None else self.blend(s, mask, value)
            )
        elif self.section is None or self.shared(index, value, mask):
            self.store_outside(s, index, value, mask)
        else:
            masks = self.copies(mask) if mask is not None else [None] * self.section.copies
            for copy, part in enumerate(self.copies(value)):
                self.store_copy(
                    s.buffer, index, copy, part, masks[copy], s.streaming and self.streaming
                )

    def shared(self, index: Affine | Val, *values: Val | None) -> bool:
        """Whether all lanes store the same value to the same place."""
        here = isinstance(index, Affine) and index.lane == 0
        return here and not any(isinstance(v, list) for v in values)

    def store_outside(self, s: Store, index: Affine | Val, value: Val, mask: Val | None) -> None:
        """A scalar store."""
        if isinstance(value, list) or isinstance(mask, list) or not isinstance(index, Affine):
            raise CompilerBug("a varying value outside of a vector loop")
        place, scalar = index, value
        if mask is None:
            self.store_scalar(s.buffer, place, scalar)
        else:
            self.branch(mask, lambda: self.store_scalar(s.buffer, place, scalar))

    def blend(self, s: Store, mask: Val, value: Val) -> Val:
        """The new contents of a register slot that is stored to under a mask."""
        old = self.load_register(Load(s.buffer, s.index))
        return self.each(self.b.select, (mask, value, old), "select")

    def condition(self, s: If) -> None:
        """A branch; nothing is left of it if the condition is a constant."""
        condition = self.value(s.condition)
        if isinstance(condition, list):
            condition = self.first_lane(condition[0])
        if condition.name in ("true", "false"):
            self.statements(s.body if condition.name == "true" else s.orelse)
            return
        orelse = (lambda: self.statements(s.orelse)) if s.orelse else None
        self.branch(condition, lambda: self.statements(s.body), orelse)

    def first_lane(self, v: Value) -> Value:
        return v if v.lanes == 1 else self.b.define(v.dtype, 1, f"extractelement {v.typed}, i64 0")

    def allocate(self, buffer: Buffer) -> None:
        if buffer.space == "register":
            self.slots.free(buffer.name)
            if self.section is not None:
                self.section.local.add(buffer.name)
            return
        if buffer.space != "stack":
            raise CompilerBug(
                f"{buffer.name}: a {buffer.space} buffer cannot be allocated on a CPU"
            )
        if self.section is not None:
            raise CompilerBug(f"{buffer.name}: memory allocated inside a vector loop")
        if buffer.name in self.pointers:
            return
        size = as_number(buffer.size) * buffer.dtype.itemsize
        # On Windows a frame above a page calls a routine that JIT-compiled code does not have.
        limit = 256 if "windows" in self.target.triple else STACK_LIMIT
        if size > limit:
            name = self.b.fresh("scratch")
            self.b.allocas[name] = f"  {name} = getelementptr i8, ptr %scratch, i64 {self.scratch}"
            self.scratch += -(-size // 64) * 64
        else:
            name = self.b.fresh("stack")
            kind = llvm_type(memory(buffer.dtype))
            count = max(1, as_number(buffer.size))
            self.b.allocas[name] = f"  {name} = alloca {kind}, i64 {count}, align 64"
        self.pointers[buffer.name] = name

    def check(self, s: Check) -> None:
        """Store the code if the condition is false in an active lane."""
        condition = self.value(s.condition)
        if isinstance(condition, Value) and condition.name == "true":
            return
        bad: Value | None = None
        values = [condition] if isinstance(condition, Value) else condition
        for copy, value in enumerate(values):
            wrong = self.b.binary("xor", value, self.b.like(value, True))
            active = self.mask(copy) if isinstance(condition, list) else None
            if active is not None:
                wrong = self.b.binary("and", wrong, active)
            bad = wrong if bad is None else self.b.binary("or", bad, wrong)
        if bad is not None:
            self.branch(self.any_lane(bad), lambda: self.fail(s.code))

    def fail(self, code: int) -> None:
        place = self.b.pointer(f"getelementptr i64, ptr %team, i64 {STATUS_WORD}")
        self.b.write(f"  store atomic i64 {code}, ptr {place} monotonic, align 8")

    def fence(self) -> None:
        """Streaming stores become visible to the team."""
        if self.fenced and self.machine.x86:
            self.b.declarations.add("declare void @llvm.x86.sse.sfence()")
            self.b.write("  call void @llvm.x86.sse.sfence()")

    def barrier(self) -> None:
        self.fence()
        self.b.write("  call void @tw_barrier(ptr %team, i64 %nthreads)")
