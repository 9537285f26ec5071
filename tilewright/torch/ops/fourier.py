"""Discrete Fourier transforms of short axes, as products with matrices of roots of unity.

Longer ones run in PyTorch: a fast transform needs fewer operations than any product with a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tilewright.ir import build
from tilewright.ir.attrs import FlipAttrs
from tilewright.ir.graph import Node, captured, make
from tilewright.ir.types import DType, TensorType, as_number, f32, f64
from tilewright.torch.nodes import axis_of, number
from tilewright.torch.ops.views import slice_axis
from tilewright.torch.pairs import Pair, pair_row
from tilewright.torch.table import Call, NotCompiled

aten = torch.ops.aten

LONGEST = 64
"""Elements of an axis up to which its transform is a product with a matrix."""


def _roots(numbers: np.ndarray, n: int, sign: int, dtype: DType) -> Pair:
    """exp(sign 2 pi i number / n), exact to rounding."""
    angle = 2 * math.pi * (numbers % n) / n
    type = TensorType(dtype, numbers.shape)
    return Pair(captured(np.cos(angle), type), captured(sign * np.sin(angle), type))


def _times(x: Pair | Node, matrix: Pair) -> Pair:
    """The last axis multiplied by a matrix."""
    def along(part: Node, by: Node) -> Node:
        rank = part.type.rank
        kept = tuple(range(rank - 1))
        return build.contract(part, by, (*kept, rank), (rank, rank + 1), (*kept, rank + 1))
    if isinstance(x, Node):
        return Pair(along(x, matrix.re), along(x, matrix.im))
    return Pair(along(x.re, matrix.re) - along(x.im, matrix.im),
                along(x.re, matrix.im) + along(x.im, matrix.re))


def transformed(x: Pair | Node, sign: int) -> Pair:
    """The transform along the last axis, without a factor."""
    n = as_number(x.shape[-1])
    if n > LONGEST:
        raise NotCompiled(f"a transform of more than {LONGEST} elements")
    return _times(x, _roots(np.outer(np.arange(n), np.arange(n)), n, sign, x.dtype))


def _along(x: Pair | Node, axis: int, sign: int) -> Pair:
    """The transform along an axis."""
    rank = len(x.shape)
    last = [*(i for i in range(rank) if i != axis), axis]
    back = sorted(range(rank), key=lambda i: last[i])

    def move(part: Node) -> Node:
        return build.transpose(part, last)

    moved = move(x) if isinstance(x, Node) else x.each(move)
    return transformed(moved, sign).each(lambda part: build.transpose(part, back))


def _scaled(x: Pair, normalization: int, count: int) -> Pair:
    """0: as it is; 1: by the root of the number of elements; 2: by the number."""
    if normalization == 0 or count == 1:
        return x
    scale = 1 / math.sqrt(count) if normalization == 1 else 1 / count
    return x.each(lambda part: part * number(scale, part.dtype, part.shape))


def _axes(call: Call, x: Pair | Node, dims: Sequence[int]) -> list[int]:
    if x.dtype not in (f32, f64):
        raise NotCompiled("a transform of 16-bit numbers")
    return [axis_of(d, len(x.shape)) for d in dims]


@pair_row(aten._fft_c2c)
def c2c(call: Call, x: Pair, dims: Sequence[int], normalization: int, forward: bool) -> Pair:
    axes = _axes(call, x, dims)
    count = math.prod(as_number(x.shape[a]) for a in axes)
    for axis in reversed(axes):
        x = _along(x, axis, -1 if forward else 1)
    return _scaled(x, normalization, count)


@pair_row(aten._fft_r2c)
def r2c(
    call: Call, x: Node, dims: Sequence[int], normalization: int, onesided: bool
) -> Pair:
    axes = _axes(call, x, dims)
    count = math.prod(as_number(x.shape[a]) for a in axes)
    last = axes[-1]
    found = _along(x, last, -1)
    if onesided:
        half = as_number(x.shape[last]) // 2 + 1
        found = found.each(lambda part: slice_axis(part, last, 0, half))
    for axis in reversed(axes[:-1]):
        found = _along(found, axis, -1)
    return _scaled(found, normalization, count)


@pair_row(aten._fft_c2r)
def c2r(
    call: Call, x: Pair, dims: Sequence[int], normalization: int, last_dim_size: Any
) -> Node:
    axes, n = _axes(call, x, dims), as_number(last_dim_size)
    last = axes[-1]
    if as_number(x.shape[last]) != n // 2 + 1:
        raise NotCompiled("a half of another length")
    for axis in reversed(axes[:-1]):
        x = _along(x, axis, 1)
    whole = _along(_both_halves(x, last, n), last, 1)
    count = n * math.prod(as_number(x.shape[a]) for a in axes[:-1])
    return _scaled(whole, normalization, count).re


def _both_halves(x: Pair, axis: int, n: int) -> Pair:
    """What has this first half and a real transform; ends that pair with themselves are real."""
    rank = len(x.shape)
    shape = [1] * rank
    shape[axis] = n // 2 + 1
    inner = np.ones(n // 2 + 1)
    inner[0] = 0
    if n % 2 == 0:
        inner[-1] = 0
    keep = build.broadcast(
        captured(inner.reshape(shape), TensorType(x.dtype, tuple(shape))), x.shape, range(rank))
    zero = number(0, x.dtype, x.shape)
    im = build.where(keep > 0.0, x.im, zero)
    stop = (n + 1) // 2

    def mirrored(part: Node) -> Node:
        return make("flip", (slice_axis(part, axis, 1, stop),), FlipAttrs((axis,)))

    if stop <= 1:
        return Pair(x.re, im)
    return Pair(build.concat([x.re, mirrored(x.re)], axis),
                build.concat([im, -mirrored(im)], axis))
