"""Small programs in LLVM IR with hand-made plans, to run the runtime without the compiler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llvmlite.binding import get_process_triple

from tilewright.codegen.cpu.support import barrier
from tilewright.compiler.plan import CheckInfo, Launch, Plan, Slot
from tilewright.errors import Location
from tilewright.ir.loops import Kernel
from tilewright.ir.types import TensorType, f32, i64
from tilewright.runtime.executable import Executable
from tilewright.runtime.machine import load

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


def native(body: str, scratch: int = 0) -> Native:
    """A program with this body, which may call ``tw_barrier``."""
    text, declared = barrier(get_process_triple())
    text = "\n".join((*declared, text, PROGRAM.replace("BODY", body)))
    return Native(load(text, ("tw_program",))["tw_program"], scratch)


def entries(*indexes: int) -> str:
    """Loads the pointers %p0, %p1 ... of these table entries."""
    return "".join(
        f"  %at{i} = getelementptr ptr, ptr %table, i64 {i}\n  %p{i} = load ptr, ptr %at{i}\n"
        for i in indexes
    )


def elementwise(n: int, combine: str, out: int) -> str:
    """A loop over this thread's share of n floats: %r, from %x and %y of the first two entries."""
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

HALF = TensorType(f32, (64,))


def reverser(flops: int = MANY) -> Executable:
    """(x + y) backwards, through the arena with a barrier in between; wrong without the barrier."""
    n = HALF.size
    first = entries(0, 1, 3) + elementwise(n, "%r = fadd float %x, %y", 3)
    second = f"""
  call void @tw_barrier(ptr %team, i64 %nthreads)
  %at2 = getelementptr ptr, ptr %table, i64 2
  %p2 = load ptr, ptr %at2
  br label %loop2
loop2:
  %k = phi i64 [ %lo, %end ], [ %k1, %body2 ]
  %c2 = icmp ult i64 %k, %hi
  br i1 %c2, label %body2, label %end2
body2:
  %mirror = sub i64 {n - 1}, %k
  %va = getelementptr float, ptr %p3, i64 %mirror
  %v = load float, ptr %va
  %wa = getelementptr float, ptr %p2, i64 %k
  store float %v, ptr %wa
  %k1 = add i64 %k, 1
  br label %loop2
end2:
  ret void"""
    made = plan((HALF, HALF), (HALF,), (Slot("output", 0),), arena=HALF.nbytes, flops=flops)
    return Executable(made, native(first + second))


def counter(flops: int = MANY) -> Executable:
    """How many threads ran, as the number of threads that the program was told."""
    t = TensorType(f32, ())
    body = entries(0) + """
  %n = uitofp i64 %nthreads to float
  store float %n, ptr %p0
  ret void"""
    return Executable(plan((), (t,), (Slot("output", 0),), flops=flops), native(body))


def scribbler(flops: int = MANY) -> Executable:
    """Each thread writes its number all over its scratch, waits, and checks that it is still there.

    The result counts the threads whose scratch was overwritten by another.
    """
    t = TensorType(i64, ())
    body = entries(0) + """
  %own = add i64 %tid, 1
  br label %fill
fill:
  %i = phi i64 [ 0, %entry ], [ %i1, %fill ]
  %a = getelementptr i64, ptr %scratch, i64 %i
  store i64 %own, ptr %a
  %i1 = add i64 %i, 1
  %c = icmp ult i64 %i1, 512
  br i1 %c, label %fill, label %meet
meet:
  store i64 0, ptr %p0
  call void @tw_barrier(ptr %team, i64 %nthreads)
  br label %look
look:
  %k = phi i64 [ 0, %meet ], [ %k1, %next ]
  %b = getelementptr i64, ptr %scratch, i64 %k
  %v = load i64, ptr %b
  %bad = icmp ne i64 %v, %own
  br i1 %bad, label %count, label %next
count:
  %old = atomicrmw add ptr %p0, i64 1 monotonic
  br label %next
next:
  %k1 = add i64 %k, 1
  %d = icmp ult i64 %k1, 512
  br i1 %d, label %look, label %end
end:
  ret void"""
    return Executable(plan((), (t,), (Slot("output", 0),), flops=flops), native(body, 4096))


def failing(code: int, flops: int = 0) -> Executable:
    """Reports an error code."""
    body = f"""
  %status = getelementptr i64, ptr %team, i64 16
  store i64 {code}, ptr %status
  ret void"""
    return Executable(plan((), (), (), flops=flops), native(body))


def updater() -> Executable:
    """x += y in the memory of x, which is donated; also returns x + y + y."""
    body = entries(0, 1, 2) + elementwise(
        HALF.size, """%s = fadd float %x, %y
  store float %s, ptr %xa
  %r = fadd float %s, %y""", 2,
    ) + "  ret void"
    results = (Slot("input", 0), Slot("output", 0))
    made = plan((HALF, HALF), (HALF,), results, donated=(0, None))
    return Executable(made, native(body))


def copier(constant: np.ndarray) -> Executable:
    """Returns its input, a constant, and its one output twice."""
    body = entries(0, 1) + """
  %v = load float, ptr %p0
  store float %v, ptr %p1
  ret void"""
    results = (Slot("input", 0), Slot("constant", 0), Slot("output", 0), Slot("output", 0))
    one = TensorType(f32, (1,))
    return Executable(plan((one,), (one,), results, (constant,)), native(body))
