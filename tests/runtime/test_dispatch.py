"""The native call: what it accepts, what it leaves to the slow path, and that it leaks nothing."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
import threading
import tracemalloc
import weakref
from collections import OrderedDict, namedtuple
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from runtime_programs import adder, entries, failing, native, plan, updater

from tilewright.compiler.plan import Slot
from tilewright.errors import OutOfBounds
from tilewright.ir.types import TensorType, dtype_of
from tilewright.runtime import dispatch, layout
from tilewright.runtime.dispatch import Chain
from tilewright.runtime.executable import Executable, make_fast_call
from tilewright.runtime.spec import (
    Arguments,
    Attributes,
    Build,
    Dict,
    Leaf,
    List,
    Static,
    Tree,
    Tuple,
)

pytestmark = pytest.mark.skipif(not layout.known(), reason="no native calls in this interpreter")

X = np.arange(64, dtype=np.float32).reshape(8, 8)
Y = np.ones((8, 8), np.float32)
SLOW = "the slow path"


def slow(*args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return SLOW, args, kwargs


def was_slow(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 3 and result[0] is SLOW


def call_of(*positional: Tree, result: Tree = Leaf(0), **named: Tree):
    return make_fast_call(adder(), Arguments(positional, tuple(named.items())), result, slow)


Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Pair:
    x: Any
    y: Any


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x", "y")
    x: Any
    y: Any


XY = (Leaf(0), Leaf(1))
TREES: dict[str, tuple[Arguments, tuple[Any, ...], dict[str, Any]]] = {
    "positional": (Arguments(XY), (X, Y), {}),
    "named": (Arguments((Leaf(1),), (("x", Leaf(0)),)), (Y,), {"x": X}),
    "two named": (Arguments((), (("y", Leaf(1)), ("x", Leaf(0)))), (), {"y": Y, "x": X}),
    "tuple": (Arguments((Tuple(XY),)), ((X, Y),), {}),
    "list": (Arguments((List(XY),)), ([X, Y],), {}),
    "dict": (Arguments((Dict(("a", "b"), XY),)), ({"b": Y, "a": X},), {}),
    "dict with int keys": (Arguments((Dict((1, 2), XY),)), ({1: X, 2: Y},), {}),
    "ordered dict": (
        Arguments((Dict(("a", "b"), XY, OrderedDict),)), (OrderedDict(a=X, b=Y),), {}),
    "named tuple": (Arguments((Tuple(XY, Point),)), (Point(X, Y),), {}),
    "dataclass": (Arguments((Attributes(Pair, ("x", "y"), XY),)), (Pair(X, Y),), {}),
    "slots": (Arguments((Attributes(Slotted, ("x", "y"), XY),)), (Slotted(X, Y),), {}),
    "nested": (
        Arguments((List((Tuple((Dict(("k",), (Leaf(1),)), Static(None))),)), Tuple(()), Leaf(0))),
        ([({"k": Y}, None)], (), X), {},
    ),
    "static": (
        Arguments((Static("mode"), Leaf(0), Static(3), Leaf(1), Static(2.5), Static(True))),
        ("".join(["mo", "de"]), X, int("3"), Y, float("2.5"), True), {},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_arguments_that_match(name: str) -> None:
    spec, args, kwargs = TREES[name]
    result = make_fast_call(adder(), spec, Leaf(0), slow)(*args, **kwargs)
    np.testing.assert_array_equal(result, X + Y)


OTHERS: dict[str, tuple[Arguments, tuple[Any, ...], dict[str, Any]]] = {
    "too few": (Arguments(XY), (X,), {}),
    "too many": (Arguments(XY), (X, Y, Y), {}),
    "by name": (Arguments(XY), (X,), {"y": Y}),
    "another name": (Arguments((Leaf(0),), (("y", Leaf(1)),)), (X,), {"z": Y}),
    "another order": (Arguments((), (("x", Leaf(0)), ("y", Leaf(1)))), (), {"y": Y, "x": X}),
    "another shape": (Arguments(XY), (X, np.ones((8, 7), np.float32)), {}),
    "another rank": (Arguments(XY), (X, np.ones((8, 8, 1), np.float32)), {}),
    "another dtype": (Arguments(XY), (X, Y.astype(np.int32)), {}),
    "byte order": (Arguments(XY), (X, Y.astype(">f4")), {}),
    "not contiguous": (Arguments(XY), (X.T, Y), {}),
    "no array": (Arguments(XY), (X, 1.0), {}),
    "None": (Arguments(XY), (X, None), {}),
    "small object": (Arguments(XY), (X, object()), {}),
    "subclass": (Arguments(XY), (X, Y.view(np.matrix)), {}),
    "list for tuple": (Arguments((Tuple(XY),)), ([X, Y],), {}),
    "tuple for list": (Arguments((List(XY),)), ((X, Y),), {}),
    "named tuple for tuple": (Arguments((Tuple(XY),)), (Point(X, Y),), {}),
    "longer list": (Arguments((List(XY),)), ([X, Y, Y],), {}),
    "shorter list": (Arguments((List(XY),)), ([X],), {}),
    "missing key": (Arguments((Dict(("a", "b"), XY),)), ({"a": X, "c": Y},), {}),
    "further key": (Arguments((Dict(("a", "b"), XY),)), ({"a": X, "b": Y, "c": Y},), {}),
    "missing attribute": (
        Arguments((Attributes(Pair, ("x", "z"), XY),)), (Pair(X, Y),), {}),
    "another class": (
        Arguments((Attributes(Pair, ("x", "y"), XY),)), (Slotted(X, Y),), {}),
    "another static": (Arguments((Static("a"), *XY)), ("b", X, Y), {}),
    "static of another type": (Arguments((Static(1), *XY)), (1.0, X, Y), {}),
    "bool for int": (Arguments((Static(1), *XY)), (True, X, Y), {}),
    "negative zero": (Arguments((Static(0.0), *XY)), (-0.0, X, Y), {}),
    "not None": (Arguments((Static(None), *XY)), (0, X, Y), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arguments_go_the_slow_way(name: str) -> None:
    spec, args, kwargs = OTHERS[name]
    result = make_fast_call(adder(), spec, Leaf(0), slow)(*args, **kwargs)
    assert was_slow(result)
    assert all(a is b for a, b in zip(result[1], args, strict=True))
    assert list(result[2].items()) == list(kwargs.items())


def test_errors_of_the_slow_path_and_of_attributes() -> None:
    class Bad:
        @property
        def x(self) -> None:
            raise RuntimeError("not this time")

    def fails(*args: Any) -> None:
        raise KeyError("from the slow path")

    spec = Arguments((Attributes(Bad, ("x",), (Leaf(0),)), Leaf(1)))
    assert was_slow(make_fast_call(adder(), spec, Leaf(0), slow)(Bad(), Y))
    with pytest.raises(KeyError, match="from the slow path"):
        make_fast_call(adder(), Arguments(XY), Leaf(0), fails)(X)


@pytest.mark.parametrize("tree, expected", [
    (Tuple((Leaf(0), Static(None))), (SLOW, None)),
    (List((Static("a"), Leaf(0))), ["a", SLOW]),
    (Dict(("b", "a"), (Leaf(0), Tuple(()))), {"b": SLOW, "a": ()}),
    (Build(lambda c: Pair(*c), (Leaf(0), Static(4))), Pair(SLOW, 4)),
    (Build(Point._make, (Leaf(0), List(()))), Point(SLOW, [])),
    (Tuple((List((Leaf(0),)), Tuple(()))), ([SLOW], ())),
], ids=["tuple", "list", "dict", "dataclass", "named tuple", "nested"])
def test_result_trees(tree: Tree, expected: Any) -> None:
    arrays: list[np.ndarray] = []
    found = _without_arrays(call_of(*XY, result=tree)(X, Y), arrays)
    assert (found, type(found)) == (expected, type(expected))
    if isinstance(found, dict):
        assert list(found) == list(expected)
    (array,) = arrays
    np.testing.assert_array_equal(array, X + Y)


def _without_arrays(tree: Any, arrays: list[np.ndarray]) -> Any:
    """The tree with SLOW in the place of each array, which is appended to ``arrays``."""
    if isinstance(tree, np.ndarray):
        arrays.append(tree)
        return SLOW
    if isinstance(tree, dict):
        return {k: _without_arrays(v, arrays) for k, v in tree.items()}
    if isinstance(tree, Pair):
        return Pair(_without_arrays(tree.x, arrays), _without_arrays(tree.y, arrays))
    if isinstance(tree, Point):
        return Point._make(_without_arrays(child, arrays) for child in tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_without_arrays(child, arrays) for child in tree)
    return tree


def test_an_error_while_building() -> None:
    def refuse(children: Any) -> None:
        raise RuntimeError("cannot build")

    call = call_of(*XY, result=List((Leaf(0), Tuple((Build(refuse, (Leaf(0),)),)))))
    for _ in range(3):
        with pytest.raises(RuntimeError, match="cannot build"):
            call(X, Y)


def number_call(dtype: str, form: str):
    """A copy of one 0-d input."""
    t = TensorType(dtype_of(dtype), ())
    integer = f"i{8 * t.dtype.itemsize}"
    body = entries(0, 1) + f"""
  %v = load {integer}, ptr %p0
  store {integer} %v, ptr %p1
  ret void"""
    run = Executable(plan((t,), (t,), (Slot("output", 0),)), native(body))
    return make_fast_call(run, Arguments((Leaf(0, form),)), Leaf(0), slow)


@pytest.mark.parametrize("dtype, form, values", [
    ("f64", "float", [1.5, -0.0, float("inf"), 1e-310]),
    ("f32", "float", [1.5, 0.1, 1e300, -2.0]),
    ("i64", "int", [0, -1, 2**63 - 1, -(2**63)]),
    ("i32", "int", [0, -1, 2**31 - 1, -(2**31)]),
    ("bool", "bool", [True, False]),
    ("f32", "number", [np.float32(1.25)]),
    ("f16", "number", [np.float16(1.25)]),
    ("f64", "number", [np.float64(1.25)]),
    ("i8", "number", [np.int8(-3)]),
    ("u16", "number", [np.uint16(65535)]),
    ("i64", "number", [np.int64(-3)]),
    ("bool", "number", [np.True_, np.False_]),
])
def test_numbers(dtype: str, form: str, values: list[Any]) -> None:
    call = number_call(dtype, form)
    for value in values:
        result = call(value)
        with np.errstate(over="ignore"):
            expected = np.asarray(value).astype(dtype_of(dtype).numpy)
        assert result.dtype == expected.dtype
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype, form, value", [
    ("i64", "int", 2**63), ("i32", "int", 2**31), ("i32", "int", -(2**31) - 1),
    ("i64", "int", True),
    ("i64", "int", 1.0), ("f64", "float", 1), ("f64", "float", np.float64(1)), ("bool", "bool", 1),
    ("f32", "number", 1.0), ("f32", "number", np.float64(1)), ("f64", "float", None),
])
def test_other_numbers_go_the_slow_way(dtype: str, form: str, value: Any) -> None:
    assert was_slow(number_call(dtype, form)(value))


@pytest.mark.parametrize("dtype, form", [("f16", "float"), ("u8", "int"), ("bf16", "number")])
def test_numbers_without_a_native_form(dtype: str, form: str) -> None:
    assert number_call(dtype, form) is slow


def test_bfloat16_arrays() -> None:
    x = np.array(1.5, ml_dtypes.bfloat16)
    assert number_call("bf16", "array")(x) == x


def test_all_inputs_must_be_there() -> None:
    for wrong in ((Leaf(0),), (Leaf(0), Leaf(0)), (Leaf(0), Leaf(2))):
        with pytest.raises(ValueError, match="must stand there once"):
            make_fast_call(adder(), Arguments(wrong), Leaf(0), slow)


def test_unknown_interpreters_take_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "known", lambda: False)
    assert make_fast_call(adder(), Arguments(XY), Leaf(0), slow) is slow
    np.testing.assert_array_equal(adder()([X, Y])[0], X + Y)


def test_chain_of_signatures() -> None:
    chain = Chain(slow)
    assert chain.call is slow
    runs = [adder((n, 2)) for n in range(1, 12)]
    for run in runs:
        chain.add(run, Arguments(XY), Leaf(0))
    for n in range(1, 12):
        a = np.ones((n, 2), np.float32)
        result = chain.call(a, a)
        if n > 11 - Chain.most:
            assert result.shape == (n, 2) and (result == 2).all()
        else:
            assert was_slow(result)
    assert was_slow(chain.call(1))


def test_a_slow_path_that_replaces_the_chain() -> None:
    chain: Chain

    def install(*args: Any) -> Any:
        gc.collect()
        chain.add(adder(), Arguments(XY), Leaf(0))
        return "installed"

    chain = Chain(install)
    chain.add(adder((2, 2)), Arguments(XY), Leaf(0))
    assert chain.call(X, Y) == "installed"
    np.testing.assert_array_equal(chain.call(X, Y), X + Y)


def references(spec: Arguments, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    trees = [tree for tree in (*args, *kwargs.values()) if not isinstance(tree, (str, int, float))]
    objects = [X, Y, *trees, spec, X.dtype, np.ndarray, tuple, list, dict]
    return [sys.getrefcount(o) for o in objects]


@pytest.mark.parametrize("name", [*TREES, *OTHERS])
def test_references_are_given_back(name: str) -> None:
    spec, args, kwargs = (TREES | OTHERS)[name]
    tree = Tuple((Dict(("k",), (Leaf(0),)), Build(Point._make, (List((Leaf(0),)), Static(X)))))
    call = make_fast_call(adder(), spec, tree, slow)
    call(*args, **kwargs)
    before = references(spec, args, kwargs)
    for _ in range(100):
        call(*args, **kwargs)
    after = references(spec, args, kwargs)
    assert all(abs(a - b) <= 3 for a, b in zip(after, before, strict=True)), (before, after)


def test_references_after_errors() -> None:
    call = make_fast_call(failing(3), Arguments(()), Tuple(()), slow)
    update = make_fast_call(updater(), Arguments(XY), Tuple(XY), slow)
    x, y = np.ones(64, np.float32), np.ones(64, np.float32)
    before = sys.getrefcount(x), sys.getrefcount(y)
    for _ in range(100):
        with pytest.raises(OutOfBounds):
            call()
        assert update(x, y)[0] is x
    assert (sys.getrefcount(x), sys.getrefcount(y)) == before


@pytest.mark.parametrize("shape", [(8, 8), (64, 64)], ids=["small", "pooled"])
def test_no_memory_is_lost_over_many_calls(shape: tuple[int, ...]) -> None:
    run = adder(shape)
    call = make_fast_call(run, Arguments(XY), Dict(("a", "b"), (Leaf(0), Tuple((Leaf(0),)))), slow)
    x = np.ones(shape, np.float32)

    def many() -> None:
        for _ in range(50_000):
            call(x, x)
        for _ in range(1000):
            call(x, x.T)

    tracemalloc.start()
    try:
        many()
        before = tracemalloc.get_traced_memory()[0]
        many()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_functions_die_with_their_last_reference() -> None:
    run = adder()
    call = make_fast_call(run, Arguments(XY), Leaf(0), slow)
    result = call(X, np.ones((8, 8), np.float32))
    gone = weakref.ref(run)
    del run, call
    gc.collect()
    assert gone() is None
    np.testing.assert_array_equal(result, X + 1)


def test_threads_that_change_the_arguments_meanwhile() -> None:
    run = adder((64, 64), flops=10**6)
    call = make_fast_call(run, Arguments((List(XY),)), Leaf(0), slow)
    one, stop = np.ones((64, 64), np.float32), threading.Event()
    shared = [one.copy(), one.copy()]

    def change() -> None:
        while not stop.is_set():
            shared[0], shared[1] = one.copy(), one.copy()

    other = threading.Thread(target=change)
    other.start()
    try:
        assert all((call(shared) == 2).all() for _ in range(500))
    finally:
        stop.set()
        other.join()


def test_words_of_the_description_do_not_collide() -> None:
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    assert len(set(dispatch.CALL.values())) == len(dispatch.CALL)
    assert len(set(dispatch.API.values())) == len(dispatch.API)
