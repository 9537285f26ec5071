"""Which operators are taken apart before we see them, and what of.

PyTorch's own decompositions apply to what has no row of its own in the table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import core_aten_decompositions, decomposition_table

from tilewright.torch import random
from tilewright.torch.ops import (  # noqa: F401 - they enter rows
    attention,
    convolution,
    creation,
    indexing,
    linear,
    pointwise,
    pooling,
    reductions,
    views,
)
from tilewright.torch.table import find

aten = torch.ops.aten


@functools.cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Decompositions by operator overload."""
    every = {**decomposition_table, **core_aten_decompositions()}
    kept = {op: f for op, f in every.items() if find(op) is None}
    return {**kept, **random.DECOMPOSITIONS}
