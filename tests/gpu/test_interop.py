"""Arrays of other packages in and out: DLPack, ``__cuda_array_interface__``, CuPy."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fake_cuda import FakeCuda
from foreign_arrays import Elsewhere, OldArray, cupy_of

import tilewright as tw
from tilewright.errors import DTypeError, OutOfBounds, UserError
from tilewright.frontend import on_device
from tilewright.runtime.gpu import dlpack
from tilewright.runtime.gpu.devices import device_named

torch = pytest.importorskip("torch")
RANDOM = np.random.default_rng(2)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


@pytest.fixture
def package(fake_cuda: FakeCuda) -> Iterator[Elsewhere]:
    on_device._jitted.clear()
    yield Elsewhere(fake_cuda)
    on_device._jitted.clear()


@pytest.fixture
def cupy(package: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = cupy_of(package)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


# --- the CPU ------------------------------------------------------------------------------------
HOST = [
    torch.arange(6).reshape(2, 3).T, torch.ones(3, dtype=torch.bfloat16), np.arange(5)[::2],
    torch.zeros(0, 3), torch.tensor(3.0), torch.tensor([True]), np.arange(4.0)[::-1],
]


@pytest.mark.parametrize("x", HOST, ids=lambda x: f"{x.dtype}{tuple(x.shape)}")
@pytest.mark.parametrize("version", [None, (1, 0)])
def test_capsules_of_the_cpu(x: Any, version: Any) -> None:
    taken = dlpack.take(x.__dlpack__(**({"max_version": version} if version else {})))
    want = x.float().numpy() if x.dtype is torch.bfloat16 else np.asarray(x)
    np.testing.assert_array_equal(taken.array().astype(want.dtype), want)
    assert taken.array().shape == tuple(x.shape)


def test_arrays_of_the_cpu_come_without_a_copy() -> None:
    tensor = torch.arange(4.0)
    array = tw.from_dlpack(tensor)
    tensor[1] = 9
    del tensor
    gc.collect()
    assert isinstance(array, np.ndarray) and array.tolist() == [0, 9, 2, 3]
    assert isinstance(tw.from_dlpack(torch.ones(2), device="sim"), tw.Array)
    np.testing.assert_array_equal(tw.to_device(torch.ones(2), "sim").numpy(), np.ones(2))
    ours = tw.from_dlpack(np.ones(3), copy=True)
    ours[0] = 2
    with pytest.raises(UserError, match="an array on cpu cannot come to sim without a copy"):
        tw.from_dlpack(np.ones(3), device="sim", copy=False)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_, ml_dtypes.bfloat16, np.uint64])
@pytest.mark.parametrize("shape", [(3, 4), (), (0, 2), (1, 5, 1)])
def test_the_simulator_gives_copies(dtype: Any, shape: Any) -> None:
    host = RANDOM.integers(0, 2, shape).astype(dtype)
    array = tw.to_device(host, "sim")
    gc.collect()
    before = len(dlpack._given)
    assert array.__dlpack_device__() == (dlpack.CPU, 0)
    tensor = torch.from_dlpack(array)
    assert len(dlpack._given) == before + 1 and tuple(tensor.shape) == shape
    np.testing.assert_array_equal(tensor.double().numpy(), host.astype(float))
    if tensor.numel() and dtype in (np.float32, np.int8):
        tensor += 1
        np.testing.assert_array_equal(array.numpy(), host)
    del tensor
    gc.collect()
    assert len(dlpack._given) == before


def test_numpy_takes_one() -> None:
    array = tw.to_device(f32(3, 2), "sim")
    np.testing.assert_array_equal(np.from_dlpack(array), array.numpy())
    with pytest.raises(BufferError, match="becomes one of the CPU by a copy"):
        np.from_dlpack(array, copy=False)
    with pytest.raises(BufferError, match="cannot be given on DLPack's"):
        array.__dlpack__(dl_device=(2, 0))
    assert not hasattr(array, "__cuda_array_interface__")


def test_a_capsule_that_nobody_takes() -> None:
    gc.collect()
    before = len(dlpack._given)
    capsule = tw.to_device(f32(3), "sim").__dlpack__()
    assert len(dlpack._given) == before + 1
    del capsule
    gc.collect()
    assert len(dlpack._given) == before


def test_what_cannot_be_taken() -> None:
    class Odd:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (10, 0)

        def __dlpack__(self) -> None: ...

    with pytest.raises(UserError, match="DLPack's device type 10"):
        tw.from_dlpack(Odd())
    with pytest.raises(UserError, match="tw.from_dlpack takes an array of another package"):
        tw.from_dlpack([1, 2])
    with pytest.raises(DTypeError, match="kind 5 of 64 bits"):
        tw.from_dlpack(torch.ones(2, dtype=torch.complex64))


# --- GPUs ---------------------------------------------------------------------------------------
def test_dlpack_from_a_gpu(package: Elsewhere) -> None:
    """No copy, in the order of both streams, and the memory lives as long as it is needed."""
    x = f32(5, 3)
    theirs = package.array(x, late=True)
    ours = tw.from_dlpack(theirs)
    assert ours.device == "cuda:0" and ours.resident().address == theirs.address
    assert theirs.asked == [device_named("cuda").driver.stream]
    result = tw.jit(lambda x: x @ x.T)(ours)
    del theirs, ours
    gc.collect()
    np.testing.assert_allclose(result.numpy(), x @ x.T, rtol=1e-5)
    assert len(dlpack._given) == 1
    for _ in range(3):  # CUDA may be late to say that an event is reached
        tw.jit(lambda x: x + 1)(result).numpy()
    gc.collect()
    assert not dlpack._given


def test_dlpack_to_a_gpu(package: Elsewhere) -> None:
    ours = tw.jit(lambda x: x * 2, target="cuda")(tw.to_device(f32(4), "cuda"))
    assert ours.__dlpack_device__() == (dlpack.CUDA, 0)
    taken = dlpack.take(ours.__dlpack__(stream=package.stream, max_version=(1, 0)))
    assert taken.address == ours.resident().address and taken.device == (dlpack.CUDA, 0)
    like = package.empty((4,))
    like.address = taken.address
    want = package.get(like)  # before we wait for anything
    np.testing.assert_array_equal(want, ours.numpy())
    np.testing.assert_array_equal(np.from_dlpack(ours, device="cpu"), want)
    copied = dlpack.take(ours.__dlpack__(stream=-1, copy=True))
    assert copied.address != taken.address


def test_the_interface_of_old(package: Elsewhere) -> None:
    x = f32(4, 2)
    theirs = package.array(x, late=True)
    ours = tw.from_dlpack(OldArray(theirs))
    assert ours.resident().address == theirs.address
    np.testing.assert_array_equal(ours.numpy(), x)
    told = tw.from_dlpack(OldArray(theirs, strides=(8, 4), stream=1)).__cuda_array_interface__
    assert told["data"] == (theirs.address, False) and told["shape"] == (4, 2)
    assert (told["typestr"], told["version"], told["strides"]) == ("<f4", 3, None)
    assert told["stream"] == device_named("cuda").driver.stream
    with pytest.raises(UserError, match="not C-contiguous") as raised:
        tw.from_dlpack(OldArray(theirs, strides=(4, 16)))
    assert "test_interop.py" in str(raised.value)
    with pytest.raises(UserError, match="with a mask"):
        tw.from_dlpack(OldArray(theirs, mask=theirs))
    with pytest.raises(DTypeError, match="element type that is not supported"):
        tw.from_dlpack(OldArray(theirs, typestr="<c8"))
    half = tw.to_device(x.astype(ml_dtypes.bfloat16), "cuda")
    assert not hasattr(half, "__cuda_array_interface__")


def test_an_unknown_package_is_told_the_way(package: Elsewhere) -> None:
    with pytest.raises(DTypeError, match=r"hint:     make it one without a copy: tw.from_dl"):
        tw.jit(lambda x: x + 1)(package.array(f32(3)))


def test_what_leaves_is_checked(package: Elsewhere) -> None:
    pick = tw.jit(lambda x, i: x[i])
    for give in (lambda a: a.__dlpack__(), lambda a: a.__cuda_array_interface__):
        bad = pick(tw.to_device(f32(3), "cuda"), np.array([3]))
        with pytest.raises(OutOfBounds):
            give(bad)


# --- CuPy ---------------------------------------------------------------------------------------
def test_cupy_in_and_out(package: Elsewhere, cupy: Any) -> None:
    """No copy, results in CuPy's own memory, all in the order of its stream."""
    f = tw.jit(lambda p, x, rate: {"y": x @ p["w"] * rate, "w": p["w"] - 1, "n": x.sum()})
    w, x = f32(3, 2), f32(4, 3)
    for _ in range(3):
        there = {"w": cupy.array(w, late=True)}
        before = package.made
        result = f(there, cupy.array(x, late=True), 0.5)
        assert package.made == before + 1 + 3
        assert all(type(v) is cupy.ndarray for v in result.values())
        np.testing.assert_allclose(package.get(result["y"]), x @ w * 0.5, rtol=1e-5)
        np.testing.assert_array_equal(package.get(result["w"]), w - 1)
    assert device_named("cuda").memory.used < 4096
    assert isinstance(f({"w": w}, x, 0.5)["n"], np.ndarray)


def test_cupy_with_arrays_of_the_cpu_and_of_ours(package: Elsewhere, cupy: Any) -> None:
    f = tw.jit(lambda x, y, z: x + y + z, target="cuda")
    x = f32(3)
    result = f(cupy.array(x, late=True), x, tw.to_device(x, "cuda"))
    np.testing.assert_allclose(package.get(result), 3 * x, rtol=1e-6)


def test_donated_cupy_arrays(package: Elsewhere, cupy: Any) -> None:
    f = tw.jit(lambda w, g: w - g[::-1], donate_argnames="w")
    w, g = f32(6), f32(6)
    theirs = cupy.array(w, late=True)
    result = f(theirs, cupy.array(g))
    assert result is theirs
    np.testing.assert_array_equal(package.get(result), w - g[::-1])
    again = f(theirs, theirs)
    np.testing.assert_array_equal(package.get(again), (w - g[::-1]) - (w - g[::-1])[::-1])
    assert type(f(w, cupy.array(g))) is cupy.ndarray


def test_failed_checks_of_cupy_calls_are_raised_at_once(package: Elsewhere, cupy: Any) -> None:
    f = tw.jit(lambda x, i: x[i])
    with pytest.raises(OutOfBounds, match="index outside an axis of size 3"):
        f(cupy.array(f32(3)), cupy.array(np.array([5])))


def test_cupy_on_two_gpus(package: Elsewhere, cupy: Any) -> None:
    other = cupy_of(Elsewhere(package.cuda, 1)).array(f32(3))
    other.__class__ = cupy.ndarray
    with pytest.raises(UserError, match="the arguments of <lambda> are on several devices"):
        tw.jit(lambda x, y: x + y)(cupy.array(f32(3)), other)
    with pytest.raises(UserError, match="compiled for sim, and its argument x is on cuda:0"):
        tw.jit(lambda x: x + 1, target="sim")(cupy.array(f32(3)))
