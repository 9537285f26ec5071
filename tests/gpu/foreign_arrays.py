"""Arrays of a package that does not exist, in the memory of a pretended CUDA."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import FakeCuda

from tilewright.runtime.gpu import dlpack


class Elsewhere:
    """A package: its arrays lie on a GPU, its work is in a stream of its own."""

    def __init__(self, cuda: FakeCuda, number: int = 0) -> None:
        self.cuda, self.number, self.chip = cuda, number, cuda.chips[number]
        self.chip.streams[77] = self.chip.sim.new_stream()
        self.stream = 77
        self.made = 0

    @property
    def memory(self) -> Any:
        return self.chip.sim.simulator.memory

    def empty(self, shape: Any, dtype: Any = np.float32) -> ForeignArray:
        array = ForeignArray(self, np.dtype(dtype), tuple(shape))
        self.made += 1
        return array

    def array(self, host: np.ndarray, late: bool = False) -> ForeignArray:
        """An array with these contents; ``late``: the stream has them yet to write."""
        made = self.empty(host.shape, host.dtype)
        raw = host.copy()
        if late:
            self.chip.ask(self.stream, lambda: self.memory.put(made.address, raw))
        else:
            self.memory.put(made.address, raw)
        return made

    def get(self, array: ForeignArray) -> np.ndarray:
        """The contents, as the stream finds them when it comes to it."""
        seen: list[np.ndarray] = []
        nbytes = int(np.prod(array.shape)) * array.dtype.itemsize
        self.chip.ask(self.stream, lambda: seen.append(self.memory.get(array.address, nbytes)))
        self.chip.sim.synchronise(self.chip.number(self.stream))
        return seen[0].view(array.dtype).reshape(array.shape)


class ForeignArray:
    """One of its arrays."""

    def __init__(self, package: Elsewhere, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.package, self.dtype, self.shape = package, dtype, shape
        nbytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
        self.address = package.chip.sim.allocate(nbytes)
        self.asked: list[Any] = []
        self.strides: tuple[int, ...] | None = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self.package.number)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        """The consumer's stream waits for ours."""
        self.asked.append(stream)
        event = self.package.chip.sim.record(self.package.chip.number(self.package.stream))
        self.package.chip.sim.wait(event, self.package.chip.number(stream))
        return dlpack.capsule(
            self.address, self.dtype, self.shape, self.__dlpack_device__(), self, max_version)


class OldArray:
    """An array with ``__cuda_array_interface__`` alone."""

    def __init__(self, array: ForeignArray, **more: Any) -> None:
        self.__cuda_array_interface__ = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str, "strides": None,
            "data": (array.address, False), "stream": array.package.stream, **more}


def cupy_of(package: Elsewhere) -> ModuleType:
    """As much of CuPy as is used, with arrays of this package."""
    module: Any = ModuleType("cupy")

    class ndarray(ForeignArray):  # noqa: N801 - CuPy's name
        @property
        def data(self) -> Any:
            return SimpleNamespace(ptr=self.address)

        @property
        def device(self) -> Any:
            return SimpleNamespace(id=self.package.number)

    class Device:
        def __init__(self, number: int) -> None:
            assert number == package.number

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    def empty(shape: Any, dtype: Any = np.float32) -> Any:
        package.made += 1
        return ndarray(package, np.dtype(dtype), tuple(shape))

    def array(host: np.ndarray, late: bool = False) -> Any:
        made = package.array(host, late)
        made.__class__ = ndarray
        return made

    module.ndarray, module.empty, module.array = ndarray, empty, array
    module.ascontiguousarray = lambda x: x
    module.cuda = SimpleNamespace(
        Device=Device, get_current_stream=lambda: SimpleNamespace(ptr=package.stream))
    return module
