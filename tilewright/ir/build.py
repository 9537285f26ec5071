"""Short builders of nodes, for the expansion, derivative and transpose rows of the op table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tilewright.errors import Location
from tilewright.ir.attrs import (
    BroadcastAttrs,
    CastAttrs,
    ConcatAttrs,
    ContractAttrs,
    IndexAttrs,
    IotaAttrs,
    Mode,
    PadAttrs,
    PutAttrs,
    ReduceAttrs,
    ReshapeAttrs,
    SliceAttrs,
    TransposeAttrs,
    WindowAttrs,
)
from tilewright.ir.graph import Node, Operand, apply, full, make
from tilewright.ir.sizes import Dim
from tilewright.ir.types import DType, Shape, TensorType, bool_, i32, i64


def where(condition: Node, x: Operand, y: Operand, like: Node | None = None) -> Node:
    """``x`` where ``condition`` holds, else ``y``; two plain numbers are typed as ``like`` is."""
    if like is None:
        return apply("where", condition, x, y)
    x = x if isinstance(x, Node) else full(like.type, x)
    return apply("where", condition, x, y)


def cast(x: Node, dtype: DType) -> Node:
    """``x`` in this element type; itself if it has it."""
    return x if x.dtype is dtype else make("cast", (x,), CastAttrs(dtype))


def bitcast(x: Node, dtype: DType) -> Node:
    """The bits of ``x`` as this element type of the same size."""
    return x if x.dtype is dtype else make("bitcast", (x,), CastAttrs(dtype))


def truth(x: Node, value: bool) -> Node:
    """A bool tensor shaped like ``x`` with one value."""
    return full(x.type.with_dtype(bool_), value)


def nan_test(x: Node) -> Node:
    """True where ``x`` is NaN."""
    return apply("ne", x, x)


def reduce(op: str, x: Node, axes: Iterable[int]) -> Node:
    """A reduction over these axes; ``x`` itself over none."""
    ordered = tuple(sorted(axes))
    return make(op, (x,), ReduceAttrs(ordered)) if ordered else x


def reshape(x: Node, shape: Shape) -> Node:
    """``x`` with another shape of as many elements."""
    return x if x.shape == tuple(shape) else make("reshape", (x,), ReshapeAttrs(tuple(shape)))


def transpose(x: Node, perm: Sequence[int]) -> Node:
    """``x`` with its axes in the order ``perm``."""
    if list(perm) == list(range(len(perm))):
        return x
    return make("transpose", (x,), TransposeAttrs(tuple(perm)))


def broadcast(x: Node, shape: Shape, axes: Sequence[int]) -> Node:
    """``x`` stretched to ``shape``, its axis i becoming ``axes[i]``."""
    if x.shape == tuple(shape):
        return x
    return make("broadcast", (x,), BroadcastAttrs(tuple(shape), tuple(axes)))


def unreduce(x: Node, shape: Shape, axes: Sequence[int]) -> Node:
    """A result of a reduction over ``axes``, repeated to the operand's ``shape``."""
    return broadcast(x, shape, [i for i in range(len(shape)) if i not in axes])


def part(
    x: Node, starts: Sequence[Dim], stops: Sequence[Dim], steps: Sequence[int]
) -> Node:
    """A slice."""
    whole = all(s == 0 for s in starts) and all(s == 1 for s in steps)
    if whole and tuple(stops) == x.shape:
        return x
    return make("slice", (x,), SliceAttrs(tuple(starts), tuple(stops), tuple(steps)))


def pad(
    x: Node, low: Sequence[Dim], high: Sequence[Dim], interior: Sequence[int], value: Operand = 0
) -> Node:
    """``x`` with ``value`` (a scalar node or a number) around and between its elements."""
    if not (any(low) or any(high) or any(interior)):
        return x
    scalar = value if isinstance(value, Node) else full(x.type.with_shape(()), value)
    return make("pad", (x, scalar), PadAttrs(tuple(low), tuple(high), tuple(interior)))


def iota(size: Dim, shape: Shape | None = None, axis: int = 0) -> Node:
    """0, 1, 2 ... along an axis, in the shortest type of at least 32 bits that holds them."""
    dtype = i32 if isinstance(size, int) and size <= 1 << 31 else i64
    type = TensorType(dtype, (size,) if shape is None else tuple(shape))
    return make("iota", (), IotaAttrs(axis), type=type)


def take(x: Node, index: Node, axis: int) -> Node:
    """The parts of ``x`` at places of an axis, in the index's shape in place of that axis."""
    return make("take", (x, index), IndexAttrs(axis))


def take_along(x: Node, index: Node, axis: int) -> Node:
    """The elements at places of an axis, one index per element."""
    return make("take_along", (x, index), IndexAttrs(axis))


def put(x: Node, index: Node, values: Node, axis: int, mode: Mode) -> Node:
    """``x`` with ``values`` brought to the places that :func:`take` reads."""
    return make("put", (x, index, values), PutAttrs(axis, mode))


def put_along(x: Node, index: Node, values: Node, axis: int, mode: Mode) -> Node:
    """``x`` with ``values`` brought to the places that :func:`take_along` reads."""
    return make("put_along", (x, index, values), PutAttrs(axis, mode))


def window(
    x: Node, axes: Sequence[int], sizes: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int],
) -> Node:
    """Sliding windows along ``axes``; their taps are new axes behind the others."""
    if not axes:
        return x
    attrs = WindowAttrs(tuple(axes), tuple(sizes), tuple(strides), tuple(dilations))
    return make("window", (x,), attrs)


def shifted(x: Node, axis: int, by: int, value: Operand) -> Node:
    """``x`` moved along an axis by ``by`` places, ``value`` moving in."""
    rank, size = len(x.shape), x.shape[axis]
    starts, stops = [0] * rank, list(x.shape)
    low, high = [0] * rank, [0] * rank
    (low if by > 0 else high)[axis] = abs(by)
    starts[axis] = max(0, -by)
    stops[axis] = starts[axis] + size
    return part(pad(x, low, high, [0] * rank, value), starts, stops, [1] * rank)


def concat(parts: Sequence[Node], axis: int) -> Node:
    """Tensors one after another along ``axis``."""
    return parts[0] if len(parts) == 1 else make("concat", tuple(parts), ConcatAttrs(axis))


def contract(
    x: Node, y: Node, lhs: Sequence[int], rhs: Sequence[int], out: Sequence[int]
) -> Node:
    """An einsum of two operands, by labels."""
    return make("contract", (x, y), ContractAttrs(tuple(lhs), tuple(rhs), tuple(out)))


def place(root: Node, below: Iterable[Node], loc: Location | None) -> Node:
    """``root``, with ``loc`` as the line of all nodes down to ``below`` that have none.

    A node's line is no part of its identity, so it may be filled in after the node is made.
    """
    if loc is None:
        return root
    stop = {id(n) for n in below}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.loc is None and id(node) not in stop and node.op.kind != "source":
            object.__setattr__(node, "loc", loc)
            stack.extend(node.inputs)
    return root
