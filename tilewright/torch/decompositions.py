"""Which operators are taken apart before we see them, and what of.

PyTorch's own decompositions apply to what has no row of its own in the table.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import core_aten_decompositions, decomposition_table

from tilewright.torch import (
    cross_entropy,
    foreach,
    least_squares,  # noqa: F401 - it enters functions
    random,
    statistics,  # noqa: F401 - it enters functions
)
from tilewright.torch.ops import (  # noqa: F401 - they enter rows
    attention,
    complex_numbers,
    convolution,
    creation,
    distances,
    eigenvalues,
    embedding_bag,
    factorisations,
    fourier,
    fractional,
    grouped,
    histograms,
    indexing,
    inlined,
    linear,
    norm,
    ordered,
    pointwise,
    pooling,
    recurrences,
    recurrent,
    reductions,
    sampling,
    searching,
    segments,
    special,
    strided,
    views,
)
from tilewright.torch.pairs import find_pair_row
from tilewright.torch.table import find

aten = torch.ops.aten

DRAWS = frozenset({
    aten.bernoulli, aten.uniform, aten.uniform_, aten.dropout, aten._fused_dropout, aten.rrelu,
})
"""Decompositions that would draw other numbers than PyTorch does without them."""

REFERENCES = (
    aten.native_group_norm, aten.linalg_vector_norm, aten.elu, aten.hardtanh, aten.leaky_relu,
)
"""Operators beyond the core whose reference is written in operators that are compiled.

The other references end in operators of their own, or write in place.
"""

SHARED = frozenset({
    aten.mse_loss_backward.default, aten.smooth_l1_loss_backward.default,
    aten.huber_loss_backward.default,
})
"""Decompositions that divide by the number of elements, as a number."""


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Decompositions by operator overload."""
    return {**_always(), **cross_entropy.decompositions()}


@functools.cache
def _always() -> dict[Any, Callable[..., Any]]:
    every = dict(core_aten_decompositions())
    for op, f in decomposition_table.items():
        packet = getattr(op, "overloadpacket", None)
        if inspect.unwrap(f).__module__ == "torch._decomp.decompositions" or packet in REFERENCES:
            every.setdefault(op, f)
    kept = {
        op: _of_no_elements(f) if op in SHARED else f for op, f in every.items()
        if find(op) is None and find_pair_row(op) is None
        and getattr(op, "overloadpacket", None) not in DRAWS
    }
    return {**kept, **foreach.DECOMPOSITIONS, **random.DECOMPOSITIONS}


def _of_no_elements(f: Callable[..., Any]) -> Callable[..., Any]:
    """The decomposition of a loss's gradient, which has no elements where the input has none."""
    @functools.wraps(f)
    def decomposed(gradient: Any, x: Any, *args: Any) -> Any:
        try:
            return f(gradient, x, *args)
        except ZeroDivisionError:
            return torch.empty_like(x)
    return decomposed
