"""PyCUDA's ``GPUArray`` as an argument of jitted functions: results are GPUArrays as well.

Loaded when the first one is met. The memory is used where it is, in PyCUDA's current context.
"""

from __future__ import annotations

import functools
from typing import Any

from pycuda import driver, gpuarray

from tilewright.errors import ShapeError
from tilewright.frontend import foreign, tree
from tilewright.frontend.array import Array
from tilewright.frontend.build import checked_dtype
from tilewright.frontend.location import here, placed
from tilewright.runtime.gpu.device import Device, Resident


class Pointer(driver.PointerHolderBase):
    """The memory of a result, which lives as long as a GPUArray holds it."""

    def __init__(self, resident: Resident) -> None:
        super().__init__()
        self.resident = resident

    def get_pointer(self) -> int:
        """The address."""
        return self.resident.address


class Lent:
    """The memory of a GPUArray."""

    def __init__(self, array: Any) -> None:
        self.array, self.address = array, int(array.gpudata) if array.size else 0


def call_jitted(jitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of a jitted function with a GPUArray among its arguments; all results are GPUArrays.

    Raises ``ShapeError`` for one that is not C-contiguous, ``DTypeError`` for an element type that
    is not supported; what else is wrong as for a :class:`tw.Array`. Errors that the device finds
    are raised at once.
    """
    from tilewright.runtime.gpu.devices import device_named

    with placed():
        device = device_named("pycuda")

    def given(name: str, value: Any) -> Any:
        return tree.map_with_path(functools.partial(_given, device, name), value)

    passed = [given(jitted.parameters.name(i), value) for i, value in enumerate(args)]
    named = {name: given(name, value) for name, value in kwargs.items()}
    return tree.map(_returned, jitted(*passed, **named))


def _given(device: Device, name: str, path: str, leaf: Any) -> Any:
    """An argument's leaf, as an array on the device if it is a GPUArray."""
    if not isinstance(leaf, gpuarray.GPUArray):
        return leaf
    if not leaf.flags.c_contiguous:
        raise ShapeError(
            f"the GPUArray {name}{path} is not C-contiguous",
            expected="elements row by row, no gaps",
            got=f"shape {leaf.shape}, strides {leaf.strides}", loc=here(),
            hint="pycuda.gpuarray.to_gpu(np.ascontiguousarray(x.get())) is")
    checked_dtype(leaf.dtype, f"the GPUArray {name}{path}")
    return Array(Resident(device, Lent(leaf), leaf.dtype, tuple(leaf.shape)))


def _returned(result: Any) -> Any:
    """A result as a GPUArray, once its checks are known to hold."""
    if not isinstance(result, Array):
        return gpuarray.to_gpu(result)
    resident = result.resident()
    with resident.device.driver.lock:
        resident.device.check(resident.tickets)
    return gpuarray.GPUArray(resident.shape, resident.dtype, gpudata=Pointer(resident))


foreign.CALLS["pycuda.gpuarray"] = call_jitted
