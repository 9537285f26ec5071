"""The verifier: each file of ``verify/`` breaks rules, and says under which lines and how."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from ir_strategies import graphs, kernels

from tilewright.errors import CompilerBug, VerifyError
from tilewright.ir.graph import OPS, Graph, NoAttrs, Node, Op, apply, full, input_node, make
from tilewright.ir.loops import Alloc, Buffer, Const, For, Kernel, Let, Store, Var
from tilewright.ir.text import parse
from tilewright.ir.types import TensorType, f32, i64
from tilewright.ir.verify import NODE_RULES, verify

FILES = sorted((Path(__file__).parent / "verify").glob("*.tw"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_errors_stand_under_the_guilty_lines(path: Path) -> None:
    text = path.read_text()
    with pytest.raises(VerifyError) as caught:
        verify(parse(text))
    assert str(caught.value).split("\n", 1)[1] == text


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_random_graphs_keep_the_rules(graph: Graph) -> None:
    verify(graph)


@settings(max_examples=60, deadline=None)
@given(kernels())
def test_random_kernels_keep_the_rules(kernel: Kernel) -> None:
    verify(kernel)


X = input_node("x", TensorType(f32, (2,)))


def test_inputs_must_be_declared() -> None:
    graph = Graph((), (X + X,), "g")
    with pytest.raises(VerifyError, match="# error: x is not an input of this graph"):
        verify(graph)
    verify(Graph((X,), graph.outputs))


def test_only_inputs_stand_among_the_inputs() -> None:
    with pytest.raises(VerifyError, match="# error: full stands among the inputs"):
        verify(Graph((full(X.type, 1),), (X,)))


def test_attributes_and_ops_must_be_the_rows() -> None:
    loose = Node(OPS["sum"], (X,), NoAttrs(), X.type, None)
    with pytest.raises(VerifyError, match="# error: sum takes ReduceAttrs, got NoAttrs"):
        verify(Graph((X,), (loose,)))
    stranger = Op("add", "elementwise", 2, OPS["add"].infer, OPS["add"].numpy)
    with pytest.raises(VerifyError, match="# error: add is no row of the op table"):
        verify(Graph((X,), (Node(stranger, (X, X), NoAttrs(), X.type, None),)))


def test_composite_ops_are_forbidden_on_request() -> None:
    composite = [
        op for op in OPS.values() if op.expand is not None and op.arity == 1 and f32 in op.types
    ]
    assert composite, "no composite op of one operand in the table"
    graph = Graph((X,), (make(composite[0], (X,)),))
    verify(graph)
    with pytest.raises(VerifyError, match="is composite and should have been expanded"):
        verify(graph, primitive=True)
    verify(Graph((X,), (apply("exp", X),)), primitive=True)


def test_a_violation_is_a_bug_of_ours() -> None:
    assert issubclass(VerifyError, CompilerBug)


def test_every_rule_says_what_holds() -> None:
    assert all(rule.__doc__ for rule in NODE_RULES)


def test_a_name_in_its_own_value_is_reported() -> None:
    n, y = Var("n"), Buffer("y", f32, 4, "global", "out")
    body = (Let(n, Const(1)), Let(n, n), Store(y, n, Const(0.0, f32)))
    kernel = Kernel("k", (y,), (For(Var("i"), Const(0), Const(1), body, "parallel"),))
    with pytest.raises(VerifyError, match="# error: n is defined already"):
        verify(kernel)


def test_a_buffer_must_be_the_declared_one() -> None:
    y, other = Buffer("y", f32, 4, "global", "out"), Buffer("y", f32, 8, "global", "out")
    store = Store(other, Const(0), Const(0.0, f32))
    kernel = Kernel("k", (y,), (For(Var("i"), Const(0), Const(1), (store,), "parallel"),))
    with pytest.raises(VerifyError, match="# error: y is not the buffer"):
        verify(kernel)


def test_allocated_buffers_are_private() -> None:
    b = Buffer("b", i64, 4, "global", "in")
    with pytest.raises(VerifyError, match="b is global, which only parameters are"):
        verify(Kernel("k", (), (Alloc(b),)))
