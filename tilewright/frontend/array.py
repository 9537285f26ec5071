"""``tw.Array``: an array that lives on a device. NumPy's arrays are those of the CPU.

What is done with one outside of a jitted function stands in the table :data:`DONE`, which
:mod:`tilewright.frontend.on_device` fills.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tilewright.errors import TraceError, UserError
from tilewright.frontend.location import here
from tilewright.ir.types import TensorType, dtype_of
from tilewright.runtime.gpu.device import Device, Resident

DONE: dict[str, Callable[..., Any]] = {}
"""'ufunc': (ufunc, method, inputs, kwargs); 'function': (NumPy's, args, kwargs); 'get': (array,
index); 'attribute': (array, name); 'move', 'restored': (array, device); 'place_of', 'interface':
(array); 'exported': (array, *arguments of __dlpack__); 'taken': (another package's array)."""


class Array(NDArrayOperatorsMixin):
    """An array on a device, made by :func:`to_device` or by a jitted function. It never changes.

    A call that makes one returns before its contents are there. Whoever looks at them (``numpy()``,
    ``item()``, ``print``) waits, and meets the errors of the calls that it comes from: an index
    outside of its axis is an ``OutOfBounds`` there.

    Operators, methods and NumPy's functions outside of a jitted function are jitted functions of
    one operation: the result stays on the device.

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
        return DONE["move"](self, device)

    def delete(self) -> None:
        """Give its memory back now; it must not be used afterwards."""
        self.take("deleted", f"at {here()}")

    def __copy__(self) -> Array:
        return self

    def __deepcopy__(self, memo: Any) -> Array:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return DONE["restored"], (self.numpy(), self.device)

    # --- for other packages -------------------------------------------------------------------
    def __dlpack_device__(self) -> tuple[int, int]:
        place: tuple[int, int] = DONE["place_of"](self)
        return place

    def __dlpack__(
        self, *, stream: Any = None, max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None, copy: bool | None = None,
    ) -> Any:
        return DONE["exported"](self, stream, max_version, dl_device, copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        found: dict[str, Any] = DONE["interface"](self)
        return found

    # --- what is done with it -----------------------------------------------------------------
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return DONE["ufunc"](ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return DONE["function"](function, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        return DONE["get"](self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TraceError(
            "an array on a device never changes", got="an assignment to an item", loc=here(),
            hint="in a jitted function, y = x.at[index].set(value) is a changed copy; donate x and "
                 "no memory is copied")

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """The array with its axes in reverse order."""
        return DONE["function"](np.transpose, (self,), {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"an array on a device has no attribute {name!r}")
        return DONE["attribute"](self, name)

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
