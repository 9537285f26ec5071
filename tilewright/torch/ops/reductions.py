"""Operators that put the elements of some axes together."""

from __future__ import annotations

from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, apply, make
from tilewright.ir.sizes import Dim, Size
from tilewright.ir.types import bool_, i64
from tilewright.torch.nodes import (
    axes_of,
    axis_of,
    cast,
    count,
    default_float,
    expand,
    iota,
    number,
    reduce,
    wide,
)
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


@row(aten.sum)
def sum_(call: Call, x: Node, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Node:
    return reduce("sum", cast(x, call.type.dtype), axes_of(dim, x.type.rank), keepdim)


@row(aten.prod)
def prod(call: Call, x: Node, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Node:
    return reduce("prod", cast(x, call.type.dtype), axes_of(dim, x.type.rank), keepdim)


@row(aten.mean)
def mean(call: Call, x: Node, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Node:
    axes = axes_of(dim, x.type.rank)
    # Summed and divided in the wide type, rounded once.
    total = reduce("sum", cast(x, wide(call.type.dtype)), axes, keepdim)
    return share(total, count(x.shape, axes))


def share(total: Node, n: Dim) -> Node:
    """A sum over so many elements, divided by their number."""
    if isinstance(n, Size):
        return total / number(n, total.dtype, total.shape)
    return total * (1.0 / n) if n else total * float("nan")


def variance(x: Node, axes: tuple[int, ...], keepdim: bool, correction: Any) -> tuple[Node, Node]:
    """The variance and the mean over some axes, in the wide type, by two passes over a row."""
    v = cast(x, wide(x.dtype))
    n = count(x.shape, axes)
    center = share(reduce("sum", v, axes, True), n)
    apart = v - expand(center, v.shape) if axes else v - v
    squares = reduce("sum", apart * apart, axes, keepdim)
    less = 1 if correction is None else float(correction)
    if isinstance(n, Size):
        left = apply("max", number(n, squares.dtype, squares.shape) - less, 0)
        return squares / left, build.reshape(center, squares.shape)
    divisor = max(0.0, n - less)
    scale = 1.0 / divisor if divisor else float("inf")
    spread = squares * scale if divisor else make(
        "div", (squares, number(0, squares.dtype, squares.shape)))
    return spread, build.reshape(center, spread.shape)


@row(aten.var.correction)
def var(
    call: Call, x: Node, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> Node:
    return variance(x, axes_of(dim, x.type.rank), keepdim, correction)[0]


@row(aten.var_mean.correction)
def var_mean(
    call: Call, x: Node, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> list[Node]:
    return list(variance(x, axes_of(dim, x.type.rank), keepdim, correction))


@row(aten.amax)
def amax(call: Call, x: Node, dim: Any = (), keepdim: bool = False) -> Node:
    return reduce("reduce_max", x, axes_of(dim, x.type.rank), keepdim)


@row(aten.amin)
def amin(call: Call, x: Node, dim: Any = (), keepdim: bool = False) -> Node:
    return reduce("reduce_min", x, axes_of(dim, x.type.rank), keepdim)


def position(x: Node, axis: int, extreme: Node, keepdim: bool) -> Node:
    """The first place along an axis at which ``x`` is its extreme (kept axis) or NaN."""
    hit = make("eq", (x, expand(extreme, x.shape)))
    if x.dtype.is_float:
        hit = hit | build.nan_test(x)
    places = iota(x.shape, axis)
    far = number(x.shape[axis], i64, x.shape)
    return reduce("reduce_min", build.where(hit, places, far), (axis,), keepdim)


def _arg(op: str, call: Call, x: Node, dim: int | None, keepdim: bool) -> Node:
    if dim is None:
        flat = build.reshape(x, (x.type.size,))
        found = position(flat, 0, reduce(op, flat, (0,), True), False)
        return build.reshape(found, call.type.shape)
    if x.type.rank == 0:
        return number(0, i64)
    axis = axis_of(dim, x.type.rank)
    return position(x, axis, reduce(op, x, (axis,), True), keepdim)


@row(aten.argmax)
def argmax(call: Call, x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return _arg("reduce_max", call, x, dim, keepdim)


@row(aten.argmin)
def argmin(call: Call, x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return _arg("reduce_min", call, x, dim, keepdim)


def _extreme(op: str, call: Call, x: Node, dim: Any, keepdim: bool) -> Any:
    if count(x.shape, axes_of(dim, x.type.rank)) == 0:
        raise NotCompiled("an extreme of no elements")  # PyTorch raises for it
    if dim is None:
        return reduce(op, x, tuple(range(x.type.rank)))
    if x.type.rank == 0:
        return [x, number(0, i64)]
    axis = axis_of(dim, x.type.rank)
    kept = reduce(op, x, (axis,), True)
    values = kept if keepdim else build.reshape(kept, call.out[0].shape)
    return [values, position(x, axis, kept, keepdim)]


@row(aten.max.default, aten.max.dim)
def max_(call: Call, x: Node, dim: Any = None, keepdim: bool = False) -> Any:
    return _extreme("reduce_max", call, x, dim, keepdim)


@row(aten.min.default, aten.min.dim)
def min_(call: Call, x: Node, dim: Any = None, keepdim: bool = False) -> Any:
    return _extreme("reduce_min", call, x, dim, keepdim)


@row(aten.any)
def any_(call: Call, x: Node, dim: Any = None, keepdim: bool = False) -> Node:
    return reduce("reduce_max", cast(x, bool_), axes_of(dim, x.type.rank), keepdim)


@row(aten.all)
def all_(call: Call, x: Node, dim: Any = None, keepdim: bool = False) -> Node:
    return reduce("reduce_min", cast(x, bool_), axes_of(dim, x.type.rank), keepdim)


def _softmax_parts(x: Node, dim: int) -> tuple[Node, Node]:
    axes = axes_of(dim, x.type.rank)
    v = cast(x, wide(x.dtype))
    if not axes:
        return v - v, number(1, v.dtype, v.shape)
    shifted = v - expand(reduce("reduce_max", v, axes, True), v.shape)
    total = reduce("sum", make("exp", (shifted,)), axes, True)
    return shifted, expand(total, v.shape)


@row(aten._softmax)
def softmax(call: Call, x: Node, dim: int, *args: Any) -> Node:
    x = cast(x, default_float(call.type.dtype))
    shifted, total = _softmax_parts(x, dim)
    return make("exp", (shifted,)) / total


def finite_rows(largest: Node) -> Node:
    """What is subtracted from rows before exp: not the maximum of those of minus infinity alone."""
    nothing = make("eq", (largest, number(float("-inf"), largest.dtype, largest.shape)))
    return build.where(nothing, number(0, largest.dtype, largest.shape), largest)


@row(aten._safe_softmax)
def safe_softmax(call: Call, x: Node, dim: int, dtype: Any = None) -> Node:
    """Softmax that is 0 in rows of minus infinity alone."""
    axes = axes_of(dim, x.type.rank)
    v = cast(x, wide(call.type.dtype))
    if not axes:
        nothing = make("eq", (v, number(float("-inf"), v.dtype)))
        return build.where(nothing, number(0, v.dtype), v - v + 1.0)
    largest = finite_rows(reduce("reduce_max", v, axes, True))
    weights = make("exp", (v - expand(largest, v.shape),))
    total = reduce("sum", weights, axes, True)
    empty = make("eq", (total, number(0, total.dtype, total.shape)))
    divisor = build.where(empty, number(1, total.dtype, total.shape), total)
    return weights / expand(divisor, v.shape)


@row(aten._log_softmax)
def log_softmax(call: Call, x: Node, dim: int, half_to_float: bool) -> Node:
    shifted, total = _softmax_parts(x, dim)
    return shifted - make("log", (total,))


@row(aten._softmax_backward_data)
def softmax_backward(call: Call, grad: Node, out: Node, dim: int, input_dtype: Any) -> Node:
    g, y = (cast(n, wide(n.dtype)) for n in (grad, out))
    axes = axes_of(dim, y.type.rank)
    weighted = g * y
    total = expand(reduce("sum", weighted, axes, True), y.shape)
    return weighted - y * total


@row(aten._log_softmax_backward_data)
def log_softmax_backward(call: Call, grad: Node, out: Node, dim: int, input_dtype: Any) -> Node:
    g, y = (cast(n, wide(n.dtype)) for n in (grad, out))
    total = expand(reduce("sum", g, axes_of(dim, y.type.rank), True), y.shape)
    return g - make("exp", (y,)) * total
