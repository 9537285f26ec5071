"""Which values of a traced program lie in the memory of others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

VIEWS = frozenset({
    aten.alias, aten.detach, aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.t,
    aten.transpose, aten.expand, aten.unsqueeze, aten.squeeze, aten.slice, aten.select,
    aten.as_strided, aten.diagonal, aten.unfold, aten.lift_fresh, aten.split,
    aten.split_with_sizes, aten.unbind, aten.view_as_real,
})
"""Operators whose results lie in the memory of their first argument."""


def base_of(
    node: fx.Node, meta_of: Callable[[fx.Node], Any], eager: Collection[fx.Node]
) -> fx.Node | None:
    """The value in whose memory a view lies; None if it is none.

    ``eager`` are the calls of PyTorch, whose results are tensors of their own here.
    """
    found: fx.Node | None = None
    dtype = getattr(meta_of(node), "dtype", None)
    while True:
        packet = getattr(node.target, "overloadpacket", None)
        item = node.target is operator.getitem
        if not (packet in VIEWS or item) or node in eager:
            return found
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if item and getattr(source.target, "overloadpacket", None) not in VIEWS:
            return found
        node = source
        meta = meta_of(node)
        if isinstance(meta, torch.Tensor) and meta.dtype is dtype:
            found = node
