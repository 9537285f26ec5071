"""``tw.jit(target="sim")``: a user's functions as PTX, in the simulator."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import config
from tilewright.codegen.gpu.assembler import assemble
from tilewright.errors import CompilerBug, OutOfBounds, TraceError, UserError
from tilewright.frontend import compiled as compiled_module
from tilewright.ptxsim.simulator import Simulator
from tilewright.report import diskcache, doctor
from tilewright.runtime.gpu.device import device_of
from tilewright.runtime.gpu.executable import GpuExecutable, gpu_executable
from tilewright.runtime.gpu.sim import SimDriver, sim_driver

RANDOM = np.random.default_rng(5)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def cross_entropy(params: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Any:
    hidden = np.maximum(x @ params["w1"] + params["b1"], 0)
    scores = hidden @ params["w2"] + params["b2"]
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -np.take_along_axis(log_probability, y[:, None], axis=1).mean()


def step(params: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Any:
    loss, grads = tw.value_and_grad(cross_entropy)(params, x, y)
    return loss, tw.tree.map(lambda p, g: p - np.float32(0.1) * g, params, grads)


def network() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    params = {"w1": f32(20, 33), "b1": f32(33), "w2": f32(33, 5), "b2": f32(5)}
    x = f32(48, 20)
    return params, x, x[:, :5].argmax(axis=1)


def test_training_agrees_with_the_cpu() -> None:
    here, there = tw.jit(step), tw.jit(step, target="sim")
    params, x, y = network()
    mine, theirs = params, params
    for _ in range(5):
        loss, mine = here(mine, x, y)
        other, theirs = there(theirs, x, y)
        np.testing.assert_allclose(other, loss, rtol=2e-5)
    for name in params:
        np.testing.assert_allclose(theirs[name], mine[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_the_order_of_warps_does_not_matter(order: int) -> None:
    """Bit for bit: no result depends on which block or warp comes first."""
    params, x, y = network()
    compiled = tw.jit(step, target="sim").compile(params, x, y)
    arrays = [*(params[name] for name in sorted(params)), x, y]
    want = compiled(arrays)
    shuffled = gpu_executable(compiled.plan, compiled.native, SimDriver(Simulator(order)))
    for a, b in zip(shuffled(arrays), want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90a", "sm_120"])
def test_ptxas_takes_a_training_step(architecture: str) -> None:
    text = tw.jit(step, target=f"sim:{architecture}").lower(*network()).as_text("ptx")
    assembled = assemble(text, architecture)
    assert assembled.reports
    for report in assembled.reports.values():
        assert report.spill_stores == report.spill_loads == 0, report


def test_results_have_memory_of_their_own() -> None:
    f = tw.jit(lambda x: (x, x + 1, x.T), target="sim")
    x = f32(3, 4)
    same, more, turned = f(x)
    same[...] = 0
    assert x.any()
    np.testing.assert_array_equal(more, x + 1)
    np.testing.assert_array_equal(turned, x.T)


def test_memory_is_given_back() -> None:
    driver = SimDriver()
    compiled = tw.jit(lambda x: np.sort(x).cumsum(), target="sim").compile(f32(50))
    executable = gpu_executable(compiled.plan, compiled.native, driver)
    assert isinstance(executable, GpuExecutable)
    executable([f32(50)])
    kept = dict(driver.simulator.memory.sizes)
    end = driver.simulator.memory.end
    for _ in range(3):
        executable([f32(50)])
    assert (driver.simulator.memory.sizes, driver.simulator.memory.end) == (kept, end)


def test_memory_is_given_back_after_an_error() -> None:
    f = tw.jit(lambda x, i: x[i], target="sim")
    x = f32(5)
    f(x, np.array([1]))
    kept = dict(sim_driver().simulator.memory.sizes)
    with pytest.raises(OutOfBounds, match="index outside an axis of size 5"):
        f(x, np.array([7]))
    assert sim_driver().simulator.memory.sizes == kept
    np.testing.assert_array_equal(f(x, np.array([2])), x[[2]])


def test_donated_memory() -> None:
    f = tw.jit(lambda w, g: w - g, target="sim", donate_argnames="w")
    w, g = f32(6), f32(6)
    want = w - g
    np.testing.assert_array_equal(f(w, g), want)


def test_sizes_with_names() -> None:
    f = tw.jit(lambda x: (np.exp(x).sum(axis=1), x.sum(axis=0), x @ x.T),
               dynamic={"x": {0: "batch"}}, target="sim")
    for size in (1, 2, 5, 130):
        x = f32(size, 7)
        for got, want in zip(f(x), (np.exp(x).sum(axis=1), x.sum(axis=0), x @ x.T), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_empty_arrays() -> None:
    f = tw.jit(lambda x: (x * 2, x.sum(axis=0), x.sum()), target="sim")
    double, columns, everything = f(np.zeros((0, 3), np.float32))
    assert double.shape == (0, 3)
    np.testing.assert_array_equal(columns, np.zeros(3, np.float32))
    assert everything == 0


def test_lowest_version_for_the_architecture() -> None:
    for name, version in (("sm_50", "6.0"), ("sm_80", "7.0"), ("sm_90a", "8.0")):
        text = tw.jit(lambda x: x + 1, target=f"sim:{name}").lower(f32(3)).as_text("ptx")
        assert f".target {name}\n" in text
        assert float(version) >= float(text.split(".version ")[1].split()[0])


def test_neighbours_touch_neighbours() -> None:
    """A pointwise kernel has no loop, and one access per operand."""
    text = tw.jit(lambda x, y: x * y + 1, target="sim").lower(f32(999), f32(999)).as_text("ptx")
    assert text.count("ld.global") == 2 and text.count("st.global") == 1
    assert text.count("bra") == 1


def test_the_switch_names_it_too() -> None:
    with config.override(target="sim:sm_75"):
        lowered = tw.jit(lambda x: x + 1).lower(f32(3))
        assert ".target sm_75\n" in lowered.as_text("ptx")


def test_loops_of_different_lengths_in_one_kernel() -> None:
    """An optimiser's step on many parameters is one kernel: a loop for each of them."""
    f = tw.jit(lambda ps: [p * p for p in ps], target="sim")
    ps = [f32(*shape) for shape in ((3,), (40, 7), (2, 3, 5), (1000,), (1,))]
    for got, p in zip(f(ps), ps, strict=True):
        np.testing.assert_array_equal(got, p * p)


def test_threads_take_turns() -> None:
    f = tw.jit(lambda x: np.sort(np.exp(x)).cumsum(), target="sim")
    arrays = [f32(70) for _ in range(8)]
    f(arrays[0])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(f, arrays))
    for got, x in zip(found, arrays, strict=True):
        np.testing.assert_allclose(got, np.sort(np.exp(x)).cumsum(), rtol=1e-5)


def test_a_program_that_is_gone_leaves_nothing() -> None:
    driver = SimDriver()
    compiled = tw.jit(lambda x: np.sort(x) + np.arange(9.0), target="sim").compile(f32(9))
    executable = gpu_executable(compiled.plan, compiled.native, driver)
    executable([f32(9)])
    assert driver.simulator.memory.sizes
    del executable
    gc.collect()
    device_of(driver).memory.trim()
    address = driver.allocate(1)
    assert set(driver.simulator.memory.sizes) == {address}


def test_machine_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of ptxas and a disassembler; without them, an error says what to install."""
    lowered = tw.jit(lambda x: x + 1, target="sim:sm_90a").lower(f32(3))
    for name, script in (
        ("ptxas", "#!/bin/sh\nfor last; do :; done; grep target $last > $4\n"),
        ("nvdisasm", "#!/bin/sh\ncat $2\n"),
    ):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert lowered.as_text("sass") == ".target sm_90a\n"
    monkeypatch.setenv("PATH", "")
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match="ptxas is not installed"):
        lowered.as_text("sass")


def test_a_wrong_kernel_is_our_bug() -> None:
    """Threads beyond the end read outside of the operand: the message names kernel and line."""
    compiled = tw.jit(lambda x: x + 1, target="sim").compile(f32(5))
    text = compiled.native.text
    wrong, count = re.subn(r"(setp\.gt\.u\d+\s+%p\d+, %\w+, )4;", r"\g<1>200;", text)
    assert count == 1
    broken = replace(compiled.native, text=wrong)
    with config.override(reproducers=os.devnull), pytest.raises(CompilerBug) as raised:
        gpu_executable(compiled.plan, broken, SimDriver())([f32(5)])
    assert "  reproducer: could not be written" in str(raised.value)
    message = str(raised.value)
    assert message.startswith("the code for a GPU is wrong: ")
    assert "outside of every allocation" in message and "ld.global" in message, message
    assert f"kernel:   {compiled.plan.launches[0].kernel.name}" in message
    assert "test_jit_on_sim.py:" in message


def test_a_reproducer_is_for_the_same_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(compiled_module, "compile_graph", fail)
    with config.override(reproducers=str(tmp_path), cache="off"), pytest.raises(CompilerBug):
        tw.jit(lambda x: x + 1, target="sim:sm_75")(f32(3))
    (script,) = tmp_path.glob("*.py")
    assert "TARGET = 'sim:sm_75'" in script.read_text()
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)})
    assert done.stdout == "compiled and ran: the failure does not occur\n", done.stderr


def test_the_doctor_and_the_cache_know_gpus() -> None:
    with config.override(target="sim:sm_90a"):
        assert any("sm_90a, an NVIDIA GPU, simulated" in line for line in doctor.machine())
        graph = tw.jit(lambda x: x + 1).trace(f32(3))
        assert "PTX of its kernels" in diskcache.why(graph)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="there is no GPU architecture 'sm_9'"):
        tw.jit(lambda x: x + 1, target="sim:sm_9")(f32(2))
    with pytest.raises(TraceError, match="a function for a CPU has no ptx"):
        tw.jit(lambda x: x + 1).lower(f32(2)).as_text("ptx")
