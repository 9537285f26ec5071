"""Programs as captured graphs: when they are captured, replayed and forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import OutOfBounds
from tilewright.runtime.gpu import graphs
from tilewright.runtime.gpu.device import Resident, device_of
from tilewright.runtime.gpu.executable import GpuExecutable, gpu_executable
from tilewright.runtime.gpu.sim import SimDriver

RANDOM = np.random.default_rng(3)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def executable(f: Any, *arrays: np.ndarray, **options: Any) -> GpuExecutable:
    """The program of a function for these arrays, on a device of its own."""
    compiled = tw.jit(f, target="sim", **options).compile(*arrays)
    made = gpu_executable(compiled.plan, compiled.native, SimDriver())
    assert isinstance(made, GpuExecutable)
    return made


def test_the_second_time_it_is_a_graph() -> None:
    x = f32(9, 5)
    run = executable(lambda x: np.sort(x, axis=0).cumsum(axis=1).sum(), x)
    want = run([x])
    assert (run.graphs.captured, run.graphs.replayed) == (0, 0)
    for n in range(1, 4):
        np.testing.assert_array_equal(run([x])[0], want[0])
        assert (run.graphs.captured, run.graphs.replayed) == (1, n)
    other = f32(9, 5)
    np.testing.assert_allclose(
        run([other])[0], np.sort(other, axis=0).cumsum(axis=1).sum(), rtol=1e-4)
    assert run.graphs.captured == 1


def test_other_addresses_are_another_graph() -> None:
    x, y = f32(40), f32(40)
    run = executable(lambda x: np.sort(x).cumsum(), x)
    a, b = (run.device.place(v) for v in (x, y))
    for _ in range(4):
        for resident, array in ((a, x), (b, y)):
            (got,) = run([resident])
            np.testing.assert_allclose(got.read(), np.sort(array).cumsum(), rtol=1e-4)
    assert (run.graphs.captured, run.graphs.replayed) == (2, 6)


def test_results_that_are_kept_have_addresses_of_their_own() -> None:
    x = f32(30)
    run = executable(lambda x: np.sort(x).cumsum(), x)
    kept: list[Resident] = []
    given = run.device.place(x)
    for _ in range(20):
        kept += run([given])
    assert run.graphs.captured == 0
    for result in kept:
        np.testing.assert_allclose(result.read(), np.sort(x).cumsum(), rtol=1e-4)


def test_the_oldest_graphs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    x = f32(30)
    run = executable(lambda x: np.sort(x).cumsum(), x)
    places = [run.device.place(x) for _ in range(3)]
    for _ in range(3):
        for place in places:
            run([place])
    assert len(run.graphs._made) == 2 and run.graphs.captured == 6


def test_one_launch_is_no_graph() -> None:
    run = executable(lambda x: x + 1, f32(5))
    for _ in range(4):
        run([f32(5)])
    assert run.graphs.captured == 0


def test_checks_in_a_graph() -> None:
    """A failure belongs to its own call, not to those before and after it."""
    x = f32(6, 4)
    run = executable(lambda x, i: np.sort(x[i], axis=0).cumsum(axis=0), x, np.array([1, 2]))
    here = [run.device.place(a) for a in (x, np.array([0, 1]), np.array([1, 6]))]
    for n in range(4):
        for good in (True, False, True):
            (result,) = run([here[0], here[1 if good else 2]])
            if n % 2:
                continue
            if good:
                np.testing.assert_allclose(
                    result.read(), np.sort(x[:2], axis=0).cumsum(axis=0), rtol=1e-4)
            else:
                with pytest.raises(OutOfBounds, match="index outside an axis of size 6"):
                    result.read()
    assert run.graphs.captured >= 1 and run.graphs.replayed > 2


def test_a_graph_of_sizes_with_names() -> None:
    compiled = tw.jit(
        lambda x: np.sort(x).cumsum(), target="sim", dynamic={"x": "n"}).compile(f32(9))
    made: Any = gpu_executable(compiled.plan, compiled.native, SimDriver())
    for _ in range(3):
        for n in (5, 17):
            x = f32(n)
            np.testing.assert_allclose(made([x])[0], np.sort(x).cumsum(), rtol=1e-4)
    assert [run.graphs.captured for run in made._made.values()] == [1, 1]


def test_programs_share_a_module() -> None:
    driver = SimDriver()
    loads = []
    load = driver.load
    driver.load = lambda text: loads.append(text) or load(text)  # type: ignore
    compiled = tw.jit(
        lambda x: x * 2 + 1, target="sim", dynamic={"x": "n"}).compile(f32(9))
    made: Any = gpu_executable(compiled.plan, compiled.native, driver)
    for n in (5, 17, 30):
        made([f32(n)])
    assert len(loads) == 1 and device_of(driver) is made.at([(5,)]).device
