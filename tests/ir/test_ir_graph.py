"""Nodes are frozen and shared; graphs are walked and rebuilt."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import tilewright.ir  # noqa: F401  (fills the op table)
from tilewright.ir import graph as g
from tilewright.ir.attrs import CastAttrs, ReduceAttrs
from tilewright.ir.types import TensorType, bool_, f32, f64, i32

T = TensorType(f32, (2, 3))
X, Y = g.input_node("x", T), g.input_node("y", T)


def test_equal_nodes_are_the_same_object() -> None:
    assert X + Y is X + Y
    assert g.input_node("x", T) is X
    assert X * 2 is X * 2.0
    assert g.make("sum", (X,), ReduceAttrs((0,))) is g.make("sum", (X,), ReduceAttrs((0,)))


def test_different_nodes_are_not() -> None:
    assert X + Y is not Y + X
    assert X + Y is not X - Y
    assert g.input_node("x", T) is not g.input_node("x", T, level=1)
    assert g.input_node("x", T) is not g.input_node("x", T.with_dtype(f64))
    assert g.make("sum", (X,), ReduceAttrs((0,))) is not g.make("sum", (X,), ReduceAttrs((1,)))
    assert g.make("cast", (X,), CastAttrs(f64)) is not g.make("cast", (X,), CastAttrs(i32))


def test_zeros_and_nans_are_told_apart_by_their_bits() -> None:
    assert g.full(T, 0.0) is not g.full(T, -0.0)
    assert g.full(T, np.nan) is g.full(T, np.nan)
    payload = np.uint32(0x7FC00001).view(np.float32)
    assert g.full(T, payload) is not g.full(T, np.nan)
    assert np.signbit(g.full_value(g.full(T, -0.0)))


def test_unused_nodes_are_forgotten() -> None:
    gc.collect()
    before = len(g._interned)
    nodes = [X * (7000 + i) for i in range(50)]
    assert len(g._interned) >= before + 100
    del nodes
    gc.collect()
    assert len(g._interned) <= before


def test_nodes_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        X.type = T


def test_misuse_is_refused() -> None:
    with pytest.raises(TypeError, match="add takes 2 inputs, got 1"):
        g.make("add", (X,))
    with pytest.raises(TypeError, match="sum takes ReduceAttrs"):
        g.make("sum", (X,))
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(2,\) differ"):
        g.make("add", (X, g.input_node("z", TensorType(f32, (2,)))))
    with pytest.raises(TypeError, match="element types f32 and f64 differ"):
        g.make("add", (X, g.input_node("z", T.with_dtype(f64))))


def test_topological_order() -> None:
    a = X + Y
    b = a * a
    graph = g.Graph((X, Y), (b, a), "demo")
    assert graph.nodes() == [X, Y, a, b]
    assert g.users(graph) == {X: [a], Y: [a], a: [b, b], b: []}


def test_a_deep_graph_is_walked_without_recursion() -> None:
    node = X
    for _ in range(20_000):
        node = g.make("neg", (node,))
    assert len(g.Graph((X,), (node,)).nodes()) == 20_001


def test_substitution_is_simultaneous() -> None:
    a = X + Y
    assert g.substitute((a * X,), {X: Y, Y: X}) == ((Y + X) * Y,)
    assert g.substitute((a,), {}) == (a,)


def test_comparisons_and_where_take_their_numbers_from_their_siblings() -> None:
    test = X < 1
    assert test.type == T.with_dtype(bool_)
    assert g.apply("where", test, X, 0).inputs[2] is g.full(T, 0)
