"""x.at[index] and the functions that change copies, against NumPy changing an array in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frontend_harness import interpret, same, sample, traced

import tilewright as tw

X = sample((4, 6), "f4", 1)
CUBE = sample((4, 5, 6), "f4", 2)
MODES = {"add": np.add, "multiply": np.multiply, "max": np.maximum, "min": np.minimum}

PLACES = {
    "a row": np.s_[1],
    "an element": np.s_[-1, 2],
    "a range": np.s_[1:3, ::2],
    "backwards": np.s_[::-2, 4:1:-1],
    "an ellipsis": np.s_[..., 0],
    "nothing": np.s_[2:2],
    "everything": np.s_[:],
    "a new axis": np.s_[1, None, 2:4],
}

I, J = np.array([[1], [-4], [1]]), np.array([0, -1, 0], np.int32)
ARRAYS = {
    "rows": np.s_[J],
    "two": np.s_[I, J],
    "apart": np.s_[I, :, J],
    "behind": np.s_[:, J],
    "around": np.s_[:, J, J],
    "an integer before": np.s_[-1, J],
    "an integer behind": np.s_[J, :, 3],
    "an integer between": np.s_[I, 2, J],
    "a range": np.s_[J, 1:3],
    "a range before": np.s_[3:0:-2, J],
    "a range between": np.s_[I, ::2, J],
    "an ellipsis": np.s_[..., J],
    "a new axis between": np.s_[I, None, J],
    "a new axis before": np.s_[None, J],
    "an empty range": np.s_[J, 2:2],
    "no index": np.s_[np.zeros((0, 2), int)],
    "a list": np.s_[[0, 2, 0]],
    "a 0-d array": np.s_[np.array(2), J],
}


def changed(x: np.ndarray, mode: str, index: Any, values: Any) -> np.ndarray:
    """What NumPy makes of x in place."""
    result = x.copy()
    if mode == "set":
        result[index] = values
    else:
        MODES[mode].at(result, index, values)
    return result


@pytest.mark.parametrize("mode", ["set", *MODES])
@pytest.mark.parametrize("name", PLACES)
def test_slices_and_integers(name: str, mode: str) -> None:
    index = PLACES[name]
    for values in (sample(X[index].shape, "f4", 3), np.float32(7)):
        got = interpret(lambda x, v: getattr(x.at[index], mode)(v), X, values)
        same(got, changed(X, mode, index, values))
    same(interpret(lambda x: getattr(x.at[index], mode)(7), X), changed(X, mode, index, 7))
    same(interpret(lambda x: x.at[index].get(), X), X[index])


@pytest.mark.parametrize("mode", ["set", *MODES])
@pytest.mark.parametrize("name", ARRAYS)
def test_index_arrays(name: str, mode: str) -> None:
    index = ARRAYS[name]
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [p for p in parts if isinstance(p, np.ndarray)]

    def key(given: Any) -> Any:
        rest = iter(given)
        return tuple(next(rest) if isinstance(p, np.ndarray) else p for p in parts)

    same(interpret(lambda x, *a: x.at[key(a)].get(), CUBE, *arrays), CUBE[index])
    shape = CUBE[index].shape
    for values in (sample(shape, "f4", 3), sample(shape[1:], "f4", 4), np.float32(2)):
        want = changed(CUBE, mode, index, values)
        same(interpret(lambda x, v: getattr(x.at[index], mode)(v), CUBE, values), want)
        got = interpret(lambda x, v, *a: getattr(x.at[key(a)], mode)(v), CUBE, values, *arrays)
        same(got, want)


@pytest.mark.parametrize("mode", ["set", *MODES])
def test_masks(mode: str) -> None:
    every, rows = X > 0, X[:, 0] > -0.1
    for mask, values in (
        (every, 2.0), (every, np.array([3.0], "f4")), (rows, 2.0), (rows, X[0]), (rows, X[:1]),
        (rows, np.float32([4])), (every & False, 1.0),
    ):
        want = changed(X, mode, mask, values)
        same(interpret(lambda x, m, v: getattr(x.at[m], mode)(v), X, mask, values), want)
        same(interpret(lambda x: getattr(x.at[mask], mode)(values), X), want)
    # A mask that is known can give every place a value of its own.
    values = sample((int(every.sum()),), "f4", 5)
    same(interpret(lambda x, v: getattr(x.at[every], mode)(v), X, values),
         changed(X, mode, every, values))
    same(interpret(lambda x: x.at[rows].get(), X), X[rows])


def test_values_take_the_element_type_of_the_array() -> None:
    whole = np.arange(6)
    for index in (np.s_[1:3], np.array([1, 1]), whole > 3):
        got = interpret(lambda x: x.at[index].set(2.7), whole)
        assert got.dtype == whole.dtype
        same(got, changed(whole, "set", index, 2.7))


def test_a_mask_is_one_choice() -> None:
    graph = traced(lambda x: x.at[X > 0].set(0), X).graph
    assert "put" not in {n.op.name for n in graph.nodes()}


def test_every_node_of_an_update_carries_the_users_line() -> None:
    nodes = traced(lambda x, i, j: x.at[i, :, j].add(1), CUBE, I, J).graph.nodes()
    assert {n.loc.file for n in nodes if n.op.kind != "source"} == {__file__}


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_add(axis: int) -> None:
    index = np.array([[1, 0], [1, -1]])
    target = list(X.shape)
    target[axis : axis + 1 or None] = index.shape
    values = sample(tuple(target), "f4", 2)
    expected = X.copy()
    np.add.at(expected, (slice(None),) * (axis % 2) + (index,), values)
    same(tw.scatter_add(X, index, values, axis), expected)
    same(interpret(lambda x, i, v: tw.scatter_add(x, i, v, axis), X, index, values), expected)
    same(
        interpret(lambda x: tw.scatter_add(x, index, 1, axis), X), tw.scatter_add(X, index, 1, axis)
    )


@pytest.mark.parametrize("mode", ["set", "add", "mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_put_along_axis(mode: Any, axis: Any) -> None:
    shape = {0: (3, 6), None: (7,)}.get(axis, (4, 3))
    index = np.random.default_rng(0).integers(-4, 4, shape)
    narrow = {0: (3, 1), None: (7,)}.get(axis, (1, 3))
    for places in (index, index[tuple(map(slice, narrow))]):
        for values in (sample(shape, "f4", 2), np.float32(3)):
            outside = tw.put_along_axis(X, places, values, axis, mode)
            same(interpret(lambda x, i, v: tw.put_along_axis(x, i, v, axis, mode),
                           X, places, values), outside)
            if mode == "set":
                expected = X.copy()
                np.put_along_axis(expected, places, values, axis)
                same(outside, expected)
