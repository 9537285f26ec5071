"""NumPy's functions that move elements about: reshape, transpose, join, split, pad, flip, tile."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend import build
from tilewright.frontend.build import (
    as_node,
    axes_of,
    axis_of,
    emit,
    scalar,
    wrap,
)
from tilewright.frontend.location import here
from tilewright.frontend.tracer import Tracer, describe, implements, refuse
from tilewright.ir.attrs import FlipAttrs, SliceAttrs, TransposeAttrs
from tilewright.ir.decide import decide
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, Size, ceil_div, may_equal
from tilewright.ir.types import size_of


def size(value: Any, name: str) -> int:
    """A size; one with a name as it is. Raises ``TraceError`` for a traced value."""
    if isinstance(value, Tracer):
        refuse(
            f"{name}: a size is a traced value",
            "sizes must be known while tracing: use x.shape, "
            "or make the argument static with static_argnames",
            got=describe(value.node),
        )
    if isinstance(value, Size):
        return Size(value.terms)  # type: ignore[return-value]
    return operator.index(value)


def sizes(value: Any, name: str) -> tuple[int, ...]:
    """A shape, given as a number or a sequence."""
    listed = value if isinstance(value, (tuple, list, np.ndarray)) else (value,)
    return tuple(size(d, name) for d in listed)


def order_of(order: str, name: str) -> bool:
    """True for column-major order. Raises for anything but 'C', 'K', 'A' and 'F'."""
    if order not in ("C", "F", "A", "K"):
        raise ShapeError(
            f"{name}: no such order", expected="'C' or 'F'", got=repr(order), loc=here()
        )
    return order == "F"


@implements(np.reshape, view=True)
def reshape(
    a: Any, /, shape: Any = None, order: str = "C", *, copy: Any = None, **names: Any
) -> Tracer:
    """``np.reshape``; one size may be -1."""
    node = as_node(a)
    target = list(sizes(names.get("newshape", shape), "np.reshape"))
    if target.count(-1) == 1:
        known = size_of(tuple(d for d in target if d != -1))
        if known and comes_out_even(node.type.size, known):
            target[target.index(-1)] = node.type.size // known  # type: ignore[assignment]
    if any(d < 0 for d in target) or not may_equal(size_of(tuple(target)), node.type.size):
        raise ShapeError(
            "np.reshape: the elements do not fill the shape",
            expected=f"{node.type.size} elements",
            got=f"{describe(node)} to {tuple(target)}",
            loc=here(),
        )
    if order_of(order, "np.reshape"):
        return wrap(permute(build.reshape(permute(node), tuple(reversed(target)))), a)
    return wrap(build.reshape(node, tuple(target)), a)


def comes_out_even(size: Dim, divisor: Dim) -> bool:
    """Whether a quotient has no rest, for these numbers if that is not known for all."""
    rest = size % divisor
    return rest == 0 or not isinstance(rest, int) and bool(decide(rest, "==", 0))


@implements(np.ravel, view=True)
def ravel(a: Any, order: str = "C") -> Tracer:
    """``np.ravel``."""
    node = as_node(a)
    node = permute(node) if order_of(order, "np.ravel") else node
    return wrap(build.reshape(node, (node.type.size,)), a)


def permute(node: Node, perm: Sequence[int] | None = None) -> Node:
    """The node with its axes in another order, by default reversed."""
    order = tuple(perm) if perm is not None else tuple(reversed(range(len(node.shape))))
    if order == tuple(range(len(node.shape))):
        return node
    if node.op.name == "full":
        return build.scalar(node.dtype, build.full_value(node), tuple(node.shape[i] for i in order))
    return emit("transpose", (node,), TransposeAttrs(order))


@implements(np.transpose, np.permute_dims, view=True)
def transpose(a: Any, axes: Any = None) -> Tracer:
    """``np.transpose``."""
    node = as_node(a)
    if axes is None:
        return wrap(permute(node), a)
    listed = axes if isinstance(axes, (tuple, list)) else (axes,)
    perm = [axis_of(p, len(node.shape), "np.transpose") for p in listed]
    if sorted(perm) != list(range(len(node.shape))):
        raise ShapeError(
            "np.transpose: the axes are not a permutation",
            expected=f"each of the axes of {describe(node)} once",
            got=tuple(listed),
            loc=here(),
        )
    return wrap(permute(node, perm), a)


@implements(np.matrix_transpose, np.linalg.matrix_transpose, view=True)
def matrix_transpose(x: Any, /) -> Any:
    """``np.matrix_transpose``: the last two axes swapped."""
    return np.swapaxes(x, -1, -2)


@implements(np.swapaxes, view=True)
def swapaxes(a: Any, axis1: Any, axis2: Any) -> Tracer:
    """``np.swapaxes``."""
    node = as_node(a)
    i, j = (axis_of(x, len(node.shape), "np.swapaxes") for x in (axis1, axis2))
    perm = list(range(len(node.shape)))
    perm[i], perm[j] = perm[j], perm[i]
    return wrap(permute(node, perm), a)


@implements(np.moveaxis, view=True)
def moveaxis(a: Any, source: Any, destination: Any) -> Tracer:
    """``np.moveaxis``."""
    node = as_node(a)
    rank = len(node.shape)
    sources = [axis_of(x, rank, "np.moveaxis") for x in np.atleast_1d(source)]
    targets = [axis_of(x, rank, "np.moveaxis") for x in np.atleast_1d(destination)]
    perm = [i for i in range(rank) if i not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        perm.insert(target, origin)
    return wrap(permute(node, perm), a)


@implements(np.expand_dims, view=True)
def expand_dims(a: Any, axis: Any) -> Tracer:
    """``np.expand_dims``."""
    node = as_node(a)
    listed = axis if isinstance(axis, (tuple, list)) else (axis,)
    places = axes_of(tuple(listed), len(node.shape) + len(listed), "np.expand_dims")
    rest = iter(node.shape)
    shape = [1 if i in places else next(rest) for i in range(len(node.shape) + len(listed))]
    return wrap(build.reshape(node, tuple(shape)), a)


@implements(np.squeeze, view=True)
def squeeze(a: Any, axis: Any = None) -> Tracer:
    """``np.squeeze``."""
    node = as_node(a)
    if axis is None:
        axes = tuple(i for i, d in enumerate(node.shape) if d == 1)
    else:
        axes = axes_of(axis, len(node.shape), "np.squeeze")
    if any(node.shape[i] != 1 for i in axes):
        raise ShapeError(
            "np.squeeze: an axis has more than one place",
            expected="axes of size 1",
            got=f"axes {axes} of {describe(node)}",
            loc=here(),
        )
    return wrap(build.reshape(node, tuple(d for i, d in enumerate(node.shape) if i not in axes)), a)


@implements(np.broadcast_to, view=True)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Tracer:
    """``np.broadcast_to``."""
    node, target = as_node(array), sizes(shape, "np.broadcast_to")
    fits = len(target) >= len(node.shape) and all(
        d in (1, t) for d, t in zip(reversed(node.shape), reversed(target), strict=False)
    )
    if not fits:
        raise ShapeError(
            "np.broadcast_to: the shape does not fit",
            expected=f"a shape that {describe(node)} stretches to",
            got=target,
            loc=here(),
        )
    return wrap(build.broadcast_to(node, target), array)


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    """``np.broadcast_arrays``."""
    shape = build.common_shape("np.broadcast_arrays", [as_node(a) for a in args])
    return tuple(wrap(build.broadcast_to(as_node(a), shape), *args) for a in args)


@implements(np.atleast_1d)
def atleast_1d(*arrays: Any) -> Any:
    """``np.atleast_1d``."""
    return _at_least(arrays, lambda shape: shape or (1,))


@implements(np.atleast_2d)
def atleast_2d(*arrays: Any) -> Any:
    """``np.atleast_2d``."""
    return _at_least(arrays, lambda shape: (1,) * (2 - len(shape)) + shape)


@implements(np.atleast_3d)
def atleast_3d(*arrays: Any) -> Any:
    """``np.atleast_3d``."""
    wide = {0: lambda s: (1, 1, 1), 1: lambda s: (1, *s, 1), 2: lambda s: (*s, 1)}
    return _at_least(arrays, lambda shape: wide.get(len(shape), lambda s: s)(shape))


def _at_least(arrays: tuple[Any, ...], shape: Any) -> Any:
    results = tuple(wrap(build.reshape(as_node(a), shape(np.shape(a))), *arrays) for a in arrays)
    return results[0] if len(results) == 1 else results


@implements(np.flip, view=True)
def flip(m: Any, axis: Any = None) -> Tracer:
    """``np.flip``."""
    node = as_node(m)
    return wrap(flip_node(node, axes_of(axis, len(node.shape), "np.flip")), m)


def flip_node(node: Node, axes: Sequence[int]) -> Node:
    """The node with axes running backwards; an axis of one element does either way."""
    turned = tuple(a for a in sorted(axes) if node.shape[a] > 1)
    return emit("flip", (node,), FlipAttrs(turned)) if turned else node


@implements(np.fliplr, view=True)
def fliplr(m: Any) -> Any:
    """``np.fliplr``."""
    return np.flip(m, 1)


@implements(np.flipud, view=True)
def flipud(m: Any) -> Any:
    """``np.flipud``."""
    return np.flip(m, 0)


@implements(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """``np.rot90``."""
    turns = k % 4
    if turns == 0:
        return np.copy(m)
    if turns == 2:
        return np.flip(np.flip(m, axes[0]), axes[1])
    if turns == 1:
        return np.swapaxes(np.flip(m, axes[1]), *axes)
    return np.flip(np.swapaxes(m, *axes), axes[1])


def slice_node(node: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """A range of one axis."""
    rank = len(node.shape)
    starts, stops, steps = [0] * rank, list(node.shape), [1] * rank
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return part(node, starts, stops, steps)


def part(node: Node, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> Node:
    """A range of every axis; the node itself if it is all of it."""
    whole = (
        all(s == 0 for s in starts) and all(s == 1 for s in steps) and tuple(stops) == node.shape
    )
    if whole:
        return node
    attrs = SliceAttrs(tuple(starts), tuple(stops), tuple(steps))
    if node.op.name == "full":
        shape = tuple(ceil_div(b - a, s) for a, b, s in zip(starts, stops, steps, strict=True))
        return scalar(node.dtype, build.full_value(node), shape)
    return emit("slice", (node,), attrs)


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:  # noqa: N803 - NumPy's name
    """``np.tile``."""
    times = sizes(reps, "np.tile")
    node = as_node(A)
    rank = max(len(times), len(node.shape))
    shape = (1,) * (rank - len(node.shape)) + node.shape
    times = (1,) * (rank - len(times)) + times
    pairs = [d for t, n in zip(times, shape, strict=True) for d in (t, n)]
    spread = build.broadcast_in(build.reshape(node, shape), tuple(pairs), range(1, 2 * rank, 2))
    return wrap(build.reshape(spread, tuple(t * n for t, n in zip(times, shape, strict=True))), A)


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    """``np.repeat``; ``repeats`` is one number, or NumPy numbers that are known while tracing."""
    if isinstance(repeats, Tracer):
        size(repeats, "np.repeat")
    node = as_node(a)
    node, along = (
        (build.reshape(node, (node.type.size,)), 0)
        if axis is None
        else (node, axis_of(axis, len(node.shape), "np.repeat"))
    )
    if np.size(repeats) != 1:
        places = np.repeat(np.arange(node.shape[along]), np.asarray(repeats))
        return np.take(wrap(node, a), places, along)
    times = int(np.asarray(repeats).reshape(()))
    shape = (*node.shape[: along + 1], times, *node.shape[along + 1 :])
    axes = [i for i in range(len(shape)) if i != along + 1]
    wide = build.broadcast_in(node, shape, axes)
    target = (*node.shape[:along], node.shape[along] * times, *node.shape[along + 1 :])
    return wrap(build.reshape(wide, target), a)
