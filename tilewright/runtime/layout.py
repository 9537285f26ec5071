"""Whether this interpreter's objects look the way the native call reads them.

CPython 3.10 and later, NumPy 2 and later, ordinary builds. Everything is compared with sample
objects, so that another layout (a debug build, a build without the interpreter lock, a new version)
is found before any of its memory is misread, and calls go through Python there.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
import sysconfig

import numpy as np

from tilewright.runtime.native_match import ARRAY, OBJECT
from tilewright.runtime.native_pool import CAPSULE_POINTER

OLDEST, NEWEST = (3, 10), (3, 14)


def word(address: int, place: int) -> int:
    """The 64-bit word number ``place`` from an address on."""
    return ctypes.c_uint64.from_address(address + 8 * place).value


@functools.cache
def known() -> bool:
    """True if the native call may read this interpreter's objects."""
    ordinary = (
        platform.python_implementation() == "CPython"
        and OLDEST <= sys.version_info[:2] <= NEWEST
        and sys.byteorder == "little" and sys.maxsize == 2**63 - 1
        and not hasattr(sys, "gettotalrefcount")
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and int(np.__version__.split(".")[0]) >= 2
    )
    return ordinary and _arrays() and _containers()


def _arrays() -> bool:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    at = id(array)
    dims, read = word(at, ARRAY["DIMS"]), ctypes.c_int32.from_address
    scalar = np.float64(1.5)
    return (
        word(at, OBJECT["TYPE"]) == id(np.ndarray)
        and word(at, ARRAY["DATA"]) == array.__array_interface__["data"][0]
        and read(at + 8 * ARRAY["RANK"]).value == 2
        and (word(dims, 0), word(dims, 1)) == array.shape
        and word(at, ARRAY["BASE"]) == id(array.base)
        and word(at, ARRAY["DESCR"]) == id(np.dtype(np.float32))
        and read(at + 8 * ARRAY["FLAGS"]).value & 0x501 == 0x500
        and ctypes.c_double.from_address(id(scalar) + 16).value == 1.5
    )


def _containers() -> bool:
    items = (object(), object())
    listed, offset = list(items), tuple.__basicsize__
    pointed = word(id(listed), OBJECT["LIST_ITEMS"])
    pointer = ctypes.c_void_p
    new = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, pointer, pointer)(
        ("PyCapsule_New", ctypes.pythonapi)
    )
    capsule = new(4096, None, None)
    function = known.__wrapped__
    vectorcall = word(id(type(function)), OBJECT["VECTORCALL_OFFSET"])
    return (
        0 < vectorcall < type(function).__basicsize__ and vectorcall % 8 == 0
        and word(id(items), OBJECT["SIZE"]) == 2 and word(id(listed), OBJECT["SIZE"]) == 2
        and offset % 8 == 0
        and word(id(items) + offset, 1) == id(items[1])
        and word(pointed, 1) == id(items[1])
        and word(id(capsule), CAPSULE_POINTER) == 4096
    )
