"""Indexing of traced values: slices, integers, new axes, index arrays, take."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, OutOfBounds, ShapeError
from tilewright.frontend import build
from tilewright.frontend.build import (
    as_node,
    axis_of,
    broadcast_to,
    check_alive,
    common_shape,
    contains_traced,
    emit,
    located,
    wrap,
)
from tilewright.frontend.location import here
from tilewright.frontend.shapes import flip_node, part
from tilewright.frontend.tracer import HOOKS, Tracer, describe, implements, refuse, share
from tilewright.ir.attrs import IndexAttrs
from tilewright.ir.graph import Node
from tilewright.ir.indexing import index_many
from tilewright.ir.sizes import Size, ceil_div
from tilewright.ir.types import bool_


def get(value: Tracer, index: Any) -> Tracer:
    """``value[index]``."""
    check_alive(value)
    items = expand(index, value.ndim, value.node)
    if any(is_array(item) for item in items):
        return take_arrays(value, items)
    result = wrap(basic(value.node, items), value)
    share(value, result)
    return result


def is_array(item: Any) -> bool:
    """True for an index array, traced or not."""
    return isinstance(item, (Tracer, np.ndarray))


def expand(index: Any, rank: int, node: Node) -> list[Any]:
    """An index as a list of slices, integers, None and index arrays that names every axis."""
    listed = list(index) if isinstance(index, tuple) else [index]
    items: list[Any] = []
    for item in listed:
        items.extend(item_of(item, node))
    named = sum(item is not None and item is not Ellipsis for item in items)
    if sum(item is Ellipsis for item in items) > 1:
        raise OutOfBounds("an index has more than one ...", loc=here())
    if named > rank:
        raise OutOfBounds(
            "too many indices",
            expected=f"at most {rank} for {describe(node)}",
            got=named,
            loc=here(),
        )
    if Ellipsis not in [i for i in items if not is_array(i)]:
        items.append(Ellipsis)
    at = next(i for i, item in enumerate(items) if item is Ellipsis)
    return [*items[:at], *[slice(None)] * (rank - named), *items[at + 1 :]]


def item_of(item: Any, node: Node) -> list[Any]:
    """One entry of an index; a boolean array whose contents are known becomes index arrays."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return [item]
    if isinstance(item, (list, tuple)) and contains_traced(item):
        item = wrap(as_node(item))
    if not isinstance(item, Tracer):
        if isinstance(item, (int, np.integer)) and not isinstance(item, (bool, np.bool_)):
            return [int(item)]
        item = np.asarray(item)
        if item.size == 0 and item.dtype == np.float64:
            item = item.astype(np.int64)
    kind = item.dtype.kind
    if kind == "b":
        if isinstance(item, Tracer):
            refuse(
                "indexing with a traced boolean mask: the result has no fixed size",
                "use np.where(mask, x, 0), or a reduction with where=mask",
                got=describe(node),
            )
        return list(np.nonzero(item)) if item.ndim else [None, np.zeros(int(item), np.int64)]
    if kind not in "iu":
        raise DTypeError(
            "an array is indexed with something that is not an integer",
            loc=here(),
            expected="integers, slices, None, ... or integer arrays",
            got=build.describe_value(item),
            hint="convert it with .astype(int)" if kind == "f" else None,
        )
    return [item]


def basic(node: Node, items: Sequence[Any]) -> Node:
    """Slices, integers and None."""
    sliced, shape = basic_slice(node, items)
    return build.reshape(sliced, shape)


def basic_slice(node: Node, items: Sequence[Any]) -> tuple[Node, tuple[int, ...]]:
    """The sliced node with all its axes, and the shape after integers and None are seen to."""
    starts, stops, steps, turned, shape = [], [], [], [], []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        start, stop, step, back = bounds(item, node, axis)
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if back:
            turned.append(axis)
        if isinstance(item, slice):
            shape.append(ceil_div(stop - start, step))
        axis += 1
    return flip_node(part(node, starts, stops, steps), turned), tuple(shape)


def bounds(item: Any, node: Node, axis: int) -> tuple[int, int, int, bool]:
    """(start, stop, step >= 1, runs backwards) of a slice or an integer on an axis."""
    length = node.shape[axis]
    if not isinstance(item, slice):
        place = operator.index(item)
        check_place(place, length, axis, node)
        return place % length, place % length + 1, 1, False
    for bound in (item.start, item.stop, item.step):
        if isinstance(bound, Tracer):
            refuse(
                "a slice with a traced bound has no fixed size",
                "index with an array of places, x[start + np.arange(n)], or make the bound static",
                got=describe(bound.node),
            )
    if isinstance(length, Size) or isinstance(item.start, Size) or isinstance(item.stop, Size):
        return named_bounds(item, length)
    start, stop, step = item.indices(length)
    places = range(start, stop, step)
    if not places:
        return 0, 0, 1, False
    if step > 0:
        return start, places[-1] + 1, step, False
    return places[-1], start + 1, -step, True


def named_bounds(item: slice, length: Any) -> tuple[Any, Any, int, bool]:
    """:func:`bounds` of a slice where the size of the axis, or a bound, has a name."""
    step = 1 if item.step is None else operator.index(item.step)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    least, most = (0, length) if step > 0 else (-1, length - 1)

    def place(bound: Any, default: Any) -> Any:
        if bound is None:
            return default
        bound = Size(bound.terms) if isinstance(bound, Size) else operator.index(bound)
        if bound < 0:
            bound = bound + length
            return least if bound < 0 else bound
        return bound if bound <= most else most

    start = place(item.start, least if step > 0 else most)
    stop = place(item.stop, most if step > 0 else least)
    if step > 0:
        return (start, stop, step, False) if start < stop else (0, 0, 1, False)
    if not stop < start:
        return 0, 0, 1, False
    # From the last place that is met, as bounds counts them.
    last = start - (start - stop - 1) // -step * -step
    return last, start + 1, -step, True


def check_place(place: int, length: int, axis: int, node: Node) -> None:
    """Raise ``OutOfBounds`` for an index that is known and wrong."""
    if not -length <= place < length:
        raise OutOfBounds(
            f"index {place} is outside axis {axis}",
            expected=f"-{length} to {length - 1}" if length else "nothing: the axis is empty",
            got=f"{place} on {describe(node)}",
            loc=here(),
        )


def take_arrays(value: Tracer, items: list[Any]) -> Tracer:
    """Indexing with arrays: NumPy's rules for where their axes go."""
    front = arrays_in_front(items)
    # An integer among arrays is one of them, but a slice is cheaper to read.
    node = basic(value.node, [slice(None) if is_array(i) else i for i in items])
    given = [
        index_node(item, value.node.shape[axis], axis, value.node)
        for axis, item in paired(items)
        if is_array(item)
    ]
    kept = [item for item in items if not isinstance(item, int)]
    places = [n for n, item in enumerate(kept) if is_array(item)]
    arrays = dict(zip(places, given, strict=True))
    common_shape("an index", list(arrays.values()))
    result = index_many(node, arrays, front)
    return wrap(located(result, node, *arrays.values()), value, *filter(is_array, items))


def paired(items: Sequence[Any]) -> list[tuple[int, Any]]:
    """The entries of a full index and the axes that they name."""
    return list(enumerate(item for item in items if item is not None))


def arrays_in_front(items: Sequence[Any]) -> bool:
    """Whether the axes of the index arrays stand before all others in the result."""
    places = [n for n, item in enumerate(items) if is_array(item) or isinstance(item, int)]
    return places != list(range(places[0], places[-1] + 1))


def index_node(index: Any, length: int, axis: int, node: Node) -> Node:
    """An index array as a node. Raises for one that is known to be outside, or no integer."""
    if isinstance(index, Tracer):
        found = as_node(index)
    else:
        array = np.asarray(index)
        if array.size == 0 and array.dtype == np.float64:
            array = array.astype(np.int64)
        if array.dtype.kind in "iu" and array.size:
            for place in (int(array.min()), int(array.max())):
                check_place(place, length, axis, node)
        found = as_node(array)
    if not found.dtype.is_int:
        raise DTypeError(
            "an index is not an integer",
            expected="an integer array",
            got=describe(found),
            loc=here(),
            hint="convert it with .astype(np.int64)",
        )
    return found


def take_node(node: Node, index: Any, axis: int) -> Node:
    """The elements at places of an axis."""
    return emit("take", (node, index_node(index, node.shape[axis], axis, node)), IndexAttrs(axis))


@implements(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Tracer:
    """``np.take``; an index outside the axis is an error when the program runs."""
    node = as_node(a)
    node, along = (
        (build.reshape(node, (node.type.size,)), 0)
        if axis is None
        else (node, axis_of(axis, len(node.shape), "np.take"))
    )
    length = node.shape[along]
    if out is not None:
        refuse("the argument out= of np.take cannot be traced", "use the returned value")
    if mode == "clip":
        indices = np.clip(indices, 0, length - 1)
    if mode == "wrap":
        indices = np.remainder(indices, length)
    return wrap(take_node(node, indices, along), a, indices)


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Tracer:
    """``np.take_along_axis``."""
    data = as_node(arr)
    if axis is None:
        data, axis = build.reshape(data, (data.type.size,)), 0
    along = axis_of(axis, len(data.shape), "np.take_along_axis")
    index = index_node(indices, data.shape[along], along, data)
    if len(index.shape) != len(data.shape):
        raise ShapeError(
            "np.take_along_axis: the ranks differ",
            expected=describe(data),
            got=describe(index),
            loc=here(),
        )
    shapes = [tuple(1 if i == along else d for i, d in enumerate(n.shape)) for n in (data, index)]
    rest = common_shape("np.take_along_axis", [build.scalar(bool_, False, s) for s in shapes])
    data, index = (
        broadcast_to(n, (*rest[:along], n.shape[along], *rest[along + 1 :])) for n in (data, index)
    )
    return wrap(emit("take_along", (data, index), IndexAttrs(along)), arr, indices)


HOOKS["get"] = get
