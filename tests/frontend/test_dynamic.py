"""``tw.jit(dynamic=...)``: one compile for all sizes of an axis, and what it decides by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ShapeError, TraceError

RNG = np.random.default_rng(11)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def same(got: Any, want: Any, room: float = 2e-5) -> None:
    """Trees of arrays that agree."""
    a, b = tw.tree.leaves(got), tw.tree.leaves(want)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=room, atol=room)


# --- a network and a transformer's block, forward and backward ---------------------------------
def cross_entropy(scores: Any, labels: Any) -> Any:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_shares, labels[..., None], axis=-1).mean()


def mlp_step(params: Any, x: Any, labels: Any) -> Any:
    def loss(params: Any) -> Any:
        hidden = np.tanh(x @ params["w1"] + params["b1"])
        return cross_entropy(hidden @ params["w2"] + params["b2"], labels)
    value, grads = tw.value_and_grad(loss)(params)
    return value, tw.tree.map(lambda p, g: p - np.float32(0.1) * g, params, grads)


def mlp_params() -> dict[str, np.ndarray]:
    return {"w1": array(12, 40) / 4, "b1": array(40), "w2": array(40, 7) / 6, "b2": array(7)}


def test_a_training_step_is_compiled_once_for_every_batch_size() -> None:
    step = tw.jit(mlp_step, dynamic={"x": {0: "batch"}, "labels": {0: "batch"}})
    static = tw.jit(mlp_step)
    params = mlp_params()
    for batch in (32, 5, 33, 2, 500):
        x, labels = array(batch, 12), RNG.integers(0, 7, batch)
        same(step(params, x, labels), static(params, x, labels))
    assert len(step.history) == 1
    x, labels = array(32, 12), RNG.integers(0, 7, 32)
    same(step(params, x, labels), static(params, x, labels))
    assert len(step.history) == 1 and len(static.history) == 5
    assert tw.explain_recompile(step).startswith("mlp_step was compiled once")


def layer_norm(x: Any, scale: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return scale * centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)


def attention(x: Any, p: Any, heads: int) -> Any:
    batch, time, width = x.shape
    q, k, v = (
        (x @ p[name]).reshape(batch, time, heads, width // heads).transpose(0, 2, 1, 3)
        for name in ("q", "k", "v")
    )
    scores = q @ k.mT / np.float32(np.sqrt(width // heads))
    position = tw.numpy.arange(time)
    scores = np.where(position[:, None] >= position, scores, np.float32(-1e9))
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    return (shares @ v).transpose(0, 2, 1, 3).reshape(batch, time, width) @ p["o"]


def transformer_step(p: Any, tokens: Any, labels: Any) -> Any:
    def loss(p: Any) -> Any:
        x = p["embedding"][tokens] + p["position"][: tokens.shape[1]]
        x = x + attention(layer_norm(x, p["scale1"]), p, 4)
        hidden = np.maximum(layer_norm(x, p["scale2"]) @ p["up"], 0)
        x = x + hidden @ p["down"]
        return cross_entropy(x @ p["embedding"].T, labels)
    value, grads = tw.value_and_grad(loss)(p)
    return value, tw.tree.map(lambda a, g: a - np.float32(0.1) * g, p, grads)


def transformer_params(width: int = 32, words: int = 50) -> dict[str, np.ndarray]:
    square = {name: array(width, width) / 6 for name in "qkvo"}
    return {
        **square, "embedding": array(words, width) / 6, "position": array(64, width) / 6,
        "scale1": np.ones(width, np.float32), "scale2": np.ones(width, np.float32),
        "up": array(width, 2 * width) / 6, "down": array(2 * width, width) / 8,
    }


def test_a_transformer_is_compiled_once_for_every_batch_and_length() -> None:
    names = {"tokens": "batch, time", "labels": "batch, time"}
    step, static = tw.jit(transformer_step, dynamic=names), tw.jit(transformer_step)
    params = transformer_params()
    for batch, time in ((3, 17), (2, 64), (5, 9), (7, 2), (4, 33), (3, 17)):
        tokens, labels = (RNG.integers(0, 50, (batch, time)) for _ in range(2))
        same(step(params, tokens, labels), static(params, tokens, labels), 1e-4)
    assert len(step.history) == 1


# --- what Python decides ------------------------------------------------------------------------
def test_sizes_0_and_1_are_compiled_as_they_are() -> None:
    f = tw.jit(lambda x, y: x + y, dynamic={"x": ["n"], "y": ["n"]})
    for n in (3, 1, 0, 5, 1):
        x, y = array(n), array(n)
        same(f(x, y), x + y)
    assert len(f.history) == 3


def test_branches_on_a_size_are_guarded() -> None:
    traces: list[int] = []

    def f(x: Any) -> Any:
        traces.append(1)
        if x.shape[0] > 8:
            return x * 2
        return x + (1 if x.shape[0] == 5 else 0)

    g = tw.jit(f, dynamic={"x": {0: "n"}})
    for n in (9, 20, 3, 8, 5, 5, 7, 100):
        x = array(n)
        traces.clear()
        same(g(x), f(x))
    assert len(g.history) == 3
    assert not traces or len(traces) == 1
    guards = [str(guard) for guard in g.lower(array(6)).guards]
    assert guards == ["n <= 8", "n != 5"]


def test_a_size_that_becomes_a_number_is_guarded() -> None:
    f = tw.jit(lambda x: sum(x[i] * i for i in range(x.shape[0])), dynamic={"x": {0: "n"}})
    for n in (3, 4, 3):
        x = array(n, 2)
        same(f(x), sum(x[i] * np.float32(i) for i in range(n)))
    assert len(f.history) == 2


def test_sizes_in_arithmetic() -> None:
    def f(x: Any) -> Any:
        n = x.shape[0]
        return (x / n, x * (n + 1) // 2, x - n % 3, 1 / (x + n), x[: n // 2], x.size * x,
                x + np.sqrt(n), x ** 2 / n ** 2, np.float32(2) * n + x)

    g = tw.jit(f, dynamic={"x": {0: "n"}})
    for n in (4, 7, 30):
        x = array(n, 3)
        want = tuple(np.asarray(y, np.float32) if y.dtype == np.float32 else y for y in f(x))
        same(g(x), want)
    assert len(g.history) == 1


SLICES = [
    slice(None), slice(1, None), slice(None, -1), slice(-3, None), slice(2, 4), slice(None, 3),
    slice(None, None, 2), slice(1, None, 3), slice(None, None, -1), slice(-2, None, -1),
    slice(None, 100), slice(100, None), slice(3, 1), slice(-100, -1, 2), slice(4, None, -2),
]


@pytest.mark.parametrize("part", SLICES, ids=str)
def test_slices(part: slice) -> None:
    f = tw.jit(lambda x: (x[part] * 2, x[:, part]), dynamic={"x": "n, m"})
    for n, m in ((5, 6), (12, 3), (2, 20), (101, 7)):
        x = array(n, m)
        same(f(x), (x[part] * 2, x[:, part]))


CASES: dict[str, Callable[..., Any]] = {
    "reshape": lambda x: (x.reshape(-1), x.reshape(-1, 2), np.reshape(x, (x.shape[0] * 2, -1))),
    "joins": lambda x: (np.concatenate([x, x[:2], x]), np.stack([x, x + 1], axis=1),
                        np.pad(x, ((1, 2), (0, 3)))),
    "moves": lambda x: (np.flip(x, 0), np.roll(x, 1, 0), np.swapaxes(x, 0, 1), x[..., None]),
    "reductions": lambda x: (x.mean(), x.var(axis=0), x.max(axis=0), np.linalg.norm(x, axis=1),
                             np.argmax(x, axis=0), x.std(axis=1, keepdims=True)),
    "products": lambda x: (x @ x.T, x.T @ x, np.einsum("ij,kj->ik", x, x), np.outer(x[0], x[1])),
    "creation": lambda x: (np.zeros_like(x) + 1, tw.numpy.ones(x.shape, np.float32) * x,
                           tw.numpy.arange(x.shape[0]) * 2, tw.numpy.eye(x.shape[0])),
    "gather": lambda x: (x[tw.numpy.arange(x.shape[0]) // 2], np.take(x, np.array([0, 1]), axis=0)),
    "repeat": lambda x: (np.repeat(x, 2, axis=0), np.tile(x, (2, 1)), np.broadcast_to(
        x[:1], x.shape)),
    "squeeze": lambda x: (np.expand_dims(x, 1).squeeze(1), np.atleast_2d(x[:, 0]), np.ravel(x)),
    "softmax": lambda x: (tw.nn.softmax(x, axis=0), tw.nn.softmax(x, axis=-1)),
}


@pytest.mark.parametrize("name", CASES)
def test_functions(name: str) -> None:
    f = tw.jit(CASES[name], dynamic={"x": {0: "n"}})
    static = tw.jit(CASES[name])
    for n in (6, 3, 40, 2):
        x = array(n, 4)
        same(f(x), static(x))
    assert len(f.history) == 1, tw.explain_recompile(f)


def test_what_only_some_sizes_allow_is_compiled_for_them() -> None:
    f = tw.jit(lambda x, y: x + y, dynamic={"x": {0: "n"}, "y": {0: "m"}})
    x, y = array(4), array(4)
    same(f(x, y), x + y)
    same(f(x, y[:1]), x + y[:1])
    with pytest.raises(ShapeError, match="np.add: the shapes do not broadcast"):
        f(x, y[:3])


# --- declarations and errors --------------------------------------------------------------------
def test_declarations_of_many_forms() -> None:
    x = {"a": array(4, 3), "b": [array(4, 5), array(4)]}

    def f(x: Any, y: Any) -> Any:
        return tw.tree.map(lambda leaf: leaf * y.sum(), x)

    for axes in ({0: "n"}, ["n"], "n ...", "n"):
        g = tw.jit(f, dynamic={"x": axes, "y": "_, ..., m"})
        for n, m in ((4, 6), (9, 2)):
            data = tw.tree.map(lambda leaf, n=n: array(n, *leaf.shape[1:]), x)
            y = array(3, 2, m)
            same(g(data, y), f(data, y), 1e-4)
        assert len(g.history) == 1
    h = tw.jit(f, dynamic={"x['a']": {-1: "k"}, "y": {}})
    for k in (3, 8):
        data = {**x, "a": array(4, k)}
        y = array(2)
        same(h(data, y), f(data, y))
    assert len(h.history) == 1


def message(kind: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as error:
        call()
    return "\n".join(
        line for line in str(error.value).split("\n") if not line.startswith(("  at:", "     ")))


def test_errors_of_declarations() -> None:
    assert message(TraceError, lambda: tw.jit(np.sin, dynamic=3)) == """\
dynamic takes a dict
  expected: parameter name -> names of its axes
  got:      3"""
    assert message(TraceError, lambda: tw.jit(lambda x: x, dynamic={"y": "n"})) == """\
dynamic names 'y', which is no parameter
  expected: names among x
  got:      y"""
    assert message(TraceError, lambda: tw.jit(lambda x: x, dynamic={"x": 2})) == """\
dynamic: the axes of 'x' are not named in a way that is known
  expected: {axis: name}, a list of names and None, or text such as 'batch, _, ...'
  got:      2"""
    assert message(TraceError, lambda: tw.jit(lambda x: x, dynamic={"x": {0: "for"}})) == """\
a size cannot be called 'for'
  expected: a Python name
  got:      'for'"""


def test_errors_of_calls() -> None:
    f = tw.jit(lambda x, y: x @ y, dynamic={"x": "n, k", "y": "k, m"})
    assert message(ShapeError, lambda: f(array(3, 4), array(5, 6))) == """\
the size 'k' has two numbers
  expected: 4, from axis 1 of x
  got:      5 in axis 0 of y"""
    g = tw.jit(lambda x: x, dynamic={"x": {2: "n"}})
    assert message(ShapeError, lambda: g(array(3, 4))) == """\
dynamic names axis 2 of x, which does not exist
  expected: an axis of an array of shape (3, 4)
  got:      2"""


def test_looking_inside() -> None:
    f = tw.jit(lambda x: np.exp(x).sum(axis=1), dynamic={"x": "n, m"})
    lowered = f.lower(array(20, 30))
    assert "f32[n, m]" in lowered.as_text("graph")
    assert "(m: i64, n: i64, " in lowered.as_text("loops")
    assert lowered.cost().flops == 20 * 30 * 13
    same(lowered.compile()([x := array(4, 7)]), [np.exp(x).sum(axis=1)])


def test_calls_do_not_pile_up() -> None:
    f = tw.jit(lambda x: x + 1, dynamic={"x": "n"})
    for n in range(2, 400):
        assert f(np.zeros(n)).shape == (n,)
    assert len(f.history) == 1 and len(f._compiled) <= 257
