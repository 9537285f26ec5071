"""Convolutions of one, two and three axes of space, transposed ones too, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tilewright.ir import build, convolve
from tilewright.ir.graph import Node
from tilewright.torch.nodes import cast, reduce, wide
from tilewright.torch.table import Call, row

aten = torch.ops.aten


@row(aten.convolution, aten._convolution)
def convolution(
    call: Call, x: Node, weight: Node, bias: Node | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int, *switches: bool,
) -> Node:
    dims = x.type.rank - 2
    c = convolve.settings(dims, stride, padding, dilation, groups)
    if transposed:
        out = convolve.transposed_convolution(x, weight, c, _each(output_padding, dims))
    else:
        out = convolve.convolution(x, weight, c)
    if bias is None:
        return out
    total = cast(out, wide(out.dtype))
    return total + build.broadcast(cast(bias, total.dtype), total.shape, (1,))


@row(aten.convolution_backward)
def convolution_backward(
    call: Call, grad: Node, x: Node, weight: Node, bias_sizes: Sequence[int] | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int, output_mask: Sequence[bool],
) -> list[Node | None]:
    c = convolve.settings(x.type.rank - 2, stride, padding, dilation, groups)
    made: list[Node | None] = [None, None, None]
    of_input, of_weight = (
        (convolve.transposed_input_grad, convolve.transposed_weight_grad) if transposed
        else (convolve.convolution_input_grad, convolve.convolution_weight_grad))
    if output_mask[0]:
        made[0] = of_input(grad, weight, x.shape, c)
    if output_mask[1]:
        made[1] = of_weight(grad, x, weight.shape, c)
    if output_mask[2]:
        axes = (0, *range(2, grad.type.rank))
        made[2] = reduce("sum", cast(grad, wide(grad.dtype)), axes)
    return made


def _each(values: Sequence[int], dims: int) -> list[int]:
    return [*values] if len(values) == dims else [*values] * dims
