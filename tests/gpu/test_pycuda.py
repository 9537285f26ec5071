"""The driver on a pretended PyCUDA: its context and stream, its arrays, its errors."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from device_kernels import ALL
from fake_cuda import FakeCuda

import tilewright as tw
from tilewright import config
from tilewright.errors import (
    CompilerBug,
    DeviceError,
    DTypeError,
    Location,
    OutOfBounds,
    OutOfMemory,
    ShapeError,
    UserError,
)
from tilewright.runtime.gpu.drivers import target_of
from tilewright.runtime.gpu.pycuda import PycudaDriver, pycuda_driver

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class What:
    name: str = "softmax"
    loc: Location | None = Location("model.py", 7, "f")


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.fixture
def cu(fake_pycuda: FakeCuda) -> ModuleType:
    return sys.modules["pycuda.driver"]


@pytest.fixture
def arrays(fake_pycuda: FakeCuda) -> ModuleType:
    return sys.modules["pycuda.gpuarray"]


# --- arrays ------------------------------------------------------------------------------
def test_gpuarrays_in_and_out(arrays: ModuleType) -> None:
    @tw.jit
    def f(tree, y):
        return {"sum": tree["x"] @ tree["x"].T + y, "exp": np.exp(tree["x"])}, tree["x"].sum()

    x, y = f32(6, 5), np.float32(2)
    for _ in range(2):
        got, total = f({"x": arrays.to_gpu(x)}, y)
        for result in (got["sum"], got["exp"], total):
            assert type(result) is arrays.GPUArray
        np.testing.assert_allclose(got["sum"].get(), x @ x.T + 2, rtol=1e-5)
        np.testing.assert_allclose(got["exp"].get(), np.exp(x), rtol=1e-6)
        np.testing.assert_allclose(total.get(), x.sum(), rtol=1e-5)
    assert target_of("pycuda").name == "sm_90"


def test_results_are_arguments(arrays: ModuleType) -> None:
    f = tw.jit(lambda x: x * 2 + 1)
    x = arrays.to_gpu(np.ones((3, 4), np.float32))
    address = int(x.gpudata)
    for _ in range(3):
        x = f(x)
    del address
    gc.collect()
    assert set(x.get().ravel()) == {15}
    empty = f(arrays.to_gpu(np.zeros((0, 4), np.float32)))
    assert empty.shape == (0, 4) and empty.get().shape == (0, 4)


def test_numpy_arrays_by_name(fake_pycuda: FakeCuda) -> None:
    """``target="pycuda"`` without a GPUArray: what goes in comes out."""
    x = f32(40)
    got = tw.jit(lambda x: np.sort(x), target="pycuda")(x)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, np.sort(x))
    with config.override(target="pycuda"):
        np.testing.assert_array_equal(tw.jit(lambda x: x - 1)(x), x - 1)


def test_donated_memory_becomes_a_result(arrays: ModuleType) -> None:
    f = tw.jit(lambda w, g: w - g, donate_argnames="w")
    w, g = f32(16), f32(16)
    x = arrays.to_gpu(w)
    address = int(x.gpudata)
    got = f(x, arrays.to_gpu(g))
    assert int(got.gpudata) == address
    del x
    gc.collect()
    np.testing.assert_array_equal(got.get(), w - g)


def test_indices_are_checked_before_results_are_given(arrays: ModuleType) -> None:
    f = tw.jit(lambda x, i: x[i])
    x = arrays.to_gpu(f32(5))
    with pytest.raises(OutOfBounds, match="index outside an axis of size 5"):
        f(x, arrays.to_gpu(np.array([9])))
    assert f(x, arrays.to_gpu(np.array([4]))).shape == (1,)


def test_arrays_that_cannot_be_taken(arrays: ModuleType) -> None:
    f = tw.jit(lambda x: x + 1)
    turned = arrays.GPUArray((3, 4), np.float32, strides=(4, 12))
    with pytest.raises(ShapeError) as raised:
        tw.jit(lambda values: values["a"] + 1)({"a": turned})
    message = str(raised.value)
    assert message.startswith("the GPUArray values['a'] is not C-contiguous\n  expected: ele")
    assert "got:      shape (3, 4), strides (4, 12)" in message and "test_pycuda.py:" in message
    with pytest.raises(DTypeError, match="the GPUArray x"):
        f(arrays.GPUArray((3,), np.complex64))
    with pytest.raises(UserError, match="compiled for sim, and its argument"):
        tw.jit(lambda x: x + 1, target="sim")(arrays.to_gpu(f32(3)))


# --- contexts and streams ----------------------------------------------------------------
def test_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(DeviceError, match="pip install 'tilewright\\[pycuda\\]'"):
        tw.jit(lambda x: x + 1, target="pycuda")(f32(3))


def test_no_context(cu: ModuleType) -> None:
    cu.Context.pop()
    with pytest.raises(DeviceError, match="this thread has no current context of PyCUDA\n  at: "):
        tw.jit(lambda x: x + 1, target="pycuda")(f32(3))


def test_threads_borrow_the_context(cu: ModuleType) -> None:
    f = tw.jit(lambda x: x + 1, target="pycuda")
    x = f32(9)
    f(x)

    def use(i: int) -> np.ndarray:
        result = f(x)
        assert cu.Context.get_current() is None
        return result

    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(use, range(4)):
            np.testing.assert_array_equal(got, x + 1)


def test_another_context(cu: ModuleType) -> None:
    f, x = tw.jit(lambda x: x + 1, target="pycuda"), f32(9)
    f(x)
    cu.Device(0).make_context()
    with pytest.raises(DeviceError, match="the current context of PyCUDA is another one"):
        f(x)
    np.testing.assert_array_equal(tw.jit(lambda x: x + 1, target="pycuda")(x), x + 1)
    cu.Context.pop()
    np.testing.assert_array_equal(f(x), x + 1)


@pytest.mark.parametrize("flags", [0, 1], ids=["blocking", "not blocking"])
def test_a_stream_of_the_user(cu: ModuleType, arrays: ModuleType, flags: int) -> None:
    driver, stream = pycuda_driver(), cu.Stream(flags)
    x = arrays.to_gpu(np.zeros(40, np.float32))
    f = tw.jit(lambda x: x + 1)
    x = f(x)
    with driver.use(stream):
        assert driver.stream == stream.handle
        x = f(f(x))
    assert driver.stream == 0
    assert set(f(x).get()) == {4}


# --- errors ------------------------------------------------------------------------------
def broken(driver: PycudaDriver) -> Any:
    """Launch a kernel that reads beyond its memory."""
    module, x = driver.load(ALL), driver.allocate(80)
    driver.fill(x, 0, 80)
    driver.launch(module, "add", 1, 32, (x, 11, 1), what=What())
    return module


def test_a_kernel_that_fails(fake_pycuda: FakeCuda) -> None:
    driver = pycuda_driver()
    with driver.lock:
        kept = driver.allocate(8)
        module = broken(driver)
        with pytest.raises(CompilerBug) as raised:
            driver.read(kept, np.zeros(1))
        del module
        assert str(raised.value) == (
            "a kernel failed on pycuda: cuCtxSynchronize failed: an illegal memory access was "
            "encountered\n  kernel:   softmax, model.py:7\n"
            "  hint:     this process cannot use pycuda any more"
        )
        driver.free(kept)
    with pytest.raises(DeviceError, match="this process cannot use pycuda any more"):
        tw.jit(lambda x: x + 1, target="pycuda")(f32(3))


def test_what_others_did_is_not_our_bug(fake_pycuda: FakeCuda) -> None:
    driver = pycuda_driver()
    with driver.lock:
        fake_pycuda.chips[0].sticky = 702
        with pytest.raises(DeviceError, match="pycuda failed: cuCtxSynchronize failed: the launch"):
            driver.synchronise()


def test_ptx_that_is_refused(fake_pycuda: FakeCuda) -> None:
    driver = pycuda_driver()
    fake_pycuda.version = 11020
    with driver.lock:
        for version, target in ("7.8", "sm_90"), ("7.0", "sm_100"):
            with pytest.raises(DeviceError, match="the driver of pycuda is too old for the code"):
                driver.load(ALL.replace("7.0", version).replace("sm_52", target))
        with pytest.raises(CompilerBug, match="pycuda does not accept the PTX: .*ptxas fatal"):
            driver.load(ALL.replace("bar.sync 0;", "bar.sync 0"))
        with pytest.raises(CompilerBug, match="PyCUDA refuses a call: cuFuncSetAttribute failed"):
            driver.launch(driver.load(ALL), "turn", 1, 32, (0,), shared=1 << 20)


def test_memory(fake_pycuda: FakeCuda) -> None:
    driver = pycuda_driver()
    with driver.lock, pytest.raises(OutOfMemory, match="the memory of pycuda is used up\n  expe"):
        driver.allocate(1 << 40)
