"""Copies of traced values with some places changed: ``x.at[index]`` and functions like it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend import build
from tilewright.frontend.build import (
    as_node,
    axis_of,
    broadcast_in,
    broadcast_to,
    cast,
    describe_value,
    emit,
    located,
    scalar,
    wrap,
)
from tilewright.frontend.indexing import (
    arrays_in_front,
    basic_slice,
    bounds,
    expand,
    get,
    index_node,
    is_array,
    paired,
)
from tilewright.frontend.location import here
from tilewright.frontend.moves import pad_node
from tilewright.frontend.shapes import flip_node
from tilewright.frontend.tracer import HOOKS, Tracer, describe, implements, refuse
from tilewright.ir.attrs import Mode, PutAttrs
from tilewright.ir.graph import Node
from tilewright.ir.indexing import index_put, index_shape
from tilewright.ir.types import TensorType, bool_

ROWS: dict[Mode, str] = {"add": "add", "mul": "mul", "max": "max", "min": "min"}
"""The elementwise row of what a mode does to two numbers."""

UFUNCS: dict[Mode, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


class At:
    """``x.at``: copies of x with some places changed."""

    def __init__(self, value: Tracer) -> None:
        self.value = value

    def __getitem__(self, index: Any) -> Places:
        return Places(self.value, index)


class Places:
    """``x.at[index]``: what NumPy can index with, and traced masks of the first axes of x.

    The methods give a copy of x in which these places are changed; the values broadcast to the
    shape of ``x[index]`` and are converted to the element type of x.
    """

    def __init__(self, value: Tracer, index: Any) -> None:
        self.value, self.index = value, index

    def get(self) -> Tracer:
        """``x[index]``."""
        return get(self.value, self.index)

    def set(self, values: Any) -> Tracer:
        """x with ``values`` in these places; one that is named several times keeps the last."""
        return self._changed(values, "set")

    def add(self, values: Any) -> Tracer:
        """x with ``values`` added at these places; one named several times gets every value."""
        return self._changed(values, "add")

    def multiply(self, values: Any) -> Tracer:
        """x with these places multiplied by ``values``, by all of them where named again."""
        return self._changed(values, "mul")

    mul = multiply

    def max(self, values: Any) -> Tracer:
        """x with the larger of what these places hold and ``values``; NaN if one is."""
        return self._changed(values, "max")

    def min(self, values: Any) -> Tracer:
        """x with the smaller of what these places hold and ``values``; NaN if one is."""
        return self._changed(values, "min")

    def _changed(self, values: Any, mode: Mode) -> Tracer:
        mask = mask_of(self.index)
        if mask is not None and self._fits_mask(mask, values):
            return self._masked(mask, values, mode)
        items = expand(self.index, self.value.ndim, self.value.node)
        if any(is_array(i) for i in items):
            return self._put(items, values, mode)
        if mode == "add":
            return np.add(self.value, self._spread(items, values))  # type: ignore[return-value]
        if mode != "set":
            old = get(self.value, self.index)
            new = cast(as_node(values), old.node.dtype)
            self._fitting(values, old.shape)
            values = wrap(emit(ROWS[mode], (old.node, broadcast_to(new, old.shape))), old, values)
        ones = self._spread(items, np.True_, bool_)
        spread = self._spread(items, values)
        return wrap(emit("where", (ones.node, spread.node, self.value.node)), self.value, spread)

    # --- masks ----------------------------------------------------------------------------
    def _fits_mask(self, mask: Any, values: Any) -> bool:
        """Whether the values are the same for every place that is chosen.

        Otherwise there is one for each, and their number must be known.
        """
        shape = self.value.shape
        if np.shape(mask) != shape[: np.ndim(mask)]:
            raise ShapeError(
                "x.at[mask]: the mask does not fit",
                expected=f"a mask of the first axes of {describe(self.value.node)}",
                got=describe_value(mask),
                loc=here(),
            )
        each = (1, *shape[np.ndim(mask) :])
        given = np.shape(values)
        fits = len(given) <= len(each) and all(
            a in (1, b) for a, b in zip(given[::-1], each[::-1], strict=False)
        )
        if not fits and isinstance(mask, Tracer):
            refuse(
                "x.at[mask] with a traced mask and one value for each place that it chooses",
                "give a value that fits all of them, or use np.where(mask, values, x) with values "
                "of the shape of x",
                got=describe_value(values),
            )
        return fits

    def _masked(self, mask: Any, values: Any, mode: Mode) -> Tracer:
        old = self.value.node
        chosen = broadcast_in(as_node(mask), old.shape, range(np.ndim(mask)))
        new = cast(as_node(values), old.dtype)
        rest = len(old.shape) - np.ndim(mask)
        if len(new.shape) > rest:
            new = build.reshape(new, new.shape[1:])
        new = broadcast_to(new, old.shape)
        if mode != "set":
            new = emit(ROWS[mode], (old, new))
        return wrap(emit("where", (chosen, new, old)), self.value, mask, values)

    # --- index arrays ---------------------------------------------------------------------
    def _put(self, items: list[Any], values: Any, mode: Mode) -> Tracer:
        node = self.value.node
        indices: dict[int, Node | range] = {}
        for axis, item in paired(items):
            length = node.shape[axis]
            if isinstance(item, slice):
                bounds(item, node, axis)
                places = range(length)[item]
                if places != range(length):
                    indices[axis] = places
            else:
                indices[axis] = index_node(item, length, axis, node)
        shape = self._fitting(values, get(self.value, self.index).shape)
        added = broadcast_to(cast(as_node(values), node.dtype), shape)
        front = arrays_in_front(items)
        # New axes have no place in x.
        added = build.reshape(added, index_shape(node, indices, front))
        below = [node, added, *(i for i in indices.values() if isinstance(i, Node))]
        result = located(index_put(node, indices, added, mode, front), *below)
        return wrap(result, self.value, values, *filter(is_array, items))

    # --- slices and integers --------------------------------------------------------------
    def _fitting(self, values: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            fits = build.broadcast(np.shape(values), shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(
                "x.at[...]: the values do not fit",
                expected=str(shape),
                got=str(np.shape(values)),
                loc=here(),
            )
        return shape

    def _spread(self, items: list[Any], values: Any, dtype: Any = None) -> Tracer:
        """The values at these places and zero elsewhere, in the shape of x."""
        node = self.value.node
        kind = dtype or node.dtype
        sliced, shape = basic_slice(node, items)
        given = broadcast_to(cast(as_node(values), kind), self._fitting(values, shape))
        given = build.reshape(given, sliced.shape)
        axes = [bounds(i, node, n) for n, i in paired(items)]
        given = flip_node(given, [n for n, b in enumerate(axes) if b[3]])
        low = [b[0] for b in axes]
        if given.type.size == 0:
            return wrap(build.full(TensorType(kind, node.shape), 0), self.value, values)
        # A stride leaves places behind the last element that the stop does not count.
        taken = [1 + (n - 1) * b[2] for n, b in zip(sliced.shape, axes, strict=True)]
        high = [d - a - t for d, a, t in zip(node.shape, low, taken, strict=True)]
        padded = pad_node(given, low, high, scalar(kind, 0), [b[2] - 1 for b in axes])
        return wrap(padded, self.value, values)


def mask_of(index: Any) -> Any:
    """The boolean array that an index consists of; None if it is something else."""
    if isinstance(index, tuple) and len(index) == 1:
        index = index[0]
    if isinstance(index, (Tracer, np.ndarray)) and index.dtype == np.bool_ and index.ndim:
        return index
    return None


# --- functions ------------------------------------------------------------------------------
def scatter_add(x: Any, indices: Any, values: Any, axis: int = 0) -> Any:
    """``x`` with ``values`` added at the places that ``np.take(x, indices, axis)`` reads.

    values has the shape ``x.shape[:axis] + indices.shape + x.shape[axis + 1:]``, or broadcasts to
    it; a place that is named several times receives every value. Raises ``OutOfBounds`` for an
    index outside the axis. On plain NumPy arrays it gives a new NumPy array.
    """
    if not any(isinstance(v, Tracer) for v in (x, indices, values)):
        copy = np.array(x)
        along = axis_of(axis, copy.ndim, "tw.scatter_add")
        places: Any = (slice(None),) * along + (np.asarray(indices),)
        np.add.at(copy, places, values)
        return copy
    data = as_node(x)
    along = axis_of(axis, len(data.shape), "tw.scatter_add")
    index = index_node(indices, data.shape[along], along, data)
    target = (*data.shape[:along], *index.shape, *data.shape[along + 1 :])
    added = filling(cast(as_node(values), data.dtype), target, "tw.scatter_add")
    result = emit("put", (data, index, added), PutAttrs(along, "add"))
    return wrap(result, x, indices, values)


def put_along_axis(x: Any, indices: Any, values: Any, axis: Any = -1, mode: Mode = "set") -> Any:
    """A copy of ``x`` with ``values`` at the places that ``np.take_along_axis`` reads.

    indices has the rank of x and broadcasts to its sizes off ``axis``; values broadcasts to
    indices. ``mode`` says what happens there: 'set' (the last of several values for a place stays),
    'add', 'mul', 'max' or 'min'. Without an axis (None), x counts as flattened. Raises
    ``OutOfBounds`` for an index outside the axis. On plain NumPy arrays it gives a new NumPy array.
    """
    name = "tw.put_along_axis"
    if mode != "set" and mode not in UFUNCS:
        raise ShapeError(
            f"{name}: there is no such mode",
            expected="'set', 'add', 'mul', 'max' or 'min'",
            got=repr(mode),
            loc=here(),
        )
    if axis is None:
        flat = put_along_axis(np.reshape(x, -1), indices, values, 0, mode)
        return np.reshape(flat, np.shape(x))
    along = axis_of(axis, np.ndim(x), name)
    if not any(isinstance(v, Tracer) for v in (x, indices, values)):
        return _put_along_array(np.array(x), np.asarray(indices), values, along, mode)
    data = as_node(x)
    index = index_node(indices, data.shape[along], along, data)
    target = (*data.shape[:along], *index.shape[along : along + 1], *data.shape[along + 1 :])
    index = filling(index, target, name, "index", len(data.shape))
    added = filling(cast(as_node(values), data.dtype), target, name, "values")
    changed = emit("put_along", (data, index, added), PutAttrs(along, mode))
    return wrap(changed, x, indices, values)


def _put_along_array(
    x: np.ndarray, indices: np.ndarray, values: Any, axis: int, mode: Mode
) -> np.ndarray:
    """``put_along_axis`` in place on a NumPy array."""
    if mode == "set":
        np.put_along_axis(x, indices, values, axis)
    else:
        places: list[Any] = list(np.indices(x.shape, sparse=True))
        places[axis] = indices
        UFUNCS[mode].at(x, tuple(places), values)
    return x


def filling(
    node: Node, shape: tuple[int, ...], name: str, what: str = "values", rank: int | None = None
) -> Node:
    """The node stretched to ``shape``. Raises ``ShapeError`` unless it fits (and has the rank)."""
    fits = len(node.shape) <= len(shape) if rank is None else len(node.shape) == rank
    if not fits or any(
        a not in (1, b) for a, b in zip(node.shape[::-1], shape[::-1], strict=False)
    ):
        raise ShapeError(
            f"{name}: the shape of the {what} does not fit",
            expected=f"{shape}",
            got=describe(node),
            loc=here(),
        )
    return broadcast_to(node, shape)


@implements(np.put_along_axis)
def refuse_put_along_axis(arr: Any, indices: Any, values: Any, axis: Any = -1) -> None:
    """NumPy's own changes its argument."""
    refuse(
        "np.put_along_axis changes an array in place, which cannot be traced",
        "use y = tw.put_along_axis(x, indices, values, axis), which gives a copy",
        got=describe_value(arr),
    )


HOOKS["at"] = At
