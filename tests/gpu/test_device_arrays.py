"""``tw.Array``: arrays that live on a device, and jitted functions on them."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from device_arrays import elsewhere, f32, on_sim

import tilewright as tw
from tilewright import config
from tilewright.errors import (
    DTypeError,
    TraceError,
    UserError,
)


# --- the array ----------------------------------------------------------------------------------
@pytest.mark.parametrize("x", [
    np.arange(6.0).reshape(2, 3), np.float32(3), np.zeros((0, 4), np.int32), np.array([True]),
    np.arange(12, dtype=np.int16).reshape(3, 4).T, np.arange(4, dtype=">f4"), 7, 2.5, True,
    np.arange(3).astype(ml_dtypes.bfloat16),
], ids=lambda x: f"{np.asarray(x).dtype}{np.shape(x)}")
def test_there_and_back(x: Any) -> None:
    array, want = on_sim(x), np.asarray(x)
    assert (array.shape, array.dtype) == (want.shape, want.dtype.newbyteorder("="))
    assert (array.ndim, array.size, array.nbytes) == (want.ndim, want.size, want.nbytes)
    assert array.itemsize == want.itemsize and array.device == "sim"
    np.testing.assert_array_equal(array.numpy(), want)
    np.testing.assert_array_equal(np.asarray(array), want)
    assert array.tolist() == want.tolist()


def test_what_python_makes_of_one() -> None:
    assert on_sim(np.array([[3]])).item() == 3 and on_sim(np.arange(4)).item(2) == 2
    number = on_sim(np.float32(2.5))
    assert (float(number), int(number), bool(number), f"{number:.2f}") == (2.5, 2, True, "2.50")
    assert complex(number) == 2.5 and [10, 11, 12][on_sim(1)] == 11
    assert len(on_sim(f32(5, 2))) == 5
    with pytest.raises(TypeError, match="0-d"):
        len(number)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(on_sim(f32(2)))
    array = on_sim(np.arange(3))
    assert repr(array) == "Array([0, 1, 2], dtype=int64, device='sim')"
    assert str(array) == f"{array}" == "[0 1 2]"
    assert np.asarray(array, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="uncopied"):
        np.array(array, copy=False)


def test_from_device_to_device() -> None:
    x = f32(3)
    here, other = on_sim(x), elsewhere(x)
    assert here.to("sim") is here and tw.to_device(here, "sim") is here
    moved = other.to("sim")
    assert moved.device == "sim" and other.device == "other"
    np.testing.assert_array_equal(moved.numpy(), x)
    assert isinstance(here.to("cpu"), np.ndarray)
    trees = tw.to_device({"a": [x, 1], "b": None}, "sim")
    assert isinstance(trees["a"][0], tw.Array) and trees["b"] is None
    assert isinstance(tw.to_device(trees, "cpu")["a"][1], np.ndarray)


def test_copies_are_the_array_itself_and_pickles_have_its_contents() -> None:
    x = on_sim(f32(3))
    assert copy.copy(x) is x and copy.deepcopy([x])[0] is x
    again = pickle.loads(pickle.dumps(x))
    assert again.device == "sim"
    np.testing.assert_array_equal(again.numpy(), x.numpy())


def test_what_cannot_go_there() -> None:
    with pytest.raises(UserError, match="there is no device 'gpu'") as raised:
        tw.to_device(1, "gpu")
    assert "expected: sim" in str(raised.value) and "test_device_arrays.py" in str(raised.value)
    assert "did you mean 'cuda'?" in str(raised.value)
    with pytest.raises(UserError, match="there is no GPU architecture 'sm_1'"):
        tw.to_device(1, "sim:sm_1")
    with pytest.raises(UserError, match="a device is given by its name\n.*\n  got:      0, of "):
        tw.to_device(1, 0)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"the argument values\['a'\] of tw.to_device"):
        tw.to_device({"a": np.array(["text"])}, "sim")
    with pytest.raises(TraceError, match="tw.Array takes memory of a device"):
        tw.Array(f32(3))  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="a traced value cannot be moved"):
        tw.jit(lambda x: tw.to_device(x, "sim"))(f32(3))


def test_a_deleted_array() -> None:
    x = on_sim(f32(3))
    x.delete()
    assert x.shape == (3,) and "Array(deleted at " in repr(x)
    for use in (x.numpy, x.item, lambda: np.asarray(x), lambda: x.to("sim")):
        with pytest.raises(UserError, match="this array was deleted at .*test_device_arrays.py"):
            use()
    with pytest.raises(UserError, match="the argument b was deleted at"):
        tw.jit(lambda a, b: a + b)(on_sim(f32(3)), x)


def test_the_simulator_is_one_device_for_all_architectures() -> None:
    target = "sim:sm_90a"
    f = tw.jit(lambda x: x + 1, target=target)
    for name in ("sim", target):
        x = tw.to_device(f32(3), name)
        assert x.device == "sim" and f(x).device == "sim"
    assert tw.memory(target) is tw.memory("sim")
    assert ".target sm_90a" in f.lower(x).as_text("ptx")


# --- jit ------------------------------------------------------------------------------------------
def test_the_arguments_say_where() -> None:
    f = tw.jit(lambda x, y: (x @ y, {"sum": x.sum()}))
    x, y = f32(3, 4), f32(4, 2)
    on_host, _ = f(x, y)
    product, rest = f(on_sim(x), y)
    assert isinstance(on_host, np.ndarray)
    assert isinstance(product, tw.Array) and isinstance(rest["sum"], tw.Array)
    np.testing.assert_allclose(product.numpy(), x @ y, rtol=1e-5)
    np.testing.assert_allclose(rest["sum"].item(), x.sum(), rtol=1e-5)
    assert "target: the host -> sim" in tw.explain_recompile(f)
    again, _ = f(x, y)
    assert isinstance(again, np.ndarray)


def test_what_was_compiled_takes_them_too() -> None:
    x = f32(3)
    for compiled in (tw.jit(lambda x: x + 1).compile(on_sim(x)),
                     tw.jit(lambda x: x + 1, target="sim").compile(x)):
        (result,) = compiled([on_sim(x)])
        assert isinstance(result, tw.Array)
        np.testing.assert_array_equal(result.numpy(), x + 1)
        assert isinstance(compiled([x])[0], np.ndarray)


def test_numpy_arguments_of_a_function_for_a_device_give_numpy_arrays() -> None:
    f = tw.jit(lambda x: x + 1, target="sim")
    assert isinstance(f(f32(3)), np.ndarray)
    assert isinstance(f(on_sim(f32(3))), tw.Array)


def test_the_target_may_name_an_architecture_of_the_device() -> None:
    x = on_sim(f32(3))
    assert ".target sm_90a" in tw.jit(lambda x: x + 1, target="sim:sm_90a").lower(x).as_text("ptx")
    with config.override(target="sim:sm_75"):
        assert ".target sm_75" in tw.jit(lambda x: x + 1).lower(x).as_text("ptx")
    with config.override(target="avx2"):
        assert ".target sm_80" in tw.jit(lambda x: x + 1).lower(x).as_text("ptx")


def test_conflicts_name_the_arguments() -> None:
    def f(p: Any, y: Any) -> Any:
        return p["w"] + y

    x = f32(3)
    with pytest.raises(UserError) as raised:
        tw.jit(f)({"w": on_sim(x)}, elsewhere(x))
    message = str(raised.value)
    assert message.startswith("the arguments of f are on several devices")
    assert "expected: all on sim, where p['w'] is" in message
    assert "got:      y on other" in message and "y.to('sim')" in message
    with pytest.raises(UserError, match=r"f is compiled for avx2, and its argument p\['w'\] is on"):
        tw.jit(f, target="avx2")({"w": on_sim(x)}, x)


def test_no_copy_of_what_is_there(traffic: Counter[str]) -> None:
    f = tw.jit(lambda x, y: x * y + 1)
    x, y, other = on_sim(f32(9)), on_sim(f32(9)), f32(9)
    f(x, y)
    traffic.clear()
    result = f(x, y)
    assert traffic == {"launch": 1}
    f(x, other)
    result.numpy()
    assert (traffic["launch"], traffic["write"], traffic["read"]) == (2, 1, 1)


def test_numbers_are_copied_once(traffic: Counter[str]) -> None:
    f = tw.jit(lambda x, rate: x * rate, donate_argnames="rate")
    x = on_sim(f32(4))
    for rate in (0.8125, 0.4375, 0.8125, 0.4375):
        np.testing.assert_array_equal(f(x, rate).numpy(), x.numpy() * np.float32(rate))
    assert traffic["write"] == 1 + 2  # x and two numbers


def test_a_donated_number_is_nobody_elses() -> None:
    f = tw.jit(lambda x, y: x + 1, donate_argnames="x")
    for _ in range(3):
        assert f(np.float32(1.5), on_sim(1)).item() == 2.5


@dataclass
class Layer:
    w: Any
    b: Any


def loss(layers: list[Layer], x: Any, y: Any) -> Any:
    for layer in layers[:-1]:
        x = np.tanh(x @ layer.w + layer.b)
    scores = x @ layers[-1].w + layers[-1].b
    scores = scores - scores.max(axis=1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return -np.take_along_axis(logs, y[:, None], axis=1).mean()


def step(layers: list[Layer], x: Any, y: Any, rate: Any) -> Any:
    value, grads = tw.value_and_grad(loss)(layers, x, y)
    return value, tw.tree.map(lambda p, g: p - rate * g, layers, grads)


def test_training_with_parameters_on_the_device(traffic: Counter[str]) -> None:
    """No transfer per step but the batch, no memory but what the first steps took, and all launches
    of a step as one graph.
    """
    layers = [Layer(f32(5, 8), f32(8)), Layer(f32(8, 3), f32(3))]
    x = f32(16, 5)
    y = x[:, :3].argmax(axis=1)
    on_host = tw.jit(step)
    jitted = tw.jit(step, donate_argnames="layers")
    there, batch = tw.to_device(layers, "sim"), tw.to_device((x, y), "sim")
    first, there = jitted(there, *batch, 0.5)
    for _ in range(4):
        value, there = jitted(there, *batch, 0.5)
    traffic.clear()
    for _ in range(5):
        value, there = jitted(there, *batch, 0.5)
    assert traffic == {"replay": 5}
    value, there = jitted(there, x, y, 0.5)
    assert traffic["write"] == 2 and traffic["read"] == 0
    assert float(value) < float(first)
    want = layers
    for _ in range(11):
        wanted, want = on_host(want, x, y, 0.5)
    np.testing.assert_allclose(float(value), wanted, rtol=1e-4)
    np.testing.assert_allclose(there[0].w.numpy(), want[0].w, rtol=1e-3, atol=1e-4)


def test_a_donated_array_is_gone() -> None:
    f = tw.jit(lambda w, g: {"w": w["w"] - g}, donate_argnames="w")
    w, g = {"w": on_sim(f32(4))}, on_sim(f32(4))
    resident = w["w"].resident()
    new = f(w, g)
    assert new["w"].resident().memory is resident.memory
    with pytest.raises(UserError) as raised:
        f(w, g)
    message = str(raised.value)
    assert message.startswith("the argument w['w'] was donated to lambda at ")
    assert "test_device_arrays.py" in message and "got:      f32[4]" in message
    with pytest.raises(UserError, match="this array was donated to lambda"):
        w["w"].numpy()
    assert "Array(donated to lambda" in repr(w["w"]) and w["w"].shape == (4,)


def test_a_donated_array_that_is_read_too() -> None:
    x = f32(4)
    f = tw.jit(lambda w, g: w - g[::-1], donate_argnames="w")
    w = on_sim(x)
    np.testing.assert_array_equal(f(w, w).numpy(), x - x[::-1])


def test_results_that_are_arguments_or_constants() -> None:
    x, fixed = f32(3), f32(3)
    same, constant, twice, again = tw.jit(lambda x: (x, fixed, x + x, x + x))(on_sim(x))
    for got, want in zip((same, constant, twice, again), (x, fixed, x + x, x + x), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)
    assert twice.resident().address != again.resident().address


def test_gradients() -> None:
    params, x = {"w": f32(3, 2), "b": f32(2)}, f32(4, 3)

    def f(p: Any, x: Any) -> Any:
        return (np.tanh(x @ p["w"] + p["b"]) ** 2).sum()

    want = tw.grad(f)(params, x)
    got = tw.grad(f)(tw.to_device(params, "sim"), x)
    result, back = tw.vjp(lambda p: f(p, x), tw.to_device(params, "sim"))
    (pulled,) = back(on_sim(np.float32(1)))
    np.testing.assert_allclose(result.item(), f(params, x), rtol=1e-4)
    for name in params:
        assert isinstance(got[name], tw.Array) and isinstance(pulled[name], tw.Array)
        np.testing.assert_allclose(got[name].numpy(), want[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pulled[name].numpy(), want[name], rtol=1e-4, atol=1e-5)


def test_sizes_with_names() -> None:
    f = tw.jit(lambda x, y: (np.exp(x).sum(axis=1), x @ y), dynamic={"x": "batch, _"})
    y = f32(7, 2)
    for size in (1, 2, 5, 40):
        x = f32(size, 7)
        sums, product = f(on_sim(x), y)
        assert isinstance(sums, tw.Array)
        np.testing.assert_allclose(sums.numpy(), np.exp(x).sum(axis=1), rtol=1e-4)
        np.testing.assert_allclose(product.numpy(), x @ y, rtol=1e-4, atol=1e-5)
        assert isinstance(f(x, y)[1], np.ndarray)
