"""Pooling by the largest or the mean, over windows of given or adaptive size, and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tilewright.ir import build, pool
from tilewright.ir.graph import Node
from tilewright.ir.types import size_of
from tilewright.torch.nodes import number
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


def _settings(
    dims: int, size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], ceil_mode: bool,
) -> pool.Pooling:
    sizes = _each(size, dims)
    strides = _each(stride, dims) if stride else sizes
    return pool.pooling(sizes, strides, _each(padding, dims), _each(dilation, dims), ceil_mode)


def _each(values: Sequence[int] | int, dims: int) -> tuple[int, ...]:
    listed = (values,) if isinstance(values, int) else tuple(values)
    return listed * dims if len(listed) == 1 else listed


def _enter(dims: int) -> None:
    """The operators for this many axes of space."""
    @row(getattr(aten, f"max_pool{dims}d_with_indices"))
    def max_pool(
        call: Call, x: Node, size: Sequence[int], stride: Sequence[int] = (),
        padding: Sequence[int] = (0,), dilation: Sequence[int] = (1,), ceil_mode: bool = False,
    ) -> list[Node]:
        p = _settings(dims, size, stride, padding, dilation, ceil_mode)
        return list(pool.max_pool_indices(x, p))

    @row(getattr(aten, f"max_pool{dims}d_with_indices_backward"))
    def max_pool_backward(
        call: Call, grad: Node, x: Node, size: Sequence[int], stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], ceil_mode: bool, indices: Node,
    ) -> Node:
        p = _settings(dims, size, stride, padding, dilation, ceil_mode)
        return pool.max_pool_grad(grad, indices, x.shape, p)

    @row(getattr(aten, f"avg_pool{dims}d"))
    def avg_pool(
        call: Call, x: Node, size: Sequence[int], stride: Sequence[int] = (),
        padding: Sequence[int] = (0,), ceil_mode: bool = False, count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Node:
        if not x.dtype.is_float:
            raise NotCompiled("means of integers")
        p = _settings(dims, size, stride, padding, (1,), ceil_mode)
        return pool.avg_pool(x, p, count_include_pad, divisor_override)

    @row(getattr(aten, f"avg_pool{dims}d_backward"))
    def avg_pool_backward(
        call: Call, grad: Node, x: Node, size: Sequence[int], stride: Sequence[int],
        padding: Sequence[int], ceil_mode: bool, count_include_pad: bool,
        divisor_override: int | None,
    ) -> Node:
        p = _settings(dims, size, stride, padding, (1,), ceil_mode)
        return pool.avg_pool_grad(grad, x.shape, p, count_include_pad, divisor_override)

    @row(getattr(aten, f"_adaptive_avg_pool{dims}d"))
    def adaptive_avg_pool(call: Call, x: Node, size: Sequence[int]) -> Node:
        return pool.adaptive_avg_pool(x, _each(size, dims))

    @row(getattr(aten, f"_adaptive_avg_pool{dims}d_backward"))
    def adaptive_avg_pool_backward(call: Call, grad: Node, x: Node) -> Node:
        return pool.adaptive_avg_pool_grad(grad, x.shape)

    @row(getattr(aten, f"adaptive_max_pool{dims}d"))
    def adaptive_max_pool(call: Call, x: Node, size: Sequence[int]) -> list[Node]:
        return list(pool.adaptive_max_pool(x, _each(size, dims)))

    @row(getattr(aten, f"adaptive_max_pool{dims}d_backward"))
    def adaptive_max_pool_backward(call: Call, grad: Node, x: Node, indices: Node) -> Node:
        return pool.max_pool_grad(grad, indices, x.shape, pool.pooling((1,) * dims))


_enter(2)
_enter(3)


@row(aten.max_unpool2d, aten.max_unpool3d)
def max_unpool(call: Call, x: Node, indices: Node, *sizes: Sequence[int]) -> Node:
    """Values at the places that max pooling took them from, zeros elsewhere."""
    type = call.type
    if not x.type.size or not type.size:
        return number(0, type.dtype, type.shape)
    lead = x.shape[:x.type.rank - (2 if call.target is aten.max_unpool2d.default else 3)]
    rank = len(lead)
    flat, places = (
        build.reshape(n, (*lead, size_of(n.shape[rank:]))) for n in (x, indices))
    zeros = number(0, type.dtype, (*lead, size_of(type.shape[rank:])))
    return build.reshape(build.put_along(zeros, places, flat, rank, "set"), type.shape)
