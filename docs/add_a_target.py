"""How to add a target: a description.

    python docs/add_a_target.py

A ``Target`` is data: widths, cache sizes, and what LLVM calls the machine. Schedules read it and
hold no case per machine. A CPU is a function in ``tilewright/codegen/cpu/tiers.py`` that returns
such a description. This file describes two machines and compiles the same function for them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import tilewright as tw
from tilewright.codegen import cpu, llvm
from tilewright.codegen.cpu.program import program_text
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.target import Target
from tilewright.ir.interp import run_graph
from tilewright.ir.loops import For, Kernel
from tilewright.ir.text import show
from tilewright.runtime.executable import Executable


def model(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A layer with an activation and a norm along its rows."""
    y = np.tanh(x @ w)
    return y / np.sqrt((y * y).mean(axis=1, keepdims=True))


random = np.random.default_rng(0)
x = random.standard_normal((24, 40), dtype=np.float32)
w = random.standard_normal((40, 33), dtype=np.float32)
graph = tw.jit(model).trace(x, w)
host = cpu.host_target()
print("this machine:", host)


def widths(kernel: Kernel) -> set[int]:
    """The lanes of all vector loops of a kernel."""
    found, bodies = set(), [kernel.body]
    while bodies:
        for statement in bodies.pop():
            if isinstance(statement, For):
                bodies.append(statement.body)
                if statement.kind == "vector":
                    found.add(statement.width)
    return found


# --- The host with half its vectors ----------------------------------------------------------
# A description may say less than the machine can do; then the code still runs here.

small = replace(
    host, name="small", vector_bytes=max(16, host.vector_bytes // 2), l1=16 << 10, l2=256 << 10)
compiled = compile_graph(graph, small)
for launch in compiled.plan.launches:
    assert all(width * 4 <= small.vector_bytes for width in widths(launch.kernel))
run = Executable(compiled.plan, cpu.build(compiled.plan, small))
expected = run_graph(graph, [x, w])[0]
np.testing.assert_allclose(run([x, w])[0], expected, rtol=2e-5, atol=1e-6)
np.testing.assert_allclose(tw.jit(model)(x, w), expected, rtol=2e-5, atol=1e-6)
print("small: vectors of", small.vector_bytes, "bytes; the result is the same")

# --- Another architecture --------------------------------------------------------------------
# All that is known of a 64-bit ARM server core. Its code is assembled here, but cannot run here.

arm = Target(
    name="arm-server", vector_bytes=16, registers=32, l1=64 << 10, l2=1 << 20, l3=32 << 20,
    triple="aarch64-unknown-linux-gnu", cpu="neoverse-n1", features="+neon", masked=False,
)

plan = compile_graph(graph, arm).plan
print(show(plan.launches[-1].kernel))
assembly = llvm.assembly(program_text(plan, arm), arm)
assert "fmla" in assembly, "ARM's vector multiply-add"
print("arm-server:", len(assembly.splitlines()), "lines of assembly")

# --- What is left for a target that is not a CPU ---------------------------------------------
# Cells in tilewright/codegen/spelling.py for ops that LLVM cannot lower there: what a target
# cannot spell is expanded before LLVM sees it. And a folder beside tilewright/codegen/cpu with a
# ``build`` that loads the code and runs it.
