"""What goes wrong with arrays on a device: when it is told, and how; their memory."""

from __future__ import annotations

import gc
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_arrays import f32, on_sim

import tilewright as tw
from tilewright import config
from tilewright.compiler.cost import scaled
from tilewright.errors import (
    CompilerBug,
    OutOfBounds,
    OutOfMemory,
    UserError,
)
from tilewright.frontend.array import Array
from tilewright.runtime.gpu.device import device_of
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import sim_driver


def test_a_failed_check_is_met_where_the_result_is_used() -> None:
    pick = tw.jit(lambda x, i: x[i])
    double = tw.jit(lambda x: x * 2)
    x = on_sim(f32(5))
    good = pick(x, np.array([4]))
    bad = pick(x, np.array([7]))
    after = double(bad)
    fine = pick(x, np.array([3]))
    np.testing.assert_array_equal(fine.numpy(), x.numpy()[[3]])
    np.testing.assert_array_equal(good.numpy(), x.numpy()[[4]])
    for use in (bad.numpy, after.item, lambda: print(bad), lambda: double(after)):
        with pytest.raises(OutOfBounds, match="index outside an axis of size 5") as raised:
            use()
        assert "x[i]" in str(raised.value)
    np.testing.assert_array_equal(pick(x, np.array([0])).numpy(), x.numpy()[[0]])


def test_calls_that_nobody_asks_about(traffic: Counter[str]) -> None:
    """Their checks are looked at in one read for many calls; a failure is not forgotten."""
    pick = tw.jit(lambda x, i: x[i])
    x, inside, outside = on_sim(f32(5)), on_sim(np.array([1])), on_sim(np.array([5]))
    bad = pick(x, outside)
    traffic.clear()
    for _ in range(200):
        last = pick(x, inside)
    assert traffic["read"] <= 4 and len(last.resident().tickets) == 1
    with pytest.raises(OutOfBounds):
        bad.numpy()
    last.numpy()


def test_a_chain_of_calls_remembers_no_more_than_is_unsettled() -> None:
    roll = tw.jit(lambda x, i: np.take_along_axis(x, i, axis=0), donate_argnames="x")
    i = on_sim(np.array([2, 0, 1]))
    x = on_sim(np.arange(3.0))
    for _ in range(150):
        x = roll(x, i)
    assert len(x.resident().tickets) <= 64
    np.testing.assert_array_equal(x.numpy(), np.arange(3.0))


def test_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run when a result is used; until then calls return at once, also those that read
    their results.
    """
    ran: list[str] = []
    launch = sim_driver().simulator.launch
    monkeypatch.setattr(
        sim_driver().simulator, "launch", lambda *a: (ran.append(a[1]), launch(*a))[1])
    x = on_sim(f32(6))
    y = tw.jit(lambda x: np.sort(x))(x)
    z = tw.jit(lambda y: y + 1)(y) * 2
    assert ran == []
    np.testing.assert_allclose(z.numpy(), (np.sort(x.numpy()) + 1) * 2, rtol=1e-6)
    done = len(ran)
    tw.jit(lambda y: y - 1)(y)
    assert len(ran) == done >= 3
    tw.synchronize("sim")
    assert len(ran) == done + 1


def test_a_kernel_that_goes_wrong_is_told_where_a_result_is_used(tmp_path: Path) -> None:
    compiled = tw.jit(lambda x: x + 1).compile(on_sim(f32(5)))
    text = compiled.native.text
    wrong, count = re.subn(r"(setp\.gt\.u\d+\s+%p\d+, %\w+, )4;", r"\g<1>200;", text)
    assert count == 1
    broken = replace(compiled.native, text=wrong)
    x = on_sim(f32(5))
    (result,) = gpu_executable(compiled.plan, broken, sim_driver())([x.resident()])
    array = Array(result)
    assert array.shape == (5,)
    with config.override(reproducers=str(tmp_path)), pytest.raises(CompilerBug) as raised:
        print(array)
    message = str(raised.value)
    assert "outside of every allocation" in message
    (script,) = tmp_path.glob("*.py")
    assert "a bug in tilewright, not in your program" in message
    assert f"  reproducer: python {script}\n" in message
    assert "TARGET = 'sim:sm_80'" in script.read_text() and "add" in script.read_text()
    assert f"kernel:   {compiled.plan.launches[0].kernel.name}" in message
    assert "test_device_errors.py:" in message
    assert float(tw.jit(lambda x: x.sum())(on_sim(np.ones(3)))) == 3


def test_memory_is_told() -> None:
    memory = tw.memory("sim")
    x = on_sim(f32(1000))
    assert memory.used >= 4000 and memory.peak >= memory.used
    del x
    gc.collect()
    assert memory.kept >= 4000 and "<memory of sim: " in repr(memory)
    memory.trim()
    assert memory.kept == 0
    with pytest.raises(UserError, match="there is no device 'gpu'"):
        tw.memory("gpu")


def test_what_other_packages_have() -> None:
    x = on_sim(f32(3))
    with pytest.raises(AttributeError, match=r"has no attribute 'cpu': use x.to\('cpu'\)"):
        x.cpu()
    with pytest.raises(AttributeError, match=r"use tw.synchronize\(x.device\)"):
        x.block_until_ready()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'$"):
        x.nothing  # noqa: B018
    for use in (tw.memory, tw.synchronize):
        with pytest.raises(UserError, match="hint:     arrays of the CPU are NumPy's"):
            use("cpu")


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device = device_of(sim_driver())
    x = on_sim(f32(40, 50))
    f = tw.jit(lambda x: np.sort(x @ x.T, axis=0).cumsum(axis=1))
    plan = f.compile(x).plan
    allocate = device.driver.allocate

    def little(nbytes: int) -> int:
        if nbytes > 6000:
            raise OutOfMemory("the memory of sim is used up", expected="at most 6.00 kB")
        return allocate(nbytes)

    device.memory.trim()
    monkeypatch.setattr(device.driver, "allocate", little)
    with pytest.raises(OutOfMemory) as raised:
        f(x)
    message = str(raised.value)
    assert message.startswith("the memory of sim is used up: a program needs more")
    assert "at:       " in message
    assert f"for results 6.40 kB, values in between {scaled(plan.arena, 'B')}, thr" in message
    assert "6.40 kB for f32[40, 40], " in message and "test_device_errors.py:" in message
    with pytest.raises(OutOfMemory, match="8.00 kB more; arrays and programs use ") as raised:
        on_sim(f32(2000))
    assert "on_sim" in str(raised.value)
    monkeypatch.undo()
    assert f(x).shape == (40, 40)


def test_arrays_that_are_gone_leave_nothing() -> None:
    device = device_of(sim_driver())
    gc.collect()
    before = device.memory.used
    x = on_sim(f32(100))
    y = tw.jit(lambda x: np.sort(x))(x)
    assert device.memory.used >= before + 800
    del x, y
    gc.collect()
    assert device.memory.used <= before
