"""Gathers and scatters as NumPy and PyTorch have them, made of take, take_along, put, put_along.

Every index counts from the end of its own axis when negative, and one outside of its own axis is an
error of the run; none reaches into another row. Index arrays are of any integer type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from tilewright.ir.attrs import Mode
from tilewright.ir.build import (
    broadcast,
    cast,
    concat,
    iota,
    part,
    put,
    put_along,
    reshape,
    take,
    take_along,
    transpose,
    where,
)
from tilewright.ir.graph import Node, apply, full
from tilewright.ir.meaning import highest, lowest
from tilewright.ir.ordered import along, scan
from tilewright.ir.sizes import Dim
from tilewright.ir.types import (
    DType,
    Shape,
    TensorType,
    accumulator,
    broadcast_shapes,
    i32,
    i64,
    size_of,
)

Combine: TypeAlias = Mode | Literal["mean"]
Indices: TypeAlias = Mapping[int, "Node | range"]
Write: TypeAlias = Callable[[Node, Node, Mode], Node]


# --- one index array ----------------------------------------------------------------------
def gather(x: Node, index: Node, axis: int) -> Node:
    """``torch.gather``: result[i, j, k] = x[i, index[i, j, k], k] for axis 1; index's shape.

    ``index`` has the rank of ``x`` and off ``axis`` at most its sizes; a 0-d tensor counts as one
    of one element. Raises ``ValueError`` for other shapes.
    """
    data, at = along(x, axis)
    places, _ = along(index, 0)
    if not index.type.size:
        return full(x.type.with_shape(index.shape), 0)
    return reshape(take_along(_corner(data, places, at), places, at), index.shape)


def scatter(
    x: Node, index: Node, values: Node, axis: int, mode: Combine = "set", include_self: bool = True
) -> Node:
    """``torch.scatter``, ``scatter_add`` and ``scatter_reduce``: x[i, index[i, j, k], k] takes
    values[i, j, k] for axis 1; x's shape.

    ``index`` has the rank of ``x`` and off ``axis`` at most its sizes; ``values`` is 0-d, or has at
    least the sizes of ``index``. ``mode`` is 'set' (the last of several values for a place stays),
    'add', 'mul', 'max', 'min', or 'mean', for integers rounded down. Without ``include_self``, a
    place that is named takes only the values. Raises ``ValueError`` for other shapes.
    """
    data, at = along(x, axis)
    if not index.type.size:
        return x
    places, _ = along(index, 0)
    added = _filling(values, places.shape)
    corner = _corner(data, places, at)

    def write(base: Node, new: Node, how: Mode) -> Node:
        return put_along(base, places, new, at, how)

    result = _combined(corner, added, mode, include_self, write)
    return reshape(_pasted(result, data), x.shape)


def index_reduce(
    x: Node, index: Node, values: Node, axis: int, mode: Combine, include_self: bool = True
) -> Node:
    """``torch.index_add``, ``index_copy`` and ``index_reduce``: the part of ``x`` at index[j] along
    ``axis`` takes the part of ``values`` at j; x's shape.

    ``index`` has any shape, which stands in ``values`` in the place of ``axis``; modes as in
    :func:`scatter`. Raises ``ValueError`` for other shapes.
    """
    data, at = along(x, axis)
    shape = (*data.shape[:at], *index.shape, *data.shape[at + 1:])

    def write(base: Node, new: Node, how: Mode) -> Node:
        return put(base, index, new, at, how)

    return reshape(_combined(data, reshape(values, shape), mode, include_self, write), x.shape)


def masked_scatter(x: Node, mask: Node, source: Node) -> Node:
    """``torch.masked_scatter``: the n-th place where ``mask`` holds takes the n-th of ``source``.

    ``mask`` has the shape of ``x``, ``source`` any shape; to have fewer elements than there are
    places is an error of the run, as of an index outside.
    """
    flat, chosen = reshape(source, (source.type.size,)), reshape(mask, (mask.type.size,))
    dtype = i32 if isinstance(x.type.size, int) and x.type.size < 1 << 31 else i64
    # One more element to read where nothing is chosen, even of an empty source.
    flat = concat([full(flat.type.with_shape((1,)), 0), flat], 0)
    number = where(chosen, scan("add", cast(chosen, dtype), 0), 0)
    return where(mask, reshape(take(flat, number, 0), x.shape), x)


def _combined(
    x: Node, values: Node, mode: Combine, include_self: bool, write: Write
) -> Node:
    """A scatter by any mode; ``write(base, values, mode)`` brings values to the places."""
    if mode == "mean":
        return _mean(x, values, include_self, write)
    base = x
    if not include_self and mode != "set":
        base = write(x, full(values.type, identity(mode, x.dtype)), "set")
    return write(base, values, mode)


def _mean(x: Node, values: Node, include_self: bool, write: Write) -> Node:
    """Sum and count are kept in the accumulator type; a place that nothing names stays."""
    wide, counter = accumulator(x.dtype), accumulator(x.dtype) if x.dtype.is_float else i64
    total = _combined(cast(x, wide), cast(values, wide), "add", include_self, write)
    ones = full(values.type.with_dtype(counter), 1)
    count = _combined(full(x.type.with_dtype(counter), 1), ones, "add", include_self, write)
    mean = apply("div" if x.dtype.is_float else "floordiv", cast(total, counter), count)
    return cast(mean, x.dtype)


def identity(mode: Mode, dtype: DType) -> Any:
    """The number that does not change what it is combined with, but for the sign of a zero."""
    if mode in ("add", "mul"):
        return int(mode == "mul")
    return (lowest if mode == "max" else highest)(dtype.numpy)


def _filling(values: Node, shape: Shape) -> Node:
    """A 0-d value everywhere, or the first of many."""
    if not values.shape:
        return broadcast(values, shape, ())
    return part(values, [0] * len(shape), shape, [1] * len(shape))


def _corner(x: Node, index: Node, axis: int) -> Node:
    """The part of ``x`` that an index of smaller sizes reaches."""
    if index.type.rank != x.type.rank:
        raise ValueError(f"an index of rank {index.type.rank} for {x.type}")
    stops = list(index.shape)
    stops[axis] = x.shape[axis]
    return part(x, [0] * len(stops), stops, [1] * len(stops))


def _pasted(corner: Node, x: Node) -> Node:
    """``x`` with its first corner replaced."""
    small, shape = corner.shape, x.shape
    for axis in reversed(range(len(shape))):
        if small[axis] != shape[axis]:
            starts = [0] * axis + [small[axis]] + [0] * (len(shape) - axis - 1)
            rest = part(x, starts, [*small[:axis], *shape[axis:]], [1] * len(shape))
            corner = concat([corner, rest], axis)
    return corner


# --- several index arrays -----------------------------------------------------------------
def index_many(x: Node, indices: Indices, front: bool | None = None) -> Node:
    """``x[i, :, j]`` for index arrays by axis, here ``{0: i, 2: j}``.

    The arrays broadcast to one shape, which stands in the result in the place of their axes if
    these are neighbours, else in front, as NumPy and PyTorch have it; ``front`` decides otherwise.
    A ``range`` in place of an array is a slice: its places, within the axis, stay an axis of its
    own.
    Raises ``ValueError`` for arrays that do not broadcast or no array at all.
    """
    f = _Flat.of(x, indices, front)
    return transpose(take(f.data, f.index, f.first), f.order)


def index_put(
    x: Node, indices: Indices, values: Node, mode: Mode = "set", front: bool | None = None
) -> Node:
    """``x`` with ``values`` brought to the places that :func:`index_many` reads; x's shape.

    ``values`` has the shape of what is read, or broadcasts to it. As in PyTorch's ``index_put``,
    a place that is named twice keeps the last value (``set``) or takes both (``add``, which is
    ``accumulate``). Raises ``ValueError`` like :func:`index_many`, and for values that do not fit.
    """
    f = _Flat.of(x, indices, front)
    shape = f.shape
    if broadcast_shapes(values.shape, shape) != shape:
        raise ValueError(f"index_put: values {values.type} do not fit {shape}")
    first = len(shape) - values.type.rank
    added = broadcast(values, shape, range(first, len(shape)))
    back = [f.order.index(i) for i in range(len(f.order))]
    return reshape(put(f.data, f.index, transpose(added, back), f.first, mode), x.shape)


def index_shape(x: Node, indices: Indices, front: bool | None = None) -> Shape:
    """The shape of what :func:`index_many` reads."""
    return _Flat.of(x, indices, front).shape


@dataclass(frozen=True)
class _Flat:
    """Several indexed axes as one, from the first of them to the last.

    data   the tensor with these axes merged into axis ``first``
    index  one index into that axis, of all places that are named
    order  what makes the result of a take from it that of the indexing: a permutation
    """

    data: Node
    index: Node
    first: int
    order: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        """Of what the indexing reads."""
        taken = (*self.data.shape[:self.first], *self.index.shape,
                 *self.data.shape[self.first + 1:])
        return tuple(taken[i] for i in self.order)

    @staticmethod
    def of(x: Node, indices: Indices, front: bool | None) -> _Flat:
        """The indices of ``x`` combined."""
        arrays = {a: i for a, i in sorted(indices.items()) if isinstance(i, Node)}
        if not arrays:
            raise ValueError("indexing without an index array")
        shape, first, last = x.shape, min(indices), max(indices)
        # The axes that the arrays do not index keep axes of their own.
        own = {a: _Places.of(indices.get(a), shape[a]) for a in range(first, last + 1)
               if a not in arrays}
        common = broadcast_shapes(*(i.shape for i in arrays.values()))
        data, index = x, arrays.get(first)
        if first != last or index is None:
            data = reshape(x, (*shape[:first], size_of(shape[first:last + 1]), *shape[last + 1:]))
            index = _linear(shape[:last + 1], first, arrays, own, common)
        axes = list(range(first + index.type.rank + len(shape) - last - 1))
        rest = axes[:first] + axes[first + len(common):]
        ahead, behind = min(arrays), max(arrays)
        if front is None:
            front = len(arrays) != behind - ahead + 1
        at = 0 if front else ahead
        order = (*rest[:at], *axes[first:first + len(common)], *rest[at:])
        return _Flat(data, index, first, order)


class _Places(NamedTuple):
    """Places of an axis at equal distances."""

    start: Dim
    step: int
    length: Dim

    @staticmethod
    def of(given: Node | range | None, size: Dim) -> _Places:
        """Those of a range, or all."""
        if isinstance(given, range):
            return _Places(given.start, given.step, len(given))
        return _Places(0, 1, size)


def _linear(
    shape: Shape, first: int, arrays: Mapping[int, Node], own: Mapping[int, _Places],
    common: Shape,
) -> Node:
    """The places in the axes from ``first`` on as one, each index checked against its axis.

    The result has the arrays' ``common`` shape, then the axes of their own.
    """
    whole = (*common, *(p.length for p in own.values()))
    size = size_of(shape[first:])
    dtype = i32 if isinstance(size, int) and size < 1 << 31 else i64
    total = full(TensorType(dtype, whole), 0)
    step: Dim = 1
    for axis in reversed(range(first, len(shape))):
        if axis in arrays:
            # Looked up in 0, 1, 2 ...: counted from the start, and an error if it is outside.
            place = cast(take(iota(shape[axis]), arrays[axis], 0), dtype)
            place = broadcast(place, whole, range(len(common) - place.type.rank, len(common)))
        else:
            start, stride, length = own[axis]
            place = cast(iota(length, whole, len(common) + list(own).index(axis)), dtype)
            place = place * stride + start
        total = total + place * step
        step = step * shape[axis]
    return total
