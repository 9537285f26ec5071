"""How to add a law, and how to add a pass.

    python docs/add_a_pass.py

A law of algebra is one line in a table under ``tilewright/compiler/rules``; the tests try every law
of the tables on random values without being told. What algebra cannot say is a pass: one file in
``tilewright/compiler/passes`` with one public function, and its name in ``compiler/pipeline.py``.
"""

from __future__ import annotations

import numpy as np

from tilewright.codegen import cpu
from tilewright.compiler import pipeline
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir.graph import Graph, Node, apply, input_node, rebuild_node
from tilewright.ir.interp import run_graph
from tilewright.ir.rewrite import Rules, hole, rewrite, rule
from tilewright.ir.rewrite_check import check_rule
from tilewright.ir.text import show
from tilewright.ir.types import FLOATS, INTS, TensorType, f32, i32

# --- A law -----------------------------------------------------------------------------------
# A name, a left side with holes, a right side. Most laws are added to the table of their topic.

x, y = hole("x", INTS), hole("y", INTS)
there_and_back = rule("there-and-back", (x + y) - y, x)

# The automatic check evaluates both sides on random values of every element type that the holes
# take, with NaN, infinities and -0 among them.

print("there-and-back was tried on", check_rule(there_and_back), "left sides")

# Integers wrap around and back. On floats the law looks as right and is false: sums round, and an
# infinity minus itself is NaN. The check finds that without being told.

r, t = hole("r", FLOATS), hole("t", FLOATS)
try:
    check_rule(rule("false", (r + t) - t, r))
except CompilerBug as bug:
    print("a false law is caught:", str(bug)[:60], "...")
else:
    raise SystemExit("the false law was not caught")

# --- It at work ------------------------------------------------------------------------------

a, b = (input_node(name, TensorType(i32, (4, 9))) for name in "ab")
graph = Graph((a, b), ((a + b) - b,), "example")
simpler = rewrite(graph, Rules(there_and_back))
print(show(graph))
print(show(simpler))
assert [n.op.name for n in simpler.nodes()] == ["input", "input"] and simpler.outputs == (a,)


# --- A pass ----------------------------------------------------------------------------------
# Valid graph in, valid graph out. Its docstring states what is true afterwards, and shows it.

def double_negations_gone(graph: Graph, target: Target) -> Graph:
    """No node negates a negation.

        y = neg(x);  z = neg(y);  w = exp(z)
    ->  w = exp(x)
    """
    done: dict[Node, Node] = {}
    for node in graph.nodes():
        fresh = rebuild_node(node, [done[n] for n in node.inputs])
        if fresh.op.name == "neg" and fresh.inputs[0].op.name == "neg":
            fresh = fresh.inputs[0].inputs[0]
        done[node] = fresh
    return graph.rebuild(done[n] for n in graph.outputs)


c = input_node("c", TensorType(f32, (4, 9)))
negated = Graph((c,), (apply("exp", apply("neg", -c)),), "negated")
target = cpu.host_target()
fewer = double_negations_gone(negated, target)
assert [n.op.name for n in fewer.nodes()] == ["input", "exp"]
values = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
np.testing.assert_array_equal(run_graph(fewer, [values])[0], run_graph(negated, [values])[0])

# --- It in the pipeline ----------------------------------------------------------------------
# In the source this is a line in the tuple GRAPH, with the reason if its place there matters.

pipeline.GRAPH = (double_negations_gone, *pipeline.GRAPH)
stages = pipeline.compile_graph(negated, target).stages
for stage in stages:
    print(stage)
assert any(s.name == "double_negations_gone" and s.changed for s in stages)

# --- Its test --------------------------------------------------------------------------------
# A golden file under tests/compiler shows the text before and after; `--bless` accepts a new one.
