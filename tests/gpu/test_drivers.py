"""What every driver promises, on every device that there is."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_here import hardware, pycuda_hardware
from device_kernels import ALL
from fake_cuda import FakeCuda

from tilewright.errors import CompilerBug, Location, OutOfMemory, Unsupported, UserError
from tilewright.ptxsim.tensormap import DataType, TensorMap
from tilewright.runtime.gpu.cuda import CudaDriver
from tilewright.runtime.gpu.driver import Driver
from tilewright.runtime.gpu.pycuda import pycuda_driver
from tilewright.runtime.gpu.sim import SimDriver


@dataclass(frozen=True)
class What:
    name: str = "softmax"
    loc: Location | None = Location("model.py", 7, "f")


@pytest.fixture(params=[
    "sim", "cuda", "no pools", "pycuda", pytest.param("hardware", marks=pytest.mark.gpu),
    pytest.param("pycuda hardware", marks=pytest.mark.gpu)])
def driver(request: pytest.FixtureRequest) -> Driver:
    if request.param == "pycuda":
        request.getfixturevalue("fake_pycuda")
        return pycuda_driver()
    if request.param == "hardware":
        return hardware()
    if request.param == "pycuda hardware":
        return pycuda_hardware()
    if request.param == "sim":
        return SimDriver(memory=32 << 20)
    return CudaDriver(0, FakeCuda(pools=int(request.param == "cuda")))


def put(driver: Driver, array: np.ndarray, stream: int | None = None) -> int:
    address = driver.allocate(array.nbytes)
    driver.write(address, array, stream)
    return address


def got(driver: Driver, address: int, like: np.ndarray, stream: int | None = None) -> np.ndarray:
    result = np.empty_like(like)
    driver.read(address, result, stream)
    return result


def add(driver: Driver, module: Any, x: int, n: int, by: int, **options: Any) -> None:
    driver.launch(module, "add", -(-n // 64), 64, (x, n, by), **options)


def test_memory(driver: Driver) -> None:
    with driver.lock:
        a = np.arange(100, dtype=np.int16)
        x, y = put(driver, a), driver.allocate(a.nbytes)
        assert x % 256 == y % 256 == 0
        a_before = a.copy()
        a[:] = 0
        driver.copy(y, x, a.nbytes)
        driver.fill(x, 0x11, 20)
        np.testing.assert_array_equal(got(driver, y, a), a_before)
        assert got(driver, x, a)[9:11].tolist() == [0x1111, 10]
        driver.write(driver.allocate(0), a[:0])
        driver.free(x)
        driver.discard(y)
        driver.free(driver.allocate(8))


def test_launches_in_order(driver: Driver) -> None:
    with driver.lock:
        module = driver.load(ALL)
        a = np.arange(1000)
        x = put(driver, a)
        for by in (1, 10, -(1 << 40)):
            add(driver, module, x, 1000, by)
        np.testing.assert_array_equal(got(driver, x, a), a + 11 - (1 << 40))


def test_grids_of_three_dimensions(driver: Driver) -> None:
    with driver.lock:
        x = driver.allocate(4 * 48)
        driver.launch(driver.load(ALL), "places", (2, 1, 3), (1, 2, 4), (x,))
        want = [100 * z + t for z in range(3) for _ in range(2) for t in (0, 0, 1, 1, 2, 2, 3, 3)]
        assert got(driver, x, np.zeros(48, np.int32)).tolist() == want


def test_dynamic_shared_memory(driver: Driver) -> None:
    """More than a block has without asking, too."""
    with driver.lock:
        module = driver.load(ALL)
        a = np.arange(128, dtype=np.int32)
        x = put(driver, a)
        for shared in (512, min(90 * 1024, driver.properties.shared_most), 512):
            driver.launch(module, "turn", 1, 128, (x,), shared=shared)
        np.testing.assert_array_equal(got(driver, x, a), a[::-1])


def test_streams_and_events(driver: Driver) -> None:
    with driver.lock:
        module = driver.load(ALL)
        a = np.zeros(300, np.int64)
        x = put(driver, a)
        other = driver.new_stream()
        driver.wait(driver.record(), other)
        start = driver.record(other)
        for _ in range(3):
            add(driver, module, x, 300, 5, stream=other)
        end = driver.record(other)
        driver.wait(end)
        add(driver, module, x, 300, 1)
        assert set(got(driver, x, a)) == {16}
        assert driver.reached(end)
        assert driver.elapsed(start, end) >= 0
        driver.synchronise(other)
        driver.end_stream(other)
        driver.synchronise()


def test_a_graph(driver: Driver) -> None:
    with driver.lock:
        module = driver.load(ALL)
        a = np.zeros(70, np.int64)
        x, y = put(driver, a), put(driver, a)

        def work() -> None:
            driver.fill(y, 0, a.nbytes)
            add(driver, module, x, 70, 2)
            driver.copy(y, x, a.nbytes)
            add(driver, module, y, 70, 100)

        graph = driver.capture(work)
        assert set(got(driver, x, a)) == {0}
        other = driver.new_stream()
        driver.replay(graph)
        driver.wait(driver.record(), other)
        driver.replay(graph, other)
        assert set(got(driver, y, a, other)) == {104}
        assert set(got(driver, x, a, other)) == {4}
        with pytest.raises(ZeroDivisionError):
            driver.capture(lambda: add(driver, module, x, 1 // 0, 2))
        add(driver, module, x, 70, 1)
        assert set(got(driver, x, a)) == {5}


def test_a_launch_of_a_graph_is_changed(driver: Driver) -> None:
    """From the next replay on; the others, and what is not done yet, stay as they were."""
    with driver.lock:
        module = driver.load(ALL)
        a = np.zeros(70, np.int64)
        x, y = put(driver, a), put(driver, a)

        def work() -> None:
            add(driver, module, x, 70, 2)
            driver.copy(y, x, 8)
            add(driver, module, x, 70, 100)

        graph = driver.capture(work)
        driver.replay(graph)
        driver.update(graph, 1, (y, 70, 1000))
        driver.replay(graph)
        assert set(got(driver, x, a)) == {104}
        assert got(driver, y, a).tolist() == [1104] + [1000] * 69
        driver.update(graph, 0, (y, 1, 5))
        driver.update(graph, 1, (x, 1, 7))
        driver.replay(graph)
        assert got(driver, y, a)[0] == 104 and got(driver, x, a)[0] == 111
        with pytest.raises((CompilerBug, IndexError)):
            driver.update(graph, 2, (x, 70, 1))


@pytest.mark.parametrize("forbidden", [
    lambda d, x, a: d.read(x, a), lambda d, x, a: d.write(x, a), lambda d, x, a: d.allocate(4),
    lambda d, x, a: d.free(x), lambda d, x, a: d.synchronise(),
    lambda d, x, a: d.capture(lambda: None),
], ids=["read", "write", "allocate", "free", "synchronise", "capture"])
def test_a_graph_holds_work_of_the_device_alone(driver: Driver, forbidden: Any) -> None:
    with driver.lock:
        a = np.zeros(3)
        x = put(driver, a)
        with pytest.raises(CompilerBug, match="a captured graph cannot"):
            driver.capture(lambda: forbidden(driver, x, a))
        got(driver, x, a)


def test_memory_that_is_not_there(driver: Driver) -> None:
    with driver.lock:
        kept = driver.allocate(1000)
        with pytest.raises(OutOfMemory) as raised:
            driver.allocate(driver.properties.memory)
        message = str(raised.value)
        assert f"the memory of {driver.name} is used up" in message
        assert "expected: at most" in message and "B more" in message
        assert isinstance(raised.value, MemoryError)
        driver.free(kept)


def test_memory_about_to_be_freed_is_used(driver: Driver) -> None:
    half = driver.properties.memory // 2 + 1000
    with driver.lock:
        for _ in range(2):
            x = driver.allocate(half)
            driver.fill(x, 0, 8)
            driver.free(x)
        driver.discard(driver.allocate(half))
        driver.free(driver.allocate(half))


def test_tensor_maps(driver: Driver) -> None:
    if driver.name == "pycuda":
        with pytest.raises(Unsupported, match="PyCUDA has no tensor maps"):
            driver.tensor_map(TensorMap(DataType.FLOAT32, 0, (8, 8), (32,), (8, 8), (1, 1)))
        return
    if driver.capability < (9, 0):
        pytest.skip("the device has no tensor copies")
    text = (Path(__file__).parents[1] / "ptxsim" / "data" / "bulk.ptx").read_text()
    with driver.lock:
        a = np.arange(4 * 16 * 8, dtype=np.float32).reshape(4, 16, 8)
        x, y = put(driver, a), put(driver, np.ones_like(a))
        maps = [driver.tensor_map(TensorMap(
            DataType.FLOAT32, address, (8, 16, 4), (32, 512), (8, 4, 4), (1, 1, 1)))
            for address in (x, y)]
        assert {len(m) for m in maps} == {128}
        driver.launch(driver.load(text), "tensor_add", 4, 128, tuple(maps))
        threads = np.tile(np.arange(128).reshape(4, 4, 8), (1, 4, 1))
        np.testing.assert_array_equal(got(driver, y, a), 1 + a + threads)
        with pytest.raises(UserError, match="tensor map: bad strides"):
            driver.tensor_map(TensorMap(DataType.FLOAT32, x, (64, 8), (250,), (32, 8), (1, 1)))


def test_a_module_that_is_gone(driver: Driver) -> None:
    with driver.lock:
        a = np.zeros(5, np.int64)
        x = put(driver, a)
        module = driver.load(ALL)
        add(driver, module, x, 5, 3)
        del module
        gc.collect()
        driver.free(driver.allocate(4))
        assert set(got(driver, x, a)) == {3}


def test_unknown_kernels(driver: Driver) -> None:
    with driver.lock:
        with pytest.raises(CompilerBug, match="there is no kernel nothing"):
            driver.launch(driver.load(ALL), "nothing", 1, 1, ())
            driver.synchronise()


# --- the simulator alone -----------------------------------------------------------------
def test_a_fault_is_raised_where_one_waits_and_the_simulator_goes_on() -> None:
    driver = SimDriver()
    module = driver.load(ALL)
    a = np.zeros(64, np.int64)
    x = put(driver, a)
    add(driver, module, x, 65, 1, what=What())
    add(driver, module, x, 64, 1)
    event = driver.record()
    with pytest.raises(CompilerBug) as raised:
        driver.synchronise()
    message = str(raised.value)
    assert message.startswith("the code for a GPU is wrong: ")
    assert "outside of every allocation" in message
    assert message.endswith("  kernel:   softmax\n  at:       model.py:7")
    assert driver.reached(event)
    driver.fill(x, 0, a.nbytes)
    add(driver, module, x, 64, 1)
    assert set(got(driver, x, a)) == {1}


def test_streams_do_not_wait_unasked_in_the_simulator() -> None:
    """Memory that another stream has yet to fill holds poison."""
    driver = SimDriver()
    module = driver.load(ALL)
    a = np.zeros(4, np.int64)
    x, other = put(driver, a), driver.new_stream()
    add(driver, module, x, 4, 1, stream=other)
    assert 1 not in got(driver, x, a, other)
    with pytest.raises(CompilerBug, match="sim has no stream 77"):
        driver.fill(x, 0, 8, stream=77)
