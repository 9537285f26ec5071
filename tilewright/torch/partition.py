"""A traced forward and backward in two: PyTorch's partition, of a graph without equal operators.

PyTorch's own search for equal operators loads Inductor's code generators, most of a second in every
process whose caches are empty, for two functions of theirs.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import Any

import torch
from torch import fx
from torch._functorch.compile_utils import get_aten_target, rand_ops
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.multiprocessing.reductions import StorageWeakRef

OWN = frozenset({*rand_ops, torch.ops.aten.empty})
"""Operators that are called as often as the graph says."""

SYMBOLS = torch.SymInt | torch.SymFloat | torch.SymBool


def partition(module: fx.GraphModule, inputs: Any, **options: Any) -> Any:
    """The forward and the backward program of a joint one."""
    if not torch._functorch.config.cse:
        return min_cut_rematerialization_partition(module, inputs, **options)
    merge_equal(module.graph)
    with torch._functorch.config.patch(cse=False):
        return min_cut_rematerialization_partition(module, inputs, **options)


def merge_equal(graph: fx.Graph) -> None:
    """Have each operator once on the same arguments, in place.

    Draws are left, and what shares its memory with a result of the graph: those are tensors of
    their own. What may change an argument divides the graph: nothing after it is merged with what
    is before it.
    """
    outputs = {s for n in graph.output_node().all_input_nodes if (s := _storage(n)) is not None}
    known: dict[Hashable, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if not _pure(node):
            known.clear()
            continue
        key = None if _storage(node) in outputs or _own(node) else _key(node)
        if key is None:
            continue
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _storage(node: fx.Node) -> StorageWeakRef | None:
    """The memory of a node's tensor, if it has any."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    try:
        return StorageWeakRef(value.untyped_storage())
    except NotImplementedError:
        return None


def _pure(node: fx.Node) -> bool:
    """Whether it is known to change nothing."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return not target._schema.is_mutable
    return getattr(target, "__module__", None) in (operator.__name__, "_operator", "math")


def _own(node: fx.Node) -> bool:
    """Whether each call has a result of its own: random numbers, or a size that data decides."""
    value = node.meta.get("val")
    return (
        get_aten_target(node) in OWN
        or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        or isinstance(value, SYMBOLS) and bool(free_unbacked_symbols(value)))


def _key(node: fx.Node) -> Hashable:
    """What equal calls have in common; None if that cannot be told."""
    key = node.target, _frozen(node.args), _frozen(tuple(node.kwargs.items()))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _frozen(value: Any) -> Hashable:
    """An argument, with types and text for numbers: 1, 1.0 and True are equal, as 0.0 and -0.0."""
    if isinstance(value, fx.Node):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return type(value), repr(value) if isinstance(value, float) else value
