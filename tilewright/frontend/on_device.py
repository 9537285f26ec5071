"""What is done with arrays on a device outside of a jitted function.

An operator or a function of NumPy on them is a jitted function of that one operation, compiled once
per types and per value of all that is no array (an axis, an index). It runs on the device and its
result stays there, so that code around jitted functions needs no copies to the CPU.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tilewright.errors import OutOfBounds, TraceError, UserError
from tilewright.frontend import tree
from tilewright.frontend.array import DONE, Array
from tilewright.frontend.build import checked_dtype
from tilewright.frontend.leaves import ByArrays
from tilewright.frontend.location import here, placed
from tilewright.frontend.signature import NUMBERS
from tilewright.frontend.tracer import FUNCTIONS, Tracer, current
from tilewright.runtime.gpu.device import Device
from tilewright.runtime.gpu.memory import DeviceMemory

Function = Callable[..., Any]
READERS = (
    np.array2string, np.array_repr, np.array_str, np.save, np.savez, np.savez_compressed,
    np.savetxt)
"""Functions whose result is no array: they print arrays, or write them to files."""

__all__ = ["Array", "to_device"]


# --- where they are -------------------------------------------------------------------------
def to_device(values: Any, device: str) -> Any:
    """The tree ``values`` with its arrays and numbers on a device: ``"sim"``, ``"cuda"``,
    ``"cuda:1"``, ``"pycuda"``; an architecture in ``"sim:sm_90a"`` is a target's alone.

    NumPy arrays, arrays of other devices and numbers are copied; what is there already stays.
    ``"cpu"`` gives NumPy arrays. Raises ``UserError`` for a device that does not exist,
    ``DTypeError`` for an element type that is not supported, ``OutOfMemory``.
    """
    return tree.map_with_path(lambda path, leaf: moved(leaf, device, path), values)


def moved(leaf: Any, device: str, path: str = "") -> Any:
    """One array on a device; messages call it by its path."""
    if isinstance(leaf, Tracer):
        raise TraceError(
            "a traced value cannot be moved to a device", loc=here(),
            hint="a program runs on one device: that of its arguments, or that of jit's target")
    if not isinstance(leaf, Array | np.ndarray) and hasattr(leaf, "__dlpack__"):
        leaf = DONE["taken"](leaf)
    if device == "cpu":
        return leaf.numpy() if isinstance(leaf, Array) else np.asarray(leaf)
    with placed():
        there = device_called(device)
        if not isinstance(leaf, Array):
            return Array(there.place(host_array(leaf, path)))
        resident = leaf.resident()
        found = resident.moved(there)
        return leaf if found is resident else Array(found)


def host_array(leaf: Any, path: str) -> np.ndarray:
    """An array or number as a NumPy array that can go to a device. Raises as :func:`to_device`."""
    array = np.asarray(leaf)
    checked_dtype(array.dtype, f"the argument values{path} of tw.to_device")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def device_called(name: str) -> Device:
    """The device that a user calls by this name. Raises ``UserError`` if there is none."""
    from tilewright.runtime.gpu.devices import device_named

    if name == "cpu":
        raise UserError(
            "the CPU has neither memory nor work that tilewright keeps for it", loc=here(),
            expected="a device of tw.Array: sim, cuda, cuda:1, pycuda", got=name,
            hint="arrays of the CPU are NumPy's, and calls on them return when they are done")
    try:
        return device_named(name)
    except UserError as error:
        raise error.at(here()) from error.__cause__


def memory(device: str) -> DeviceMemory:
    """The memory of a device, as far as tilewright has it: ``used``, ``peak``, ``kept`` in bytes,
    and ``trim()``, which returns what is kept. Raises ``UserError`` for an unknown device.
    """
    return device_called(device).memory


def synchronize(device: str) -> None:
    """Wait until a device has done all that it was asked for, as a measurement of time must.

    Raises ``CompilerBug`` for a kernel that went wrong, ``UserError`` for an unknown device.
    """
    driver = device_called(device).driver
    with driver.lock:
        driver.synchronise()


# --- operations -----------------------------------------------------------------------------
_jitted: dict[Any, ByArrays] = {}


def run(
    key: Any, operation: Function, args: tuple[Any, ...], kwargs: Any, numbers: bool = False
) -> Any:
    """One operation on arrays. In a running trace it is a part of that, its arrays constants.

    Numbers are compiled in, as axes must be, unless ``numbers`` says that they are inputs.
    """
    if current() is not None:
        args, kwargs = tree.map(on_host, (args, kwargs))
        return operation(*args, **kwargs)
    if (key, numbers) not in _jitted:
        _jitted[key, numbers] = ByArrays(operation, is_array_or_number if numbers else is_array)
    return _jitted[key, numbers](args, kwargs)


def is_array(leaf: Any) -> bool:
    """Whether a leaf of an operation is an array."""
    return isinstance(leaf, Array | np.ndarray | np.generic)


def is_array_or_number(leaf: Any) -> bool:
    """Whether a leaf is an array or a Python number."""
    return is_array(leaf) or type(leaf) in NUMBERS


def on_host(leaf: Any) -> Any:
    """A leaf that NumPy takes."""
    return leaf.numpy() if isinstance(leaf, Array) else leaf


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: Any) -> Any:
    """A ufunc, or a method of one such as ``reduce``."""
    if kwargs.get("out") is not None:
        refuse_out(ufunc.__name__)
    call = method == "__call__"

    def operation(*operands: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*operands, **options)

    operation.__name__ = ufunc.__name__
    return run((ufunc, method), operation, inputs, kwargs, numbers=call)


def call_function(function: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """A function of NumPy. Raises ``TraceError`` for one that does not run on a device."""
    if function in (np.shape, np.ndim, np.size) and len(args) + len(kwargs) == 1:
        return getattr((*args, *kwargs.values())[0], function.__name__)
    if function in READERS:
        args, kwargs = tree.map(on_host, (args, kwargs))
        return function(*args, **kwargs)
    if kwargs.get("out") is not None:
        refuse_out(function.__name__)
    if function not in FUNCTIONS:
        name = f"{function.__module__}.{function.__name__}".replace("numpy.", "np.")
        raise TraceError(
            f"the NumPy function {name} does not run on a device", loc=here(),
            hint=f"copy the array to the CPU: x.numpy() in the arguments of {name}")
    return run(function, function, args, kwargs)


def refuse_out(name: str) -> NoReturn:
    """Raise for an operation that is to write into an array."""
    raise TraceError(
        f"np.{name} of arrays on a device cannot write into its argument out", loc=here(),
        hint=f"use its result; for an array of the CPU, x[...] = np.{name}(...).numpy()")


def get(array: Array, index: Any) -> Any:
    """``array[index]``; one program serves all elements and rows."""
    places = index if isinstance(index, tuple) else (index,)
    numbers = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in places)
    if numbers and places:
        if len(places) > array.ndim:
            raise IndexError(f"{len(places)} indices for an array of {array.ndim} axes")
        for axis, (i, size) in enumerate(zip(places, array.shape, strict=False)):
            if not -size <= i < size:
                raise OutOfBounds(
                    f"index {i} is outside of axis {axis}, which has size {size}",
                    expected=f"{-size} to {size - 1}", got=i, loc=here())
        places = tuple(int(i) % size for i, size in zip(places, array.shape, strict=False))
        return run("get", take_element, (array, *places), {}, numbers=True)
    return run("get", operator.getitem, (array, index), {})


def take_element(array: Any, *places: Any) -> Any:
    """``array[places]``."""
    return array[places]


ELSEWHERE = {
    "cpu": "x.to('cpu')", "cuda": "x.to('cuda')", "get": "x.numpy()", "detach": "x itself",
    "block_until_ready": "tw.synchronize(x.device)", "numel": "x.size",
}
"""What other packages call it, and how it is said here."""


def attribute(array: Array, name: str) -> Any:
    """A method or property that traced values have. Raises ``TraceError`` for others of NumPy's."""
    found = getattr(Tracer, name, None)
    if isinstance(found, property) and name != "at":
        return run(("property", name), operator.attrgetter(name), (array,), {})
    if found is None or name == "at":
        if name != "at" and not hasattr(np.ndarray, name):
            other = f": use {ELSEWHERE[name]}" if name in ELSEWHERE else ""
            raise AttributeError(f"an array on a device has no attribute {name!r}{other}")
        raise TraceError(
            f"an array on a device has no .{name} outside of a jitted function", loc=here(),
            hint="use it in a function with @tw.jit" if name == "at" else f"x.numpy().{name}")

    def operation(value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, name)(*args, **kwargs)

    def method(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("out") is not None:
            refuse_out(name)
        return run(("method", name), operation, (array, *args), kwargs)

    operation.__name__ = method.__name__ = name
    return method


def not_in_place(array: Array, other: Any) -> Any:
    """``x += y`` is ``x = x + y``: an array never changes."""
    return NotImplemented


for _name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift",
              "rshift", "and", "xor", "or"):
    setattr(Array, f"__i{_name}__", not_in_place)
DONE.update(ufunc=call_ufunc, function=call_function, get=get, move=moved, attribute=attribute)
