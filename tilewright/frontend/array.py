"""``tw.Array``: an array that lives on a device. NumPy's arrays are those of the CPU."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np

from tilewright.errors import OutOfMemory, TraceError, UserError
from tilewright.frontend import tree
from tilewright.frontend.build import checked_dtype
from tilewright.frontend.location import here
from tilewright.frontend.tracer import Tracer
from tilewright.ir.types import TensorType, dtype_of
from tilewright.runtime.gpu.device import Device, Resident


class Array:
    """An array on a device, made by :func:`to_device` or by a jitted function. It never changes.

    A call that makes one returns before its contents are there. Whoever looks at them (``numpy()``,
    ``item()``, ``print``) waits, and meets the errors of the calls that it comes from: an index
    outside of its axis is an ``OutOfBounds`` there.

    An array that was donated to a jitted function is gone: all but its shape and dtype is then a
    ``UserError`` that says to whom it was given.
    """

    __slots__ = ("_resident", "_type", "_device", "_gone", "__weakref__")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, resident: Resident) -> None:
        """Not for users: see :func:`to_device`."""
        if not isinstance(resident, Resident):
            raise TraceError(
                "tw.Array takes memory of a device", got=type(resident).__name__, loc=here(),
                hint="tw.to_device(x, device) copies an array to a device")
        self._resident: Resident | None = resident
        self._type = (resident.dtype, resident.shape)
        self._device = resident.device
        self._gone = ""

    # --- what is known without its contents ---------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self._type[1]

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype."""
        return self._type[0]

    @property
    def device(self) -> str:
        """The name of the device that it lives on."""
        return self._device.name

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    # --- its contents -------------------------------------------------------------------------
    def numpy(self) -> np.ndarray:
        """A copy as a NumPy array, once it is computed.

        Raises the errors of the calls that it comes from: ``OutOfBounds``, ``CompilerBug``.
        """
        return self.resident().read()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"an array on {self.device} cannot become a NumPy array uncopied")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def item(self, *index: SupportsIndex) -> Any:
        """One element as a Python number: the only one, or that of a flat or full index."""
        return self.numpy().item(*index)

    def tolist(self) -> Any:
        """The elements as Python numbers in nested lists."""
        return self.numpy().tolist()

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __complex__(self) -> complex:
        return complex(self.numpy())

    def __index__(self) -> int:
        return operator.index(self.numpy())

    def __format__(self, spec: str) -> str:
        return format(self.numpy()[()] if not self.shape else self.numpy(), spec) if spec \
            else str(self)

    def __str__(self) -> str:
        return repr(self) if self._resident is None else str(self.numpy())

    def __repr__(self) -> str:
        if self._resident is None:
            return f"Array({self._gone}, {self.type}, device={self.device!r})"
        text = np.array2string(self.numpy(), separator=", ", prefix="Array(")
        return f"Array({text}, dtype={self.dtype}, device={self.device!r})"

    # --- where it is --------------------------------------------------------------------------
    def to(self, device: str) -> Any:
        """The array on another device; itself if it is there, a NumPy array for ``"cpu"``."""
        return moved(self, device)

    def delete(self) -> None:
        """Give its memory back now; it must not be used afterwards."""
        self.take("deleted", f"at {here()}")

    def __copy__(self) -> Array:
        return self

    def __deepcopy__(self, memo: Any) -> Array:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return to_device, (self.numpy(), self.device)

    # --- for tilewright -----------------------------------------------------------------------
    @property
    def type(self) -> str:
        """Its type as messages write it."""
        return str(TensorType(dtype_of(self.dtype), self.shape))

    @property
    def alive(self) -> bool:
        """Whether it has contents."""
        return self._resident is not None

    def resident(self, path: str | None = None) -> Resident:
        """Its memory. Raises ``UserError``, in which it is called ``path``, if it has none."""
        if self._resident is None:
            name = "this array" if path is None else f"the argument {path}"
            raise UserError(
                f"{name} was {self._gone} and has no contents any more", got=self.type, loc=here(),
                hint="use the array that took its place, or keep a copy: tw.to_device(x.numpy(), "
                     "x.device)")
        return self._resident

    def take(self, what: str, where: str) -> None:
        """The array is gone from here on: ``donated``, ``to f at file:line``."""
        self._resident, self._gone = None, f"{what} {where}"

    @property
    def on(self) -> Device:
        """The device that it lives on."""
        return self._device


def to_device(values: Any, device: str) -> Any:
    """The tree ``values`` with its arrays and numbers on a device: ``"sim"``.

    NumPy arrays, arrays of other devices and numbers are copied; what is there already stays.
    ``"cpu"`` gives NumPy arrays. Raises ``UserError`` for a device that does not exist,
    ``DTypeError`` for an element type that is not supported, ``OutOfMemory``.
    """
    return tree.map_with_path(lambda path, leaf: moved(leaf, device, path), values)


def moved(leaf: Any, device: str, path: str = "") -> Any:
    """One array on a device; messages call it by its path."""
    from tilewright.runtime.gpu.devices import device_named

    if isinstance(leaf, Tracer):
        raise TraceError(
            "a traced value cannot be moved to a device", loc=here(),
            hint="a program runs on one device: that of its arguments, or that of jit's target")
    if device == "cpu":
        return leaf.numpy() if isinstance(leaf, Array) else np.asarray(leaf)
    there = device_named(device)
    try:
        if not isinstance(leaf, Array):
            return Array(there.place(host_array(leaf, path)))
        resident = leaf.resident()
        found = resident.moved(there)
        return leaf if found is resident else Array(found)
    except OutOfMemory as error:
        raise OutOfMemory(
            error.what, expected=error.expected, got=error.got, loc=here(), hint=error.hint
        ) from None


def host_array(leaf: Any, path: str) -> np.ndarray:
    """An array or number as a NumPy array that can go to a device. Raises as :func:`to_device`."""
    array = np.asarray(leaf)
    checked_dtype(array.dtype, f"the argument values{path} of tw.to_device")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
