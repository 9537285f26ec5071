"""Arrays from other packages and for them: DLPack, ``__cuda_array_interface__``, CuPy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, UserError
from tilewright.frontend import foreign, tree
from tilewright.frontend.array import DONE, Array
from tilewright.frontend.location import here
from tilewright.frontend.on_device import device_called, to_device
from tilewright.ir.types import dtype_of
from tilewright.runtime.gpu import dlpack
from tilewright.runtime.gpu.device import Adopted, Device, Resident


# --- in -------------------------------------------------------------------------------------
def from_dlpack(x: Any, device: str | None = None, copy: bool | None = None) -> Any:
    """An array of another package, by DLPack or ``__cuda_array_interface__``, without a copy.

    One on a GPU becomes a :class:`tw.Array` there, one of the CPU a NumPy array; neither must be
    changed by its package as long as ours is used. ``device`` moves it, by a copy if need be;
    ``copy`` wants one (True) or forbids it (False).

    Raises ``UserError`` for an array that is not C-contiguous on a GPU, or where ``copy=False``
    cannot be, ``DTypeError`` for an element type that is not supported.
    """
    found = x if isinstance(x, Array) else _taken(x)
    here_now = found.device if isinstance(found, Array) else "cpu"
    wanted = here_now if device is None else named(device)
    if wanted == here_now:
        if copy:
            return np.copy(found)
        return found
    if copy is False:
        raise UserError(
            f"an array on {here_now} cannot come to {wanted} without a copy", loc=here(),
            hint="leave copy=False out")
    return to_device(found, wanted)


def named(device: str) -> str:
    """A device by its full name: ``cuda:0`` for ``cuda``."""
    return device if device == "cpu" else device_called(device).name


def _taken(x: Any) -> Any:
    """The array of another package, where it is."""
    if hasattr(x, "__dlpack__"):
        return _from_capsule(x)
    if hasattr(x, "__cuda_array_interface__"):
        return _from_interface(x.__cuda_array_interface__, x)
    raise UserError(
        "tw.from_dlpack takes an array of another package",
        expected="an object with __dlpack__ or __cuda_array_interface__",
        got=f"{type(x).__name__}", loc=here(), hint="tw.to_device(x, device) takes NumPy arrays")


def _from_capsule(x: Any) -> Any:
    kind, number = (int(n) for n in x.__dlpack_device__())
    if kind in dlpack.ON_HOST:
        return dlpack.take(_capsule(x)).array()
    if kind not in dlpack.ON_GPU:
        raise UserError(
            "an array of another package is on a device that is not supported",
            expected="the CPU or a CUDA device", got=f"DLPack's device type {kind}", loc=here())
    device = cuda(number)
    with device.driver.lock:
        taken = dlpack.take(_capsule(x, stream=device.driver.stream))
    if not taken.contiguous:
        raise _strided(x, taken.shape, taken.strides)
    memory = Adopted(device, taken.address, taken.owner)
    return Array(Resident(device, memory, taken.dtype, taken.shape))


def _capsule(x: Any, **options: Any) -> Any:
    """What ``__dlpack__`` gives, by the newest protocol that the package knows."""
    try:
        return x.__dlpack__(max_version=dlpack.VERSION, **options)
    except TypeError:
        return x.__dlpack__(**options)


def _from_interface(given: dict[str, Any], x: Any) -> Array:
    """The array that ``__cuda_array_interface__`` tells of."""
    if given.get("mask") is not None:
        raise UserError("an array with a mask is not supported", got=type(x).__name__, loc=here())
    dtype, shape = np.dtype(given["typestr"]), tuple(given["shape"])
    try:
        dtype_of(dtype)
    except TypeError:
        raise DTypeError(
            "an array of another package has an element type that is not supported",
            got=given["typestr"], loc=here()) from None
    packed = [s * dtype.itemsize for s in dlpack.strides_of(shape)]
    if given.get("strides") is not None and list(given["strides"]) != packed:
        raise _strided(x, shape, given["strides"])
    number = getattr(getattr(x, "device", None), "id", 0)
    device = cuda(number if isinstance(number, int) else 0)
    with device.driver.lock:
        device.follow(given.get("stream"))
    return Array(Resident(device, Adopted(device, given["data"][0], x), dtype, shape))


def _strided(x: Any, shape: Any, strides: Any) -> UserError:
    return UserError(
        "an array of another package is not C-contiguous", expected="the last axis first in memory",
        got=f"{type(x).__name__} of shape {tuple(shape)} and strides {tuple(strides)}", loc=here(),
        hint="make it so there: x.contiguous(), cupy.ascontiguousarray(x)")


def cuda(number: int) -> Device:
    """The GPU of this number."""
    return device_called(f"cuda:{number}")


# --- out ------------------------------------------------------------------------------------
def place_of(array: Array) -> tuple[int, int]:
    """DLPack's device of an array: the simulator's memory is the CPU's."""
    kind, _, number = array.device.partition(":")
    return (dlpack.CUDA, int(number)) if kind == "cuda" else (dlpack.CPU, 0)


def exported(
    array: Array, stream: Any, max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None, copy: bool | None,
) -> Any:
    """``array.__dlpack__(...)``: a capsule.

    It leaves our hands: what went wrong in the calls that it comes from is raised here.
    """
    own = place_of(array)
    wanted = own if dl_device is None else (int(dl_device[0]), int(dl_device[1]))
    if wanted[0] == dlpack.CPU:
        if copy is False:
            raise BufferError(
                f"an array on {array.device} becomes one of the CPU by a copy, which copy=False "
                "forbids")
        host = array.numpy()
        return dlpack.capsule(
            host.ctypes.data, host.dtype, host.shape, (dlpack.CPU, 0), host, max_version, True)
    if wanted != own:
        raise BufferError(f"an array on {array.device} cannot be given on DLPack's {wanted}")
    resident = array.resident()
    with resident.device.driver.lock:
        resident.device.check(resident.tickets)
        if copy:
            resident = resident.device.copy(resident)
        if stream != -1:
            resident.device.lead(stream)
    return dlpack.capsule(
        resident.address, resident.dtype, resident.shape, own, resident, max_version, bool(copy))


def interface(array: Array) -> dict[str, Any]:
    """``array.__cuda_array_interface__``. Raises ``AttributeError`` where there is none."""
    if place_of(array)[0] != dlpack.CUDA or array.dtype.kind == "V":
        raise AttributeError(
            f"an array of {array.dtype} on {array.device} has no __cuda_array_interface__")
    resident = array.resident()
    with resident.device.driver.lock:
        resident.device.check(resident.tickets)
    return {
        "version": 3, "shape": array.shape, "typestr": array.dtype.str, "strides": None,
        "data": (resident.address if array.size else 0, False),
        "stream": resident.device.driver.stream,
    }


def restored(array: np.ndarray, device: str) -> Any:
    """What was pickled, on its device."""
    return to_device(array, device)


DONE.update(
    place_of=place_of, exported=exported, interface=interface, restored=restored, taken=_taken)


# --- functions on them ----------------------------------------------------------------------
def call_on(guest: Any, is_array: Any, jitted: Any, args: Any, kwargs: Any) -> Any:
    """A call of a jitted function with arrays of a package among its arguments; see
    :class:`tilewright.runtime.gpu.guests.Guest`. All results are arrays of the package.
    """
    from tilewright.runtime.gpu.guests import array_of

    everything: Any = (args, kwargs)
    leaves, spec = tree.flatten(everything)
    given = [Array(guest.resident(leaf)) if is_array(leaf) else leaf for leaf in leaves]
    device = next(leaf for leaf in given if isinstance(leaf, Array)).on
    args, kwargs = tree.unflatten(spec, given)
    with guest.calls(device):
        results = jitted(*args, **kwargs)
    return tree.map(lambda result: array_of(result.resident()), results)


def call_cupy(jitted: Any, args: Any, kwargs: Any) -> Any:
    """A call with CuPy's arrays among the arguments."""
    from tilewright.runtime.gpu.guests import Guest

    cupy: Any = sys.modules["cupy"]

    def empty(dtype: np.dtype, shape: tuple[int, ...], number: int) -> Any:
        with cupy.cuda.Device(number):
            return cupy.empty(shape, dtype)

    guest = Guest(
        number=lambda x: int(x.device.id), packed=cupy.ascontiguousarray,
        address=lambda x: int(x.data.ptr), dtype=lambda x: x.dtype, empty=empty,
        stream=lambda number: int(cupy.cuda.get_current_stream().ptr))
    return call_on(guest, lambda leaf: isinstance(leaf, cupy.ndarray), jitted, args, kwargs)


foreign.CALLS["cupy"] = call_cupy
