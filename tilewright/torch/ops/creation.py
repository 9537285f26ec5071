"""Operators that make tensors from numbers."""

from __future__ import annotations

from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node
from tilewright.ir.types import f64
from tilewright.torch.nodes import cast, iota, number
from tilewright.torch.table import Call, row

aten = torch.ops.aten


@row(aten.full, aten.scalar_tensor)
def full(call: Call, *args: Any, **kwargs: Any) -> Node:
    return number(args[-1], call.type.dtype, call.type.shape)


@row(aten.zeros, aten.zeros_like, aten.new_zeros, aten.empty, aten.empty_like, aten.new_empty,
     aten.empty_strided, aten.new_empty_strided, aten.empty_permuted)
def zeros(call: Call, *args: Any, **kwargs: Any) -> Node:
    return number(0, call.type.dtype, call.type.shape)


@row(aten.ones, aten.ones_like, aten.new_ones)
def ones(call: Call, *args: Any, **kwargs: Any) -> Node:
    return number(1, call.type.dtype, call.type.shape)


@row(aten.new_full)
def new_full(call: Call, x: Node, size: Any, value: Any, **kwargs: Any) -> Node:
    return number(value, call.type.dtype, call.type.shape)


@row(aten.arange)
def arange(call: Call, *args: Any, **kwargs: Any) -> Node:
    start, step = 0, 1
    if len(args) == 2:
        start = args[0]
    elif len(args) == 3:
        start, step = args[0], args[2]
    return _progression(call, start, step)


@row(torch.ops.prims.iota)
def prims_iota(call: Call, length: int, *, start: int, step: int, **kwargs: Any) -> Node:
    return _progression(call, start, step)


def _progression(call: Call, start: Any, step: Any) -> Node:
    dtype = call.type.dtype
    position = iota(call.type.shape, 0)
    if dtype.is_int:
        return cast(position * int(step) + int(start), dtype)
    return cast(position, dtype) * step + start


@row(aten.linspace)
def linspace(call: Call, start: Any, end: Any, steps: int, **kwargs: Any) -> Node:
    position = cast(iota(call.type.shape, 0), f64)
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    near = position * step + start
    far = (position - (steps - 1)) * step + end
    return build.where(position < steps / 2, near, far)
