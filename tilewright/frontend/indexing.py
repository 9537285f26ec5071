"""Indexing of traced values: slices, integers, new axes, index arrays, take, and their updates."""

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
    cast,
    check_alive,
    common_shape,
    contains_traced,
    emit,
    iota,
    scalar,
    wrap,
)
from tilewright.frontend.location import here
from tilewright.frontend.moves import pad_node
from tilewright.frontend.shapes import flip_node, part, permute
from tilewright.frontend.tracer import HOOKS, Tracer, describe, implements, refuse, share
from tilewright.ir.attrs import IndexAttrs, PutAttrs
from tilewright.ir.graph import Node
from tilewright.ir.types import TensorType, bool_, i64


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
            shape.append(-(-(stop - start) // step))
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
    start, stop, step = item.indices(length)
    places = range(start, stop, step)
    if not places:
        return 0, 0, 1, False
    if step > 0:
        return start, places[-1] + 1, step, False
    return places[-1], start + 1, -step, True


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
    items = [np.asarray(i) if isinstance(i, int) else i for i in items]
    places = [n for n, item in enumerate(items) if is_array(item)]
    together = places == list(range(places[0], places[-1] + 1))
    node = basic(value.node, [slice(None) if is_array(i) else i for i in items])
    arrays = [items[n] for n in places]
    used = [value, *arrays]
    if len(arrays) == 1:
        return wrap(take_node(node, arrays[0], places[0]), *used)
    shape = common_shape("an index", [as_node(a) for a in arrays])
    rest = [n for n in range(len(items)) if n not in places]
    first = places[0] if together else 0
    order = (*rest[:first], *places, *rest[first:])
    moved = permute(node, order)
    lengths = moved.shape[first : first + len(places)]
    flat = build.reshape(
        moved, (*moved.shape[:first], int(np.prod(lengths)), *moved.shape[first + len(places) :])
    )
    index = linear(arrays, lengths, shape, node, places)
    return wrap(take_node(flat, index, first), *used)


def linear(
    arrays: list[Any],
    lengths: Sequence[int],
    shape: tuple[int, ...],
    node: Node,
    axes: Sequence[int],
) -> Any:
    """One index into the flattened axes; a place outside any axis stays outside."""
    if not any(isinstance(a, Tracer) for a in arrays):
        for array, length, axis in zip(arrays, lengths, axes, strict=True):
            for place in array.reshape(-1).tolist():
                check_place(place, length, axis, node)
        wrapped = [np.asarray(a) % max(1, n) for a, n in zip(arrays, lengths, strict=True)]
        return np.broadcast_to(np.ravel_multi_index(wrapped, tuple(lengths)), shape)
    total = scalar(i64, 0, shape)
    inside = scalar(bool_, True, shape)
    for array, length in zip(arrays, lengths, strict=True):
        place = broadcast_to(cast(as_node(array), i64), shape)
        size = scalar(i64, length, shape)
        below = emit("lt", (place, scalar(i64, 0, shape)))
        place = emit("where", (below, emit("add", (place, size)), place))
        fits = emit("and", (emit("ge", (place, scalar(i64, 0, shape))), emit("lt", (place, size))))
        inside = emit("and", (inside, fits))
        total = emit("add", (emit("mul", (total, size)), place))
    return wrap(emit("where", (inside, total, scalar(i64, np.iinfo(np.int64).min, shape))))


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
    rest = common_shape("np.take_along_axis", [np.empty(s, np.bool_) for s in shapes])
    data, index = (
        broadcast_to(n, (*rest[:along], n.shape[along], *rest[along + 1 :])) for n in (data, index)
    )
    return wrap(emit("take_along", (data, index), IndexAttrs(along)), arr, indices)


def scatter_add(x: Any, indices: Any, values: Any, axis: int = 0) -> Any:
    """``x`` with ``values`` added at the places that ``np.take(x, indices, axis)`` reads.

    values has the shape ``x.shape[:axis] + indices.shape + x.shape[axis + 1:]``, or broadcasts to
    it; a place that is named several times receives every value. Raises ``OutOfBounds`` for an
    index outside the axis. On plain NumPy arrays it gives a new NumPy array.
    """
    if not any(isinstance(v, Tracer) for v in (x, indices, values)):
        result = np.array(x)
        along = axis_of(axis, result.ndim, "tw.scatter_add")
        places: Any = (slice(None),) * along + (np.asarray(indices),)
        np.add.at(result, places, values)
        return result
    data = as_node(x)
    along = axis_of(axis, len(data.shape), "tw.scatter_add")
    index = index_node(indices, data.shape[along], along, data)
    target = (*data.shape[:along], *index.shape, *data.shape[along + 1 :])
    added = cast(as_node(values), data.dtype)
    if common_shape("tw.scatter_add", [added, np.empty(target, np.bool_)]) != target:
        raise ShapeError(
            "tw.scatter_add: the values do not fit",
            expected=f"{target}",
            got=describe(added),
            loc=here(),
        )
    nodes = (data, index, broadcast_to(added, target))
    return wrap(emit("put", nodes, PutAttrs(along, "add")), x, indices, values)


class At:
    """``x.at``: copies of x with some places changed."""

    def __init__(self, value: Tracer) -> None:
        self.value = value

    def __getitem__(self, index: Any) -> Places:
        return Places(self.value, index)


class Places:
    """``x.at[index]``."""

    def __init__(self, value: Tracer, index: Any) -> None:
        self.value, self.index = value, index
        self.items = expand(index, value.ndim, value.node)

    def add(self, values: Any) -> Tracer:
        """x with ``values`` added at these places; a place named several times gets every one."""
        value = self.value
        if not any(is_array(i) for i in self.items):
            return np.add(value, self._spread(values))  # type: ignore[return-value]
        node = value.node
        flat = build.reshape(node, (node.type.size,))
        places = wrap(build.reshape(iota((node.type.size,), 0, i64), node.shape), value)[self.index]
        added = broadcast_to(cast(as_node(values), node.dtype), self._fitting(values, places.shape))
        result = emit("put", (flat, places.node, added), PutAttrs(0, "add"))
        return wrap(build.reshape(result, node.shape), value, places, values)

    def set(self, values: Any) -> Tracer:
        """x with ``values`` in these places, which slices and integers name.

        Raises ``TraceError`` for index arrays: they may name a place twice.
        """
        if any(is_array(i) for i in self.items):
            refuse(
                ".at[...].set with index arrays cannot be traced",
                "use slices and integers, np.where with a mask, or .at[...].add",
            )
        ones = self._spread(np.True_, bool_)
        spread = self._spread(values)
        return wrap(emit("where", (ones.node, spread.node, self.value.node)), self.value, spread)

    def _fitting(self, values: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
        if np.broadcast_shapes(np.shape(values), shape) != shape:
            raise ShapeError(
                "x.at[...]: the values do not fit",
                expected=str(shape),
                got=str(np.shape(values)),
                loc=here(),
            )
        return shape

    def _spread(self, values: Any, dtype: Any = None) -> Tracer:
        """The values at these places and zero elsewhere, in the shape of x."""
        node = self.value.node
        kind = dtype or node.dtype
        sliced, shape = basic_slice(node, self.items)
        given = broadcast_to(cast(as_node(values), kind), self._fitting(values, shape))
        given = build.reshape(given, sliced.shape)
        axes = [bounds(i, node, n) for n, i in enumerate(i for i in self.items if i is not None)]
        given = flip_node(given, [n for n, b in enumerate(axes) if b[3]])
        low = [b[0] for b in axes]
        high = [d - b[1] for d, b in zip(node.shape, axes, strict=True)]
        if given.type.size == 0:
            return wrap(build.full(TensorType(kind, node.shape), 0), self.value, values)
        # A stride leaves places behind the last element that the stop does not count.
        taken = [1 + (n - 1) * b[2] for n, b in zip(sliced.shape, axes, strict=True)]
        high = [d - a - t for d, a, t in zip(node.shape, low, taken, strict=True)]
        padded = pad_node(given, low, high, scalar(kind, 0), [b[2] - 1 for b in axes])
        return wrap(padded, self.value, values)


HOOKS["get"] = get
HOOKS["at"] = At
