"""Programs as captured graphs: when they are captured, replayed and forgotten."""

from __future__ import annotations

from typing import Any

import contractions
import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import OutOfBounds
from tilewright.ir.types import f16
from tilewright.runtime.gpu import executable as executable_module
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
    assert (run.graphs.captured, run.graphs.replayed, run.graphs.updated) == (1, 18, 17)
    assert len({result.address for result in kept}) == 20
    for result in kept:
        np.testing.assert_allclose(result.read(), np.sort(x).cumsum(), rtol=1e-4)


def test_graphs_are_changed_where_there_is_no_room_for_more(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    arrays = [f32(30) for _ in range(3)]
    run = executable(lambda x: np.sort(x).cumsum(), arrays[0])
    places = [run.device.place(x) for x in arrays]
    for _ in range(3):
        for place, x in zip(places, arrays, strict=True):
            (got,) = run([place])
            np.testing.assert_allclose(got.read(), np.sort(x).cumsum(), rtol=1e-4)
    assert len(run.graphs._made) == run.graphs.captured == 2
    assert run.graphs.replayed == 7 and run.graphs.updated >= 3


def step(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
    def loss(params: Any) -> Any:
        return ((np.tanh(np.tanh(x @ params[0]) @ params[1]) @ params[2] - y) ** 2).mean()

    value, gradients = tw.value_and_grad(loss)(params)
    return value, [p - 0.1 * g for p, g in zip(params, gradients, strict=True)]


@pytest.mark.parametrize("where", ["sim", "cuda", "pycuda"])
def test_another_batch_each_step(where: str, request: pytest.FixtureRequest) -> None:
    """The launches that read it are told; nothing else is, and nothing is launched one by one.

    There are two graphs: a result is still held while the next one is computed.
    """
    if where != "sim":
        request.getfixturevalue(f"fake_{where}")
    shapes = [(4, 8), (8, 8), (8, 1)]
    params, batches = [f32(*s) for s in shapes], [(f32(16, 4), f32(16, 1)) for _ in range(7)]
    train = tw.jit(step, donate_argnames="params")
    there = tw.to_device(batches, where)  # none of them takes another's place
    ours = tw.to_device(params, where)
    for batch, (x, y) in zip(batches, there, strict=True):
        value, ours = train(ours, x, y)
        want, params = tw.jit(step)(params, *batch)
        np.testing.assert_allclose(float(value), want, rtol=1e-4)
    for a, b in zip(ours, params, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-4, atol=1e-5)
    ((compiled, _),) = train._compiled.values()
    run = compiled.executable
    assert (run.graphs.captured, run.graphs.replayed) == (2, 5)
    readers = {*run.graphs.readers[3], *run.graphs.readers[4]}
    assert run.graphs.updated == 3 * len(readers) and 0 < len(readers) <= len(run.runs) // 2


def test_tensor_maps_of_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable_module, "FEWEST", 1)
    sizes = {"m": 128, "n": 128, "k": 128}
    c = contractions.compiled(
        contractions.einsum("mk,kn->mn", sizes, f16), contractions.machine("sm_90a", 1))
    assert any(step.maps for step in c.program.steps)
    run = gpu_executable(c.plan, c.program, SimDriver())
    for _ in range(4):
        a, b = (f32(128, 128).astype(np.float16) for _ in range(2))
        (got,) = run.run([run.device.place(v) for v in (a, b)])
        np.testing.assert_allclose(
            got.read().astype(np.float32), a.astype(np.float32) @ b.astype(np.float32),
            rtol=1e-2, atol=0.1)
    assert run.graphs.replayed >= 1


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
