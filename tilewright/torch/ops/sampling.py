"""Images read between their elements: sampling on a grid, and resizing with a filter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, captured, make
from tilewright.ir.types import DType, TensorType, i64
from tilewright.torch.nodes import cast, gradients, number, wide
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

LINEAR, NEAREST, CUBIC = range(3)
ZEROS, BORDER, REFLECTION = range(3)

Taps = list[tuple[Node, Node | None]]
"""Along one axis: whole places as floats, and their weights (None: 1)."""


# --- grids --------------------------------------------------------------------------------
def _clipped(place: Node, size: int) -> Node:
    """Within the image; at its borders a place has no derivative, as in PyTorch."""
    low, high = number(0, place.dtype, place.shape), number(size - 1, place.dtype, place.shape)
    return build.where(place <= 0.0, low, build.where(place >= float(size - 1), high, place))


def _reflected(place: Node, low: float, span: float) -> Node:
    """Thrown back at both ends as often as needed."""
    if span == 0:
        return number(0, place.dtype, place.shape)
    way = place - low
    way = build.where(way < 0.0, -way, way)
    length = number(span, way.dtype, way.shape)
    rest = make("fmod", (way, length))
    turns = make("floor", (way / length,))
    odd = make("ne", (turns - make("floor", (turns * 0.5,)) * 2.0, number(0, way.dtype, way.shape)))
    return build.where(odd, (span + low) - rest, rest + low)


def _padded(place: Node, size: int, padding: int, aligned: bool) -> Node:
    """Where a place outside of the image is read."""
    if padding == BORDER:
        return _clipped(place, size)
    if padding == REFLECTION:
        low, span = (0.0, float(size - 1)) if aligned else (-0.5, float(size))
        return _clipped(_reflected(place, low, span), size)
    return place


def _taps(coordinate: Node, size: int, mode: int, padding: int, aligned: bool) -> Taps:
    place = coordinate * ((size - 1) / 2 if aligned else size / 2) + (size - 1) / 2
    if mode == CUBIC:
        low = make("floor", (place,))
        weights = _cubic(place - low)
        return [
            (_padded(low + float(k - 1), size, padding, aligned), w) for k, w in enumerate(weights)]
    place = _padded(place, size, padding, aligned)
    if mode == NEAREST:
        return [(make("rint", (place,)), None)]
    low = make("floor", (place,))
    return [(low, low + 1.0 - place), (low + 1.0, place - low)]


def _cubic(t: Node, a: float = -0.75) -> list[Node]:
    """The weights of four neighbours: R. Keys, "Cubic convolution interpolation" (1981)."""
    def near(x: Node) -> Node:
        return ((a + 2) * x - (a + 3)) * x * x + 1.0

    def far(x: Node) -> Node:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]


def sampled(x: Node, grid: Node, mode: int, padding: int, aligned: bool) -> Node:
    """``x`` [batch, channels, *space] at the places of ``grid`` [batch, *out, axis], the last axis
    of space first; results [batch, channels, *out]."""
    space = [int(d) for d in x.shape[2:]]
    batch, channels, rank = x.shape[0], x.shape[1], len(space)
    out = grid.shape[1:-1]
    lead = [0] * (rank + 1)
    taps = []
    for axis, size in enumerate(space):
        at = rank - 1 - axis
        part = build.part(grid, [*lead, at], [*grid.shape[:-1], at + 1], [1] * (rank + 2))
        coordinate = build.reshape(part, grid.shape[:-1])
        taps.append(_taps(coordinate, size, mode, padding, aligned))
    count = math.prod(int(d) for d in out)
    flat = build.reshape(x, (batch, channels, math.prod(space)))
    total: Node | None = None
    for corner in itertools.product(*taps):
        inside, place, weight = _corner(corner, space)
        wide_place = build.broadcast(
            build.reshape(place, (batch, count)), (batch, channels, count), (0, 2))
        value = build.reshape(build.take_along(flat, wide_place, 2), (batch, channels, *out))
        shape, axes = value.shape, [0, *range(2, rank + 2)]
        if weight is not None:
            value = value * build.broadcast(weight, shape, axes)
        seen = build.broadcast(inside, shape, axes)
        value = build.where(seen, value, number(0, value.dtype, shape))
        total = value if total is None else total + value
    assert total is not None
    return total


def _corner(
    corner: Sequence[tuple[Node, Node | None]], space: Sequence[int]
) -> tuple[Node, Node, Node | None]:
    """Whether a combination of taps is in the image, its place there, and its weight."""
    inside: Node | None = None
    place: Node | None = None
    weight: Node | None = None
    for (at, w), size in zip(corner, space, strict=True):
        within = (at >= 0.0) & (at <= float(size - 1))
        whole = cast(build.where(within, at, number(0, at.dtype, at.shape)), i64)
        inside = within if inside is None else inside & within
        place = whole if place is None else place * size + whole
        if w is not None:
            weight = w if weight is None else weight * w
    assert inside is not None and place is not None
    return inside, place, weight


def _enter_grid(dims: int) -> None:
    """The operators for this many axes of space."""
    def function(mode: int, padding: int, aligned: bool) -> Callable[..., Node]:
        return lambda x, grid: sampled(x, grid, mode, padding, aligned)

    @row(getattr(aten, f"grid_sampler_{dims}d"))
    def grid_sampler(
        call: Call, x: Node, grid: Node, mode: int, padding: int, aligned: bool
    ) -> Node:
        if not call.type.size:
            return number(0, x.dtype, call.type.shape)
        dtype = wide(x.dtype)
        return function(mode, padding, aligned)(cast(x, dtype), cast(grid, dtype))

    @row(getattr(aten, f"grid_sampler_{dims}d_backward"))
    def grid_sampler_backward(
        call: Call, grad: Node, x: Node, grid: Node, mode: int, padding: int, aligned: bool,
        wanted: Sequence[bool],
    ) -> list[Node]:
        if not grad.type.size:
            return [number(0, n.dtype, n.shape) for n in (x, grid)]
        dtype = wide(x.dtype)
        return gradients(function(mode, padding, aligned), [cast(x, dtype), cast(grid, dtype)],
                         cast(grad, dtype))


_enter_grid(2)
_enter_grid(3)


# --- resizing -----------------------------------------------------------------------------
def _triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _cubic_filter(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "bilinear": (_triangle, 1.0), "bicubic": (_cubic_filter, 2.0),
}
"""Filters of resizing without aliases, and how far they reach."""

MOST_WEIGHTS = 1 << 20
"""Elements of a matrix of weights up to which it is a constant of the program."""


def weights(kind: str, size: int, out: int, aligned: bool, scale: float | None) -> np.ndarray:
    """What each of ``out`` elements takes of ``size``: a filter as wide as the step between them,
    of sum 1."""
    function, reach = FILTERS[kind]
    step = (size - 1) / (out - 1) if aligned and out > 1 else 0.0 if aligned else (
        1 / scale if scale else size / out)
    support, inverse = (reach * step, 1 / step) if step >= 1 else (reach, 1.0)
    result = np.zeros((out, size))
    for i in range(out):
        centre = step * (i + 0.5)
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        own = np.array([function((j - centre + 0.5) * inverse) for j in range(first, last)])
        result[i, first:last] = own / own.sum() if own.sum() else own
    return result


def _resized(x: Node, matrices: Sequence[np.ndarray], dtype: DType) -> Node:
    """The last axes of ``x``, each by a matrix."""
    rank = x.type.rank
    for axis, matrix in zip(range(rank - len(matrices), rank), matrices, strict=True):
        type = TensorType(dtype, tuple(int(d) for d in matrix.shape))
        labels = list(range(rank))
        out = [rank if i == axis else i for i in labels]
        x = build.contract(x, captured(matrix, type), labels, (rank, axis), out)
    return x


def _enter_filter(kind: str) -> None:
    def matrices(
        sizes: Sequence[Any], out: Sequence[Any], aligned: bool, scales: Sequence[float | None]
    ) -> list[np.ndarray]:
        if any(int(a) * int(b) > MOST_WEIGHTS for a, b in zip(sizes, out, strict=True)):
            raise NotCompiled("the weights of a large image")
        return [weights(kind, int(s), int(o), aligned, scale)
                for s, o, scale in zip(sizes, out, scales, strict=True)]

    @row(getattr(aten, f"_upsample_{kind}2d_aa").default)
    def resize(
        call: Call, x: Node, size: Sequence[int], aligned: bool, scale_h: float | None = None,
        scale_w: float | None = None,
    ) -> Node:
        dtype = wide(x.dtype)
        if not dtype.is_float:
            raise NotCompiled("an image of integers")
        found = matrices(x.shape[2:], size, aligned, (scale_h, scale_w))
        return _resized(cast(x, dtype), found, dtype)

    @row(getattr(aten, f"_upsample_{kind}2d_aa_backward").default)
    def resize_backward(
        call: Call, grad: Node, size: Sequence[int], sizes: Sequence[int], aligned: bool,
        scale_h: float | None = None, scale_w: float | None = None,
    ) -> Node:
        dtype = wide(grad.dtype)
        found = matrices(sizes[2:], size, aligned, (scale_h, scale_w))
        return _resized(cast(grad, dtype), [m.T for m in found], dtype)


_enter_filter("bilinear")
_enter_filter("bicubic")


# --- borders ------------------------------------------------------------------------------
def _enter_replication(dims: int) -> None:
    """The gradient of borders that repeat the outermost elements."""
    @row(getattr(aten, f"replication_pad{dims}d_backward"))
    def replication_pad_backward(
        call: Call, grad: Node, x: Node, padding: Sequence[int]
    ) -> Node:
        g = cast(grad, wide(grad.dtype))
        rank = x.type.rank
        for i in range(dims):
            axis = rank - 1 - i
            low, high, size = padding[2 * i], padding[2 * i + 1], int(x.shape[axis])
            places = np.clip(np.arange(low * -1, size + high), 0, size - 1)
            zeros = number(0, g.dtype, (*g.shape[:axis], size, *g.shape[axis + 1:]))
            index = captured(places, TensorType(i64, places.shape))
            g = build.put(zeros, index, g, axis, "add")
        return g


for _dims in (1, 2, 3):
    _enter_replication(_dims)
