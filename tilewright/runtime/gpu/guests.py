"""Arrays of other packages on a GPU as inputs and results of programs: PyTorch's, CuPy's.

They are read where they are. Results are made by their package, so that its own allocator has their
memory, and all of it happens in the order of the stream that is current there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.runtime.gpu.device import Borrowed, Device, Resident


@dataclass(frozen=True)
class Guest:
    """What must be known of a package.

    number   of the GPU that an array is on; None: it is not on one
    packed   the array itself if it is C-contiguous, or a copy that is
    address  of an array's memory
    dtype    of an array, in NumPy's words
    empty    an array of this dtype and shape on the GPU of this number
    stream   CUDA's handle of the stream that is current on the GPU of this number
    """

    number: Callable[[Any], int | None]
    packed: Callable[[Any], Any]
    address: Callable[[Any], int]
    dtype: Callable[[Any], np.dtype]
    empty: Callable[[np.dtype, tuple[int, ...], int], Any]
    stream: Callable[[int], int]

    def resident(self, array: Any) -> Resident:
        """An array of a GPU where it is; a copy if it is not C-contiguous."""
        from tilewright.runtime.gpu.devices import device_named

        array = self.packed(array)
        device = device_named(f"cuda:{self.number(array)}")
        memory = Borrowed(self.address(array), array)
        return Resident(device, memory, self.dtype(array), tuple(map(int, array.shape)))

    @contextmanager
    def calls(self, device: Device) -> Iterator[None]:
        """Programs of the device are work of this package's current stream."""
        number = int(device.name.partition(":")[2])

        def make(dtype: np.dtype, shape: tuple[int, ...]) -> Borrowed:
            array = self.empty(dtype, shape, number)
            return Borrowed(self.address(array), array)

        with device.visit(self.stream(number), make):
            yield


def array_of(resident: Resident) -> Any:
    """The package's array that a result lies in.

    It leaves our hands: a failed check of the calls that it comes from is raised here.
    """
    with resident.device.driver.lock:
        resident.device.check(resident.tickets)
    return resident.memory.owner
