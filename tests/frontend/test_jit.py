"""tw.jit: signatures, static and donated arguments, trees, nesting, stages, recompiles."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import threading
from collections import OrderedDict, defaultdict, namedtuple
from itertools import combinations

import numpy as np
import pytest

import tilewright as tw

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass(frozen=True)
class Layer:
    w: object
    b: object
    name: str = dataclasses.field(default="layer", metadata={"static": True})


def counted(function):
    """The function and the list of its traces' argument types."""
    traces = []

    def run(*args, **kwargs):
        traces.append(str(tw.tree.map(repr, (args, kwargs))))
        return function(*args, **kwargs)
    run.__wrapped__ = function
    return run, traces


def test_one_compile_per_signature() -> None:
    run, traces = counted(lambda x, y=1.0: x * y)
    f = tw.jit(run)
    for _ in range(3):
        f(X)
        f(X, 2.0)
        f(X, y=3.0)
    assert len(traces) == 2
    f(X.astype("f8"))
    f(X[:1])
    assert len(traces) == 4
    f(X, 2)  # a Python int instead of a float
    assert len(traces) == 5


def test_a_python_number_is_no_part_of_the_signature() -> None:
    run, traces = counted(lambda x, rate: x * rate)
    f = tw.jit(run)
    for rate in (0.5, 2.0, np.pi):
        np.testing.assert_array_equal(f(X, rate), X * rate)
        assert f(X, rate).dtype == np.float32
    assert len(traces) == 1


def test_numpy_scalars_are_strongly_typed() -> None:
    f = tw.jit(lambda x, rate: x * rate)
    assert f(X, np.float64(2)).dtype == np.float64
    assert f(X, np.float32(2)).dtype == np.float32


@pytest.mark.parametrize("decorate", [
    tw.jit, tw.jit(), tw.jit(threads=1), lambda f: tw.jit(f, donate_argnames=()),
])
def test_decorator_forms(decorate) -> None:
    @decorate
    def double(x):
        """Twice x."""
        return x + x
    np.testing.assert_array_equal(double(X), 2 * X)
    assert double.__name__ == "double" and double.__doc__ == "Twice x."


def test_methods() -> None:
    class Model:
        def __init__(self):
            self.scale = np.float32(3)

        @tw.jit(static_argnames="self")
        def run(self, x):
            return x * self.scale
    np.testing.assert_array_equal(Model().run(X), 3 * X)


def test_static_arguments_by_place_and_by_name() -> None:
    run, traces = counted(lambda x, axis, scale=1: x.sum(axis) * scale)
    f = tw.jit(run, static_argnames=("axis",))
    np.testing.assert_array_equal(f(X, 0), X.sum(0))
    np.testing.assert_array_equal(f(X, axis=0), X.sum(0))
    np.testing.assert_array_equal(f(X, (0, 1), scale=2), X.sum() * 2)
    np.testing.assert_array_equal(f(X, None), X.sum())
    assert len(traces) == 3


def test_static_values_that_are_equal_but_not_the_same() -> None:
    f = tw.jit(lambda x, n: x * np.asarray(n), static_argnames="n")
    assert f(X, 2).dtype == np.float64 and f(X, 2.0).dtype == np.float64
    assert f(X, True).dtype == np.float32
    g = tw.jit(lambda x, n: x / n, static_argnames="n")
    with np.errstate(all="ignore"):
        assert g(X, 0.0)[0, 1] == np.inf and g(X, -0.0)[0, 1] == -np.inf
    h = tw.jit(lambda x, n: x * np.asarray(n[0]), static_argnames="n")
    assert h(X, (1,)).dtype == np.float64 and h(X, (True,)).dtype == np.float32


def test_default_of_a_static_argument() -> None:
    @tw.jit(static_argnames="negate")
    def f(x, negate=False):
        return -x if negate else x
    np.testing.assert_array_equal(f(X), X)
    np.testing.assert_array_equal(f(X, negate=True), -X)


TREES = {
    "dict": {"a": X, "b": {"c": X * 2}},
    "list": [X, [X, X + 1]],
    "tuple": (X, (), (X,)),
    "namedtuple": Pair(X, [X]),
    "dataclass": Layer(X, X[0], "first"),
    "none": {"a": None, "b": X},
    "ordered": OrderedDict(z=X, a=X + 1),
    "default": defaultdict(list, {"k": X}),
    "array": X,
    "number": 2.5,
    "deep": {"layers": [Layer(X, None), Layer(X + 1, [X])], 3: (X, Pair(1, 2.0))},
}


@pytest.mark.parametrize("name", TREES)
def test_trees_go_in_and_come_out(name: str) -> None:
    tree = TREES[name]
    f = tw.jit(lambda t: tw.tree.map(lambda leaf: leaf + 1, t))
    for _ in range(3):  # the first call compiles, the others take the native way where there is one
        result = f(tree)
        assert tw.tree.structure(result) == tw.tree.structure(tree)
        assert isinstance(result, type(tree)) or name == "number"
        for got, leaf in zip(tw.tree.leaves(result), tw.tree.leaves(tree), strict=True):
            np.testing.assert_array_equal(got, leaf + 1)


def test_dict_results_keep_the_order_of_their_keys() -> None:
    f = tw.jit(lambda x: {"z": x, "a": x + 1})
    assert [list(f(X)) for _ in range(3)] == [["z", "a"]] * 3


def test_results_that_are_arguments_constants_or_each_other() -> None:
    table = np.arange(3.0)

    @tw.jit
    def f(x, y):
        z = x + 1
        return x, z, z, table, 5, [x]
    for _ in range(3):
        a, b, c, d, e, (g,) = f(X, X)
        for got, expected in ((a, X), (b, X + 1), (c, X + 1), (d, table), (e, 5), (g, X)):
            np.testing.assert_array_equal(got, expected)
        assert not np.shares_memory(a, X) and not np.shares_memory(d, table)
        assert a.flags.writeable and d.flags.writeable
        assert not any(np.shares_memory(*pair) for pair in combinations((a, b, c, d, e, g), 2))
        d[:] = 9  # must not change what the next call returns


def test_results_are_arrays_even_without_axes() -> None:
    total = tw.jit(np.sum)(X)
    assert type(total) is np.ndarray and total.shape == () and float(total) == 15


@pytest.mark.parametrize("view", [
    np.s_[::-1], np.s_[:, ::2], np.s_[:, 1:], np.s_[:0], np.s_[0, 0:1], np.s_[1],
], ids=str)
def test_arrays_of_any_layout(view) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(tw.jit(lambda x: x * 2)(base[view]), base[view] * 2)
    np.testing.assert_array_equal(tw.jit(lambda x: x * 2)(base.T), base.T * 2)


def test_foreign_byte_order_and_read_only() -> None:
    swapped = X.astype(">f4")
    frozen = X.copy()
    frozen.setflags(write=False)
    f = tw.jit(lambda x: x * 2)
    for x in (swapped, frozen):
        result = f(x)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, X * 2)


def test_donated_arguments() -> None:
    @tw.jit(donate_argnames="state")
    def step(state, x):
        return {"a": state["a"] + x, "b": state["b"] * 2}
    state = {"a": np.zeros(4), "b": np.ones(4)}
    for i in range(1, 5):
        state = step(state, np.ones(4))
        np.testing.assert_array_equal(state["a"], np.full(4, i))
        np.testing.assert_array_equal(state["b"], np.full(4, 2.0**i))


def test_jit_inside_jit_is_one_graph() -> None:
    inner = tw.jit(lambda x: np.tanh(x))
    outer = tw.jit(lambda x: inner(x) + inner(x))
    np.testing.assert_allclose(outer(X), 2 * np.tanh(X), rtol=1e-6)
    assert [n.op.name for n in outer.trace(X).nodes()] == ["input", "tanh", "add"]
    assert tw.explain_recompile(inner) == "<lambda> has not been compiled yet"


def test_jit_of_a_wrapper_around_a_jitted_function() -> None:
    inner = tw.jit(lambda x: (x * x).sum())

    @functools.wraps(inner)
    def outer(x):
        return inner(x) + 1

    for _ in range(2):
        np.testing.assert_array_equal(tw.jit(outer)(X), inner(X) + 1)
        np.testing.assert_allclose(tw.jit(tw.grad(inner))(X), 2 * X)
        np.testing.assert_allclose(tw.grad(inner)(X), 2 * X)


@tw.jit
def doubled(x):
    return 2 * x


def test_functions_are_pickled_by_name() -> None:
    doubled(X)
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    assert copy.deepcopy([doubled])[0] is doubled
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(tw.jit(lambda x: x))


def test_closures_see_outer_traced_values() -> None:
    @tw.jit
    def f(x, scale):
        def inner(y):
            return (y * scale).sum()
        return tw.grad(inner)(x)
    np.testing.assert_array_equal(f(X, np.float32(3)), np.full_like(X, 3))


def test_a_failed_trace_leaves_nothing_behind() -> None:
    @tw.jit
    def f(x):
        if x.ndim == 2:
            raise KeyError("mine")
        return x
    with pytest.raises(KeyError, match="mine"):
        f(X)
    np.testing.assert_array_equal(f(X[0]), X[0])
    assert isinstance(tw.numpy.zeros(2), np.ndarray)  # nothing is traced any more


def test_missing_arguments_are_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        tw.jit(lambda x, y: x)(X)


def test_threads_compile_once() -> None:
    run, traces = counted(lambda x: np.tanh(x) + 1)
    f = tw.jit(run)
    start = threading.Barrier(4)
    results = []

    def work() -> None:
        start.wait()
        results.append(f(X))
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(traces) == 1 and len(results) == 4
    for result in results:
        np.testing.assert_allclose(result, np.tanh(X) + 1, rtol=1e-6)


# --- looking inside -----------------------------------------------------------------------------
STAGES = ("graph", "optimised graph", "optimized graph", "kernels", "loops", "llvm", "asm")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_text(stage: str) -> None:
    f = tw.jit(lambda x: np.exp(x).sum())
    lowered = f.lower(X)
    assert lowered.as_text(stage) == lowered.compile().as_text(stage)
    needle = {"llvm": "define", "asm": "tw_program"}.get(stage, "x" if "graph" in stage else "exp")
    assert needle in lowered.as_text(stage)


def test_stages_have_names_and_times() -> None:
    f = tw.jit(lambda x: x + 1)
    with pytest.raises(tw.TraceError, match="has not been compiled yet"):
        f.stages  # noqa: B018
    f(X)
    names = [stage.name for stage in f.stages]
    assert names[0] == "trace" and names[-1] == "codegen" and "fuse" in names
    assert all(stage.milliseconds >= 0 for stage in f.stages)
    assert len(str(f.stages).splitlines()) == len(names) + 1


def test_the_debug_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for level in range(5):
        with tw.config.override(debug=level):
            tw.jit(lambda x: np.exp(x).sum(axis=1) + 1)(np.ones((7, 9)))
        output = capsys.readouterr()
        assert output.out == ""
        texts.append(output.err)
    assert texts[0] == "" and texts[1].startswith("tilewright: lambda: ")
    assert len(texts[1].splitlines()) == 1
    for lower, higher, more in (
        (1, 2, "codegen "), (2, 3, "graph lambda("), (2, 3, "kernel "), (3, 4, "define void @"),
        (3, 4, "\t.text"),
    ):
        assert more not in texts[lower] and more in texts[higher]
    assert all(text.splitlines()[-1].startswith("tilewright: lambda: ") for text in texts[1:])


def test_cost_names_the_users_line() -> None:
    f = tw.jit(lambda x, y: x @ y)
    cost = f.lower(X, X.T).cost()
    assert cost.flops >= 2 * 2 * 2 * 3
    assert any(k.loc is not None and k.loc.file == __file__ for k in cost.kernels)


def test_the_graphs_inputs_are_named_after_the_arguments() -> None:
    f = tw.jit(lambda params, *rest, rate: params["w"][0] * rest[0] * rate)
    graph = f.trace({"w": [X]}, X, rate=0.5)
    assert [n.attrs.name for n in graph.inputs] == ["params_w_0", "rest_0", "rate"]


def explained(function) -> list[str]:
    return tw.explain_recompile(function).splitlines()[1:]


def test_explain_recompile() -> None:
    f = tw.jit(lambda p, x, n=2, s=1.0: p["w"] * x * n * s, static_argnames="n")
    params = {"w": X}
    f(params, X)
    assert tw.explain_recompile(f).startswith("<lambda> was compiled once, called at ")
    f({"w": X.astype("f8")}, X)
    assert explained(f) == ["  p['w']: dtype f32 -> f64"]
    f(params, X[:1])
    assert explained(f) == ["  x: shape (2, 3) -> (1, 3)"]
    f(params, X, n=3)
    assert explained(f) == ["  static n: not given -> 3"]
    f(params, X, n=4)
    assert explained(f) == ["  static n: 3 -> 4"]
    f({"w": X, "b": X}, X)
    assert explained(f) == ["  tree structure: dict with the keys ['w'] at p -> "
                            "dict with the keys ['b', 'w'] at p"]
    f(params, X, s=2)
    f(params, X, s=2.0)
    assert explained(f) == ["  s: dtype Python int -> Python float"]
    head = tw.explain_recompile(f).splitlines()[0]
    assert head.startswith("<lambda> was compiled 8 times; the latest, called at ")
    assert head.endswith(", in:") and "differs from number 7, called at" in head


def test_explain_recompile_compares_with_the_like_tree() -> None:
    @tw.jit
    def f(p):
        return tw.tree.map(lambda a: a + 1, p)

    x = np.ones(3, np.float32)
    for argument in ({"a": x}, [x], {"a": x.astype(np.float64)}):
        f(argument)
    lines = tw.explain_recompile(f).splitlines()
    assert "differs from number 1, " in lines[0]
    assert lines[1:] == ["  p['a']: dtype f32 -> f64"]


def test_explain_recompile_takes_jitted_functions_only() -> None:
    with pytest.raises(TypeError, match="takes a function made by tw.jit"):
        tw.explain_recompile(np.sum)
