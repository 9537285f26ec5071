"""gather, scatter, index_many and index_put against loops over single elements."""

import numpy as np
import pytest
from op_harness import MODES, compiled, interpreted, rng_of

from tilewright.codegen.cpu import TIERS, build, host_target
from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import OutOfBounds
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.build import broadcast, take, where
from tilewright.ir.graph import Graph, apply, full, input_node
from tilewright.ir.indexing import (
    gather,
    index_many,
    index_put,
    index_reduce,
    index_shape,
    masked_scatter,
    scatter,
)
from tilewright.ir.sizes import named
from tilewright.ir.types import TensorType, bf16, dtype_of, f32, i64
from tilewright.runtime.executable import SizedExecutable

COMBINE = {
    "set": lambda old, new: new, "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new, "max": np.maximum, "min": np.minimum,
}


def inputs(*arrays):
    return [input_node(f"x{n}", TensorType(dtype_of(a), a.shape)) for n, a in enumerate(arrays)]


def check(made, arrays, want, tier=TIERS[-1], **close):
    """The built graph gives ``want`` interpreted and compiled."""
    nodes = inputs(*arrays)
    graph = Graph(tuple(nodes), (made(*nodes),))
    for run in (interpreted, compiled(tier)):
        (got,) = run(graph, arrays)
        assert got.dtype == want.dtype and got.shape == want.shape
        if close:
            np.testing.assert_allclose(got.astype(float), want.astype(float), **close)
        else:
            np.testing.assert_array_equal(got, want)


def scattered(x, index, values, axis, mode, include_self=True):
    """``torch.scatter_reduce``, element by element."""
    result, seen = x.copy(), {}
    for at in np.ndindex(index.shape):
        place = (*at[:axis], int(index[at]) % x.shape[axis], *at[axis + 1:])
        value = values[at] if values.shape else values[()]
        seen.setdefault(place, [x[place]] if include_self else []).append(value)
    for place, found in seen.items():
        if mode == "mean":
            total = sum(found[1:], found[0])
            whole = result.dtype.kind in "iu"
            result[place] = total // len(found) if whole else total / len(found)
            continue
        value = found[0]
        for other in found[1:]:
            value = COMBINE[mode](value, other)
        result[place] = value
    return result


SHAPES = [  # of the data, the index and the values, and the axis
    ((4, 5), (2, 5), (2, 5), 0), ((4, 5), (4, 9), (4, 9), 1), ((4, 5), (3, 2), (4, 2), 0),
    ((4, 5, 3), (2, 8, 2), (2, 8, 3), 1), ((7,), (12,), (15,), 0), ((3, 4), (3, 4), (), 1),
    ((), (), (), 0), ((5,), (0,), (0,), 0), ((6, 80), (9, 70), (9, 80), 0),
]


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("mode", [*MODES, "mean"])
@pytest.mark.parametrize("dtype", ["f4", "i4", "u1"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_scatter(mode, dtype, include_self):
    for shape, places, given, axis in SHAPES:
        rng = rng_of(shape, mode, dtype)
        low = 0 if dtype == "u1" else -4
        x, values = (rng.integers(low, 5, s).astype(dtype) for s in (shape, given))
        size = shape[axis] if shape else 1
        index = rng.integers(-size, size, places).astype("i4")
        one = (x.reshape(-1), index.reshape(-1), values.reshape(-1))
        want = scattered(*(one if not shape else (x, index, values)), axis, mode, include_self)
        check(lambda a, i, v, axis=axis: scatter(a, i, v, axis, mode, include_self),
              [x, index, values], want.reshape(shape), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather(axis):
    rng = rng_of("gather", axis)
    x = rng.normal(size=(3, 4, 5)).astype("f4")
    shape = [2, 3, 4]
    shape[axis] = 7
    index = rng.integers(-x.shape[axis], x.shape[axis], shape)
    corner = x[tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(shape))]
    check(lambda a, i: gather(a, i, axis), [x, index], np.take_along_axis(corner, index, axis))


def test_gather_of_one_number_and_of_nothing():
    x = np.float32([3])
    check(lambda a, i: gather(a, i, 0), [x.reshape(()), np.array(-1)], x.reshape(()))
    check(lambda a, i: gather(a, i, 0), [x.reshape(()), np.array([0, 0])], x[[0, 0]])
    check(lambda a, i: gather(a, i, 1), [np.ones((2, 3), "f4"), np.zeros((2, 0), "i8")],
          np.ones((2, 0), "f4"))


@pytest.mark.parametrize("mode", [*MODES, "mean"])
@pytest.mark.parametrize("include_self", [True, False])
def test_index_reduce(mode, include_self):
    rng = rng_of("index_reduce", mode)
    x, values = rng.integers(1, 5, (4, 5)).astype("f4"), rng.integers(1, 5, (4, 6)).astype("f4")
    index = np.array([0, 3, 3, -1, 2, 3])
    want = scattered(x, np.broadcast_to(index, (4, 6)), values, 1, mode, include_self)
    check(lambda a, i, v: index_reduce(a, i, v, 1, mode, include_self), [x, index, values], want,
          rtol=1e-6)


def test_sums_of_narrow_floats_are_rounded_once():
    """One by one, 256 + 1 stays 256 in bf16."""
    x, values = np.zeros(2, bf16.numpy), np.ones(1000, bf16.numpy)
    index = np.zeros(1000, "i8")
    check(lambda a, i, v: scatter(a, i, v, 0, "add"), [x, index, values],
          np.array([1000, 0]).astype(bf16.numpy))
    check(lambda a, i, v: scatter(a, i, v, 0, "mean"), [x, index, values],
          np.array([1000 / 1001, 0]).astype(bf16.numpy))


@pytest.mark.parametrize("columns", [(), (3,), (20,)])
@pytest.mark.parametrize("mode", MODES)
def test_a_few_values_for_a_large_tensor(mode, columns):
    """It is copied by all threads before one brings the values to their places."""
    rng = rng_of("large", mode)
    x, values = (rng.integers(1, 9, (n, *columns)).astype("f4") for n in (20_000, 6))
    index = np.array([0, 19_999, -2, 7, 7, 12_345])
    want = x.copy()
    for place, row in zip(index, values, strict=True):
        want[place] = COMBINE[mode](want[place], row)
    check(lambda a, i, v: index_reduce(a, i, v, 0, mode), [x, index, values], want)


def test_many_values_for_few_places_keep_what_no_value_changes():
    """Even the sign of a zero."""
    x = np.array([-0.0, 0.0, np.nan, 1, np.inf, -0.0], "f4")
    index = np.repeat([3], 100)
    for mode, last in (("add", 101), ("mul", 1), ("max", 1), ("min", 1)):
        want = x.copy()
        want[3] = last
        use = [x, index, np.ones(100, "f4")]
        nodes = inputs(*use)
        graph = Graph(tuple(nodes), (index_reduce(*nodes, 0, mode),))
        (got,) = compiled(TIERS[-1])(graph, use)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize("tier", TIERS)
def test_extremes_of_special_values(tier, along):
    x = np.array([np.nan, 1, -np.inf, 0, 2], "f4")
    values = np.array([1, np.nan, 3, np.inf, 2], "f4")
    index = np.array([0, 1, 2, 2, 4])
    for mode, last in (("max", np.inf), ("min", -np.inf)):
        want = np.array([np.nan, np.nan, last, 0, 2], "f4")
        use = scatter if along else index_reduce
        check(lambda a, i, v, use=use, mode=mode: use(a, i, v, 0, mode), [x, index, values], want,
              tier)


def test_bools():
    x, values = np.array([True, False, False]), np.array([False, True, False, True])
    index = np.array([0, 1, 1, 1])
    for mode, want in (("set", [0, 1, 0]), ("add", [1, 1, 0]), ("max", [1, 1, 0]),
                       ("mul", [0, 0, 0]), ("min", [0, 0, 0])):
        check(lambda a, i, v, mode=mode: scatter(a, i, v, 0, mode), [x, index, values],
              np.array(want, bool))


def test_masked_scatter():
    rng = rng_of("masked")
    x, mask = rng.normal(size=(4, 7)).astype("f4"), rng.random((4, 7)) < 0.5
    source = rng.normal(size=(5, 6)).astype("f4")
    want = x.copy()
    want[mask] = source.reshape(-1)[:mask.sum()]
    check(masked_scatter, [x, mask, source], want)
    check(masked_scatter, [x, mask & False, np.zeros(0, "f4")], x)
    nodes = inputs(x, mask, source[:1, :3])
    with pytest.raises(OutOfBounds):
        compiled(TIERS[-1])(Graph(tuple(nodes), (masked_scatter(*nodes),)), [
            x, mask, source[:1, :3]])


def test_axes_count_from_the_end():
    x, index, values = np.zeros((2, 3)), np.array([[0], [-1]]), np.array([[5.0], [7]])
    want = np.array([[5.0, 0, 0], [0, 0, 7]])
    check(lambda a, i, v: scatter(a, i, v, -1), [x, index, values], want)
    check(lambda a, i: gather(a, i, -1), [want, index], values)
    check(lambda a, i, v: index_reduce(a, i, v, -1, "add"), [x, np.array([2]), values],
          np.array([[0, 0, 5.0], [0, 0, 7]]))
    for made in (lambda a, i: gather(a, i, 2), lambda a, i: scatter(a, i, a, -3)):
        with pytest.raises(ValueError, match="no axis"):
            made(*inputs(x, index))


def test_an_index_that_many_rows_share_is_computed_once():
    x, i = inputs(np.zeros((50, 9), "f4"), np.zeros(40, "i8"))
    one = full(TensorType(f32, (50, 40)), 1)
    places = apply("mod", apply("abs", i * 7 - 3) * i + 5, 9)
    graph = Graph((x, i), (index_reduce(x, places, one, 1, "add"),))
    assert len(compile_graph(graph, host_target()).plan.launches) == 2


# --- several index arrays -------------------------------------------------------------------
I, J, K = np.array([[1], [-4], [3]]), np.array([0, -1], "i4"), np.array(2, "u1")
KEYS = [
    (I, J), (I, slice(None), J), (slice(None), I, J), (slice(None), J), (J, J, J), (I, K, J),
    (I, slice(1, 4), J), (I, slice(3, 0, -2)), (slice(1, 3), I, J),
    (slice(None), J, slice(0, 6, 2)),
    (slice(2, 0, -1), slice(None), K), (J, slice(2, 2)), (np.zeros((0, 2), int), J),
]


def pieces(key, shape, nodes):
    """The key as index_many takes it; ``nodes`` of its arrays in order."""
    rest = iter(nodes)
    return {
        axis: range(shape[axis])[part] if isinstance(part, slice) else next(rest)
        for axis, part in enumerate(key) if not isinstance(part, slice) or part != slice(None)
    }


@pytest.mark.parametrize("key", KEYS, ids=lambda k: "-".join(type(p).__name__[0] for p in k))
def test_several_index_arrays(key):
    rng = rng_of("several")
    x = rng.integers(-9, 9, (4, 5, 6)).astype("f4")
    arrays = [p for p in key if not isinstance(p, slice)]
    check(lambda a, *n: index_many(a, pieces(key, x.shape, n)), [x, *arrays], x[key])
    nodes = inputs(*arrays)
    node = input_node("x", TensorType(f32, x.shape))
    assert index_shape(node, pieces(key, x.shape, nodes)) == x[key].shape
    for given in (x[key].shape, x[key].shape[1:], ()):
        values = rng.integers(1, 9, given).astype("f4")
        want = x.copy()
        want[key] = values
        check(lambda a, v, *n: index_put(a, pieces(key, x.shape, n), v), [x, values, *arrays], want)
        np.add.at(want := x.copy(), key, values)
        check(lambda a, v, *n: index_put(a, pieces(key, x.shape, n), v, "add"),
              [x, values, *arrays], want)


def test_sizes_that_are_known_when_the_program_runs():
    """One program for x[i, :, j], x[i, 1:3] and their updates, at several sizes."""
    n, m = named("n"), named("m")
    x = input_node("x", TensorType(f32, (n, 4, m)))
    i, j = (input_node(a, TensorType(i64, s)) for a, s in (("i", (n, 1)), ("j", (3,))))
    one = full(TensorType(f32, ()), 1)
    k = input_node("k", TensorType(i64, (n, 2, m)))
    outputs = (
        index_many(x, {0: i, 2: j}), index_many(x, {0: i, 1: range(1, 3)}),
        index_put(x, {0: i, 2: j}, one, "add"), index_put(x, {0: i, 1: range(1, 3)}, one, "add"),
        scatter(x, k, one, 1),
    )
    graph = Graph((x, i, j, k), outputs)
    plan = compile_graph(graph, host_target(), hints={"n": 5, "m": 5}).plan
    run = SizedExecutable(plan, build(plan, host_target()))
    for rows, columns in ((1, 1), (3, 5), (40, 17)):
        rng = rng_of(rows)
        data = rng.normal(size=(rows, 4, columns)).astype("f4")
        p, q = rng.integers(-rows, rows, (rows, 1)), rng.integers(-columns, columns, 3)
        corner = rng.integers(-4, 4, (rows, 2, columns))
        want = [data[p, :, q], data[p, 1:3], data.copy(), data.copy(), data.copy()]
        np.add.at(want[2], np.s_[p, :, q], 1)
        np.add.at(want[3], np.s_[p, 1:3], 1)
        np.put_along_axis(want[4], corner, 1, 1)
        for got, expected in zip(run([data, p, q, corner]), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("outside", [(0, 5), (2, 0), (-3, 0), (0, -6)])
def test_each_index_is_checked_against_its_own_axis(outside):
    """Even where the places together would lie inside of the tensor."""
    x = np.ones((2, 5), "f4")
    i, j = (np.array([0, n]) for n in outside)
    for made in (lambda a, p, q: index_many(a, {0: p, 1: q}),
                  lambda a, p, q: index_put(a, {0: p, 1: q}, full(TensorType(f32, ()), 1))):
        nodes = inputs(x, i, j)
        graph = Graph(tuple(nodes), (made(*nodes),))
        with pytest.raises(OutOfBounds) as raised:
            compiled(TIERS[-1])(graph, [x, i, j])
        size = 2 if outside[0] else 5
        assert str(raised.value).startswith(f"index outside an axis of size {size}\n")
        with pytest.raises(IndexError):
            interpreted(graph, [x, i, j])


def test_arguments_that_do_not_fit():
    x, i, j = inputs(np.ones((4, 5), "f4"), np.zeros(3, "i8"), np.zeros(2, "i8"))
    one = full(TensorType(f32, (2, 3, 5)), 1)
    with pytest.raises(ValueError, match="without an index array"):
        index_many(x, {0: range(2)})
    with pytest.raises(ValueError, match="do not broadcast"):
        index_many(x, {0: i, 1: j})
    with pytest.raises(ValueError, match="do not fit"):
        index_put(x, {0: i}, one)
    with pytest.raises(ValueError, match="rank 1"):
        gather(x, i, 0)


# --- derivatives ----------------------------------------------------------------------------
def cotangents(made, arrays, ct):
    nodes = inputs(*arrays)
    backward = vjp_graph(Graph(tuple(nodes), (made(*nodes),)))
    return interpreted(backward, [*arrays, ct])[1:]


def test_the_value_that_stays_gets_the_cotangent():
    x, index, values = np.zeros(4), np.array([1, -3, 0, 1]), np.ones(4)
    ct = np.array([1.0, 2, 3, 4])
    for use in (scatter, index_reduce):
        got = cotangents(lambda a, i, v, use=use: use(a, i, v, 0, "set"), [x, index, values], ct)
        np.testing.assert_array_equal(got[0], [0, 0, 3, 4])
        np.testing.assert_array_equal(got[1], [0, 0, 1, 2])


def test_equal_extremes_share_the_cotangent():
    x, index = np.array([5.0, 1, 7, 2]), np.array([0, 0, 0, 1, 2])
    values = np.array([5.0, 5, 4, 3, 6])
    got = cotangents(lambda a, i, v: scatter(a, i, v, 0, "max"), [x, index, values],
                     np.array([3.0, 1, 1, 1]))
    np.testing.assert_array_equal(got[0], [1, 0, 1, 1])
    np.testing.assert_array_equal(got[1], [1, 1, 0, 1, 0])


@pytest.mark.parametrize("zeros", [[], [0], [1], [0, 1], [3], [0, 3], [1, 2, 3]])
def test_products_with_zeros(zeros):
    """x[0] takes values 0, 1 and 2; number 3 of the factors is x[0] itself."""
    factors = np.array([2.0, 3, 5, 7])
    factors[zeros] = 0
    x, values = np.array([factors[3], 11]), factors[:3]
    got = cotangents(lambda a, i, v: scatter(a, i, v, 0, "mul"), [x, np.zeros(3, int), values],
                     np.ones(2))
    others = [np.prod(np.delete(factors, n)) for n in range(4)]
    np.testing.assert_allclose(got[0], [others[3], 1])
    np.testing.assert_allclose(got[1], others[:3])


# --- composition ----------------------------------------------------------------------------
def test_a_masked_gather_is_one_kernel_and_needs_no_second_check():
    """An embedding whose padding reads row 0 and counts as zero."""
    table, index = inputs(np.ones((9, 16), "f4"), np.zeros(5, "i8"))
    pad = apply("eq", index, -1)
    rows = take(table, where(pad, 0, index), 0)
    out = where(broadcast(pad, rows.shape, [0]), 0, rows)
    graph = Graph((table, index), (out,))
    assert len(compile_graph(graph, host_target()).plan.launches) == 1
    x, i = rng_of("pad").normal(size=(9, 16)).astype("f4"), np.array([3, -1, 8, -1, 0])
    (got,) = compiled(TIERS[-1])(graph, [x, i])
    np.testing.assert_array_equal(got, np.where((i == -1)[:, None], 0, x[i]))


def test_an_index_that_is_surely_inside_is_not_checked():
    x, i = rng_of("inside").normal(size=(70, 3)).astype("f4"), np.array([-1, 70, 1 << 40, 9])
    nodes = inputs(x, i)
    graph = Graph(tuple(nodes), (take(nodes[0], apply("mod", nodes[1], 70), 0),))
    assert not compile_graph(graph, host_target()).plan.checks
    (got,) = compiled(TIERS[-1])(graph, [x, i])
    np.testing.assert_array_equal(got, x[i % 70])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8"])
def test_index_types(dtype):
    x = np.arange(12, dtype="f4").reshape(3, 4)
    i, j = np.array([0, 2, 1]).astype(dtype), np.array([3, 0, 0]).astype(dtype)
    check(lambda a, p, q: index_many(a, {0: p, 1: q}), [x, i, j], x[i, j])
    check(lambda a, p: scatter(a, p, full(TensorType(f32, ()), -1), 0),
          [np.zeros(3, "f4"), i], np.full(3, -1, "f4"))


