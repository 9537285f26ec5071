"""Golden texts of every pass: ``<pass>/*.tw`` goes in, ``golden/<pass>/*.tw`` must come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.compiler.passes.fold import MOST_BYTES, fold
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.simplify import simplify
from tilewright.compiler.pipeline import GRAPH, compile_graph
from tilewright.compiler.target import Target
from tilewright.compiler.text import show_groups
from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.attrs import IndexAttrs, IotaAttrs, ReduceAttrs
from tilewright.ir.graph import Graph, apply, full, input_node, make
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse, show
from tilewright.ir.types import TensorType, f32, i32
from tilewright.ir.verify import verify

HERE = Path(__file__).parent
TARGET = Target("test", 64, 32, 1 << 15, 1 << 20, 1 << 25, "", "", "")
TARGETS = {"attention": gpu_target("sm_80")}
NEAR = {"attention": 0.03}
"""Of passes that leave out roundings to 16 bits: how near the results are."""

PASSES = {transform.__name__: transform for transform in GRAPH}
CASES = [(name, path) for name in PASSES for path in sorted((HERE / name).glob("*.tw"))]
Golden = Callable[[str, str], None]


def read(path: Path) -> Graph:
    graph = parse(path.read_text())
    assert isinstance(graph, Graph)
    return graph


def arrays_for(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 5, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda x: x if isinstance(x, str) else x.stem)
def test_pass(name: str, path: Path, golden: Golden) -> None:
    before = read(path)
    after = PASSES[name](before, TARGETS.get(name, TARGET))
    verify(after)
    golden(f"{name}/{path.stem}", show(after))
    arrays = arrays_for(before)
    for got, want in zip(run_graph(after, arrays), run_graph(before, arrays), strict=True):
        if name in NEAR:
            got, want = (np.asarray(a, np.float64) for a in (got, want))
            np.testing.assert_allclose(got, want, rtol=NEAR[name], atol=NEAR[name])
        else:
            np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_has_a_golden_text(name: str) -> None:
    assert [n for n, _ in CASES if n == name], f"write an example {HERE.name}/{name}/<what>.tw"


@pytest.mark.parametrize("path", sorted((HERE / "fuse").glob("*.tw")), ids=lambda p: p.stem)
def test_fuse(path: Path, golden: Golden) -> None:
    golden(f"fuse/{path.stem}.txt", show_groups(fuse(read(path), TARGET)))


@pytest.mark.parametrize("path", sorted((HERE / "fuse").glob("*.tw")), ids=lambda p: p.stem)
def test_kernels_of_a_graph(path: Path, golden: Golden) -> None:
    """One kernel per golden group, under every text that the pipeline can show."""
    compiled = compile_graph(read(path), TARGET)
    golden(f"plan/{path.stem}.txt", compiled.stages[-1].text())


def test_fold_keeps_to_its_size() -> None:
    for count, folded in ((MOST_BYTES // 4, True), (MOST_BYTES // 4 + 1, False)):
        x = make("iota", (), type=TensorType(f32, (count,)), attrs=IotaAttrs(0))
        y = apply("sqrt", x)
        result = fold(Graph((), (y,))).outputs[0]
        assert (result.op.name == "const") == folded


def test_fold_does_not_read_large_constants() -> None:
    x = full(TensorType(f32, (MOST_BYTES,)), 1.0)
    y = make("sum", (x,), ReduceAttrs((0,)))
    assert fold(Graph((), (y,))).outputs == (y,)


def test_fold_leaves_an_index_outside_its_axis_to_the_program() -> None:
    x, i = full(TensorType(f32, (3,)), 1.0), full(TensorType(i32, (2,)), 7)
    y = make("take", (x, i), IndexAttrs(0))
    assert fold(Graph((), (y,))).outputs == (y,)


def test_fold_makes_one_value_a_full_node() -> None:
    x = make("sum", (full(TensorType(f32, (3, 2)), 1.5),), ReduceAttrs((0,)))
    assert fold(Graph((), (x,))).outputs == (full(TensorType(f32, (2,)), 4.5),)


def test_simplify_keeps_unused_inputs() -> None:
    x, y = (input_node(name, TensorType(f32, (3,))) for name in "xy")
    graph = simplify(Graph((x, y), (x * 1.0,)))
    assert graph.inputs == (x, y)
    assert graph.outputs == (x,)
