"""tw.numpy inside and outside of a trace, captured arrays."""

from __future__ import annotations

import numpy as np
import pytest
from frontend_harness import interpret, same, sample, traced

import tilewright as tw
from tilewright.ir.graph import Graph

X = sample((4, 6), "f4", 1)

CREATED = {
    "zeros": (lambda: tw.numpy.zeros((2, 3)), lambda: np.zeros((2, 3))),
    "zeros of a type": (lambda: tw.numpy.zeros(3, "i4"), lambda: np.zeros(3, "i4")),
    "ones": (lambda: tw.numpy.ones((2, 3), np.float32), lambda: np.ones((2, 3), np.float32)),
    "full": (lambda: tw.numpy.full((2,), 7), lambda: np.full((2,), 7)),
    "full of a row": (
        lambda: tw.numpy.full((2, 3), [1.0, 2.0, 3.0]),
        lambda: np.full((2, 3), [1.0, 2.0, 3.0]),
    ),
    "arange": (lambda: tw.numpy.arange(5), lambda: np.arange(5)),
    "arange of a type": (
        lambda: tw.numpy.arange(2, 9, 3, np.int32),
        lambda: np.arange(2, 9, 3, np.int32),
    ),
    "arange down": (lambda: tw.numpy.arange(9, 2, -2), lambda: np.arange(9, 2, -2)),
    "arange of floats": (
        lambda: tw.numpy.arange(0.0, 1.0, 0.25),
        lambda: np.arange(0.0, 1.0, 0.25),
    ),
    "empty arange": (lambda: tw.numpy.arange(3, 1), lambda: np.arange(3, 1)),
    "linspace": (lambda: tw.numpy.linspace(0, 1, 5), lambda: np.linspace(0, 1, 5)),
    "eye": (lambda: tw.numpy.eye(3, 4, 1, np.float32), lambda: np.eye(3, 4, 1, np.float32)),
    "identity": (lambda: tw.numpy.identity(3), lambda: np.identity(3)),
    "tri": (lambda: tw.numpy.tri(3, 4, -1), lambda: np.tri(3, 4, -1)),
    "iota": (lambda: tw.numpy.iota((2, 3)), lambda: np.arange(3)[None].repeat(2, 0)),
    "asarray": (lambda: tw.numpy.asarray([1, 2.5]), lambda: np.asarray([1, 2.5])),
    "array": (lambda: tw.numpy.array([[1, 2]], "f2"), lambda: np.array([[1, 2]], "f2")),
}


@pytest.mark.parametrize("name", CREATED)
def test_creation_inside_and_outside_of_a_trace(name: str) -> None:
    ours, numpys = CREATED[name]
    plain = ours()
    assert isinstance(plain, np.ndarray)
    same(plain, numpys())
    same(interpret(lambda x: ours(), X), numpys())


def test_creation_from_traced_values() -> None:
    same(
        interpret(lambda x: tw.numpy.asarray([x[0, 0], 2.0, x[1, 1]]), X),
        np.array([X[0, 0], 2.0, X[1, 1]]),
    )
    same(interpret(lambda x: tw.numpy.full((2, 6), x[0]), X), np.full((2, 6), X[0]))
    same(
        interpret(lambda x: tw.numpy.linspace(x[0, 0], x[0, 1], 3), X.astype("f8")),
        np.linspace(X[0, 0].astype("f8"), X[0, 1].astype("f8"), 3),
    )
    same(interpret(lambda x: tw.numpy.array(x, "f8"), X), X.astype("f8"))


def test_other_names_are_numpys_own() -> None:
    assert tw.numpy.exp is np.exp and tw.numpy.float32 is np.float32
    assert "zeros" in dir(tw.numpy) and "linalg.norm" in dir(tw.numpy)


def test_erf_inside_and_outside() -> None:
    plain = tw.erf(X)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(tw.erf(np.array([0.0, 1.0])), [0, 0.8427007929497149], rtol=1e-15)
    same(interpret(tw.erf, X), plain)
    assert tw.erf(1).dtype == np.float64


# --- captured arrays --------------------------------------------------------------------------
def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes()]


def test_a_captured_array_is_a_snapshot() -> None:
    table = np.arange(6, dtype=np.float32)

    def f(x):
        first = x + table
        table[0] = 100
        return first, x + table

    found = traced(f, X)
    table[:] = 0
    assert ops(found.graph).count("const") == 2
    before, after = interpret(lambda x: (x + np.arange(6, dtype="f4"), x), X)
    from tilewright.ir.interp import run_graph

    first, second = run_graph(found.graph, [X])
    same(first, before)
    assert second[0, 0] == X[0, 0] + 100


def test_equal_captured_arrays_are_one_constant() -> None:
    def f(x):
        return x + np.arange(6.0), x * np.arange(6.0)

    assert ops(traced(f, X).graph).count("const") == 1


def test_a_captured_array_of_one_value_holds_no_data() -> None:
    graph = traced(lambda x: x + np.ones((1000, 4, 6)), X).graph
    assert "const" not in ops(graph) and "full" in ops(graph)


def test_signed_zeros_are_kept_apart() -> None:
    zeros = np.array([0.0, -0.0])
    result = interpret(lambda x: np.copysign(x, zeros), np.ones(2))
    assert result.tolist() == [1, -1]


def test_a_known_boolean_mask_chooses() -> None:
    mask = X[:, 0] > 0
    same(interpret(lambda x: x[mask], X), X[mask])


def test_nodes_carry_the_users_line() -> None:
    def f(x):
        y = np.exp(x)
        return tw.nn.softmax(y)

    nodes = [n for n in traced(f, X).graph.nodes() if n.op.name != "input"]
    assert {n.loc.file for n in nodes} == {__file__}
    lines = {n.op.name: n.loc.line for n in nodes}
    assert lines["sum"] == lines["exp"] or lines["sum"] == f.__code__.co_firstlineno + 2
    assert {n.loc.line - f.__code__.co_firstlineno for n in nodes} == {1, 2}
