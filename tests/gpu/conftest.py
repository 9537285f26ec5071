"""The helpers of tests/codegen, and CUDA: pretended, or that of this machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_here import hardware, pretend
from device_arrays import counted
from fake_cuda import FakeCuda
from fake_pycuda import install

from tilewright.frontend import foreign
from tilewright.runtime.gpu import pycuda
from tilewright.runtime.gpu.cuda import cuda_driver

sys.path.insert(0, str(Path(__file__).parents[1] / "codegen"))


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the driver of the simulator was asked for what."""
    return counted(monkeypatch)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A pretended CUDA with a GPU of compute capability 9.0 and one of 8.0."""
    cuda = FakeCuda((9, 0), (8, 0))
    pretend(monkeypatch, cuda)
    cuda_driver.cache_clear()
    yield cuda
    cuda_driver.cache_clear()


@pytest.fixture
def fake_pycuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A pretended PyCUDA with a current context; the CUDA behind it."""
    cuda = FakeCuda((9, 0))
    driver = install(monkeypatch, cuda)
    driver.Device(0).make_context()
    monkeypatch.setattr(pycuda, "_drivers", {})
    yield cuda
    sys.modules.pop("tilewright.frontend.gpuarray", None)
    foreign.CALLS.pop("pycuda.gpuarray", None)


@pytest.fixture(params=["pretended", pytest.param("hardware", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest) -> str:
    """The target of a GPU: a pretended one, and that of this machine if there is one."""
    if request.param == "pretended":
        request.getfixturevalue("fake_cuda")
    else:
        hardware()
    return "cuda"
