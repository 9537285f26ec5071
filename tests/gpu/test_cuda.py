"""The CUDA driver on a pretended CUDA: what is said when something is wrong, threads, objects."""

from __future__ import annotations

import gc
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_here import pretend
from device_kernels import ALL
from fake_cuda import FakeCuda
from fake_cuda_types import CUresult

from tilewright.errors import CompilerBug, DeviceError, Location, OutOfMemory, Unsupported
from tilewright.ptxsim.tensormap import DataType, TensorMap
from tilewright.report import doctor
from tilewright.runtime.gpu.cuda import CudaDriver
from tilewright.runtime.gpu.cuda_calls import bindings
from tilewright.runtime.gpu.drivers import driver_named, seen, target_of
from tilewright.runtime.gpu.launching import Arguments


@dataclass(frozen=True)
class What:
    name: str
    loc: Location | None


SOFTMAX = What("softmax", Location("model.py", 7, "f"))


def faulty(driver: CudaDriver, *names: str) -> Any:
    """Launch kernels of which the last reads beyond its memory; their module."""
    module = driver.load(ALL)
    x = driver.allocate(80)
    driver.fill(x, 0, 80)
    for i, name in enumerate(names):
        what = What(name, Location("model.py", i + 1, "f"))
        n = 11 if i == len(names) - 1 else 10
        driver.launch(module, "add", 1, 32, (x, n, 1), what=what)
    return module


# --- what may be missing -----------------------------------------------------------------
def test_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(DeviceError) as raised:
        bindings()
    assert str(raised.value) == (
        "CUDA needs the package cuda-bindings, which cannot be imported\n"
        "  got:      import of cuda.bindings halted; None in sys.modules\n"
        "  hint:     pip install 'tilewright[cuda]'; target=\"sim\" runs the same code without a "
        "GPU"
    )


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()

    def missing(flags: int) -> Any:
        raise RuntimeError("Failed to dlopen libcuda.so.1\nand more")

    cuda.cuInit = missing
    pretend(monkeypatch, cuda)
    with pytest.raises(DeviceError) as raised:
        bindings()
    assert str(raised.value) == (
        "there is no NVIDIA driver on this machine\n"
        "  got:      Failed to dlopen libcuda.so.1\n"
        "  hint:     nvidia-smi tells whether one is installed and runs; target=\"sim\" runs the "
        "same code without a GPU"
    )


@pytest.mark.parametrize("code,what", [
    (CUresult.CUDA_ERROR_NO_DEVICE,
     "the NVIDIA driver finds no GPU\n  got:      no CUDA-capable device is detected (CUDA_"),
    (CUresult.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
     "the NVIDIA driver does not start\n  got:      system has unsupported display driver / cuda"),
])
def test_no_device(monkeypatch: pytest.MonkeyPatch, code: CUresult, what: str) -> None:
    pretend(monkeypatch, FakeCuda(init=code))
    with pytest.raises(DeviceError, match="^" + re.escape(what)):
        bindings()
    assert seen()[0] == f"none        {what.splitlines()[0]}"


def test_no_such_device(fake_cuda: FakeCuda) -> None:
    with pytest.raises(DeviceError) as raised:
        driver_named("cuda:2")
    assert str(raised.value) == (
        "there is no device cuda:2\n  expected: cuda:0 to cuda:1\n  got:      cuda:2\n"
        "  hint:     nvidia-smi -L lists them, and CUDA_VISIBLE_DEVICES may hide them"
    )


def test_a_driver_that_lacks_a_function(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")

    def missing(*arguments: Any) -> Any:
        raise RuntimeError('Function "cuGraphLaunch" not found')

    fake_cuda.cuGraphLaunch = missing
    with driver.lock:
        graph = driver.capture(lambda: None)
        with pytest.raises(DeviceError, match="the NVIDIA driver is too old: it has no cuGraphLau"):
            driver.replay(graph)


# --- devices -----------------------------------------------------------------------------
def test_targets_are_what_devices_say(fake_cuda: FakeCuda) -> None:
    first, second = target_of("cuda"), target_of("cuda:1")
    assert first.gpu is not None and second.gpu is not None
    assert (first.name, first.gpu.device, first.gpu.tier) == ("sm_90a", "cuda:0", "wgmma")
    assert (second.name, second.gpu.device) == ("sm_80", "cuda:1")
    assert (first.gpu.multiprocessors, first.l2, first.gpu.ptx) == (132, 50 << 20, 90)
    assert seen() == [
        "driver      CUDA 13.1, PTX 9.0",
        "cuda:0      Pretended GPU, compute capability 9.0 (sm_90a), 132 multiprocessors, 33.55 MB",
        "cuda:1      Pretended GPU, compute capability 8.0 (sm_80), 132 multiprocessors, 33.55 MB",
    ]


def test_the_doctor_tries_every_device(fake_cuda: FakeCuda) -> None:
    assert [line.split("(")[0] for line in doctor.gpus()[3:]] == [
        f"cuda:{i}      compiled, ran and agrees with NumPy " for i in (0, 1)]
    fake_cuda.chips[1].sticky = 700
    assert doctor.gpus()[4].startswith("cuda:1      failed: ")


@pytest.mark.parametrize("version,name", [(13050, "sm_90a"), (11080, "sm_90"), (11070, "sm_87")])
def test_an_old_driver_gets_code_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, fake_cuda: FakeCuda, version: int, name: str
) -> None:
    fake_cuda.version = version
    assert target_of("cuda").name == name


def test_a_driver_that_knows_no_version_of_the_code(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    fake_cuda.version = driver.version = 11020
    driver.ptx = 72
    for version, target in ("7.8", "sm_90"), ("7.0", "sm_100"):
        text = ALL.replace("7.0", version).replace("sm_52", target)
        with driver.lock, pytest.raises(DeviceError) as raised:
            driver.load(text)
        message = str(raised.value)
        assert message.startswith("the driver of cuda:0 is too old for the code: ")
        assert f"expected: one that reads PTX {version} for {target}" in message
        assert "got:      CUDA 11.2, which reads PTX 7.2" in message


def test_wrong_ptx_is_our_bug(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock, pytest.raises(CompilerBug) as raised:
        driver.load(ALL.replace("bar.sync 0;", "bar.sync 0"))
    message = str(raised.value)
    assert message.startswith("cuda:0 does not accept the PTX: a PTX JIT compilation failed (CUDA")
    assert "\nptxas fatal: " in message


def test_what_the_device_lacks(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:1")
    with pytest.raises(Unsupported, match="cuda:1 has no tensor copies"):
        driver.tensor_map(TensorMap(DataType.FLOAT32, 0, (8, 4), (32,), (8, 4), (1, 1)))
    with driver.lock, pytest.raises(CompilerBug, match="cuFuncSetAttribute failed on cuda:1: inv"):
        driver.launch(driver.load(ALL), "turn", 1, 32, (0,), shared=1 << 20)


def test_memory_for_something_else(fake_cuda: FakeCuda) -> None:
    fake_cuda.cuStreamCreate = lambda flags: (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
    with pytest.raises(OutOfMemory, match="the memory of cuda:0 is used up\n  got:      cuStreamC"):
        driver_named("cuda:0")


# --- a kernel that fails -----------------------------------------------------------------
def test_a_kernel_that_fails(fake_cuda: FakeCuda) -> None:
    """Whoever waits is told its name and line; then the device is gone, and all say so."""
    driver = driver_named("cuda:0")
    with driver.lock:
        kept = driver.allocate(8)
        faulty(driver, "softmax")
        with pytest.raises(CompilerBug) as raised:
            driver.read(kept, np.zeros(1))
        assert str(raised.value) == (
            "a kernel failed on cuda:0: an illegal memory access was encountered "
            "(CUDA_ERROR_ILLEGAL_ADDRESS)\n"
            "  kernel:   softmax, model.py:1\n"
            "  hint:     this process cannot use cuda:0 any more"
        )
        driver.free(kept)
    for use in (lambda: driver.lock.__enter__(), lambda: target_of("cuda") and driver.load(ALL)):
        with pytest.raises(DeviceError) as lost:
            use()
        assert str(lost.value) == (
            "this process cannot use cuda:0 any more\n"
            "  got:      an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS)\n"
            "  hint:     an error before this one says why; start a new process"
        )
    with driver_named("cuda:1").lock:
        driver_named("cuda:1").synchronise()


def test_several_kernels_may_have_failed(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock:
        x = driver.allocate(8)
        driver.fill(x, 0, 8)
        driver.launch(driver.load(ALL), "add", 1, 32, (x, 1, 1), what=What("seen", None))
        driver.synchronise()
        module = faulty(driver, "a", "b", "b", "c", "d", "e", "f", "g")
        with pytest.raises(CompilerBug) as raised:
            driver.synchronise()
    del module
    lines = str(raised.value).splitlines()
    assert lines[1] == "  kernels:  one of these, the last launched first:"
    assert [line.split()[0] for line in lines[2:7]] == ["g,", "f,", "e,", "d,", "c,"]
    assert lines[7] == "            and 3 before them"
    assert "with CUDA_LAUNCH_BLOCKING=1 in the environment" in lines[8]


def test_launches_that_block_name_the_kernel(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    driver = driver_named("cuda:0")
    with driver.lock:
        faulty(driver, "fine", "wrong")
        with pytest.raises(CompilerBug, match="kernel:   wrong, model.py:2\n  hint:     this proc"):
            driver.synchronise()


def test_a_launch_that_asks_for_too_much(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock:
        module = driver.load(ALL)
        with pytest.raises(CompilerBug) as raised:
            driver.launch(module, "add", 1, 2048, (0, 0, 0), what=SOFTMAX)
        assert str(raised.value) == (
            "cuLaunchKernel failed on cuda:0: invalid argument (CUDA_ERROR_INVALID_VALUE)\n"
            "  kernel:   softmax, model.py:7"
        )
        driver.launch(module, "add", 1, 32, (0, 0, 0))
        driver.synchronise()


def test_kernels_of_a_graph_are_named(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock:
        module, x = driver.load(ALL), driver.allocate(80)
        graph = driver.capture(
            lambda: driver.launch(module, "add", 1, 32, (x, 11, 1), what=SOFTMAX))
        driver.synchronise()
        driver.replay(graph)
        with pytest.raises(CompilerBug, match="softmax, model.py:7"):
            driver.synchronise()


def test_what_others_did_is_not_our_bug(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock:
        fake_cuda.chips[0].sticky = 700
        with pytest.raises(DeviceError, match="^cuda:0 failed: an illegal memory access"):
            driver.synchronise()
    other = driver_named("cuda:1")
    with other.lock:
        faulty(other, "slow")
        fake_cuda.chips[1].sticky = 702
        with pytest.raises(DeviceError, match="^a kernel failed on cuda:1: the launch timed out"):
            other.synchronise()


# --- calls -------------------------------------------------------------------------------
def test_threads_have_the_context_while_they_hold_the_lock(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with pytest.raises(CompilerBug, match="cuMemAllocFromPoolAsync failed on cuda:0: invalid dev"):
        driver.allocate(8)

    def use(i: int) -> int:
        with driver.lock, driver.lock:
            a = np.full(10, i)
            x = driver.allocate(a.nbytes)
            driver.write(x, a)
            driver.read(x, a)
            driver.discard(x)
        assert not fake_cuda.stack
        return int(a[3])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(20))) == list(range(20))


def test_objects_that_are_gone_are_destroyed(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock:
        before = len(fake_cuda.objects)
        kept = [driver.load(ALL), driver.record(), driver.capture(lambda: None)]
        assert len(fake_cuda.objects) == before + 4  # a graph, and what it was made of
        kept.clear()
        gc.collect()
        driver.free(driver.allocate(1))
        assert len(fake_cuda.objects) == before


def test_a_failed_capture_leaves_nothing(fake_cuda: FakeCuda) -> None:
    driver = driver_named("cuda:0")
    with driver.lock:
        before, stream = len(fake_cuda.objects), driver.stream
        with pytest.raises(ZeroDivisionError):
            driver.capture(lambda: 1 // 0)
        driver.free(driver.allocate(1))  # what is not needed any more is destroyed before
        assert (len(fake_cuda.objects), driver.stream) == (before, stream)


def test_arguments_in_memory() -> None:
    """Structures are aligned to 64 bytes, and numbers follow them."""
    arguments = Arguments((7, b"m" * 128, -1))
    arguments.fill((8, b"x" * 128, 1 << 62))
    offsets = [int(a) - int(arguments.array[0]) for a in arguments.array]
    assert offsets == [0, 64, 192] and int(arguments.array[0]) % 64 == 0
    assert bytes(arguments.bytes[64:192]) == b"x" * 128
    with pytest.raises(CompilerBug, match="arguments of another kind"):
        arguments.fill((8, 9, 10))
    with pytest.raises(CompilerBug, match="arguments of another kind"):
        arguments.fill((8, b"x" * 128))
