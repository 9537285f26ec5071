"""How to add an op: one row.

    python docs/add_an_op.py

An op that other ops can express is one row in ``tilewright/ir/ops.py`` and nothing else. From the
row follow its text, its type rule, its meaning for the interpreter, its derivative, its machine
code and its generated tests. This file adds such a row from outside and uses it everywhere.
"""

from __future__ import annotations

import numpy as np

from tilewright.codegen import cpu
from tilewright.compiler.pipeline import compile_graph
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.graph import Graph, apply, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.ops import composite
from tilewright.ir.text import parse, show
from tilewright.ir.types import FLOATS, TensorType, f32
from tilewright.ir.verify import verify
from tilewright.runtime.executable import Executable

# --- The row ---------------------------------------------------------------------------------
# name, number of inputs, what it means in NumPy, the element types it takes, what it is made of.
# The meaning is the definition; the expansion must agree with it, also where exp(x) overflows.

composite(
    "smooth_relu", 1,
    lambda x: np.logaddexp(x, np.zeros_like(x)),
    FLOATS,
    lambda x: apply("max", x, 0) + apply("log1p", apply("exp", -apply("abs", x))),
    domain=(-3.0, 3.0),
    doc="log(1 + exp(x))",
)

# --- Its text, its type rule -----------------------------------------------------------------

x = input_node("x", TensorType(f32, (3, 21)))
graph = Graph((x,), (make("smooth_relu", (x,)),), "example")
verify(graph)
print(show(graph))
assert parse(show(graph)).outputs[0].op.name == "smooth_relu"

# --- Its derivative, through the expansion ---------------------------------------------------
# A row may give a shorter one with derivative=..., written in nodes. The slope here is sigmoid.

backward = vjp_graph(graph)
values = np.linspace(-200, 200, 63, dtype=np.float32).reshape(3, 21)
values[0, 0] = 0.5
value, slope = run_graph(backward, [values, np.ones_like(values)])
with np.errstate(over="ignore"):
    sigmoid = 1 / (1 + np.exp(-values.astype(np.float64)))
inside = values != 0
np.testing.assert_allclose(slope[inside], sigmoid[inside], rtol=1e-5, atol=1e-30)

# --- Its machine code ------------------------------------------------------------------------

target = cpu.host_target()
compiled = compile_graph(graph, target)
run = Executable(compiled.plan, cpu.build(compiled.plan, target))
np.testing.assert_allclose(run([values])[0], np.logaddexp(values, 0), rtol=1e-6, atol=1e-37)
print("smooth_relu compiles to", len(compiled.plan.launches), "kernel and agrees with its meaning")

# --- An op that others cannot express --------------------------------------------------------
# A primitive is two places: its row here, without an expansion, and a row in
# tilewright/codegen/spelling.py that says how it is written in LLVM IR. A test names every
# primitive that a target cannot spell.
