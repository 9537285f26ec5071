"""Strided tensors as row-major buffers seen through views, so that nothing is copied.

A compiled program knows row-major buffers only. The memory of a strided tensor is such a buffer in
another order of axes, with gaps that are sliced away; an axis of stride 0 has one element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.ir import build
from tilewright.ir.graph import Node


@dataclass(frozen=True, slots=True)
class Layout:
    """How a strided tensor lies in memory.

    shape     of the row-major buffer
    perm      tensor axis ``perm[i]`` is buffer axis i
    sizes     of the tensor's axes in the buffer's order: 1 where the tensor repeats one element
    trailing  the buffer has one more axis, of which the tensor's elements are the first
    """

    shape: tuple[int, ...]
    perm: tuple[int, ...]
    sizes: tuple[int, ...]
    trailing: bool

    @property
    def dense(self) -> bool:
        """Whether the tensor fills the buffer."""
        return self.shape == self.sizes


def layout_of(shape: Sequence[int], strides: Sequence[int]) -> Layout | None:
    """The buffer whose elements the tensor is; None where it is no view of a buffer.

    Strides that are not multiples of each other, or that overlap, have no buffer.
    """
    rank = len(shape)
    real = [i for i in range(rank) if shape[i] != 1 and strides[i] != 0]
    order = sorted(real, key=lambda i: -strides[i])
    perm = [*order]
    for i in range(rank):  # axes of one element go where the tensor has them, for fewer transposes
        if i not in real:
            perm.insert(min(i, len(perm)), i)
    if 0 in shape:
        return Layout(tuple(shape), tuple(range(rank)), tuple(shape), False)
    extents = {i: 1 for i in range(rank)}
    for before, axis in zip([None, *order], order, strict=False):
        if before is None:
            extents[axis] = shape[axis]
            continue
        steps, rest = divmod(strides[before], strides[axis])
        if rest or steps < shape[axis]:
            return None
        extents[axis] = steps
    last = strides[order[-1]] if order else 1
    buffer = [extents[i] for i in perm]
    sizes = [shape[i] if i in real else 1 for i in perm]
    if last > 1:
        buffer.append(last)
        sizes.append(1)
    return Layout(tuple(buffer), tuple(perm), tuple(sizes), last > 1)


def read(buffer: Node, layout: Layout, shape: Sequence[int]) -> Node:
    """The tensor of this shape that lies in a buffer."""
    rank = len(layout.sizes)
    node = build.part(buffer, [0] * rank, layout.sizes, [1] * rank)
    if layout.trailing:
        node = build.reshape(node, layout.sizes[:-1])
    back = sorted(range(len(layout.perm)), key=lambda i: layout.perm[i])
    node = build.transpose(node, back)
    return build.broadcast(node, tuple(shape), range(len(shape)))


def write(tensor: Node, layout: Layout) -> Node:
    """The buffer, dense but for repeated elements, in which a tensor lies as the layout says."""
    node = build.transpose(tensor, layout.perm)
    rank = node.type.rank
    return build.part(node, [0] * rank, layout.sizes[:rank], [1] * rank)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major tensor."""
    strides, n = [], 1
    for d in reversed(shape):
        strides.append(n)
        n *= max(1, d)
    return tuple(reversed(strides))
