"""Convolutions and pooling of ``tw.nn``: what a user writes, checked, as nodes or on arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError, UserError
from tilewright.frontend.build import as_node, cast, common_dtype, describe_value, wrap
from tilewright.frontend.functions import FLOAT_DTYPES
from tilewright.frontend.location import here
from tilewright.frontend.tracer import Tracer
from tilewright.ir.build import place
from tilewright.ir.convolve import convolution, settings, transposed_convolution
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.pool import (
    Pooling,
    adaptive_avg_pool,
    adaptive_max_pool,
    max_pool_indices,
    pooling,
)
from tilewright.ir.pool import avg_pool as avg_pool_node
from tilewright.ir.pool import max_pool as max_pool_node
from tilewright.ir.types import TensorType, concrete, dtype_of

Setting = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]


def conv(
    x: Any, w: Any, stride: Setting = 1, padding: Padding = 0, dilation: Setting = 1,
    groups: int = 1,
) -> Any:
    """The convolution of networks (a cross-correlation) over 1, 2, 3 ... axes of space.

    x         (batch, channels, *space)
    w         (out channels, channels / groups, *taps)
    stride    elements between windows; like ``dilation`` a number or one per axis of space
    padding   zeros around the data: a number, one per axis, a pair (before, behind) per axis,
              "valid" for none or "same" for a result as large as the data divided by the stride
    dilation  elements between taps
    groups    equal parts of the channels that do not see one another

    The result is (batch, out channels, *windows), in the element type that NumPy promotes to; sums
    are in f32 at least. Raises ``ShapeError`` for shapes or settings that do not fit.
    """
    name = "tw.nn.conv"
    x, w = _promoted(name, x, w)
    dims = _dims_of(name, x, w)
    _check_groups(name, groups, x.shape[1], w.shape[1] * groups, w.shape[0], x, w)
    steps = _numbers(name, "stride", stride, dims)
    apart = _numbers(name, "dilation", dilation, dims)
    around = _padding(name, padding, x.shape[2:], w.shape[2:], steps, apart)
    c = settings(dims, steps, around, apart, groups)
    _check_fits(name, x, c.padding, w.shape[2:], apart)
    return _apply(lambda a, b: convolution(a, b, c), x, w)


def conv_transpose(
    x: Any, w: Any, stride: Setting = 1, padding: Padding = 0, output_padding: Setting = 0,
    dilation: Setting = 1, groups: int = 1,
) -> Any:
    """The adjoint of :func:`conv` with the same weights and settings, as in PyTorch.

    x               (batch, channels, *space)
    w               (channels, out channels / groups, *taps)
    padding         places cut from each side of the result (numbers or pairs)
    output_padding  places added behind, fewer than the stride or the dilation

    The result has (d - 1) * stride - padding + dilation * (taps - 1) + 1 + output_padding elements
    along an axis of d. Raises ``ShapeError`` for shapes or settings that do not fit.
    """
    name = "tw.nn.conv_transpose"
    x, w = _promoted(name, x, w)
    dims = _dims_of(name, x, w)
    _check_groups(name, groups, x.shape[1], w.shape[0], w.shape[0], x, w)
    steps = _numbers(name, "stride", stride, dims)
    apart = _numbers(name, "dilation", dilation, dims)
    more = _numbers(name, "output_padding", output_padding, dims, 0)
    if isinstance(padding, str) and padding != "valid":
        _refuse(name, "padding", "numbers, pairs or 'valid'", padding)
    around = _padding(name, padding, x.shape[2:], w.shape[2:], steps, apart)
    c = settings(dims, steps, around, apart, groups)
    for extra, s, d in zip(more, steps, apart, strict=True):
        if extra >= max(s, d):
            _refuse(name, "output_padding", "less than the stride or the dilation", more)
    size = c.transposed_space(x.shape[2:], w.shape[2:], more)
    if any(isinstance(d, int) and d < 1 for d in size):
        raise ShapeError(
            f"{name}: nothing would be left of the result", expected="sizes of 1 or more",
            got=f"sizes {size} from {describe_value(x)} and {describe_value(w)}", loc=here())
    return _apply(lambda a, b: transposed_convolution(a, b, c, more), x, w)


def max_pool(
    x: Any, size: Setting, stride: Setting | None = None, padding: Padding = 0,
    dilation: Setting = 1, ceil: bool = False, indices: bool = False,
) -> Any:
    """The largest element of each window of the last axes of ``x``; NaN where there is one.

    size      elements of a window along each axis of space; a number counts for all axes behind
              the first two
    stride    elements between windows; None: the size, so that none overlap
    padding   numbers or pairs (before, behind); what is added is never chosen, and is at most half
              a window
    ceil      whether a last window may reach beyond the data
    indices   whether to give also where each element stands in its flattened space, as i64: the
              first of equals

    Gradients go to the largest elements, equal ones sharing. Raises ``ShapeError`` for settings
    that do not fit.
    """
    name = "tw.nn.max_pool"
    x = _plain(x)
    p = _pooling(name, x, size, stride, padding, dilation, ceil)
    if indices:
        return _apply_all(lambda a: max_pool_indices(a, p), x)
    return _apply(lambda a: max_pool_node(a, p), x)


def avg_pool(
    x: Any, size: Setting, stride: Setting | None = None, padding: Padding = 0,
    ceil: bool = False, count_padding: bool = True, divisor: int | None = None,
) -> Any:
    """The mean of each window of the last axes of ``x``; settings as in :func:`max_pool`.

    The sum is divided by the elements that the window sees, padding included if
    ``count_padding``, or by ``divisor``. Integers count as f64.
    """
    name = "tw.nn.avg_pool"
    x = _floats(_plain(x))
    p = _pooling(name, x, size, stride, padding, 1, ceil)
    if divisor is not None:
        (divisor,) = _numbers(name, "divisor", divisor, 1)
    return _apply(lambda a: avg_pool_node(a, p, count_padding, divisor), x)


def adaptive_pool(x: Any, size: Setting, kind: str = "avg") -> Any:
    """As many windows as ``size`` says along the last axes of ``x``, their mean or their largest.

    Window i of o along an axis of n elements is the part from i * n / o, rounded down, to
    (i + 1) * n / o, rounded up. ``kind`` is "avg" or "max". A number as ``size`` counts for all
    axes behind the first two.
    """
    name = "tw.nn.adaptive_pool"
    if kind not in ("avg", "max"):
        _refuse(name, "kind", "'avg' or 'max'", kind)
    x = _floats(_plain(x)) if kind == "avg" else _plain(x)
    dims = _space(name, x, size)
    out = _numbers(name, "size", size, dims)
    if 0 in x.shape[x.ndim - dims:]:
        raise ShapeError(f"{name}: an axis of space is empty", got=describe_value(x), loc=here())
    if kind == "avg":
        return _apply(lambda a: adaptive_avg_pool(a, out), x)
    return _apply(lambda a: adaptive_max_pool(a, out)[0], x)


# --- running ----------------------------------------------------------------------------------
def _apply(build: Callable[..., Node], *operands: Any) -> Any:
    """The traced value of a node on the operands, or its value if none is traced."""
    return _apply_all(lambda *nodes: (build(*nodes),), *operands)[0]


def _apply_all(build: Callable[..., tuple[Node, ...]], *operands: Any) -> tuple[Any, ...]:
    if any(isinstance(x, Tracer) for x in operands):
        nodes = [as_node(x) for x in operands]
        return tuple(wrap(place(n, nodes, here()), *operands) for n in build(*nodes))
    inputs = tuple(
        input_node(f"x{i}", TensorType(dtype_of(x.dtype), x.shape))
        for i, x in enumerate(operands))
    return tuple(run_graph(Graph(inputs, build(*inputs)), operands))


def _plain(x: Any) -> Any:
    """The value as an array or a traced one."""
    return x if isinstance(x, Tracer) else np.asarray(x)


def _floats(x: Any) -> Any:
    return x if x.dtype in FLOAT_DTYPES else x.astype(np.float64)


def _promoted(name: str, x: Any, w: Any) -> tuple[Any, Any]:
    """Data and weights in their common element type."""
    x, w = _plain(x), _plain(w)
    dtype = common_dtype(name, x.dtype.type(0), w.dtype.type(0))
    if dtype.kind == "b":
        raise DTypeError(
            f"{name}: neither operand has numbers", expected="numbers",
            got=f"{describe_value(x)} and {describe_value(w)}", loc=here())
    return tuple(  # type: ignore[return-value]
        a if a.dtype == dtype else wrap(cast(as_node(a), dtype_of(dtype)), a)
        if isinstance(a, Tracer) else a.astype(dtype) for a in (x, w))


# --- checks -----------------------------------------------------------------------------------
def _refuse(name: str, argument: str, expected: str, got: Any) -> None:
    raise ShapeError(
        f"{name}: {argument} does not fit", expected=expected, got=repr(got), loc=here())


def _numbers(
    name: str, argument: str, value: Any, dims: int, least: int = 1
) -> tuple[int, ...]:
    """One number per axis of space."""
    listed = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    try:
        found = tuple(map(operator.index, listed))
    except TypeError as error:
        if isinstance(error, UserError):
            raise
        raise DTypeError(
            f"{name}: {argument} is not made of integers", expected="an int, or one per axis",
            got=repr(value), loc=here()) from None
    if len(found) != dims or any(n < least for n in found):
        many = f"an int of {least} or more" + (f", or {dims} of them" if dims > 1 else "")
        _refuse(name, argument, many, value)
    return found


def _dims_of(name: str, x: Any, w: Any) -> int:
    """The axes of space of data and weights."""
    if x.ndim != w.ndim or x.ndim < 3:
        raise ShapeError(
            f"{name}: data and weights do not have the same axes of space",
            expected="x of (batch, channels, *space) and w of (channels, channels, *taps)",
            got=f"{describe_value(x)} and {describe_value(w)}", loc=here(),
            hint="x[None] adds a batch of one")
    concrete(tuple(w.shape))
    if 0 in w.shape:
        raise ShapeError(f"{name}: the weights are empty", got=describe_value(w), loc=here())
    return int(x.ndim) - 2


def _check_groups(
    name: str, groups: Any, channels: Any, wanted: int, parts: int, x: Any, w: Any
) -> None:
    (number,) = _numbers(name, "groups", groups, 1)
    if channels != wanted or parts % number:
        raise ShapeError(
            f"{name}: the channels of data and weights do not fit"
            + (f" in {number} groups" if number > 1 else ""),
            expected=f"{wanted} channels in x" + (
                f", and as many in w as {number} divides" if number > 1 else ""),
            got=f"{describe_value(x)} and {describe_value(w)}", loc=here())


def _pairs(name: str, padding: Any, dims: int) -> list[tuple[int, int]]:
    """(before, behind) per axis of space."""
    listed = list(padding) if isinstance(padding, (tuple, list)) else [padding] * dims
    each = [p if isinstance(p, (tuple, list)) else (p, p) for p in listed]
    if len(each) != dims or any(len(p) != 2 for p in each):
        _refuse(name, "padding", f"a number, or a number or pair for each of {dims} axes", padding)
    return [(a, b) for a, b in (_numbers(name, "padding", tuple(p), 2, 0) for p in each)]


def _padding(
    name: str, padding: Any, space: Any, taps: Any, steps: Sequence[int], apart: Sequence[int]
) -> list[tuple[int, int]]:
    """(before, behind) per axis of space, from what :func:`conv` takes."""
    if not isinstance(padding, str):
        return _pairs(name, padding, len(steps))
    if padding == "valid":
        return [(0, 0)] * len(steps)
    if padding != "same":
        _refuse(name, "padding", "numbers, pairs, 'valid' or 'same'", padding)
    result = []
    for d, k, s, a in zip(concrete(tuple(space)), taps, steps, apart, strict=True):
        total = max(0, (-(-d // s) - 1) * s + a * (k - 1) + 1 - d)
        result.append((total // 2, total - total // 2))
    return result


def _check_fits(
    name: str, x: Any, padding: Sequence[tuple[int, int]], taps: Sequence[int],
    apart: Sequence[int],
) -> None:
    """Raise ``ShapeError`` if a window is larger than the padded data."""
    space = x.shape[x.ndim - len(taps):]
    for axis, (d, (low, high), k, a) in enumerate(
        zip(space, padding, taps, apart, strict=True), x.ndim - len(taps)
    ):
        if isinstance(d, int) and d + low + high < a * (k - 1) + 1:
            padded = f" and {low + high} of padding" if low + high else ""
            raise ShapeError(
                f"{name}: a window is larger than axis {axis} of the data",
                expected=f"{a * (k - 1) + 1} elements or more",
                got=f"{d}{padded}, in {describe_value(x)}", loc=here())


def _space(name: str, x: Any, size: Any) -> int:
    """The axes of space that ``size`` speaks of."""
    dims = len(size) if isinstance(size, (tuple, list)) else x.ndim - 2
    if not 1 <= dims <= x.ndim:
        raise ShapeError(
            f"{name}: the data has no axes of space",
            expected="(batch, channels, *space), or a size for each of the last axes",
            got=describe_value(x), loc=here())
    return int(dims)


def _pooling(
    name: str, x: Any, size: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> Pooling:
    """The settings of a pooling, checked."""
    dims = _space(name, x, size)
    sizes = _numbers(name, "size", size, dims)
    steps = sizes if stride is None else _numbers(name, "stride", stride, dims)
    apart = _numbers(name, "dilation", dilation, dims)
    around = _pairs(name, padding, dims)
    for pair, k, a in zip(around, sizes, apart, strict=True):
        if 2 * max(pair) > a * (k - 1) + 1:
            _refuse(name, "padding", f"at most half of a window of {a * (k - 1) + 1}", padding)
    p = pooling(sizes, steps, around, apart, bool(ceil))
    _check_fits(name, x, p.padding, sizes, apart)
    return p
