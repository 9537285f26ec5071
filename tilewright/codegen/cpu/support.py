"""LLVM IR that kernels and programs call: the team's barrier."""

from __future__ import annotations

import sys

from tilewright.codegen.builder import Builder

SPINS = 1000
"""Looks at the phase before a waiting thread begins to give its core away; tens of microseconds."""

ARRIVALS, PHASE = 0, 8
"""Words of the team block."""


def pause(triple: str) -> tuple[str, str]:
    """The call that tells the core that a thread spins, and its declaration; or nothing."""
    if triple.startswith("x86_64"):
        return "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
    if triple.startswith(("aarch64", "arm64")):
        return "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"
    return "", ""


def give_way(triple: str, native: bool) -> tuple[str, str]:
    """The call that lets other threads run, and its declaration."""
    if not native or "wasm" in triple:
        return "", ""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    return f"%ignored = call i32 @{name}()", f"declare i32 @{name}()"


def barrier(triple: str, native: bool = True) -> tuple[str, set[str]]:
    """``@tw_barrier(ptr %team, i64 %nthreads)`` and its declarations.

    Arrivals are counted in one word; the last thread to arrive resets it and moves the phase on,
    for which the others wait: they spin for a while, then give way to other threads of the system.
    ``native`` is false for code that is only looked at.
    """
    spin, spin_declaration = pause(triple)
    leave, leave_declaration = give_way(triple, native)
    b = Builder()
    for line in f"""define internal void @tw_barrier(ptr %team, i64 %nthreads) noinline nounwind {{
entry:
  %alone = icmp ule i64 %nthreads, 1
  br i1 %alone, label %done, label %arrive
arrive:
  %place = getelementptr i64, ptr %team, i64 {PHASE}
  %phase = load atomic i64, ptr %place acquire, align 8
  %before = atomicrmw add ptr %team, i64 1 acq_rel
  %arrived = add i64 %before, 1
  %last = icmp eq i64 %arrived, %nthreads
  br i1 %last, label %release, label %wait
release:
  store atomic i64 {ARRIVALS}, ptr %team monotonic, align 8
  %next = add i64 %phase, 1
  store atomic i64 %next, ptr %place release, align 8
  br label %done
wait:
  %spins = phi i64 [0, %arrive], [%more, %spin], [{SPINS}, %yield]
  %now = load atomic i64, ptr %place acquire, align 8
  %same = icmp eq i64 %now, %phase
  br i1 %same, label %again, label %done
again:
  %patient = icmp ult i64 %spins, {SPINS}
  br i1 %patient, label %spin, label %yield
spin:
  {spin}
  %more = add i64 %spins, 1
  br label %wait
yield:
  {leave}
  br label %wait
done:
  ret void
}}""".splitlines():
        if line.strip():
            b.write(line)
    declarations = {d for d in (spin_declaration, leave_declaration) if d}
    return "\n".join(b.lines) + "\n", declarations
