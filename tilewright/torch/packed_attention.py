"""``nn.MultiheadAttention`` of a sequence with itself, in few operators.

TorchDynamo leaves PyTorch's function in its graph, and AOTAutograd traces it as some thirty
operators forward and sixty backward, most of which are views. It is written out here so that
queries, keys and values stay views of one product, whose gradient is one stack of theirs.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from tilewright.torch.recurrent import COPIED

LEFT_OUT: dict[str, Any] = {
    "bias_k": None, "bias_v": None, "add_zero_attn": False, "key_padding_mask": None,
    "need_weights": False, "use_separate_proj_weight": False, "static_k": None, "static_v": None,
}
"""The arguments that have these values in what is written out."""


def write_out_attention(module: fx.GraphModule) -> None:
    """Write out what TorchDynamo traced of it, in place."""
    target = functional.multi_head_attention_forward
    found = [n for n in module.graph.nodes if n.op == "call_function" and n.target is target]
    changed = False
    for node in found:
        given = _arguments(node)
        if given is None:
            continue
        before = node.prev
        with module.graph.inserting_before(node):
            made = _written_out(given, module.graph.call_function)
        new = before.next
        while new is not node:
            new.meta.update((k, node.meta[k]) for k in COPIED if k in node.meta)
            new = new.next
        for use in list(node.users):
            made.meta.update(use.meta)  # PyTorch's cache asks what its methods are called on
            use.replace_all_uses_with(made)
            module.graph.erase_node(use)
        module.graph.erase_node(node)
        changed = True
    if changed:
        module.recompile()


@functools.cache
def _signature() -> inspect.Signature:
    return inspect.signature(functional.multi_head_attention_forward)


def _arguments(node: fx.Node) -> dict[str, Any] | None:
    """The arguments by name; None if the call is not written out."""
    bound = _signature().bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    given = bound.arguments
    x = given["query"]
    if not (x is given["key"] and x is given["value"]) or given["in_proj_weight"] is None:
        return None
    if any(given[name] is not value for name, value in LEFT_OUT.items()):
        return None
    if given["attn_mask"] is not None and not given["is_causal"]:
        return None
    if any(u.target is not operator.getitem or u.args[1] != 0 for u in node.users):
        return None
    shape = getattr(x.meta.get("example_value"), "shape", ())
    plain = len(shape) == 3 and all(isinstance(n, int) and n for n in shape)
    return {**given, "shape": tuple(shape)} if plain else None


def _written_out(given: dict[str, Any], call: Callable[..., fx.Node]) -> fx.Node:
    """The result (steps, batch, width)."""
    (steps, batch, width), heads = given["shape"], given["num_heads"]
    dropout = given["dropout_p"] if given["training"] else 0.0
    linear, attention = functional.linear, functional.scaled_dot_product_attention
    every = call(linear, (given["query"], given["in_proj_weight"], given["in_proj_bias"]))
    every = call(torch.reshape, (every, (steps, batch, 3, heads, width // heads)))
    parts = call(torch.unbind, (call(torch.permute, (every, (2, 1, 3, 0, 4))),))
    q, k, v = (call(operator.getitem, (parts, i)) for i in range(3))
    found = call(attention, (q, k, v, None, dropout, given["is_causal"]))
    found = call(torch.permute, (found, (2, 0, 1, 3)))
    rows = call(torch.reshape, (found, (steps * batch, width)))
    rows = call(linear, (rows, given["out_proj_weight"], given["out_proj_bias"]))
    return call(torch.reshape, (rows, (steps, batch, width)))
