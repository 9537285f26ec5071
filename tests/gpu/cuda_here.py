"""CUDA in this process: pretended, or that of the machine."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from fake_cuda import FakeCuda

from tilewright.errors import DeviceError
from tilewright.runtime.gpu.cuda import CudaDriver, cuda_driver
from tilewright.runtime.gpu.pycuda import PycudaDriver, pycuda_driver


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    """Let ``from cuda.bindings import driver`` give a pretended CUDA."""
    package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    bindings.driver = cuda
    for name, module in (
        ("cuda", package), ("cuda.bindings", bindings), ("cuda.bindings.driver", cuda),
    ):
        monkeypatch.setitem(sys.modules, name, module)


def hardware() -> CudaDriver:
    """The GPU of this machine; the test is skipped if there is none."""
    try:
        return cuda_driver(0)
    except DeviceError as error:
        pytest.skip(error.what)


def pycuda_hardware() -> PycudaDriver:
    """PyCUDA on the GPU of this machine; the test is skipped if there is none."""
    try:
        import pycuda.autoinit  # noqa: F401
    except Exception as error:  # PyCUDA's own, and those of a driver that is not there
        pytest.skip(str(error).split("\n")[0])
    return pycuda_driver()
