"""Sizes and numbers that depend on data: PyTorch calls what has to do with them.

``torch.compile(fullgraph=True)``, or a setting of TorchDynamo, makes ``x.item()`` and
``x.nonzero()`` parts of a graph, with symbols for the numbers that are not known until it runs.
What has such a number, or takes one, is called between compiled parts; the rest is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

REASON = "a size or number that depends on data"

Symbolic = torch.SymInt | torch.SymFloat | torch.SymBool


def depends_on_data(meta: Any) -> bool:
    """Whether a number, or a size or stride of a tensor, is known only when the program runs."""
    return any(free_unbacked_symbols(n) for n in _numbers(meta))


def _numbers(meta: Any) -> Iterator[Any]:
    if isinstance(meta, Symbolic):
        yield meta
    elif isinstance(meta, torch.Tensor) and meta.layout is torch.strided:
        for n in (*meta.shape, *meta.stride(), meta.storage_offset()):
            if isinstance(n, Symbolic):
                yield n
    elif isinstance(meta, tuple | list):
        for m in meta:
            yield from _numbers(m)


def called_for_data(module: fx.GraphModule) -> frozenset[fx.Node]:
    """The calls of a program that give or take such numbers."""
    own = {n for n in module.graph.nodes if depends_on_data(n.meta.get("val"))}
    return frozenset(
        n for n in module.graph.nodes if n.op == "call_function"
        and (n in own or any(i in own for i in n.all_input_nodes)))


def computes(node: fx.Node) -> bool:
    """Whether a call is an operator, and not arithmetic of sizes or a look at them."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and not target._schema.name.startswith(
        ("aten::sym_", "aten::_assert_scalar"))
