"""What this machine can do: arithmetic and memory, measured with kernels written for that alone.

    python benchmarks/peak.py [--seconds 0.2]

Arithmetic is a loop of independent fused multiply-adds on vector registers. Bandwidth is the best
of several ways to copy (plain and streaming stores, NumPy), counting bytes read and written, for
several sizes of the whole working set: what fits into a cache is faster than what does not.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from worker import cores

CHAINS = 24
UNROLL = 4
MB = 2 ** 20
SIZES = tuple(2 ** i * MB for i in (0, 2, 4, 5, 6, 7, 8))
"""Bytes of the whole working set of a copy: source and destination of all threads."""


def vector_bytes() -> int:
    """Bytes of the widest vector register of this host."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


def fma_text(scalar: str, itemsize: int) -> str:
    """A function that runs n rounds of CHAINS independent multiply-adds and stores their sum."""
    lanes = vector_bytes() // itemsize
    vector = f"<{lanes} x {scalar}>"
    fma = f"@llvm.fmuladd.v{lanes}f{itemsize * 8}"
    lines = [
        f"declare {vector} {fma}({vector}, {vector}, {vector})",
        "define void @f(i64 %n, ptr %p) {", "entry:", f"  %x = load {vector}, ptr %p",
        "  br label %loop", "loop:", "  %i = phi i64 [0, %entry], [%next, %loop]",
    ]
    lines += [f"  %a{c} = phi {vector} [%x, %entry], [%b{c}, %loop]" for c in range(CHAINS)]
    lines += [
        f"  %b{c} = call {vector} {fma}({vector} %x, {vector} %x, {vector} %a{c})"
        for c in range(CHAINS)
    ]
    lines += ["  %next = add i64 %i, 1", "  %more = icmp ult i64 %next, %n",
              "  br i1 %more, label %loop, label %end", "end:"]
    total = "%b0"
    for c in range(1, CHAINS):
        lines.append(f"  %s{c} = fadd {vector} {total}, %b{c}")
        total = f"%s{c}"
    return "\n".join([*lines, f"  store {vector} {total}, ptr %p", "  ret void", "}"])


def walk_text(kind: str) -> str:
    """A function that goes through %n vectors of f32, to copy, stream or read."""
    lanes = vector_bytes() // 4
    vector = f"<{lanes} x float>"
    hint = f", align {vector_bytes()}" + (", !nontemporal !0" if kind == "stream" else "")
    lines = [
        "define void @f(i64 %n, ptr %to, ptr %from) {", "entry:", "  br label %loop", "loop:",
        "  %i = phi i64 [0, %entry], [%next, %loop]",
    ]
    lines += [f"  %a{c} = phi {vector} [zeroinitializer, %entry], [%s{c}, %loop]"
              for c in range(UNROLL)]
    for c in range(UNROLL):
        lines += [f"  %i{c} = add i64 %i, {c}",
                  f"  %f{c} = getelementptr {vector}, ptr %from, i64 %i{c}",
                  f"  %t{c} = getelementptr {vector}, ptr %to, i64 %i{c}",
                  f"  %v{c} = load {vector}, ptr %f{c}, align {vector_bytes()}"]
        if kind == "read":
            lines.append(f"  %s{c} = fadd {vector} %a{c}, %v{c}")
        else:
            lines += [f"  %s{c} = select i1 true, {vector} %a{c}, {vector} %a{c}",
                      f"  store {vector} %v{c}, ptr %t{c}{hint}"]
    lines += [f"  %next = add i64 %i, {UNROLL}", "  %more = icmp ult i64 %next, %n",
              "  br i1 %more, label %loop, label %end", "end:"]
    lines += [f"  store {vector} %s{c}, ptr %to" for c in range(UNROLL) if kind == "read"]
    return "\n".join([*lines, "  ret void", "}", "!0 = !{i32 1}"])


_engines: list[Any] = []


@functools.cache
def compiled(text: str, arguments: int) -> Callable[..., None]:
    """Machine code for a module with one function f; the arguments are 64-bit numbers."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    _engines.append(engine)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)
    return kind(engine.get_function_address("f"))


def aligned(nbytes: int) -> np.ndarray:
    """Zeroed memory whose pages exist, aligned to 4096 bytes."""
    raw = np.zeros(nbytes + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    raw[:] = 0
    return raw[start:start + nbytes]


def best_seconds(calls: list[Callable[[], None]], seconds: float) -> float:
    """The quickest of several rounds in which every thread makes its call, started together."""
    gate = threading.Barrier(len(calls))
    spans: list[list[tuple[float, float]]] = [[] for _ in calls]
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while True:
            # All threads leave together: the one that finds the time over breaks the gate.
            try:
                if index == 0 and len(spans[0]) >= 3 and time.perf_counter() > end:
                    gate.abort()
                gate.wait()
            except threading.BrokenBarrierError:
                return
            begin = time.perf_counter()
            calls[index]()
            spans[index].append((begin, time.perf_counter()))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(max(e for _, e in rows) - min(b for b, _ in rows)
               for rows in zip(*spans, strict=False))


def fma_peak(dtype: str, threads: int, seconds: float) -> float:
    """GFLOP/s of fused multiply-adds."""
    itemsize, scalar = {"float32": (4, "float"), "float64": (8, "double")}[dtype]
    f = compiled(fma_text(scalar, itemsize), 2)
    memory = [aligned(4096) for _ in range(threads)]
    rounds = 1_000_000
    calls = [functools.partial(f, rounds, m.ctypes.data) for m in memory]
    flops = 2 * CHAINS * rounds * (vector_bytes() // itemsize) * threads
    return flops / best_seconds(calls, seconds) / 1e9


def bandwidth(kinds: tuple[str, ...], size: int, threads: int, seconds: float) -> float:
    """GB/s of the best way to go through a working set of ``size`` bytes."""
    share = size // threads // 2
    step = UNROLL * vector_bytes()
    share -= share % step
    pairs = [(aligned(share), aligned(share)) for _ in range(threads)]
    times = max(1, 32 * MB // share)
    best = 0.0
    for kind in kinds:
        if kind == "numpy":
            calls: list[Any] = [functools.partial(np.copyto, to, source) for to, source in pairs]
        else:
            f = compiled(walk_text(kind), 3)
            calls = [
                functools.partial(f, share // vector_bytes(), to.ctypes.data, source.ctypes.data)
                for to, source in pairs
            ]
        repeated = [functools.partial(repeat, call, times) for call in calls]
        moved = share * threads * times * (1 if kind == "read" else 2)
        best = max(best, moved / best_seconds(repeated, seconds) / 1e9)
    return best


def repeat(call: Callable[[], None], times: int) -> None:
    """Call so many times."""
    for _ in range(times):
        call()


def measure(threads: int, seconds: float) -> dict[str, Any]:
    """All figures for this number of threads."""
    copy = ("copy", "stream", "numpy")
    return {
        "threads": threads,
        "gflops": {d: round(fma_peak(d, threads, seconds), 1) for d in ("float32", "float64")},
        "copy_gbs": {str(s): round(bandwidth(copy, s, threads, seconds), 1) for s in SIZES},
        "read_gbs": round(bandwidth(("read",), SIZES[-1], threads, seconds), 1),
    }


def main() -> None:
    """Print the figures, one JSON line per number of threads."""
    parser = argparse.ArgumentParser(description="Measure the arithmetic and memory peaks.")
    parser.add_argument("--seconds", type=float, default=0.2, help="per figure")
    parser.add_argument("--threads", type=int, nargs="*", default=None)
    options = parser.parse_args()
    for threads in options.threads or sorted({1, len(cores())}):
        print(json.dumps(measure(threads, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
