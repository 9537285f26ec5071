"""More of NumPy's functions that move elements: pad, roll, triangles, diagonals, differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend import build
from tilewright.frontend.build import as_node, axis_of, cast, emit, iota, number, scalar, wrap
from tilewright.frontend.elementwise import check_keywords, python_number
from tilewright.frontend.joins import join
from tilewright.frontend.location import here
from tilewright.frontend.shapes import flip_node, permute, size, sizes, slice_node
from tilewright.frontend.tracer import USER_SIZES, Tracer, describe, implements, refuse
from tilewright.ir.attrs import PadAttrs
from tilewright.ir.graph import Node
from tilewright.ir.types import bool_, i64


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """``np.roll`` by numbers that are known while tracing."""
    if axis is None:
        return np.reshape(roll(np.ravel(a), shift, 0), np.shape(a))
    shifts, axes = np.broadcast_arrays(np.atleast_1d(sizes(shift, "np.roll")), np.atleast_1d(axis))
    node = as_node(a)
    for places, one in zip(shifts.tolist(), axes.tolist(), strict=True):
        along = axis_of(one, len(node.shape), "np.roll")
        length = node.shape[along]
        if length and places % length:
            middle = length - places % length
            node = build.concat(
                [slice_node(node, along, middle, length), slice_node(node, along, 0, middle)], along
            )
    return wrap(node, a)


# --- padding --------------------------------------------------------------------------------
def pad_node(
    node: Node,
    low: Sequence[int],
    high: Sequence[int],
    value: Node,
    interior: Sequence[int] | None = None,
) -> Node:
    """The node with ``value`` around it (and between its elements)."""
    gaps = tuple(interior) if interior is not None else (0,) * len(node.shape)
    if not any((*low, *high, *gaps)):
        return node
    return emit("pad", (node, value), PadAttrs(tuple(low), tuple(high), gaps))


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: str = "constant", **options: Any) -> Tracer:
    """``np.pad``, modes constant, edge, reflect, symmetric and wrap."""
    node = as_node(array)
    rank = len(node.shape)
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(i, pad_width.get(i - rank, (0, 0))) for i in range(rank)]
    widths = np.broadcast_to(np.asarray(pad_width), (rank, 2)).tolist()
    if any(w < 0 for pair in widths for w in pair):
        raise ShapeError("np.pad: a width is negative", got=pad_width, loc=here())
    if mode == "constant":
        return wrap(_constant(node, widths, options.pop("constant_values", 0)), array)
    mirrors = {"edge": _edge, "reflect": _reflect, "symmetric": _symmetric, "wrap": _wrap}
    if mode not in mirrors or options.get("reflect_type", "even") != "even":
        refuse(
            f"np.pad with mode={mode!r} and {options} cannot be traced",
            f"use one of the modes constant, {', '.join(mirrors)}",
        )
    for axis, (low, high) in enumerate(widths):
        if low or high:
            node = _along(node, axis, mirrors[mode](node.shape[axis], low, high))
    return wrap(node, array)


def _constant(node: Node, widths: list[list[int]], values: Any) -> Node:
    if isinstance(values, Tracer) or np.ndim(values) == 0:
        given = (
            number(values, node.dtype)
            if python_number(values) and not (isinstance(values, float) and node.dtype.is_int)
            else cast(as_node(values), node.dtype)
        )
        return pad_node(node, [w[0] for w in widths], [w[1] for w in widths], given)
    pairs = np.broadcast_to(np.asarray(values), (len(widths), 2))
    rank = len(widths)
    for axis, (low, high) in enumerate(widths):
        for side, width in ((0, low), (1, high)):
            low_high = ([0] * rank, [0] * rank)
            low_high[side][axis] = width
            node = pad_node(node, *low_high, scalar(node.dtype, pairs[axis, side]))
    return node


def _edge(length: int, low: int, high: int) -> np.ndarray:
    return np.clip(np.arange(-low, length + high), 0, length - 1)


def _wrap(length: int, low: int, high: int) -> np.ndarray:
    return np.arange(-low, length + high) % length


def _symmetric(length: int, low: int, high: int) -> np.ndarray:
    places = np.arange(-low, length + high) % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def _reflect(length: int, low: int, high: int) -> np.ndarray:
    period = max(1, 2 * (length - 1))
    places = np.arange(-low, length + high) % period
    return np.minimum(places, period - places) if length > 1 else places * 0


def _along(node: Node, axis: int, places: np.ndarray) -> Node:
    """The elements of an axis at places that run up, down or stand still: slices side by side."""
    if node.shape[axis] == 0:
        raise ShapeError(
            "np.pad: an empty axis has nothing to repeat", got=describe(node), loc=here()
        )
    runs: list[Node] = []
    start = 0
    while start < len(places):
        stop = start + 1
        step = int(places[stop] - places[start]) if stop < len(places) else 1
        if step not in (-1, 0, 1):
            step = 1
        while stop < len(places) and places[stop] - places[stop - 1] == step:
            stop += 1
        runs.append(_run(node, axis, int(places[start]), stop - start, step))
        start = stop
    return build.concat(runs, axis)


def _run(node: Node, axis: int, first: int, length: int, step: int) -> Node:
    if step == 1:
        return slice_node(node, axis, first, first + length)
    if step == -1:
        return flip_node(slice_node(node, axis, first - length + 1, first + 1), (axis,))
    one = slice_node(node, axis, first, first + 1)
    shape = tuple(length if i == axis else d for i, d in enumerate(node.shape))
    return build.broadcast_to(one, shape)


# --- triangles and diagonals ------------------------------------------------------------------
def triangle(shape: tuple[Any, ...], k: int) -> Node:
    """True on and below the k-th diagonal of the last two axes."""
    rows = iota(shape, len(shape) - 2, i64)
    columns = iota(shape, len(shape) - 1, i64)
    return emit("ge", (emit("add", (rows, scalar(i64, k, shape))), columns))


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Tracer:
    """``np.tril``."""
    node = as_node(m)
    mask = triangle(node.shape, size(k, "np.tril"))
    return wrap(emit("where", (mask, node, scalar(node.dtype, 0, node.shape))), m)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Tracer:
    """``np.triu``."""
    node = as_node(m)
    mask = triangle(node.shape, size(k, "np.triu") - 1)
    return wrap(emit("where", (mask, scalar(node.dtype, 0, node.shape), node)), m)


def diagonal_node(node: Node, offset: int, first: int, second: int) -> Node:
    """A diagonal of two axes, as last axis: every (columns + 1)-th element of the flat matrix."""
    rest = [i for i in range(len(node.shape)) if i not in (first, second)]
    node = permute(node, (*rest, first, second))
    *outer, rows, columns = node.shape
    start = offset if offset >= 0 else -offset * columns
    length = max(0, min(rows + min(0, offset), columns - max(0, offset)))
    flat = build.reshape(node, (*outer, rows * columns))
    if length == 0:
        return slice_node(flat, len(outer), 0, 0)
    return slice_node(
        flat, len(outer), start, start + (length - 1) * (columns + 1) + 1, columns + 1
    )


@implements(np.diagonal, np.linalg.diagonal, view=True)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tracer:
    """``np.diagonal``."""
    node = as_node(a)
    first, second = (axis_of(x, len(node.shape), "np.diagonal") for x in (axis1, axis2))
    return wrap(diagonal_node(node, size(offset, "np.diagonal"), first, second), a)


@implements(np.trace)
def trace(
    a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None
) -> Any:
    """``np.trace``."""
    check_keywords("np.trace", {"out": out}, ())
    return np.sum(diagonal(a, offset, axis1, axis2), -1, dtype=dtype)


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """``np.diag``: the diagonal of a matrix, or a matrix with this diagonal."""
    if np.ndim(v) == 2:
        return np.copy(diagonal(v, k))
    length = np.shape(v)[0]
    side = length + abs(k)
    node = as_node(v)
    # A row of the flat matrix is side long: the next element of the diagonal is side + 1 on.
    start = k if k >= 0 else -k * side
    end = side * side - start - (length - 1) * (side + 1) - 1
    if length == 0:
        return wrap(scalar(node.dtype, 0, (side, side)), v)
    flat = pad_node(node, (start,), (end,), scalar(node.dtype, 0), (side,))
    return wrap(build.reshape(flat, (side, side)), v)


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """``np.diff``."""
    along = axis_of(axis, np.ndim(a), "np.diff")
    edges = [None if e is np._NoValue else e for e in (prepend, append)]
    if any(e is not None for e in edges):
        shape = tuple(1 if i == along else d for i, d in enumerate(np.shape(a)))
        before, after = (
            [] if e is None else [np.broadcast_to(e, shape) if np.ndim(e) == 0 else e]
            for e in edges
        )
        a = wrap(join("np.diff", [*before, a, *after], along), a, *before, *after)
    for _ in range(size(n, "np.diff")):
        node = as_node(a)
        length = node.shape[along]
        low = wrap(slice_node(node, along, 0, max(0, length - 1)), a)
        high = wrap(slice_node(node, along, min(1, length), length), a)
        a = np.not_equal(high, low) if node.dtype is bool_ else np.subtract(high, low)
    return a


# --- like -------------------------------------------------------------------------------------
def _filled(name: str, value: Any) -> Callable[..., Tracer]:
    def run(
        a: Any,
        dtype: Any = None,
        order: str = "K",
        subok: bool = True,
        shape: Any = None,
        *,
        device: Any = None,
    ) -> Tracer:
        return full_like(a, value, dtype, shape=shape)

    run.__name__ = name
    return run


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Tracer:
    """``np.full_like``."""
    kind = build.checked_dtype(
        np.dtype(dtype)
        if dtype is not None
        else np.result_type(a.dtype if hasattr(a, "dtype") else np.asarray(a)),
        "np.full_like: the result",
    )
    target = np.shape(a) if shape is None else sizes(shape, "np.full_like")
    return wrap(build.broadcast_to(cast(as_node(fill_value), kind), target), a, fill_value)


implements(np.zeros_like)(_filled("zeros_like", 0))
implements(np.ones_like)(_filled("ones_like", 1))
implements(np.empty_like)(_filled("empty_like", 0))


# --- what is known without the contents ---------------------------------------------------------
@implements(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """``np.shape``."""
    return a.shape if isinstance(a, Tracer) else as_node(a).shape


@implements(np.ndim)
def ndim(a: Any) -> int:
    """``np.ndim``."""
    return len(as_node(a).shape)


@implements(np.size)
def size_of(a: Any, axis: Any = None) -> int:
    """``np.size``."""
    node = as_node(a)
    found = build.count(node.shape, build.axes_of(axis, len(node.shape), "np.size"))
    return USER_SIZES[0](found)  # type: ignore[return-value]


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """``np.result_type``; a traced Python number follows the others."""

    def plain(value: Any) -> Any:
        if not isinstance(value, Tracer):
            return value
        return value.dtype.type(0).item() if value.weak else value.dtype

    return np.result_type(*map(plain, arrays_and_dtypes))


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """``np.iscomplexobj``: never."""
    return False


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    """``np.isrealobj``: always."""
    return True


@implements(np.real)
def real(val: Any) -> Any:
    """``np.real``."""
    return val
