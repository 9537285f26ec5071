"""All that NumPy dispatches on traced values. Importing this module fills the tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.frontend import (
    composed,
    contraction,
    elementwise,
    functions,
    indexing,
    joins,
    moves,
    operators,
    ordered,
    quantiles,
    reductions,
    rows,
    shapes,
    statistics,
)
from tilewright.frontend.elementwise import ROWS, SPECIAL
from tilewright.frontend.functions import erf
from tilewright.frontend.places import put_along_axis, scatter_add
from tilewright.frontend.tracer import FUNCTIONS

__all__ = ["MODULES", "erf", "put_along_axis", "scatter_add", "traceable"]

MODULES = (
    operators,
    elementwise,
    functions,
    rows,
    reductions,
    statistics,
    shapes,
    joins,
    moves,
    indexing,
    contraction, composed,
    ordered,
    quantiles,
)
"""The modules that hold the implementations."""


def traceable() -> dict[str, Any]:
    """Every NumPy function and ufunc that can be traced, by its name in NumPy ('linalg.norm')."""
    found: dict[str, Any] = {}
    for function in (*FUNCTIONS, *ROWS, *SPECIAL):
        module = getattr(function, "__module__", "numpy") or "numpy"
        prefix = "linalg." if "linalg" in module else ""
        found[prefix + function.__name__] = function
    return {name: found[name] for name in sorted(found) if _lives(name, found[name])}


def _lives(name: str, function: Any) -> bool:
    holder: Any = np
    for part in name.split("."):
        holder = getattr(holder, part, None)
    return holder is function
