"""A tour of the whole way, from a Python function to numbers.

    python docs/tour.py

Every stage below is a value that you can print, and most of them are text that reads back. Each
result is compared with the slow, plain definition: the interpreter.
"""

from __future__ import annotations

import numpy as np

import tilewright as tw
from tilewright.codegen import cpu
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.simplify import simplify
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.schedules import lower
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.interp import run_graph, run_kernel
from tilewright.ir.text import parse, show
from tilewright.ir.verify import verify
from tilewright.runtime.executable import Executable


def title(text: str) -> None:
    """A heading on the terminal."""
    print(f"\n{'=' * 4} {text} {'=' * (90 - len(text))}\n")


# --- 1. A function in plain NumPy ------------------------------------------------------------
# Nothing in it knows about tilewright. Softmax needs two reductions along each row.

def softmax(x):
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


x = np.random.default_rng(0).standard_normal((5, 37)).astype(np.float32)
expected = softmax(x)


# --- 2. Tracing: the function runs once, on a value that records ------------------------------
# NumPy asks a foreign array what to do (__array_ufunc__, __array_function__); ours writes it down.
# Broadcasting and casts, which NumPy does silently, are nodes of their own in the graph.

graph = tw.jit(softmax).trace(x)
title("the traced graph")
print(show(graph))
verify(graph)
np.testing.assert_allclose(run_graph(graph, [x])[0], expected, rtol=1e-6)


# --- 3. Nodes are shared: equal means identical ----------------------------------------------
# A node with the same op, inputs and attributes is the same object, so common subexpressions
# disappear while the graph is built, and the text of a graph reads back to the very same nodes.

again = parse(show(graph))
assert again.outputs[0].op is graph.outputs[0].op
assert show(again) == show(graph)


# --- 4. Derivatives are graphs ---------------------------------------------------------------
# Each row of the op table has a derivative written in nodes. The result is an ordinary graph.

backward = vjp_graph(graph)
title("softmax and its vector-Jacobian product")
print(show(backward))
cotangent = np.ones_like(x)
_, slope = run_graph(backward, [x, cotangent])
assert np.abs(slope).max() < 1e-6, "the rows of softmax add up to 1, whatever x is"


# --- 5. Rewriting: named laws, applied until none fires ---------------------------------------

def wasteful(x):
    """x, the long way round."""
    return ((x + x) * 1.0).T.T / 2.0


before = tw.jit(wasteful).trace(x)
after = simplify(before)
title("before and after simplify")
print(show(before))
print(show(after))
assert len(after.nodes()) < len(before.nodes())
np.testing.assert_array_equal(run_graph(after, [x])[0], run_graph(before, [x])[0])


# --- 6. Fusion: which nodes share a kernel ----------------------------------------------------
# Both reductions of softmax run along the same rows, so all of it is one group: a row is read
# once and stays in the first-level cache until its result is written.

target = cpu.host_target()
groups = fuse(compile_graph(graph, target).optimized, target)
title(f"{len(groups)} group(s) for {target.name}")
assert len(groups) == 1


# --- 7. Scheduling: a group becomes loops -----------------------------------------------------
# The Kernel language has loops over flat buffers. "parallel" is shared among threads, "vector" is
# done in lanes. It has an interpreter too, so a schedule can be tested without a compiler.

kernels = [kernel for group in groups for kernel in lower(group, target)]
title("the kernel")
print(show(kernels[0].kernel))
verify(kernels[0].kernel)
assert parse(show(kernels[0].kernel)) == kernels[0].kernel

arrays = [np.zeros(b.size, b.dtype.numpy) for b in kernels[0].kernel.params]
for buffer, array in zip(kernels[0].kernel.params, arrays, strict=True):
    if buffer.access == "in":
        array[:] = x.reshape(-1)
run_kernel(kernels[0].kernel, arrays)
result = next(
    a for b, a in zip(kernels[0].kernel.params, arrays, strict=True) if b.access == "out")
np.testing.assert_allclose(result.reshape(x.shape), expected, rtol=1e-5)


# --- 8. The plan: kernels in order, and where every buffer lives ------------------------------

compiled = compile_graph(graph, target)
title("passes and milliseconds")
for stage in compiled.stages:
    print(stage)
print(f"{len(compiled.plan.launches)} launch(es), arena of {compiled.plan.arena} bytes")


# --- 9. Code: LLVM IR as text, then machine code ----------------------------------------------

native = cpu.build(compiled.plan, target)
title("the first lines of the kernel in LLVM IR")
body = native.llvm_text[native.llvm_text.index("define void @k"):]
print("\n".join(body.splitlines()[:30]))
assert f"<{target.lanes(4)} x float>" in body, "whole vectors, explicitly"


# --- 10. Running it ---------------------------------------------------------------------------
# One native call runs all kernels. tw.jit does all of the above once per signature.

run = Executable(compiled.plan, native)
np.testing.assert_allclose(run([x])[0], expected, rtol=1e-5)

fast_softmax = tw.jit(softmax)
np.testing.assert_allclose(fast_softmax(x), expected, rtol=1e-5)
title("the same from outside")
print(fast_softmax.lower(x).as_text("loops"))
