"""The rules of blocks of threads: what may stand where, and who must arrive together.

Threads *agree* on a value in groups: 0 says that all do, 32 that those of a warp do, 1 that each
may have its own. A barrier needs control flow on which all agree, a shuffle that of a warp.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.ir.bounds import UNKNOWN, Range, affine
from tilewright.ir.instructions import INSTRUCTIONS, WARP, Number, Place
from tilewright.ir.loops import (
    Alloc,
    Barrier,
    Buffer,
    Call,
    Const,
    Expr,
    For,
    Instruction,
    Let,
    Load,
    Shuffle,
    Var,
    const_int,
)
from tilewright.ir.races import Touch, Watch
from tilewright.ir.types import DType, bool_, i64

THREADS = 1024
"""The threads of a block, at most."""

SHUFFLED = ("xor", "up", "down", "lane")


class BlockScope:
    """What is known of the threads at a place of a kernel.

    block       the body of a block loop, outside of its thread loop
    thread      the thread loop around
    agreement   by variable: the groups of threads that agree on it; 0 if it is not there
    together    the groups of threads whose control flow is the same
    conditions  under which a thread comes here
    """

    facts: dict[str, Range | Expr]
    top: bool
    vector: For | None

    def __init__(self, outer: BlockScope | None = None) -> None:
        self.block = False
        self.thread: For | None = outer.thread if outer else None
        self.agreement: dict[str, int] = dict(outer.agreement) if outer else {}
        self.together: int = outer.together if outer else 0
        self.conditions: tuple[tuple[Expr, bool], ...] = outer.conditions if outer else ()

    def given(self, condition: Expr, holds: bool) -> None:
        """Only threads for which the condition holds, or does not, come here."""
        if self.thread is not None:
            self.together = math.gcd(self.together, self.agree(condition))
            self.conditions += ((condition, holds),)

    # --- agreement ------------------------------------------------------------------------
    def agree(self, e: Expr) -> int:
        """The groups of threads that certainly agree on a value."""
        if isinstance(e, Const):
            return 0
        if isinstance(e, Var):
            return self.agreement.get(e.name, 0)
        if isinstance(e, Load):
            private = e.buffer.space in ("register", "stack")
            inner = [p for p in (e.index, e.mask, e.other) if p is not None]
            return 1 if private else math.gcd(*(self.agree(p) for p in inner))
        if e.op == "floordiv" and const_int(e.args[1]):
            return self.quotient(e.args[0], const_int(e.args[1]) or 1)
        if e.op in BOUNDS:
            return self.comparison(e)
        return math.gcd(*(self.agree(a) for a in e.args))

    def number_of(self, e: Expr) -> tuple[int, list[int]] | None:
        """The constant and the other factors of the thread's number plus something."""
        form = affine(e, self.facts)
        if form is None or self.thread is None or form.factors.get(self.thread.var.name) != 1:
            return None
        others = [name for name in form.factors if name != self.thread.var.name]
        if any(self.agreement.get(name, 0) for name in others):
            return None
        return form.constant, [form.factors[name] for name in others]

    def quotient(self, e: Expr, divisor: int) -> int:
        """The groups that agree on a quotient: of the thread's number, those of the divisor."""
        fact = self.facts.get(e.name) if isinstance(e, Var) else None
        if isinstance(fact, Var | Call):
            return self.quotient(fact, divisor)
        if isinstance(e, Call) and e.op == "floordiv" and const_int(e.args[1]):
            return self.quotient(e.args[0], divisor * (const_int(e.args[1]) or 1))
        form = self.number_of(e)
        if form is None:
            return self.agree(e)
        return math.gcd(divisor, form[0], *form[1])

    def comparison(self, e: Call) -> int:
        """``t < 32``: threads below and above a bound agree among themselves."""
        form, bound = self.number_of(e.args[0]), const_int(e.args[1])
        if form is None or bound is None:
            return math.gcd(*(self.agree(a) for a in e.args))
        return math.gcd(bound + (e.op in ("le", "gt")) - form[0], *form[1])


BOUNDS = ("lt", "le", "gt", "ge")


class BlockRules:
    """The part of the verifier that has to do with blocks; the rest is in ``verify_kernel.py``."""

    line: int
    complaints: list[tuple[int, str]]
    sample: dict[str, Any]
    stored: set[str]
    watch: Watch | None = None

    def demand(self, holds: bool, otherwise: str) -> bool:
        raise NotImplementedError

    def expect(self, e: Expr, dtype: DType, what: str, scope: Any) -> None:
        raise NotImplementedError

    def expression(self, e: Expr, scope: Any) -> None:
        raise NotImplementedError

    def define(self, var: Var, scope: Any) -> bool:
        raise NotImplementedError

    def is_constant(self, e: Expr, scope: Any) -> bool:
        raise NotImplementedError

    def access(
        self, b: Buffer, index: Expr, mask: Expr | None, scope: Any, count: int = 1
    ) -> None:
        raise NotImplementedError

    # --- where things may stand -----------------------------------------------------------
    def block_loop(self, s: For, scope: Any) -> None:
        """Shared buffers, names and one thread loop, the last."""
        self.demand(scope.top, "a block loop below the top level")
        self.demand(s.step == 1, f"a block loop with step {s.step}")
        plain = all(isinstance(statement, Alloc | Let) for statement in s.body[:-1])
        last = s.body[-1] if s.body else None
        ends = isinstance(last, For) and last.kind == "thread"
        self.demand(plain and ends, "a block loop holds allocs, lets and, last, a thread loop")

    def thread_loop(self, s: For, scope: Any) -> None:
        """From 0 to a multiple of 32, directly in a block loop."""
        self.demand(scope.block, "a thread loop that is not directly in a block loop")
        count = const_int(s.stop) or 0
        whole = const_int(s.start) == 0 and count % WARP == 0 and s.step == 1
        self.demand(whole and 0 < count <= THREADS, "a thread loop runs from 0 to a multiple of "
                    f"{WARP}, at most {THREADS}")

    def private_or_shared(self, b: Buffer, scope: Any) -> None:
        """Shared memory is a block's, all else a thread's."""
        if b.space == "shared":
            self.demand(scope.block, f"{b.name} is shared, but not directly in a block loop")
            self.demand(isinstance(b.size, int) and b.size > 0, f"{b.name} has no elements")
        else:
            self.demand(not scope.block, f"{b.name} is {b.space}, but outside of the thread loop")

    def enter_loop(self, s: For, scope: Any, inner: Any) -> int:
        """What a loop of any kind says of the threads; a mark for :meth:`leave_loop`."""
        inner.block = s.kind == "block"
        if s.kind == "thread":
            inner.thread, inner.agreement[s.var.name] = s, 1
            count = max(WARP, min(const_int(s.stop) or 0, THREADS))
            self.watch = Watch(count, {**self.sample, s.var.name: np.arange(count)})
            return 0
        if s.kind == "block":
            self.sample[s.var.name] = const_int(s.start) or 0
        if scope.thread is None or self.watch is None:
            return 0
        starts, stops = scope.agree(s.start), scope.agree(s.stop)
        inner.together = math.gcd(scope.together, starts, stops)
        inner.agreement[s.var.name] = starts
        inner.conditions += ((Call("lt", (s.var, s.stop), bool_), True),)
        self.watch.enter(s, scope.facts)
        return len(self.watch.events)

    def leave_loop(self, s: For, scope: Any, mark: int) -> None:
        """The end of a loop: it runs again, or its threads are done."""
        if self.watch is None:
            return
        if s.kind == "thread":
            self.complaints += self.watch.found
            self.watch = None
        elif scope.thread is not None:
            self.watch.again(s, scope.facts, mark)

    def touched(
        self, b: Buffer, index: Expr, mask: Expr | None, scope: Any, write: bool, count: int = 1
    ) -> None:
        """An access that other threads could see."""
        if write:
            self.stored.add(b.name)
        shared = b.space == "shared" or (b.space == "global" and b.access != "in")
        if self.watch is None or not shared:
            return
        conditions = scope.conditions
        if mask is not None:
            conditions = (*conditions, (mask, True))
        self.watch.touch(Touch(self.line, b, index, count, write, conditions, scope.facts))

    def arrive(self, scope: Any, threads: int, what: str) -> None:
        """So many threads run a statement together; 0: all of the block."""
        words = "a barrier" if threads == 0 else what
        if not self.demand(scope.thread is not None, f"{words} outside of a thread loop"):
            return
        self.demand(scope.vector is None, f"{words} inside a vector loop")
        agreed = scope.together == 0 or (threads > 0 and scope.together % threads == 0)
        whom = "all threads of the block" if threads == 0 else f"{threads} threads"
        self.demand(agreed, f"{words} where {whom} do not arrive together")

    def block_barrier(self, s: Barrier, scope: Any) -> None:
        """All threads of the block arrive."""
        self.arrive(scope, 0, "")
        if self.watch is not None:
            self.watch.barrier()

    # --- statements -----------------------------------------------------------------------
    def shuffle(self, s: Shuffle, scope: Any) -> None:
        """A value of a type, from a lane."""
        self.expect(s.value, s.var.dtype, f"the value of {s.var.name}", scope)
        self.expect(s.lane, i64, "the lane", scope)
        self.demand(s.mode in SHUFFLED, f"there is no shuffle {s.mode}")
        self.arrive(scope, WARP, "a shuffle")
        self.define(s.var, scope)
        scope.facts[s.var.name] = UNKNOWN
        scope.agreement[s.var.name] = 1

    def instruction(self, s: Instruction, scope: Any) -> None:
        """Operands as the row of the instruction says."""
        row = INSTRUCTIONS.get(s.name)
        if row is None:
            self.demand(False, f"there is no instruction {s.name}")
            return
        given = len(s.operands) == len(row.operands)
        if not self.demand(given, f"{s.name} takes {len(row.operands)} operands"):
            return
        # Where a thread runs it alone, a warp need not arrive.
        if row.threads > 1:
            self.arrive(scope, row.threads, s.name)
        else:
            self.demand(scope.thread is not None, f"{s.name} outside of a thread loop")
        for number, (operand, e) in enumerate(zip(row.operands, s.operands, strict=True)):
            if isinstance(operand, Number):
                self.expect(e, operand.dtype, f"operand {number} of {s.name}", scope)
                fixed = not operand.constant or self.is_constant(e, scope)
                self.demand(fixed, f"operand {number} of {s.name} is not a constant")
            else:
                self.operand(s, number, operand, e, scope)

    def operand(self, s: Instruction, number: int, row: Place, e: Expr, scope: Any) -> None:
        """A place of the right space and type, all of which is inside of its buffer."""
        what = f"operand {number} of {s.name}"
        if not isinstance(e, Load) or e.mask is not None or e.other is not None:
            self.demand(False, f"{what} is no place")
            return
        b = e.buffer
        self.demand(b.space == row.space, f"{what} is {b.space}, not {row.space}")
        types = ", ".join(d.name for d in row.dtypes)
        self.demand(not row.dtypes or b.dtype in row.dtypes, f"{what} is {b.dtype}, not {types}")
        like = s.operands[row.like] if row.like is not None else e
        self.demand(like.dtype is b.dtype, f"{what} is {b.dtype}, not {like.dtype} as another")
        self.demand(row.access == "in" or b.access != "in", f"{b.name} is in and cannot be written")
        count = row.elements(b.dtype)
        self.access(b, e.index, None, scope, count or 1)
        # What a warpgroup or a tensor copy touches beyond the first element is its own affair.
        writes = {"in": (False,), "out": (True,), "inout": (False, True)}[row.access or "in"]
        if True in writes:
            self.stored.add(b.name)
        for write in writes if count is not None else ():
            self.touched(b, e.index, None, scope, write, count or 1)
