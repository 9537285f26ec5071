"""Normalisation operators that PyTorch does not take apart."""

from __future__ import annotations

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node
from tilewright.torch.nodes import cast, expand, reduce, wide
from tilewright.torch.table import Call, row

aten = torch.ops.aten


@row(aten._weight_norm_interface_backward)
def weight_norm_backward(
    call: Call, grad: Node, v: Node, g: Node, norms: Node, dim: int
) -> list[Node]:
    """Of ``v * g / norm(v)``, the norm over all axes but ``dim``."""
    dtype = wide(v.dtype)
    grad, v, g, norms = (cast(x, dtype) for x in (grad, v, g, norms))
    axes = tuple(a for a in range(v.type.rank) if a != dim % v.type.rank)
    shape = tuple(1 if a in axes else d for a, d in enumerate(v.shape))
    norms, g = build.reshape(norms, shape), build.reshape(g, shape)
    along = reduce("sum", grad * v, axes, True) / norms
    unit = expand(along / norms, v.shape)
    return [
        (grad - v * unit) * expand(g / norms, v.shape), build.reshape(along, call.out[1].shape)]
