"""Normalisation operators that PyTorch does not take apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.torch.nodes import cast, count, expand, number, reduce, wide
from tilewright.torch.ops.reductions import variance
from tilewright.torch.table import Call, row

aten = torch.ops.aten


@row(aten.native_layer_norm)
def layer_norm(
    call: Call, x: Node, normalized_shape: Sequence[Any], weight: Node | None, bias: Node | None,
    eps: float,
) -> list[Node]:
    """``(x - mean) / std * weight + bias`` over the last axes, and the mean and 1 / std."""
    axes = tuple(range(x.type.rank - len(normalized_shape), x.type.rank))
    spread, center = variance(x, axes, True, 0)
    inverse = make("rsqrt", (spread + eps,))
    result = _centered(x, center) * expand(inverse, x.shape)
    if weight is not None:
        result = result * expand(cast(weight, result.dtype), x.shape)
    if bias is not None:
        result = result + expand(cast(bias, result.dtype), x.shape)
    return [result, center, inverse]


@row(aten.native_layer_norm_backward)
def layer_norm_backward(
    call: Call, grad: Node, x: Node, normalized_shape: Sequence[Any], mean: Node, rstd: Node,
    weight: Node | None, bias: Node | None, output_mask: Sequence[bool],
) -> list[Node | None]:
    """The gradients by ``x``, ``weight`` and ``bias``: those that the mask asks for."""
    dtype, axis = wide(x.dtype), x.type.rank - len(normalized_shape)
    outer, inner = tuple(range(axis)), tuple(range(axis, x.type.rank))
    grad, mean, rstd = (cast(n, dtype) for n in (grad, mean, rstd))
    unit = _centered(x, mean) * expand(rstd, x.shape)
    scaled = grad if weight is None else grad * expand(cast(weight, dtype), x.shape)
    by_x = by_weight = by_bias = None
    if output_mask[0]:
        n = number(count(x.shape, inner), dtype, rstd.shape)
        along = reduce("sum", scaled * unit, inner, True)
        rest = scaled * expand(n, x.shape) - expand(reduce("sum", scaled, inner, True), x.shape)
        by_x = expand(rstd / n, x.shape) * (rest - unit * expand(along, x.shape))
    if output_mask[1] and weight is not None:
        by_weight = reduce("sum", grad * unit, outer)
    if output_mask[2] and bias is not None:
        by_bias = reduce("sum", grad, outer)
    return [by_x, by_weight, by_bias]


def _centered(x: Node, center: Node) -> Node:
    return cast(x, center.dtype) - expand(center, x.shape)


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
