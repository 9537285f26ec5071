"""``tw.jit(target="cuda")``: a user's functions on a GPU, pretended or real."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import FakeCuda

import tilewright as tw
from tilewright import config
from tilewright.errors import CompilerBug, DeviceError, OutOfBounds, OutOfMemory
from tilewright.report import doctor
from tilewright.runtime.gpu.drivers import driver_named
from tilewright.runtime.program import runs

RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def test_a_training_step(cuda: str) -> None:
    @tw.value_and_grad
    def loss(params, x, y):
        hidden = np.tanh(x @ params["w"] + params["b"])
        logits = hidden @ params["v"]
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -np.take_along_axis(logs, y[:, None], axis=1).mean()

    def step(params, x, y):
        value, grads = loss(params, x, y)
        return value, {k: p - 0.1 * grads[k] for k, p in params.items()}

    params = {"w": f32(12, 16), "b": f32(16), "v": f32(16, 5)}
    x, y = f32(20, 12), RNG.integers(0, 5, 20)
    want_loss, want = tw.jit(step)(params, x, y)
    f = tw.jit(step, target=cuda)
    for _ in range(2):
        got_loss, got = f(params, x, y)
        np.testing.assert_allclose(got_loss, want_loss, rtol=1e-5)
        for k, value in want.items():
            np.testing.assert_allclose(got[k], value, rtol=1e-4, atol=1e-5)


def test_orders_and_named_sizes(cuda: str) -> None:
    def f(x):
        return np.sort(x, axis=1), x.cumsum(axis=0), x @ x.T

    jitted = tw.jit(f, target=cuda, dynamic={"x": "batch, _"})
    for size in (3, 40, 1):
        x = f32(size, 33)
        for got, want in zip(jitted(x), f(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_indices_are_checked(cuda: str) -> None:
    f = tw.jit(lambda x, i: x[i], target=cuda)
    x = f32(5)
    with pytest.raises(OutOfBounds, match="index outside an axis of size 5"):
        f(x, np.array([5]))
    np.testing.assert_array_equal(f(x, np.array([4])), x[[4]])


def test_the_switch_and_the_other_device(fake_cuda: FakeCuda) -> None:
    with config.override(target="cuda"):
        assert ".target sm_90a\n" in tw.jit(lambda x: x @ x).lower(f32(3, 3)).as_text("ptx")
        assert any("sm_90a, an NVIDIA GPU, cuda:0 (chosen by override)" in line
                   for line in doctor.machine())
    used = fake_cuda.chips[0].sim._used
    x = f32(40)
    f = tw.jit(lambda x: x * 2, target="cuda:1")
    np.testing.assert_array_equal(f(x), x * 2)
    assert ".target sm_80\n" in f.lower(x).as_text("ptx")
    assert fake_cuda.chips[0].sim._used == used and fake_cuda.chips[1].sim._used


def test_a_wrong_kernel_is_told_by_its_line(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    compiled = tw.jit(lambda x: x + 1, target="cuda").compile(f32(5))
    line = inspect.currentframe().f_lineno - 1
    far, count = re.subn(r"(shl\.b64.*), 2;", r"\1, 24;", compiled.native.text)
    assert count == 1
    broken = replace(compiled.native, text=far)
    run = runs(compiled.plan, broken, compiled.target)
    with config.override(reproducers=str(tmp_path)), pytest.raises(CompilerBug) as raised:
        run([f32(5)])
    (script,) = tmp_path.glob("*.py")
    assert f"  reproducer: python {script}\n" in str(raised.value)
    assert "TARGET = 'sim:sm_90a'" in script.read_text()
    name = compiled.plan.launches[0].kernel.name
    assert "a kernel failed on cuda:0: an illegal memory access" in str(raised.value)
    assert f"kernel:   {name}, {__file__}:{line}\n" in str(raised.value)
    with pytest.raises(DeviceError, match="this process cannot use cuda:0 any more"):
        tw.jit(lambda x: x - 1, target="cuda")(f32(5))
    np.testing.assert_array_equal(tw.jit(lambda x: x - 1)(np.ones(2)), [0, 0])


def test_memory_of_arguments(fake_cuda: FakeCuda) -> None:
    sim = fake_cuda.chips[0].sim
    sim.properties = replace(sim.properties, memory=1 << 20)
    x = np.ones(150_000, np.float32)
    f = tw.jit(lambda x: x.reshape(-1, 4).sum(axis=1), target="cuda")
    f(x)
    f(x)
    with pytest.raises(OutOfMemory, match="the memory of cuda:0 is used up"):
        tw.jit(lambda x: x * 2, target="cuda")(x)


def test_a_loop_on_arrays_of_the_device(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Donated parameters stay where they are; calls become replays of a graph."""
    driver, replays = driver_named(cuda), []
    replay = driver.replay
    monkeypatch.setattr(driver, "replay", lambda graph: (replays.append(graph), replay(graph)))

    @tw.jit(donate_argnames="params")
    def step(params, x):
        value, grads = tw.value_and_grad(lambda p: (np.tanh(x @ p["w"]) ** 2).sum())(params)
        return value, {"w": params["w"] - 0.1 * grads["w"]}

    w, xs = f32(8, 4), [f32(6, 8) for _ in range(12)]
    params, want = tw.to_device({"w": w}, cuda), {"w": w.copy()}
    for x in xs:
        value, params = step(params, x)
        wanted, want = tw.jit(step.function)(want, x)
        np.testing.assert_allclose(float(value), wanted, rtol=1e-4)
    assert params["w"].device == "cuda:0"
    assert len(replays) >= 2
    np.testing.assert_allclose(params["w"].numpy(), want["w"], rtol=1e-4, atol=1e-5)


def test_errors_name_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    line = inspect.currentframe().f_lineno
    for use in lambda: tw.jit(abs, target="cuda")(f32(2)), lambda: tw.to_device(f32(2), "cuda"):
        with pytest.raises(DeviceError, match=f"test_jit_on_cuda.py:{line + 1} in <lambda>"):
            use()
