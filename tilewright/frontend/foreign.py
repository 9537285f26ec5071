"""Arrays of other packages as arguments of jitted functions.

No package is loaded to look for its arrays: one that is not loaded has none. Who knows what to do
with them is in :data:`ROOMS`, loaded when the first such array is met, and enters itself in
:data:`CALLS`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from tilewright.frontend import tree

ARRAYS = {"torch": "Tensor", "cupy": "ndarray", "pycuda.gpuarray": "GPUArray"}
"""By package: the class of its arrays."""

ROOMS = {
    "torch": "tilewright.torch", "cupy": "tilewright.frontend.interop",
    "pycuda.gpuarray": "tilewright.frontend.gpuarray",
}
"""By package: the module that calls functions on its arrays."""

CALLS: dict[str, Callable[..., Any]] = {}
"""By package: what calls a jitted function, given it and its arguments and keywords."""


def call_for(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """What calls a function on these arguments, if there is an array of another package in them."""
    for package, name in ARRAYS.items():
        kind = getattr(sys.modules.get(package), name, None)
        if kind is not None and _holds(kind, args, kwargs):
            if package not in CALLS:
                importlib.import_module(ROOMS[package])
            return CALLS[package]
    return None


def _holds(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    for value in (*args, *kwargs.values()):
        if isinstance(value, kind):
            return True
    everything: Any = (args, kwargs)
    return any(isinstance(leaf, kind) for leaf in tree.leaves(everything))
