"""The rules of the Kernel language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tilewright.ir.attrs import CastAttrs
from tilewright.ir.bounds import UNKNOWN, Range, affine, attained, loop_range, range_of
from tilewright.ir.expansions import is_primitive
from tilewright.ir.graph import NO_ATTRS, OPS
from tilewright.ir.interp_thread import ACCUMULATE
from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Barrier,
    Buffer,
    Call,
    Check,
    Const,
    Expr,
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
    Var,
    add,
    const_int,
)
from tilewright.ir.races import LARGE
from tilewright.ir.sizes import names_of
from tilewright.ir.types import DType, TensorType, bool_, i64
from tilewright.ir.verify_block import BlockRules, BlockScope

TOP_LEVEL = ("parallel", "block")


class Scope(BlockScope):
    """What is visible at a place of the kernel: extended by statements, copied for bodies."""

    def __init__(self, outer: Scope | None = None) -> None:
        super().__init__(outer)
        self.buffers: dict[str, Buffer] = dict(outer.buffers) if outer else {}
        self.variables: dict[str, DType] = dict(outer.variables) if outer else {}
        self.facts: dict[str, Range | Expr] = dict(outer.facts) if outer else {}
        # Variables that are numbers once unroll loops are unrolled, that differ between lanes,
        # and that take every value of their constant range.
        self.constant: set[str] = set(outer.constant) if outer else set()
        self.varying: set[str] = set(outer.varying) if outer else set()
        self.exact: frozenset[str] = outer.exact if outer else frozenset()
        self.private: set[str] = set(outer.private) if outer else set()
        self.vector: For | None = outer.vector if outer else None
        self.always: bool = outer.always if outer else True
        self.top = outer is None


class KernelVerifier(BlockRules):
    """Walks a kernel in reading order and collects complaints."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.line = 0
        self.complaints: list[tuple[int, str]] = []
        self.stored: set[str] = set()
        self.sample: dict[str, Any] = {var.name: LARGE for var in kernel.sizes}

    def run(self) -> list[tuple[int, str]]:
        """Everything that is wrong, by line."""
        scope = Scope()
        for var in self.kernel.sizes:
            self.demand(var.dtype is i64, f"the size {var.name} is {var.dtype}, not i64")
            self.define(var, scope)
            scope.facts[var.name] = Range(0, None)
        for buffer in self.kernel.params:
            name = buffer.name
            self.demand(name not in scope.buffers, f"two parameters are called {name}")
            self.demand(buffer.space == "global", f"the parameter {name} is not global")
            self.demand(buffer.access != "", f"the parameter {name} has no access")
            scope.buffers[name] = buffer
            self.size(buffer, scope)
        self.body(self.kernel.body, scope)
        for buffer in self.kernel.params:
            if buffer.access in ("out", "inout") and buffer.size and buffer.name not in self.stored:
                self.complaints.append((0, f"{buffer.name} is {buffer.access} but never stored"))
        return self.complaints

    def demand(self, holds: bool, otherwise: str) -> bool:
        """Complain about the current line unless ``holds``."""
        if not holds:
            self.complaints.append((self.line, otherwise))
        return holds

    def body(self, body: Sequence[Stmt], scope: Scope) -> None:
        """Statements, each visible to those after it."""
        for statement in body:
            self.line += 1
            if scope.top and not isinstance(statement, Alloc | Barrier | Check | Let):
                allowed = isinstance(statement, For) and statement.kind in TOP_LEVEL
                words = "alloc, let, check, barrier, parallel and block loops"
                self.demand(allowed, f"the top level holds only {words}")
            STATEMENTS[type(statement)](self, statement, scope)

    def size(self, b: Buffer, scope: Scope) -> None:
        """A number that is not negative, or an expression of the kernel's sizes."""
        if isinstance(b.size, int):
            self.demand(b.size >= 0, f"{b.name} has {b.size} elements")
            return
        self.demand(b.space == "global", f"the size of {b.name} is not a number")
        for name in names_of((b.size,)):
            self.demand(name in scope.variables, f"{b.name} has the size {b.size}, but {name} is "
                                                 "no size of the kernel")

    # --- statements ---------------------------------------------------------------------
    def alloc(self, s: Alloc, scope: Scope) -> None:
        """A new name; private memory, or a block's."""
        b = s.buffer
        self.private_or_shared(b, scope)
        self.demand(b.name not in scope.buffers, f"there is a buffer called {b.name} already")
        self.demand(b.space != "global", f"{b.name} is global, which only parameters are")
        self.demand(b.access == "", f"{b.name} is no parameter and has no access")
        self.size(b, scope)
        scope.buffers[b.name] = b
        scope.private.discard(b.name)
        if scope.vector is not None:
            scope.private.add(b.name)

    def barrier(self, s: Barrier, scope: Scope) -> None:
        """All threads arrive: of the team at the top level, else of a block."""
        if scope.thread is not None:
            self.block_barrier(s, scope)
        else:
            self.demand(scope.top, "a barrier inside a loop or branch")

    def check(self, s: Check, scope: Scope) -> None:
        """A truth and a code."""
        self.expect(s.condition, bool_, "the condition", scope)
        self.demand(s.code >= 1, f"the error code {s.code} is not positive")

    def let(self, s: Let, scope: Scope) -> None:
        """A new name for a value of its type."""
        self.expect(s.value, s.var.dtype, f"the value of {s.var.name}", scope)
        # A name that is defined twice may stand in its own value.
        scope.facts[s.var.name] = s.value if self.define(s.var, scope) else UNKNOWN
        if self.is_constant(s.value, scope):
            scope.constant.add(s.var.name)
        if self.is_varying(s.value, scope):
            scope.varying.add(s.var.name)
        if scope.thread is not None and self.watch is not None:
            scope.agreement[s.var.name] = scope.agree(s.value)
            self.watch.values.pop(s.var.name, None)

    def define(self, var: Var, scope: Scope) -> bool:
        """Enter a variable; whether it is new, as it must be."""
        new = self.demand(var.name not in scope.variables, f"{var.name} is defined already")
        scope.variables[var.name] = var.dtype
        scope.constant.discard(var.name)
        scope.varying.discard(var.name)
        return new

    def branch(self, s: If, scope: Scope) -> None:
        """One way for all lanes."""
        self.expect(s.condition, bool_, "the condition", scope)
        self.demand(not self.is_varying(s.condition, scope), "the condition differs between lanes")
        for body, holds in ((s.body, True), (s.orelse, False)):
            inner = Scope(scope)
            inner.always = False
            inner.given(s.condition, holds)
            self.body(body, inner)

    def loop(self, s: For, scope: Scope) -> None:
        """A loop of a kind that may stand here."""
        self.expect(s.start, i64, "the start", scope)
        self.expect(s.stop, i64, "the stop", scope)
        self.demand(s.var.dtype is i64, f"the loop variable {s.var.name} is {s.var.dtype}, not i64")
        self.demand(s.step >= 1, f"the step {s.step} is not positive")
        self.demand(s.width >= 1 and s.interleave >= 1, "width and interleave are not positive")
        self.demand(s.kind != "parallel" or scope.top, "a parallel loop below the top level")
        bounds_vary = self.is_varying(s.start, scope) or self.is_varying(s.stop, scope)
        self.demand(not bounds_vary, "the bounds differ between lanes")
        if s.kind == "block":
            self.block_loop(s, scope)
        elif s.kind == "thread":
            self.thread_loop(s, scope)
        inner = Scope(scope)
        self.define(s.var, inner)
        mark = self.enter_loop(s, scope, inner)
        constant = const_int(s.start) is not None and const_int(s.stop) is not None
        if s.kind == "unroll":
            self.demand(constant, "an unroll loop without constant bounds")
            inner.constant.add(s.var.name)
        if s.kind == "vector":
            self.demand(scope.vector is None, "a vector loop inside a vector loop")
            self.demand(s.step == 1, f"a vector loop with step {s.step}")
            inner.vector = s
            inner.varying.add(s.var.name)
        values = loop_range(s, scope.facts)
        inner.facts[s.var.name] = values or UNKNOWN
        inner.always = scope.always and values is not None
        if constant:
            inner.exact = scope.exact | {s.var.name}
        else:
            # Whether a loop with bounds of other loops' variables runs at all is not known.
            inner.exact, inner.always = frozenset(), False
        self.body(s.body, inner)
        self.leave_loop(s, scope, mark)

    def store(self, s: Store, scope: Scope) -> None:
        """A write of a value of the buffer's type."""
        self.write(s, scope)
        single = scope.vector is not None and const_trip(scope.vector) == 1
        if scope.vector is not None and not single and s.buffer.name not in scope.private:
            self.demand(
                self.is_varying(s.index, scope) or (s.mask is not None),
                f"the lanes of {scope.vector.var.name} store to the same place of {s.buffer.name}",
            )

    def accumulate(self, s: Accumulate, scope: Scope) -> None:
        """A write by an op that can be reassociated."""
        self.write(s, scope)
        if self.demand(s.op in ACCUMULATE, f"{s.op} does not accumulate"):
            self.demand(
                s.buffer.dtype in OPS[s.op].types, f"{s.op} does not accumulate {s.buffer.dtype}"
            )

    def prefetch(self, s: Prefetch, scope: Scope) -> None:
        """Memory of the caller at any i64 index, once for all lanes."""
        b = s.buffer
        self.demand(scope.buffers.get(b.name) == b, f"the buffer {b.name} is not visible here")
        self.demand(b.space == "global", f"{b.name} is {b.space}, a prefetch is of global memory")
        self.demand(scope.vector is None, "a prefetch inside a vector loop")
        self.expect(s.index, i64, f"the index of {b.name}", scope)

    def write(self, s: Store | Accumulate, scope: Scope) -> None:
        """What store and accumulate have in common."""
        self.access(s.buffer, s.index, s.mask, scope)
        self.expect(s.value, s.buffer.dtype, "the value", scope)
        self.demand(s.buffer.access != "in", f"{s.buffer.name} is in and cannot be stored")
        self.touched(s.buffer, s.index, s.mask, scope, True)

    # --- accesses -----------------------------------------------------------------------
    def access(
        self, b: Buffer, index: Expr, mask: Expr | None, scope: Scope, count: int = 1
    ) -> None:
        """A buffer that is visible, at an i64 index that can be inside it, under a bool mask; and
        so are the other elements of ``count``.
        """
        declared = scope.buffers.get(b.name)
        if self.demand(declared is not None, f"the buffer {b.name} is not visible here"):
            self.demand(declared == b, f"{b.name} is not the buffer that was declared")
        self.expect(index, i64, f"the index of {b.name}", scope)
        if mask is not None:
            self.expect(mask, bool_, f"the mask of {b.name}", scope)
        if b.space == "register":
            self.register(b, index, scope)
        if mask is None and scope.always:
            for place in {0, count - 1}:
                self.inside(b, add(index, place), scope)

    def register(self, b: Buffer, index: Expr, scope: Scope) -> None:
        """Constants and variables of unroll loops, and at most the vector loop's variable."""
        lanes = {scope.vector.var.name} if scope.vector is not None else set()
        used = set(self.variables_of(index, scope))
        if any(isinstance(e, Load) for e in parts(index)) or not used <= scope.constant | lanes:
            self.demand(False, f"the index of the register buffer {b.name} is not constant")
        elif used & lanes:
            assert scope.vector is not None
            trip = const_trip(scope.vector)
            whole = trip is not None and trip % scope.vector.width == 0
            self.demand(whole, f"the loop over {scope.vector.var.name} leaves part of a vector")

    def inside(self, b: Buffer, index: Expr, scope: Scope) -> None:
        """No access that certainly happens is outside."""
        if not isinstance(b.size, int):
            return
        form = affine(index, scope.facts)
        real = attained(form, scope.facts, scope.exact) if form else None
        if real is not None and real.low is not None and real.high is not None:
            outside = real.high if real.high >= b.size else real.low
            self.demand(
                0 <= outside < b.size, f"{b.name}[{outside}] is outside its {b.size} elements"
            )
            return
        possible = range_of(index, scope.facts)
        if possible.low is not None and possible.low >= b.size:
            self.demand(False, f"{b.name}[{possible.low}] is outside its {b.size} elements")
        if possible.high is not None and possible.high < 0:
            self.demand(False, f"{b.name}[{possible.high}] is outside its {b.size} elements")

    # --- expressions --------------------------------------------------------------------
    def expect(self, e: Expr, dtype: DType, what: str, scope: Scope) -> None:
        """An expression that is well-typed and of this type."""
        self.expression(e, scope)
        self.demand(e.dtype is dtype, f"{what} is {e.dtype}, not {dtype}")

    def expression(self, e: Expr, scope: Scope) -> None:
        """The rules of constants, variables, loads and calls."""
        if isinstance(e, Const):
            self.constant(e)
        elif isinstance(e, Var):
            known = scope.variables.get(e.name)
            if self.demand(known is not None, f"the variable {e.name} is not visible here"):
                self.demand(known is e.dtype, f"{e.name} is {known}, not {e.dtype}")
        elif isinstance(e, Load):
            self.access(e.buffer, e.index, e.mask, scope)
            if e.other is not None:
                self.expect(e.other, e.buffer.dtype, f"the other of {e.buffer.name}", scope)
            self.touched(e.buffer, e.index, e.mask, scope, False)
        else:
            for a in e.args:
                self.expression(a, scope)
            self.call(e)

    def constant(self, e: Const) -> None:
        """A number that its type holds."""
        if e.dtype.is_int:
            limits = np.iinfo(e.dtype.numpy)
            holds = int(e.value) == e.value and limits.min <= e.value <= limits.max
            self.demand(holds, f"{e.value} is no {e.dtype}")

    def call(self, e: Call) -> None:
        """A primitive elementwise op on operands of its types."""
        row = OPS.get(e.op)
        if row is None or row.kind != "elementwise":
            self.demand(False, f"{e.op} is no elementwise op")
            return
        spelled = not e.args or row.attrs is CastAttrs or is_primitive(e.op, e.args[0].dtype)
        self.demand(spelled, f"{e.op} is composite")
        if not self.demand(len(e.args) == row.arity, f"{e.op} takes {row.arity} operands"):
            return
        attrs = CastAttrs(e.dtype) if row.attrs is CastAttrs else NO_ATTRS
        try:
            found = row.infer(attrs, *(TensorType(a.dtype, ()) for a in e.args)).dtype
        except (TypeError, ValueError) as problem:
            self.demand(False, str(problem))
            return
        self.demand(found is e.dtype, f"{e.op} gives {found}, not {e.dtype}")

    def variables_of(self, e: Expr, scope: Scope) -> Iterator[str]:
        """The variables in an expression."""
        return (p.name for p in parts(e) if isinstance(p, Var))

    def is_constant(self, e: Expr, scope: Scope) -> bool:
        """Whether an expression is a number once unroll loops are unrolled."""
        return not any(isinstance(p, Load) for p in parts(e)) and (
            set(self.variables_of(e, scope)) <= scope.constant
        )

    def is_varying(self, e: Expr, scope: Scope) -> bool:
        """Whether an expression mentions the vector loop's variable."""
        return any(name in scope.varying for name in self.variables_of(e, scope))


def parts(e: Expr) -> Iterator[Expr]:
    """An expression and all expressions in it."""
    yield e
    inner: tuple[Expr | None, ...] = ()
    if isinstance(e, Call):
        inner = e.args
    elif isinstance(e, Load):
        inner = (e.index, e.mask, e.other)
    for part in inner:
        if part is not None:
            yield from parts(part)


def const_trip(loop: For) -> int | None:
    """The number of iterations of a loop of step 1, if its bounds are constant."""
    start, stop = const_int(loop.start), const_int(loop.stop)
    return None if start is None or stop is None else max(0, stop - start)


STATEMENTS: dict[type, Callable[[KernelVerifier, Any, Scope], None]] = {
    Alloc: KernelVerifier.alloc, Barrier: KernelVerifier.barrier, Check: KernelVerifier.check,
    Let: KernelVerifier.let, If: KernelVerifier.branch, For: KernelVerifier.loop,
    Store: KernelVerifier.store, Accumulate: KernelVerifier.accumulate,
    Prefetch: KernelVerifier.prefetch, Shuffle: KernelVerifier.shuffle,
    Instruction: KernelVerifier.instruction,
}
"""The rule of each kind of statement."""
