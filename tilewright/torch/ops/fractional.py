"""Pooling by the largest over windows whose places follow from random numbers, and its gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.types import as_number, i64
from tilewright.torch.nodes import cast, iota, number
from tilewright.torch.table import Call, row

aten = torch.ops.aten


def _starts(sample: Node, size: int, out: int, window: int) -> Node:
    """Where the windows along one axis begin: for each number of ``sample`` so many places.

    Rounded down are the multiples of a step from the sample on, less those from 0 on; the last
    window ends with the axis.
    """
    lead = sample.shape
    shape = (*lead, out)
    last = number(size - window, i64, shape)
    if out == 1:
        return last
    rank = len(lead)
    at = iota(shape, rank)
    wide = build.broadcast(sample, shape, range(rank))
    step = number(size - window, sample.dtype, shape) / float(out - 1)
    place = cast(make("trunc", ((cast(at, sample.dtype) + wide) * step,)), i64)
    before = cast(make("trunc", (wide * step,)), i64)
    return build.where(at < out - 1, place - before, last)


def _enter(dims: int) -> None:
    """The operators for this many axes of space."""
    @row(getattr(aten, f"fractional_max_pool{dims}d").default)
    def fractional_max_pool(
        call: Call, x: Node, size: Sequence[int], out: Sequence[int], samples: Node
    ) -> list[Node]:
        if not call.out[0].size:
            return [number(0, t.dtype, t.shape) for t in call.out]
        lead = x.shape[:-dims]
        space = [as_number(d) for d in x.shape[-dims:]]
        wide = build.reshape(samples, (*lead, dims))
        starts = [_starts(_number(wide, _sample_of(axis, dims)), space[axis], out[axis], size[axis])
                  for axis in range(dims)]
        return _largest(x, space, starts, size, call.out[0].shape)

    @row(getattr(aten, f"fractional_max_pool{dims}d_backward").default)
    def backward(
        call: Call, grad: Node, x: Node, size: Sequence[int], out: Sequence[int], indices: Node
    ) -> Node:
        if not grad.type.size:
            return number(0, grad.dtype, x.shape)
        lead = x.shape[:-dims]
        count, windows = math.prod(x.shape[-dims:]), math.prod(grad.shape[-dims:])
        made = build.put_along(
            number(0, grad.dtype, (*lead, count)), build.reshape(indices, (*lead, windows)),
            build.reshape(grad, (*lead, windows)), len(lead), "add")
        return build.reshape(made, x.shape)


def _sample_of(axis: int, dims: int) -> int:
    """Which random number moves the windows along an axis: in two dimensions the first the last."""
    return dims - 1 - axis if dims == 2 else axis


def _number(samples: Node, which: int) -> Node:
    rank = samples.type.rank
    lead = samples.shape[:-1]
    found = build.part(samples, [0] * (rank - 1) + [which], [*lead, which + 1], [1] * rank)
    return build.reshape(found, lead)


def _largest(
    x: Node, space: list[int], starts: list[Node], size: Sequence[int], shape: Sequence[int]
) -> list[Node]:
    """The largest element of each window, a NaN if there is one, and where it stands."""
    dims = len(space)
    lead = x.shape[:-dims]
    rank = len(lead)
    windows = math.prod(shape[-dims:])
    flat = build.reshape(x, (*lead, math.prod(space)))
    best: Node | None = None
    place: Node | None = None
    for offsets in itertools.product(*(range(s) for s in size)):
        at = number(0, i64, tuple(shape))
        for axis, (start, offset) in enumerate(zip(starts, offsets, strict=True)):
            along = build.broadcast(start + offset, tuple(shape), (*range(rank), rank + axis))
            at = at * space[axis] + along
        at = build.reshape(at, (*lead, windows))
        value = build.take_along(flat, at, rank)
        if best is None or place is None:
            best, place = value, at
            continue
        larger = make("gt", (value, best)) | build.nan_test(value)
        best, place = build.where(larger, value, best), build.where(larger, at, place)
    assert best is not None and place is not None
    return [build.reshape(best, tuple(shape)), build.reshape(place, tuple(shape))]


_enter(2)
_enter(3)
