"""The adjoint of sliding windows: every element gets the sum of the cotangents of its taps.

Nothing is scattered. With stride s the elements fall into s phases; within a phase the taps that
see an element are evenly spaced, so its sum is one over a window of the padded cotangent. Where the
cotangent is a contraction of one operand along the windows with another along the taps (the
gradient of a convolution), each phase is a contraction too, as in W. Shi et al., "Is the
deconvolution layer the same as a convolutional layer?" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from tilewright.ir.attrs import FlipAttrs, WindowAttrs
from tilewright.ir.build import (
    cast,
    concat,
    contract,
    pad,
    part,
    reduce,
    reshape,
    transpose,
    window,
)
from tilewright.ir.graph import Node, full, make
from tilewright.ir.sizes import Dim, ceil_div, largest, smallest
from tilewright.ir.types import accumulator

MOST_PHASES = 16
"""Phases up to which the adjoint of a contraction is one contraction for each."""

MOST_TERMS = 8
"""Taps up to which a sum over them is written out."""


Spans = Sequence[tuple[Dim, Dim]]
"""Per windowed axis the first element that is wanted, and how many."""


@dataclass(frozen=True)
class Phase:
    """Every stride-th element of a span, ``size`` of them, starting with its ``rest``-th.

    They are seen by the taps ``first`` + t * ``step``, t < ``taps``; tap t of element q stands in
    window q + ``shift`` - t * ``apart``.
    """

    rest: int
    size: Dim
    first: int
    step: int
    taps: int
    shift: Dim
    apart: int

    @property
    def low(self) -> Dim:
        """Zeros before the windows so that those of an element start at its own place."""
        return (self.taps - 1) * self.apart - self.shift


def phases(span: tuple[Dim, Dim], taps: int, stride: int, dilation: int) -> list[Phase]:
    """The phases of a span of an axis."""
    start, size = span
    common = math.gcd(stride, dilation)
    step, count = stride // common, ceil_div(size, stride)
    result = []
    every = min(stride, max(1, size)) if isinstance(size, int) else stride
    for rest in range(every):
        place = start + rest
        first = next((j for j in range(step) if (j * dilation - place) % stride == 0), taps)
        seen = max(0, -(-(taps - first) // step))
        shift = (place - first * dilation) // stride
        result.append(Phase(rest, count, first, step, seen, shift, dilation // common))
    return result


def adjoint(ct: Node, attrs: WindowAttrs, spans: Spans) -> Node:
    """The cotangent of a part of the windowed axes from that of the windows."""
    rank = ct.type.rank - len(attrs.axes)
    disjoint = all(
        d == 1 and s >= k
        for k, s, d in zip(attrs.sizes, attrs.strides, attrs.dilations, strict=True))
    many = math.prod(attrs.strides) > MOST_PHASES
    separate = None if disjoint or many else separated(ct, attrs, rank)
    if separate is not None:
        return by_phases(attrs, spans, separate)
    same = without_taps(ct, rank)
    if same is not None and not disjoint and not many:
        return by_phases(attrs, spans, lambda chosen: window_sums(same, attrs, chosen))
    wide = cast(ct, accumulator(ct.dtype))
    for number in reversed(range(len(attrs.axes))):
        wide = along_axis(wide, attrs, number, spans[number])
    return cast(wide, ct.dtype)


# --- one value per phase --------------------------------------------------------------------
def by_phases(
    attrs: WindowAttrs, spans: Spans, value: Callable[[Sequence[Phase]], Node]
) -> Node:
    """All phases of all axes, put between one another."""
    every = [
        phases(span, *sizes) for span, *sizes in zip(
            spans, attrs.sizes, attrs.strides, attrs.dilations, strict=True)
    ]
    blocks = {chosen: value(chosen) for chosen in product(*every)}
    for number in reversed(range(len(attrs.axes))):
        axis, size = attrs.axes[number], spans[number][1]
        blocks = {
            head: interleaved([blocks[(*head, phase)] for phase in every[number]], axis, size)
            for head in product(*every[:number])
        }
    return blocks[()]


def interleaved(parts: Sequence[Node], axis: int, size: Dim) -> Node:
    """The parts' elements in turns along an axis, up to ``size``."""
    shape = list(parts[0].shape)
    if len(parts) > 1:
        split = [reshape(p, (*shape[:axis + 1], 1, *shape[axis + 1:])) for p in parts]
        shape[axis] *= len(parts)
        return cut(reshape(concat(split, axis + 1), tuple(shape)), {axis: (0, size)})
    return cut(parts[0], {axis: (0, size)})


def cut(x: Node, spans: Mapping[int, tuple[Dim, Dim]]) -> Node:
    """``x`` from a start (negative: zeros in front) and of a length, along some axes."""
    shape = x.shape
    starts: list[Dim] = [0] * len(shape)
    stops = list(shape)
    low, high = list(starts), list(starts)
    for axis, (start, length) in spans.items():
        starts[axis] = smallest(largest(0, start), shape[axis])
        stops[axis] = largest(starts[axis], smallest(shape[axis], start + length))
        low[axis] = smallest(length, largest(0, -start))
        high[axis] = length - low[axis] - (stops[axis] - starts[axis])
    return pad(part(x, starts, stops, [1] * len(shape)), low, high, [0] * len(shape))


def opened(x: Node, attrs: WindowAttrs, chosen: Sequence[Phase]) -> Node:
    """Windows of stride 1 over padded ``x``: for each element the windows that see it, last first.
    """
    spans = {
        axis: (-p.low, p.size + (p.taps - 1) * p.apart)
        for axis, p in zip(attrs.axes, chosen, strict=True)
    }
    sizes, apart = [p.taps for p in chosen], [p.apart for p in chosen]
    return window(cut(x, spans), attrs.axes, sizes, [1] * len(sizes), apart)


def phase_shape(shape: Sequence[Dim], attrs: WindowAttrs, chosen: Sequence[Phase]) -> list[Dim]:
    """The shape of one phase of a tensor."""
    result = list(shape)
    for axis, phase in zip(attrs.axes, chosen, strict=True):
        result[axis] = phase.size
    return result


def window_sums(same: Node, attrs: WindowAttrs, chosen: Sequence[Phase]) -> Node:
    """One phase, where all taps of a window have the same cotangent."""
    rank = same.type.rank
    if any(p.taps == 0 for p in chosen):
        return full(same.type.with_shape(tuple(phase_shape(same.shape, attrs, chosen))), 0)
    seen = opened(same, attrs, chosen)
    return reduce("sum", seen, range(rank, rank + len(chosen)))


def without_taps(ct: Node, rank: int) -> Node | None:
    """The cotangent without its tap axes, if a broadcast made them."""
    if ct.op.name != "broadcast" or ct.type.rank == rank:
        return None
    source, axes = ct.inputs[0], ct.attrs.axes
    kept = [(d, a) for d, a in zip(source.shape, axes, strict=True) if a < rank]
    if any(d != 1 for d, a in zip(source.shape, axes, strict=True) if a >= rank):
        return None
    small = reshape(source, tuple(d for d, _ in kept))
    shape, places = ct.shape[:rank], tuple(a for _, a in kept)
    if small.shape == shape:
        return small
    return make("broadcast", (small,), type(ct.attrs)(shape, places))


# --- contractions ---------------------------------------------------------------------------
def separated(
    ct: Node, attrs: WindowAttrs, rank: int
) -> Callable[[Sequence[Phase]], Node] | None:
    """A phase of the adjoint of a contraction of windows with taps; None if it is not one."""
    perm = list(range(ct.type.rank))
    while ct.op.name == "transpose":
        perm = [ct.attrs.perm[p] for p in perm]
        ct = ct.inputs[0]
    if ct.op.name != "contract":
        return None
    out = [ct.attrs.out[p] for p in perm]
    along, taps = {out[axis] for axis in attrs.axes}, set(out[rank:])
    operands = list(zip(ct.inputs, (ct.attrs.lhs, ct.attrs.rhs), strict=True))
    for (x, x_labels), (y, y_labels) in (operands, operands[::-1]):
        if along <= set(x_labels) - set(y_labels) and taps <= set(y_labels) - set(x_labels):
            return _Contraction(x, x_labels, y, y_labels, tuple(out), attrs, rank)
    return None


@dataclass(frozen=True)
class _Contraction:
    """contract(x, y), ``x`` along the windows and ``y`` along the taps."""

    x: Node
    x_labels: tuple[int, ...]
    y: Node
    y_labels: tuple[int, ...]
    out: tuple[int, ...]
    attrs: WindowAttrs
    rank: int

    def __call__(self, chosen: Sequence[Phase]) -> Node:
        """The contraction of one phase, over its taps as well."""
        places = [self.x_labels.index(self.out[axis]) for axis in self.attrs.axes]
        order = sorted(range(len(places)), key=places.__getitem__)
        tap_labels = self.out[self.rank:]
        axes = [self.y_labels.index(label) for label in tap_labels]
        if any(p.taps == 0 for p in chosen):
            sizes = dict(zip((*self.x_labels, *self.y_labels), (*self.x.shape, *self.y.shape),
                             strict=True))
            shape = [sizes[label] for label in self.out[:self.rank]]
            return full(self.x.type.with_shape(tuple(phase_shape(shape, self.attrs, chosen))), 0)
        moved = WindowAttrs(
            tuple(sorted(places)), self.attrs.sizes, self.attrs.strides, self.attrs.dilations)
        seen = opened(self.x, moved, [chosen[i] for i in order])
        labels = (*self.x_labels, *(tap_labels[i] for i in order))
        return contract(
            seen, taps_of(self.y, axes, chosen), labels, self.y_labels, self.out[:self.rank])


def taps_of(y: Node, axes: Sequence[int], chosen: Sequence[Phase]) -> Node:
    """The taps of a phase along these axes, last first."""
    shape = y.shape
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, phase in zip(axes, chosen, strict=True):
        starts[axis], steps[axis] = phase.first, phase.step
        stops[axis] = phase.first + (phase.taps - 1) * phase.step + 1
    some = part(y, starts, stops, steps)
    turned = tuple(sorted(a for a in axes if some.shape[a] > 1))
    return make("flip", (some,), FlipAttrs(turned)) if turned else some


# --- any cotangent, one axis after the other --------------------------------------------------
def along_axis(ct: Node, attrs: WindowAttrs, number: int, span: tuple[Dim, Dim]) -> Node:
    """The adjoint along one axis, whose taps are the last axis of ``ct``."""
    axis, taps = attrs.axes[number], attrs.sizes[number]
    stride, dilation = attrs.strides[number], attrs.dilations[number]
    if dilation == 1 and stride >= taps:
        return side_by_side(ct, axis, stride, span)
    return interleaved(
        [phase_sum(ct, axis, p) for p in phases(span, taps, stride, dilation)], axis, span[1])


def side_by_side(ct: Node, axis: int, stride: int, span: tuple[Dim, Dim]) -> Node:
    """Windows that do not overlap: their taps, and zeros between them, one after another."""
    rank = ct.type.rank
    order = [*range(axis + 1), rank - 1, *range(axis + 1, rank - 1)]
    moved = transpose(cut(ct, {rank - 1: (0, stride)}), order)
    kept = moved.shape
    flat = reshape(moved, (*kept[:axis], kept[axis] * stride, *kept[axis + 2:]))
    return cut(flat, {axis: span})


def phase_sum(ct: Node, axis: int, phase: Phase) -> Node:
    """The sums of one phase along an axis."""
    *shape, _ = ct.shape
    last = len(shape)
    if phase.taps == 0:
        shape[axis] = phase.size
        return full(ct.type.with_shape(tuple(shape)), 0)
    if phase.taps > MOST_TERMS:
        return diagonal_sum(ct, axis, phase)
    total: Node | None = None
    for t in range(phase.taps):
        tap = cut(ct, {last: (phase.first + t * phase.step, 1)})
        moved = cut(reshape(tap, tuple(shape)),
                    {axis: (phase.shift - t * phase.apart, phase.size)})
        total = moved if total is None else total + moved
    assert total is not None
    return total


def diagonal_sum(ct: Node, axis: int, phase: Phase) -> Node:
    """The sums of one phase: of the windows that see an element, each one's own tap."""
    last, count = ct.type.rank - 1, phase.taps
    starts, stops, steps = [0] * (last + 1), list(ct.shape), [1] * (last + 1)
    starts[last], steps[last] = phase.first, phase.step
    stops[last] = phase.first + (count - 1) * phase.step + 1
    padded = cut(part(ct, starts, stops, steps),
                 {axis: (-phase.low, phase.size + (count - 1) * phase.apart)})
    seen = window(padded, (axis,), (count,), (1,), (phase.apart,))
    shape = seen.shape
    square = reshape(seen, (*shape[:last], count * count))
    starts, stops, steps = [0] * (last + 1), list(square.shape), [1] * (last + 1)
    starts[last], stops[last], steps[last] = count - 1, count * (count - 1) + 1, count - 1
    return reduce("sum", part(square, starts, stops, steps), (last,))
