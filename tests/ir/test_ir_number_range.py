"""What is known of the numbers in a tensor holds for the numbers that the interpreter gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from ir_strategies import arrays_for, graphs

from tilewright.ir.build import cast, concat, iota, pad, take, where
from tilewright.ir.graph import Graph, Node, apply, full, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.number_range import Span, numbers_of, range_of
from tilewright.ir.types import TensorType, bool_, i8, i32, i64, u8


def holds(graph: Graph) -> None:
    nodes = [n for n in graph.nodes() if n.dtype.kind in "biu" and n.type.size]
    inner = Graph(graph.inputs, tuple(nodes))
    for node, array in zip(nodes, run_graph(inner, arrays_for(graph)), strict=True):
        known = range_of(node)
        assert known.low <= int(array.min()) and int(array.max()) <= known.high, node


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_the_numbers_of_random_graphs(graph: Graph) -> None:
    holds(graph)


ANY = numbers_of(i64)
X = input_node("x", TensorType(i64, (5,)))
TEN = iota(10)


@pytest.mark.parametrize(("node", "known"), [
    (X, ANY), (TEN, Span(0, 9)), (TEN * 3 - 4, Span(-4, 23)), (-5 - TEN, Span(-14, -5)),
    (TEN * -2, Span(-18, 0)), (TEN * (TEN - 3), Span(-27, 54)),
    (apply("mod", X, 7), Span(0, 6)), (apply("mod", X, -7), ANY),
    (apply("mod", X, X), ANY), (apply("max", apply("min", X, 3), 0), Span(0, 3)),
    (apply("max", TEN, 4), Span(4, 9)), (apply("min", TEN, 4), Span(0, 4)),
    (where(apply("lt", X, 0), full(X.type, 2), apply("mod", X, 4)), Span(0, 3)),
    (take(TEN + 3, X, 0), Span(0, 12)), (concat([TEN, TEN + 20], 0), Span(0, 29)),
    (pad(TEN + 1, [1], [0], [0], -3), Span(-3, 10)), (cast(TEN, i8), Span(0, 9)),
    (cast(iota(200), i8), numbers_of(i8)), (cast(TEN - 1, u8), numbers_of(u8)),
    (cast(apply("lt", X, 0), i32), Span(0, 1)), (apply("floordiv", TEN - 5, 2), Span(-3, 2)),
    (cast(iota(200), u8) + cast(iota(200), u8), numbers_of(u8)),
    (full(TensorType(bool_, (2,)), True), Span(1, 1)),
], ids=str)
def test_what_is_known(node: Node, known: Span) -> None:
    assert range_of(node) == known
    holds(Graph((X,), (node,)))


def test_large_expressions_are_looked_at_to_some_depth_and_once() -> None:
    chain = tree = TEN
    for _ in range(3000):
        chain = apply("min", chain + 1, 9)
        tree = apply("mod", tree + tree, 7)
    assert range_of(chain).high == 9 and range_of(tree) == Span(0, 6)
    holds(Graph((), (chain, tree)))
