"""DLPack: memory of one package as an array of another. The structures, and capsules both ways.

https://dmlc.github.io/dlpack/latest/c_api.html has what the fields mean.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.errors import DTypeError
from tilewright.ir.types import DTYPES, dtype_of

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""Kinds of device. Memory of the host that CUDA has pinned is the CPU's, too."""

ON_HOST, ON_GPU = (CPU, CUDA_HOST), (CUDA, CUDA_MANAGED)
VERSION = (1, 0)
IS_COPIED = 2
"""A flag of the versioned structure: nobody else has the memory."""

CODES = {"i": 0, "u": 1, "f": 2, "bf": 4, "bool": 6}
"""Kinds of element, by how our names of types begin."""


class DLDataType(ctypes.Structure):
    """An element type."""

    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    """An array; strides count elements, and are NULL for a C-contiguous one."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("number", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("dtype", DLDataType), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64))


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    """An array with what gives it back."""

    _fields_ = (("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", DELETER))


class Versioned(ctypes.Structure):
    """The same since version 1."""

    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", DELETER), ("flags", ctypes.c_uint64), ("tensor", DLTensor))


NAMES: dict[bool, tuple[bytes, bytes]] = {
    False: (b"dltensor", b"used_dltensor"),
    True: (b"dltensor_versioned", b"used_dltensor_versioned"),
}
"""What capsules are called, before and after somebody took over; by whether they are versioned."""


def _api(name: str, result: Any, *arguments: Any) -> Any:
    """A function of Python's C interface, which takes objects by their addresses."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new = _api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_valid = _api("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_pointer = _api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_rename = _api("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_raw_valid = _api("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_raw_pointer = _api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


# --- out ------------------------------------------------------------------------------------
_given: dict[int, tuple[Any, ...]] = {}
"""What was given away, by the address of its structure, with what must live as long."""


@DELETER
def _delete(address: int) -> None:
    _given.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _abandoned(capsule: int) -> None:
    """A capsule dies; if nobody took its array over, that does too."""
    for name, _ in NAMES.values():
        if _raw_valid(capsule, name):
            _given.pop(_raw_pointer(capsule, name), None)


def capsule(
    address: int, dtype: np.dtype, shape: tuple[int, ...], device: tuple[int, int], owner: Any,
    version: tuple[int, int] | None = None, copied: bool = False,
) -> Any:
    """A capsule of C-contiguous memory that ``owner`` keeps alive.

    ``version`` is the newest that the other side reads, None: the one before versions.
    """
    versioned = version is not None and version >= (1, 0)
    managed: Any = Versioned() if versioned else Managed()
    sizes = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    strides = (ctypes.c_int64 * max(1, len(shape)))(*strides_of(shape))
    tensor = managed.tensor
    tensor.data, tensor.device, tensor.number, tensor.ndim = address, *device, len(shape)
    tensor.dtype = element(dtype)
    tensor.shape, tensor.strides = (
        ctypes.cast(a, ctypes.POINTER(ctypes.c_int64)) for a in (sizes, strides))
    managed.deleter = _delete
    if versioned:
        managed.major, managed.minor = VERSION
        managed.flags = IS_COPIED if copied else 0
    where = ctypes.addressof(managed)
    _given[where] = (managed, sizes, strides, owner)
    return _new(where, NAMES[versioned][0], ctypes.cast(_abandoned, ctypes.c_void_p))


def element(dtype: np.dtype) -> DLDataType:
    """An element type in DLPack's words."""
    name = dtype_of(dtype).name
    kind = name if name == "bool" else name.rstrip("0123456789")
    return DLDataType(CODES[kind], 8 * dtype.itemsize, 1)


def strides_of(shape: tuple[int, ...]) -> list[int]:
    """The strides, in elements, of a C-contiguous array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


# --- in -------------------------------------------------------------------------------------
class Owner:
    """Gives an array back to where it came from, when nobody holds this any more."""

    def __init__(self, managed: Any) -> None:
        self.managed = managed

    def __del__(self) -> None:
        if self.managed.deleter:
            self.managed.deleter(ctypes.addressof(self.managed))


@dataclass(frozen=True)
class Taken:
    """An array that came in a capsule; ``owner`` keeps it alive. Strides count elements."""

    address: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    device: tuple[int, int]
    owner: Owner

    @property
    def contiguous(self) -> bool:
        """Whether it is C-contiguous."""
        relevant = [
            (a, b) for a, b, n in zip(self.strides, strides_of(self.shape), self.shape, strict=True)
            if n != 1]
        return 0 in self.shape or all(a == b for a, b in relevant)

    def array(self) -> np.ndarray:
        """The memory, which is the CPU's, as a NumPy array."""
        reaches = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(r, 0) for r in reaches), sum(max(r, 0) for r in reaches)
        size, empty = self.dtype.itemsize, 0 in self.shape
        length, start = (0, 0) if empty else ((high - low + 1) * size, low * size)
        address = self.address + start or ctypes.addressof(self.owner.managed)
        buffer: Any = (ctypes.c_char * length).from_address(address)
        buffer.owner = self.owner
        return np.ndarray(
            self.shape, self.dtype, buffer, -start, [s * size for s in self.strides])


def take(capsule: Any) -> Taken:
    """Take over the array in a capsule. Raises ``DTypeError`` for one of another element type."""
    versioned = bool(_valid(capsule, NAMES[True][0]))
    before, after = NAMES[versioned]
    kind: Callable[..., Any] = Versioned if versioned else Managed
    managed = kind.from_address(_pointer(capsule, before))  # type: ignore[attr-defined]
    tensor = managed.tensor
    dtype = dtype_from(tensor.dtype)
    _rename(capsule, after)
    shape = tuple(tensor.shape[:tensor.ndim])
    strides = tuple(tensor.strides[:tensor.ndim]) if tensor.strides else tuple(strides_of(shape))
    return Taken(
        (tensor.data or 0) + tensor.offset, dtype, shape, strides,
        (tensor.device, tensor.number), Owner(managed))


def dtype_from(given: DLDataType) -> np.dtype:
    """An element type in NumPy's words. Raises ``DTypeError`` for one that we do not have."""
    for dtype in DTYPES.values():
        own = element(dtype.numpy)
        if (own.code, own.bits, own.lanes) == (given.code, given.bits, given.lanes):
            return dtype.numpy
    raise DTypeError(
        "an array in a DLPack capsule has an element type that is not supported",
        expected=f"one of {', '.join(DTYPES)}",
        got=f"kind {given.code} of {given.bits} bits and {given.lanes} lanes")
