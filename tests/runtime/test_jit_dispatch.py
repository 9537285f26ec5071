"""Jitted functions through the native call: real signatures, trees, donation, threads."""

from __future__ import annotations

import gc
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.runtime import layout

pytestmark = pytest.mark.skipif(not layout.known(), reason="no native calls in this interpreter")

RANDOM = np.random.default_rng(5)
A, B = (RANDOM.standard_normal((8, 8), dtype=np.float32) for _ in range(2))


@dataclass
class Layer:
    w: Any
    b: Any


Pair = namedtuple("Pair", "first second")


def calls(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, int]:
    """The second call's result, and how often it went through Python."""
    function(*args, **kwargs)
    count, slow = 0, function._chain.slow

    def counted(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is slow.__func__.__code__

    sys.setprofile(counted)
    try:
        result = function(*args, **kwargs)
    finally:
        sys.setprofile(None)
    return result, count


@pytest.mark.parametrize("args, kwargs", [
    ((A, B), {}), ((A,), {"y": B}), ((), {"y": B, "x": A}), ((A, 2.5), {}), ((A, 3), {}),
    ((A, True), {}), ((A, np.float32(2)), {}), ((A, np.float64(2)), {}), ((A, np.int8(-2)), {}),
], ids=repr)
def test_a_second_call_is_native(args: Any, kwargs: Any) -> None:
    def function(x: Any, y: Any) -> Any:
        return x * y + x

    result, slow = calls(tw.jit(function), *args, **kwargs)
    assert slow == 0
    expected = function(*args, **kwargs)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("tree", [
    {"w": A, "b": B}, [A, B], (A, B), Pair(A, B), Layer(A, B), {"k": [(A, None), {"z": B}]},
], ids=lambda t: type(t).__name__)
def test_trees_in_and_out(tree: Any) -> None:
    def function(t: Any) -> Any:
        return tw.tree.map(lambda leaf: leaf + leaf, t), t

    (doubled, same), slow = calls(tw.jit(function), tree)
    assert slow == 0
    assert tw.tree.structure(doubled) == tw.tree.structure(tree) == tw.tree.structure(same)
    for new, old, leaf in zip(*map(tw.tree.leaves, (doubled, same, tree)), strict=True):
        np.testing.assert_array_equal(new, leaf + leaf)
        np.testing.assert_array_equal(old, leaf)
        assert not np.shares_memory(old, leaf)


def test_odd_arrays_come_through_python_and_are_right() -> None:
    function = tw.jit(lambda x, y: x - y)
    for x in (A.T, A[::-1], A.astype(">f4"), np.broadcast_to(A[0], (8, 8))):
        result, slow = calls(function, x, B)
        assert slow == 1
        np.testing.assert_array_equal(result, x.astype("f4") - B)
    assert calls(function, A, B)[1] == 0


def test_several_signatures_stay_native() -> None:
    function = tw.jit(lambda x: x + 1)
    arrays = [np.ones(n, t) for n in (1, 2, 3) for t in (np.float32, np.int64)]
    for x in arrays * 2:
        function(x)
    for x in arrays:
        result, slow = calls(function, x)
        assert slow == 0 and result.dtype == x.dtype and (result == 2).all()


def test_static_arguments() -> None:
    function = tw.jit(lambda x, mode: x + 1 if mode == "add" else x * 3, static_argnames="mode")
    for mode in ("add", "mul"):
        result, slow = calls(function, A, "".join(list(mode)))
        assert slow == 0
        np.testing.assert_allclose(result, A + 1 if mode == "add" else A * 3, rtol=1e-6)


def test_donated_arguments_are_updated_in_place() -> None:
    step = tw.jit(lambda p, g: [w - 0.5 * d for w, d in zip(p, g, strict=True)],
                  donate_argnames="p")
    given = [A.copy(), B.copy()]
    result, slow = calls(step, given, [A, B])
    assert slow == 0
    assert all(r is w for r, w in zip(result, given, strict=True))
    np.testing.assert_allclose(result[0], A * 0, atol=1e-6)


def test_a_donated_array_that_is_also_another_argument() -> None:
    step = tw.jit(lambda p, g: p - g, donate_argnames="p")
    np.testing.assert_array_equal(step(A.copy(), B), A - B)
    x = A.copy()
    np.testing.assert_array_equal(step(x, x), np.zeros_like(A))
    np.testing.assert_array_equal(x, A)


def test_errors_of_a_run_name_the_line() -> None:
    function = tw.jit(lambda x, i: np.take(x, i, axis=0))
    good = np.array([1, -8])
    np.testing.assert_array_equal(function(A, good), A[good])
    for _ in range(3):
        with pytest.raises(IndexError, match=r"test_jit_dispatch\.py"):
            function(A, np.array([1, 8]))
    np.testing.assert_array_equal(function(A, good), A[good])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_threads_give_the_same_bits(n: int) -> None:
    x = RANDOM.standard_normal((256, 512), dtype=np.float32)
    function = tw.jit(lambda x: (np.tanh(x @ x.T), x.sum(0), (x - x.max(1, keepdims=True)).sum()))
    with tw.threads(1):
        alone = function(x)
    with tw.threads(n):
        for _ in range(5):
            for one, other in zip(alone, function(x), strict=True):
                assert one.tobytes() == other.tobytes()


def test_many_python_threads() -> None:
    function = tw.jit(lambda x, y: np.exp(x @ y).sum(1))
    inputs = [RANDOM.standard_normal((64, 64), dtype=np.float32) * 0.1 for _ in range(8)]
    expected = [np.exp(x @ x).sum(1) for x in inputs]

    def work(k: int) -> bool:
        return all(np.allclose(function(inputs[k], inputs[k]), expected[k], rtol=1e-4)
                   for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))
    assert threading.active_count() < 300


def test_nothing_leaks() -> None:
    function = tw.jit(lambda t: {"s": t["a"] + t["b"], "d": [t["a"] - t["b"], t["a"]]})
    tree = {"a": A, "b": B}
    function(tree)
    gc.collect()
    before = sys.getrefcount(A), sys.getrefcount(B), sys.getrefcount(A.dtype)
    for _ in range(1000):
        function(tree)
    gc.collect()
    after = sys.getrefcount(A), sys.getrefcount(B), sys.getrefcount(A.dtype)
    assert all(abs(x - y) <= 3 for x, y in zip(before, after, strict=True))
