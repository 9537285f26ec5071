"""The pipeline: stages, switches, costs, and one compiled kernel for equal layers."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import config
from tilewright.compiler.cost import contraction_size, graph_flops, node_bytes, node_flops, scaled
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import GRAPH, Compiled, compile_graph
from tilewright.compiler.target import Target
from tilewright.compiler.text import show_kernels, show_loops, show_plan
from tilewright.errors import Location
from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.build import broadcast, contract, reduce
from tilewright.ir.graph import Graph, Node, apply, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse
from tilewright.ir.types import TensorType, f32
from tilewright.report.stages import table, texts

TARGET = Target("test", 64, 32, 1 << 15, 1 << 20, 1 << 25, "", "", "")


def value(name: str, *shape: int) -> Node:
    return input_node(name, TensorType(f32, shape))


def layers(count: int) -> Graph:
    x = value("x", 48, 32)
    weights = [value(f"w{i}", 32, 32) for i in range(count)]
    h = x
    for w in weights:
        line = Location("net.py", 7, "layer")
        h = apply("tanh", contract(h, w, (0, 1), (1, 2), (0, 2)))
        object.__setattr__(h, "loc", line)
    return Graph((x, *weights), (h,), "layers")


def compiled(count: int = 3) -> Compiled:
    return compile_graph(layers(count), TARGET)


def test_stages_name_every_pass_in_order() -> None:
    names = [stage.name for stage in compiled().stages]
    assert names == [*(t.__name__ for t in GRAPH), "fuse", "lower", "memory"]


def test_stages_say_what_changed() -> None:
    x = value("x", 4)
    stages = compile_graph(Graph((x,), (x * 1.0 + x,)), TARGET).stages
    first, second = (s for s in stages if s.name == "simplify")
    assert first.changed and not second.changed
    assert "(unchanged)" in str(second) and "(unchanged)" not in str(first)
    assert parse(first.text()).outputs == (x + x,)


def test_stage_texts() -> None:
    c = compiled(2)
    assert c.stages[-1].text() == show_plan(c.plan)
    assert c.stages[-2].text() == show_kernels(c.kernels)
    assert "contraction [48, 32]: contract f32[48, 32] -> tanh f32[48, 32]" in (
        c.stages[-3].text())
    every = texts(c.stages)
    assert "# --- memory ---" in every and "# --- expand ---" not in every
    assert table(c.stages).splitlines()[-1].startswith("total")


def test_equal_layers_share_one_kernel() -> None:
    plan = compiled(5).plan
    names = [launch.kernel.name for launch in plan.launches]
    assert len(set(names[1:-1])) == 1
    assert show_loops(plan).count("kernel ") == len(set(names))


def test_names_are_the_same_in_every_compilation() -> None:
    assert show_plan(compiled().plan) == show_plan(compiled().plan)


def test_plans_of_layers_run() -> None:
    graph = layers(3)
    random = np.random.default_rng(0)
    arrays = [random.normal(size=n.shape).astype(np.float32) / 4 for n in graph.inputs]
    (want,) = run_graph(graph, arrays)
    for threads in (1, 2):
        (got,) = run_plan(compiled().plan, arrays, threads)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_debug_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for level in range(5):
        with config.override(debug=level):
            compiled(1)
        output = capsys.readouterr()
        assert output.out == ""
        lines.append(len(output.err.splitlines()))
    assert lines[0] == lines[1] == 0
    assert lines[1] < lines[2] < lines[3] == lines[4]


def test_the_summary() -> None:
    assert compiled(5).summary().startswith("layers: 16 nodes, 5 launches of ")


def test_the_verifier_runs_between_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("tilewright.compiler.pipeline.verify", seen.append)
    compiled(1)
    assert seen == []
    with config.override(verify=1):
        c = compiled(1)
    assert len(seen) == 1 + len(GRAPH) + len(c.kernels)


# --- costs ----------------------------------------------------------------------------------
def test_node_costs() -> None:
    x, y = value("x", 8, 4), value("y", 4, 5)
    product = contract(x, y, (0, 1), (1, 2), (0, 2))
    assert contraction_size(product) == 8 * 4 * 5
    assert node_flops(product) == 2 * 8 * 4 * 5
    assert node_bytes(product) == 4 * (32 + 20 + 40)
    assert node_flops(reduce("sum", x, (0,))) == 32
    assert node_flops(x + x) == 32
    assert node_flops(broadcast(x, (8, 9, 4), (0, 2))) == 0
    assert graph_flops(Graph((x, y), (product + product,))) == 320 + 40


def test_costs_of_a_plan() -> None:
    c = compiled(3)
    costs = c.cost()
    assert [k.name for k in costs.kernels] == [launch.kernel.name for launch in c.plan.launches]
    assert costs.flops >= 3 * 2 * 48 * 32 * 32
    assert costs.inputs == 4 * (48 * 32 + 3 * 32 * 32)
    assert costs.outputs == 4 * 48 * 32
    assert costs.arena == c.plan.arena
    assert costs.peak == costs.inputs + costs.outputs + costs.arena
    assert all(k.bytes > 0 and k.flops > 0 for k in costs.kernels)


def test_the_cost_table_names_the_users_lines() -> None:
    lines = str(compiled(2).cost()).splitlines()
    assert lines[0].split() == ["kernel", "flops", "bytes", "arena", "line"]
    assert all(line.endswith("net.py:7") for line in lines[1:3])
    assert lines[3].startswith("total")
    assert lines[4].startswith("memory: ")


@pytest.mark.parametrize(("number", "text"), [
    (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1.5e6, "1.50 MB"), (2e9, "2.00 GB"),
    (3.25e12, "3.25 TB"),
])
def test_scaled(number: float, text: str) -> None:
    assert scaled(number, "B") == text


def test_an_identity_needs_no_kernel() -> None:
    x = value("x", 4)
    plan = compile_graph(Graph((x,), (make("neg", (-x,)),)), TARGET).plan
    assert plan.launches == ()
    assert plan.results[0].kind == "input"
