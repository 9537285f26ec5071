"""Small programs in LLVM IR with hand-made plans, to run the runtime without the compiler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.compiler.plan import CheckInfo, Launch, Plan, Slot
from tilewright.errors import Location
from tilewright.ir.loops import Kernel
from tilewright.ir.types import TensorType, f32
from tilewright.runtime.executable import Executable
from tilewright.runtime.machine import load

BARRIER = """
declare void @llvm.x86.sse2.pause()
define internal void @tw_barrier(ptr %team, i64 %n) {
entry:
  %phase_at = getelementptr i64, ptr %team, i64 8
  %phase = load atomic i64, ptr %phase_at acquire, align 8
  %old = atomicrmw add ptr %team, i64 1 acq_rel
  %now = add i64 %old, 1
  %last = icmp eq i64 %now, %n
  br i1 %last, label %open, label %wait
open:
  store atomic i64 0, ptr %team monotonic, align 8
  %next = add i64 %phase, 1
  store atomic i64 %next, ptr %phase_at release, align 8
  ret void
wait:
  %seen = load atomic i64, ptr %phase_at acquire, align 8
  %moved = icmp ne i64 %seen, %phase
  br i1 %moved, label %end, label %wait
end:
  ret void
}
"""

PROGRAM = """
define void @tw_program(ptr %table, i64 %tid, i64 %nthreads, ptr %scratch, ptr %team) {
entry:
BODY
}
"""


@dataclass(frozen=True)
class Native:
    """Machine code of a program."""

    address: int
    scratch: int = 0


def native(body: str, scratch: int = 0, prelude: str = "") -> Native:
    """A program with this body."""
    text = prelude + PROGRAM.replace("BODY", body)
    return Native(load(text, ("tw_program",))["tw_program"], scratch)


def entries(*indexes: int) -> str:
    """Loads the pointers %p0, %p1 ... of these table entries."""
    return "".join(
        f"  %at{i} = getelementptr ptr, ptr %table, i64 {i}\n  %p{i} = load ptr, ptr %at{i}\n"
        for i in indexes
    )


def elementwise(n: int, combine: str, out: int, share: bool = True) -> str:
    """A loop over this thread's share of n floats: ``combine`` makes %r from %x (entry 0) and %y (1)."""
    bounds = """
  %lo0 = mul i64 N, %tid
  %lo = udiv i64 %lo0, %nthreads
  %t1 = add i64 %tid, 1
  %hi0 = mul i64 N, %t1
  %hi = udiv i64 %hi0, %nthreads
  br label %loop
loop:
  %i = phi i64 [ %lo, %entry ], [ %i1, %body ]
  %c = icmp ult i64 %i, %hi
  br i1 %c, label %body, label %end
body:
  %xa = getelementptr float, ptr %p0, i64 %i
  %x = load float, ptr %xa
  %ya = getelementptr float, ptr %p1, i64 %i
  %y = load float, ptr %ya
  COMBINE
  %ra = getelementptr float, ptr %pOUT, i64 %i
  store float %r, ptr %ra
  %i1 = add i64 %i, 1
  br label %loop
end:
"""
    return bounds.replace("N,", f"{n},").replace("COMBINE", combine).replace("OUT", str(out))


def plan(
    inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...], results: tuple[Slot, ...],
    constants: tuple[np.ndarray, ...] = (), arena: int = 0,
    donated: tuple[int | None, ...] = (), flops: int = 0,
) -> Plan:
    """A plan of one launch that says it costs so many flops."""
    launch = Launch(Kernel("k", (), ()), (), False, flops, 0)
    where = Location("model.py", 7, "loss")
    checks = {3: CheckInfo("index 9 is outside axis 0 of size 4", where)}
    return Plan(inputs, outputs, results, constants, (launch,), arena, donated, checks)


def adder(shape: tuple[int, ...] = (8, 8), flops: int = 0) -> Executable:
    """x + y."""
    t = TensorType(f32, shape)
    body = entries(0, 1, 2) + elementwise(t.size, "%r = fadd float %x, %y", 2) + "  ret void"
    return Executable(plan((t, t), (t,), (Slot("output", 0),), flops=flops), native(body))


MANY = 10**9
"""Flops enough to run on a team."""
