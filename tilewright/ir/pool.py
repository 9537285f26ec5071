"""Pooling on nodes: reductions of windows of the last axes, and their gradients.

``x`` is (..., *space). Settings are per axis of space; padding is a pair (before, behind). With
``ceil`` a last window that starts inside of the data, or of what precedes it, may reach beyond
what pads it, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.ir.attrs import IotaAttrs, WindowAttrs
from tilewright.ir.build import (
    broadcast,
    cast,
    nan_test,
    pad,
    put_along,
    reduce,
    reshape,
    take,
    transpose,
    unreduce,
    where,
    window,
)
from tilewright.ir.graph import Node, apply, captured, full, make
from tilewright.ir.meaning import lowest
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import TensorType, accumulator, bool_, concrete, i32, i64
from tilewright.ir.windows import adjoint, cut


@dataclass(frozen=True)
class Pooling:
    """The settings of a pooling, one per axis of space."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    ceil: bool = False

    @property
    def dims(self) -> int:
        """The number of axes of space."""
        return len(self.sizes)

    def count(self, size: int, axis: int) -> int:
        """The windows along an axis of this size. Raises ``ValueError`` if there is none."""
        low, high = self.padding[axis]
        span = (self.sizes[axis] - 1) * self.dilations[axis] + 1
        stride = self.strides[axis]
        room = size + low + high - span
        if room < 0 and not (self.ceil and room > -stride):
            raise ValueError(f"pooling: a window of {span} does not fit into {size + low + high}")
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        # A window that starts behind the data and what precedes it sees nothing.
        return count - (self.ceil and (count - 1) * stride >= size + low)

    def starts(self, size: int, axis: int) -> np.ndarray:
        """Where the windows along an axis of this size start; negative in the padding."""
        steps = np.arange(self.count(size, axis)) * self.strides[axis]
        return steps - self.padding[axis][0]

    def spans(self, shape: Sequence[Dim]) -> list[tuple[int, int]]:
        """Per axis of space, how much is put before and behind the data for the windows."""
        result = []
        for axis, size in enumerate(space_of(shape, len(shape) - self.dims)):
            low = self.padding[axis][0]
            reach = (self.sizes[axis] - 1) * self.dilations[axis] + 1
            end = (self.count(size, axis) - 1) * self.strides[axis] + reach
            result.append((low, end - low - size))
        return result


def pooling(
    sizes: Sequence[int], strides: Sequence[int] | None = None,
    padding: Sequence[int | tuple[int, int]] | None = None,
    dilations: Sequence[int] | None = None, ceil: bool = False,
) -> Pooling:
    """Settings with their defaults: strides as the sizes, no padding, neighbours."""
    dims = len(sizes)
    pairs = tuple((p, p) if isinstance(p, int) else p for p in padding or (0,) * dims)
    result = Pooling(
        tuple(sizes), tuple(strides or sizes), pairs, tuple(dilations or (1,) * dims), ceil)
    if {len(result.strides), len(pairs), len(result.dilations)} != {dims}:
        raise ValueError(f"pooling: {dims} axes of space need as many settings of each kind")
    if min(*result.sizes, *result.strides, *result.dilations) < 1 or min(map(min, pairs)) < 0:
        raise ValueError("pooling: sizes, strides and dilations are 1 or more, padding 0")
    return result


def space_of(shape: Sequence[Dim], lead: int) -> tuple[int, ...]:
    """The sizes from axis ``lead`` on. Raises ``TypeError`` for a named one."""
    return concrete(tuple(shape[lead:]))


def _windows(x: Node, p: Pooling, value: object) -> Node:
    """The windows of ``x`` surrounded by a value; taps last."""
    shape = x.shape
    lead = len(shape) - p.dims
    spans = p.spans(shape)
    inside = cut(x, {lead + i: (0, shape[lead + i] + min(0, high))
                     for i, (_, high) in enumerate(spans)})
    low = [0] * lead + [low for low, _ in spans]
    high = [0] * lead + [max(0, high) for _, high in spans]
    scalar = full(x.type.with_shape(()), value)
    axes = range(lead, len(shape))
    return window(
        pad(inside, low, high, [0] * len(shape), scalar), tuple(axes), p.sizes, p.strides,
        p.dilations)


def _taps(seen: Node, p: Pooling) -> range:
    return range(seen.type.rank - p.dims, seen.type.rank)


# --- largest ----------------------------------------------------------------------------------
def max_pool(x: Node, p: Pooling) -> Node:
    """The largest element of each window; NaN if there is one. Padding counts as lowest."""
    seen = _windows(x, p, lowest(x.dtype.numpy))
    return reduce("reduce_max", seen, _taps(seen, p))


def max_pool_indices(x: Node, p: Pooling) -> tuple[Node, Node]:
    """The largest element of each window, and where it stands in its flattened space, as i64.

    The first of equals counts and the last NaN, as in PyTorch; padding never does.
    """
    shape = x.shape
    lead = len(shape) - p.dims
    seen = _windows(x, p, lowest(x.dtype.numpy))
    taps = _taps(seen, p)
    space = space_of(shape, lead)
    # Padding stands behind all places.
    near = _windows(_plane(space), p, math.prod(space))
    axes = range(lead, seen.type.rank)
    return _largest(seen, broadcast(near, seen.shape, axes), taps, math.prod(space))


def _plane(space: Sequence[int]) -> Node:
    """The place of each element in its flattened space."""
    count = math.prod(space)
    dtype = i32 if count < 1 << 31 else i64
    counts = make("iota", (), IotaAttrs(0), type=TensorType(dtype, (count,)))
    return reshape(counts, tuple(space))


def _largest(seen: Node, place: Node, taps: range, count: int) -> tuple[Node, Node]:
    """The largest of the taps, and its place, below ``count``; what is not part has that place."""
    largest = reduce("reduce_max", seen, taps)
    hits = apply("eq", seen, unreduce(largest, seen.shape, taps))
    first = reduce("reduce_min", where(hits, place, count), taps)
    if not seen.dtype.is_float:
        return largest, cast(first, i64)
    nan = reduce("reduce_max", where(nan_test(seen), place, -1), taps)
    return largest, cast(where(nan >= 0, nan, first), i64)


def max_pool_grad(grad: Node, indices: Node, shape: Sequence[Dim], p: Pooling) -> Node:
    """The gradient of ``x``, of this shape, from the result's and the indices.

    Each index names a place of the flattened space, as :func:`max_pool_indices` gives them.
    """
    lead = len(shape) - p.dims
    plane = math.prod(space_of(shape, lead))
    rows = (product(shape[:lead]), math.prod(space_of(grad.shape, lead)))
    wide = accumulator(grad.dtype)
    start = full(TensorType(wide, (rows[0], plane)), 0)
    total = put_along(start, reshape(indices, rows), reshape(cast(grad, wide), rows), 1, "add")
    return cast(reshape(total, tuple(shape)), grad.dtype)


# --- average ----------------------------------------------------------------------------------
def avg_pool(
    x: Node, p: Pooling, include_padding: bool = True, divisor: int | None = None
) -> Node:
    """The mean of each window, summed in the accumulator type.

    It is divided by the elements that it sees, with or without padding (never counting what only
    ``ceil`` reaches), or by ``divisor``.
    """
    seen = _windows(cast(x, accumulator(x.dtype)), p, 0)
    total = reduce("sum", seen, _taps(seen, p))
    return cast(_shared(total, concrete(x.shape), p, include_padding, divisor), x.dtype)


def avg_pool_grad(
    grad: Node, shape: Sequence[Dim], p: Pooling, include_padding: bool = True,
    divisor: int | None = None,
) -> Node:
    """The gradient of ``x``, of this shape, from that of the result."""
    lead = len(shape) - p.dims
    share = _shared(cast(grad, accumulator(grad.dtype)), shape, p, include_padding, divisor)
    attrs = WindowAttrs(tuple(range(lead, len(shape))), p.sizes, p.strides, p.dilations)
    every = unreduce(share, (*share.shape, *p.sizes), range(len(shape), len(shape) + p.dims))
    spans = [(low, d) for d, (low, _) in zip(space_of(shape, lead), p.padding, strict=True)]
    return cast(adjoint(every, attrs, spans), grad.dtype)


def _shared(
    total: Node, shape: Sequence[Dim], p: Pooling, include_padding: bool, divisor: int | None
) -> Node:
    """``total`` divided by what each window counts."""
    if divisor is not None:
        return total / divisor
    lead = len(shape) - p.dims
    counts = np.ones(())
    for axis, size in enumerate(space_of(shape, lead)):
        low, high = p.padding[axis]
        first, last = (-low, size + high) if include_padding else (0, size)
        taps = p.starts(size, axis)[:, None] + np.arange(p.sizes[axis]) * p.dilations[axis]
        seen = np.sum((taps >= first) & (taps < last), 1)
        counts = counts[..., None] * seen
    return _divided(total, counts, lead)


def _divided(total: Node, counts: np.ndarray, lead: int) -> Node:
    """``total`` divided by a number per place of space."""
    number = captured(counts.astype(total.dtype.numpy), total.type.with_shape(counts.shape))
    return total / broadcast(number, total.shape, range(lead, lead + counts.ndim))


# --- to a given size ----------------------------------------------------------------------------
# Window i of ``out`` along an axis of n elements is the part from floor(i * n / out) to
# ceil((i + 1) * n / out), as in PyTorch; windows may overlap, and their sizes differ by one.


def adaptive_windows(size: int, out: int) -> list[tuple[int, int]]:
    """The first element of each window along an axis, and the one behind its last."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def even_pooling(space: Sequence[int], out: Sequence[int]) -> Pooling | None:
    """The settings of a pooling to these sizes, if all windows are equal and none overlap."""
    if any(o < 1 or d < o or d % o for d, o in zip(space, out, strict=True)):
        return None
    return pooling([d // o for d, o in zip(space, out, strict=True)])


def _gathered(x: Node, lead: int, spans: Sequence[Sequence[tuple[int, int]]]) -> tuple[Node, Node]:
    """Parts of unequal sizes along each axis of space, taps last, and which taps are part of them.
    """
    dims = len(spans)
    for axis, span in enumerate(spans):
        most = max(1, max((stop - start for start, stop in span), default=1))
        starts = np.array([start for start, _ in span], np.int64).reshape(-1, 1)
        places = np.minimum(starts + np.arange(most), max(0, concrete(x.shape)[lead + axis] - 1))
        index = captured(places, TensorType(i64, places.shape))
        x = take(x, index, lead + axis)
        rank = x.type.rank
        at = lead + axis + 1
        x = transpose(x, [*range(at), *range(at + 1, rank), at])
    inside = full(x.type.with_dtype(bool_), True)
    for axis, span in enumerate(spans):
        sizes = np.array([stop - start for start, stop in span], np.int64)
        count = broadcast(captured(sizes, TensorType(i64, sizes.shape)), x.shape, (lead + axis,))
        tap = make("iota", (), IotaAttrs(lead + dims + axis), type=TensorType(i64, x.shape))
        if len(set(sizes.tolist())) > 1:
            inside = inside & (tap < count)
    return x, inside


def adaptive_avg_pool(x: Node, out: Sequence[int]) -> Node:
    """The mean of each of ``out`` windows per axis of space, the last axes of ``x``."""
    shape = x.shape
    lead = len(shape) - len(out)
    even = even_pooling(space_of(shape, lead), out)
    if even is not None:
        return avg_pool(x, even)
    spans = [adaptive_windows(d, o) for d, o in zip(space_of(shape, lead), out, strict=True)]
    seen, inside = _gathered(cast(x, accumulator(x.dtype)), lead, spans)
    total = reduce("sum", where(inside, seen, 0), range(len(shape), seen.type.rank))
    return cast(_divided(total, _sizes(spans), lead), x.dtype)


def adaptive_avg_pool_grad(grad: Node, shape: Sequence[Dim]) -> Node:
    """The gradient of ``x``, of this shape, from that of the result.

    The windows that see an element stand next to one another, so the sum of their shares is one
    over parts of unequal sizes again.
    """
    pairs = zip(shape, grad.shape, strict=True)
    lead = next((i for i, (d, o) in enumerate(pairs) if d != o), len(shape))
    if lead == len(shape):
        return grad
    space, out = space_of(shape, lead), space_of(grad.shape, lead)
    even = even_pooling(space, out)
    if even is not None:
        return avg_pool_grad(grad, shape, even)
    spans = [adaptive_windows(d, o) for d, o in zip(space, out, strict=True)]
    share = _divided(cast(grad, accumulator(grad.dtype)), _sizes(spans), lead)
    seen, inside = _gathered(share, lead, [
        _seeing(span, d) for span, d in zip(spans, space, strict=True)])
    total = reduce("sum", where(inside, seen, 0), range(len(shape), seen.type.rank))
    return cast(total, grad.dtype)


def _seeing(spans: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """For each element, the first window that sees it, and the one behind the last."""
    result = []
    for place in range(size):
        seeing = [i for i, (start, stop) in enumerate(spans) if start <= place < stop]
        result.append((seeing[0], seeing[-1] + 1) if seeing else (0, 0))
    return result


def _sizes(spans: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """How many elements each window has."""
    counts = np.ones(())
    for span in spans:
        counts = counts[..., None] * np.array([stop - start for start, stop in span])
    return counts


def adaptive_max_pool(x: Node, out: Sequence[int]) -> tuple[Node, Node]:
    """The largest element of each window, and its place in the flattened space, as i64."""
    shape = x.shape
    lead = len(shape) - len(out)
    space = space_of(shape, lead)
    even = even_pooling(space, out)
    if even is not None:
        return max_pool_indices(x, even)
    spans = [adaptive_windows(d, o) for d, o in zip(space, out, strict=True)]
    seen, inside = _gathered(x, lead, spans)
    plane = broadcast(_plane(space), shape, range(lead, len(shape)))
    place, _ = _gathered(plane, lead, spans)
    count = math.prod(space)
    return _largest(
        where(inside, seen, lowest(x.dtype.numpy)), where(inside, place, count),
        range(len(shape), seen.type.rank), count)
