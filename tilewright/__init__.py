"""tilewright: a tensor compiler for neural networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright import torch as torch
    from tilewright.frontend import nn as nn
    from tilewright.frontend import numpy as numpy
    from tilewright.frontend import tree as tree
    from tilewright.frontend.functions import erf as erf
    from tilewright.frontend.interop import from_dlpack as from_dlpack
    from tilewright.frontend.jit import explain_recompile as explain_recompile
    from tilewright.frontend.jit import jit as jit
    from tilewright.frontend.on_device import Array as Array
    from tilewright.frontend.on_device import memory as memory
    from tilewright.frontend.on_device import synchronize as synchronize
    from tilewright.frontend.on_device import to_device as to_device
    from tilewright.frontend.places import put_along_axis as put_along_axis
    from tilewright.frontend.places import scatter_add as scatter_add
    from tilewright.frontend.transforms import grad as grad
    from tilewright.frontend.transforms import stop_gradient as stop_gradient
    from tilewright.frontend.transforms import value_and_grad as value_and_grad
    from tilewright.frontend.transforms import vjp as vjp
    from tilewright.runtime.threads import threads as threads

__version__ = "0.1.0"

_PUBLIC = {
    "jit": "frontend.jit",
    "explain_recompile": "frontend.jit",
    "grad": "frontend.transforms",
    "value_and_grad": "frontend.transforms",
    "vjp": "frontend.transforms",
    "stop_gradient": "frontend.transforms",
    "scatter_add": "frontend.places",
    "put_along_axis": "frontend.places",
    "erf": "frontend.functions",
    "threads": "runtime.threads",
    "Array": "frontend.interop",
    "to_device": "frontend.interop",
    "from_dlpack": "frontend.interop",
    "memory": "frontend.on_device",
    "synchronize": "frontend.on_device",
    "UserError": "errors",
    "ShapeError": "errors",
    "DTypeError": "errors",
    "TraceError": "errors",
    "OutOfBounds": "errors",
    "OutOfMemory": "errors",
    "Unsupported": "errors",
    "CompilerBug": "errors",
    "TilewrightError": "errors",
}
_MODULES = {
    "nn": "frontend.nn", "numpy": "frontend.numpy", "tree": "frontend.tree", "config": "config",
    "torch": "torch",
}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: ``import tilewright`` itself loads nothing."""
    if name in _MODULES:
        value: Any = importlib.import_module(f"tilewright.{_MODULES[name]}")
    elif name in _PUBLIC:
        value = getattr(importlib.import_module(f"tilewright.{_PUBLIC[name]}"), name)
    else:
        raise AttributeError(f"tilewright has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
