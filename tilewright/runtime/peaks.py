"""What this machine can do at most, measured in some hundredths of a second, once per process.

Arithmetic is a loop of independent multiply-adds on vector registers; bandwidth is that of copying
memory that no cache holds.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.compiler.target import Target

CHAINS = 12
"""Independent sums: latency times throughput of a multiply-add, with some to spare."""

ROUNDS = 200_000
COPIED = 32 << 20
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Peaks:
    """Floating point operations per second in f32, and bytes read and written per second."""

    flops: float
    bandwidth: float

    def seconds(self, flops: int, bytes: int) -> float:
        """The least time that so many operations and bytes of memory take."""
        return max(flops / self.flops, bytes / self.bandwidth)


@functools.lru_cache(maxsize=64)
def peaks(target: Target, threads: int) -> Peaks:
    """The peaks of this many threads together on code for a target that this machine runs."""
    address, code = _multiply_adds(target)
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(address)
    rooms = [np.zeros(64, np.float64) for _ in range(threads)]
    flops = 2 * CHAINS * target.lanes(4) * ROUNDS * threads / _seconds(
        [functools.partial(function, ROUNDS, room.ctypes.data) for room in rooms])
    shares = [np.zeros(COPIED // threads, np.uint8) for _ in range(2 * threads)]
    for share in shares:
        share.fill(1)
    pairs = list(zip(shares[::2], shares[1::2], strict=True))
    bandwidth = 2 * COPIED / _seconds([functools.partial(np.copyto, a, b) for a, b in pairs])
    del code
    return Peaks(flops, bandwidth)


def _multiply_adds(target: Target) -> tuple[int, Any]:
    """The address of ``void f(i64 rounds, ptr result)``, and what keeps it in memory."""
    from tilewright.codegen import llvm

    vector = f"<{target.lanes(4)} x float>"
    step = f"@llvm.fmuladd.v{target.lanes(4)}f32"
    lines = [
        f"declare {vector} {step}({vector}, {vector}, {vector})",
        "define void @tw_peak(i64 %n, ptr %p) {", "entry:",
        f"  %x = load {vector}, ptr %p, align 4", "  br label %loop", "loop:",
        "  %i = phi i64 [0, %entry], [%next, %loop]",
        *(f"  %a{c} = phi {vector} [%x, %entry], [%b{c}, %loop]" for c in range(CHAINS)),
        *(f"  %b{c} = call {vector} {step}({vector} %x, {vector} %x, {vector} %a{c})"
          for c in range(CHAINS)),
        "  %next = add i64 %i, 1", "  %more = icmp ult i64 %next, %n",
        "  br i1 %more, label %loop, label %end", "end:",
    ]
    total = "%b0"
    for c in range(1, CHAINS):
        lines.append(f"  %s{c} = fadd {vector} {total}, %b{c}")
        total = f"%s{c}"
    text = "\n".join([*lines, f"  store {vector} {total}, ptr %p, align 4", "  ret void", "}", ""])
    code = llvm.Code([llvm.object_code(text, target)], ["tw_peak"])
    return code.address("tw_peak"), code


def _timed(
    call: Callable[[], Any], gate: threading.Barrier, spans: list[tuple[float, float]]
) -> None:
    """Note when a call that begins together with others starts and ends."""
    gate.wait()
    start = time.perf_counter()
    call()
    spans.append((start, time.perf_counter()))


def _seconds(calls: list[Callable[[], Any]]) -> float:
    """The quickest of some rounds in which every call is made by a thread of its own."""
    best = float("inf")
    for _ in range(REPEATS):
        gate = threading.Barrier(len(calls))
        spans: list[tuple[float, float]] = []
        team = [threading.Thread(target=_timed, args=(call, gate, spans)) for call in calls]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        best = min(best, max(e for _, e in spans) - min(s for s, _ in spans))
    return best
