"""Operators that make tensors from numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, captured, make
from tilewright.ir.sizes import Size
from tilewright.ir.types import DType, Shape, TensorType, f64
from tilewright.torch.nodes import cast, iota, number, operands
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


@row(aten.full, aten.scalar_tensor)
def full(call: Call, *args: Any, **kwargs: Any) -> Node:
    return number(args[-1], call.type.dtype, call.type.shape)


@row(aten.zeros, aten.zeros_like, aten.new_zeros, aten.empty, aten.empty_like, aten.new_empty,
     aten.empty_strided, aten.new_empty_strided, aten.empty_permuted, aten._efficientzerotensor)
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
    return progression(call.type, start, step)


@row(torch.ops.prims.iota)
def prims_iota(call: Call, length: int, *, start: int, step: int, **kwargs: Any) -> Node:
    return progression(call.type, start, step)


def progression(type: TensorType, start: Any, step: Any) -> Node:
    """start, start + step, start + 2 * step ..."""
    dtype = type.dtype
    position = iota(type.shape, 0)
    if dtype.is_int:
        first = start if isinstance(start, Size) else int(start)
        return cast(position * int(step) + first, dtype)
    return cast(position, dtype) * step + start


@row(aten.linspace)
def linspace(call: Call, start: Any, end: Any, steps: int, **kwargs: Any) -> Node:
    return evenly(call.type.shape, start, end, steps, call.type.dtype)


def evenly(shape: Shape, start: Any, end: Any, steps: int, dtype: DType) -> Node:
    """Numbers at equal distances, counted from the nearer end, so that both ends are exact."""
    low, high = operands(f64, shape, start, end)
    if steps < 2:
        return low
    place = cast(iota(shape, 0), f64)
    if dtype.is_int:  # the step is one of integers divided as floats
        step = (high - low) * (1.0 / (steps - 1))
    else:
        step = (high - low) / number(steps - 1, f64, shape)
    near = place * step + low
    far = (place - (steps - 1)) * step + high
    return build.where(place < steps // 2, near, far)


@row(aten.logspace)
def logspace(
    call: Call, start: Any, end: Any, steps: int, base: float = 10.0, **kwargs: Any
) -> Node:
    exponents = evenly(call.type.shape, start, end, steps, f64)
    return make("pow", (number(base, f64, call.type.shape), exponents))


@row(aten.eye)
def eye(call: Call, *args: Any, **kwargs: Any) -> Node:
    shape = call.type.shape
    return make("eq", (iota(shape, 0), iota(shape, 1)))


MOST_PLACES = 1 << 16
"""Places of a triangle up to which they are a constant of the program."""


def _triangle_places(call: Call, places: tuple[np.ndarray, ...]) -> Node:
    """The rows and columns of the elements of a triangle, in row-major order."""
    if places[0].size > MOST_PLACES:
        raise NotCompiled("the places of a large triangle")
    return captured(np.stack(places).astype(call.type.dtype.numpy), call.type)


@row(aten.tril_indices)
def tril_indices(call: Call, rows: int, columns: int, offset: int = 0, **kwargs: Any) -> Node:
    return _triangle_places(call, np.tril_indices(rows, offset, columns))


@row(aten.triu_indices)
def triu_indices(call: Call, rows: int, columns: int, offset: int = 0, **kwargs: Any) -> Node:
    return _triangle_places(call, np.triu_indices(rows, offset, columns))


@row(aten.resize.default)
def resize(call: Call, x: Node, size: Any, *, memory_format: Any = None) -> Node:
    """The elements as they lie in memory; those that were not there are undefined."""
    if not call.args[0].is_contiguous():
        raise NotCompiled("a resize of a tensor that is not contiguous")
    count, given = call.type.size, x.type.size
    flat = build.reshape(x, (given,))
    if given < count:
        flat = build.concat([flat, number(0, x.dtype, (count - given,))], 0)
    return build.reshape(build.part(flat, [0], [count], [1]), call.type.shape)
