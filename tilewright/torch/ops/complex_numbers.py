"""Operators on complex tensors, as arithmetic on their parts."""

from __future__ import annotations

from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.torch.factors import product
from tilewright.torch.nodes import cast, expand, number, wide
from tilewright.torch.pairs import (
    Pair,
    apart,
    each_part,
    interleaved,
    pair_of,
    pair_row,
    wide_pair,
)
from tilewright.torch.table import Call, NotCompiled

aten = torch.ops.aten

pair_row(
    # the same elements in another order
    aten.alias, aten.detach, aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias,
    aten.permute, aten.t, aten.transpose, aten.expand, aten.unsqueeze, aten.squeeze, aten.slice,
    aten.select, aten.diagonal, aten.unfold, aten.split, aten.split_with_sizes, aten.unbind,
    aten.flip, aten.cat, aten.stack, aten.repeat, aten.clone, aten.contiguous, aten.lift_fresh,
    aten.lift_fresh_copy, aten.as_strided,
    # elements put into a tensor
    aten.slice_scatter, aten.select_scatter, aten.diagonal_scatter, aten.as_strided_scatter,
    aten.diag_embed,
    aten.tril, aten.triu,
    # by indices
    aten.index, aten.index_select, aten.gather,
    # sums
    aten.sum, aten.mean, aten.neg, aten.cumsum,
)(each_part)


# --- to and from real tensors -------------------------------------------------------------
@pair_row(aten.view_as_real)
def view_as_real(call: Call, x: Pair) -> Node:
    return interleaved(x)


@pair_row(aten.view_as_complex)
def view_as_complex(call: Call, x: Node) -> Pair:
    return apart(x)


@pair_row(aten.complex)
def complex_(call: Call, re: Node, im: Node) -> Pair:
    dtype, shape = call.type.dtype, call.type.shape
    return Pair(expand(cast(re, dtype), shape), expand(cast(im, dtype), shape))


@pair_row(aten.polar)
def polar(call: Call, size: Node, angle: Node) -> Pair:
    dtype, shape = call.type.dtype, call.type.shape
    r, a = (expand(cast(x, dtype), shape) for x in (size, angle))
    return Pair(r * make("cos", (a,)), r * make("sin", (a,)))


@pair_row(aten._to_copy, torch.ops.prims.convert_element_type)
def to_copy(call: Call, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Between complex types, from a real tensor, or the real part alone."""
    if isinstance(x, Pair) and not call.paired:
        return x.re
    return pair_of(x, call.type.dtype, call.type.shape)


@pair_row(aten.copy)
def copy(call: Call, x: Any, source: Any, non_blocking: bool = False) -> Any:
    if not call.paired:
        return source.re
    return pair_of(source, call.type.dtype, call.type.shape)


@pair_row(aten.zeros, aten.new_zeros, aten.zeros_like, aten.empty, aten.new_empty,
          aten.empty_like, aten.empty_strided, aten.new_empty_strided, aten.empty_permuted)
def zeros(call: Call, *args: Any, **kwargs: Any) -> Pair:
    return pair_of(0, call.type.dtype, call.type.shape)


@pair_row(aten.ones, aten.ones_like, aten.new_ones)
def ones(call: Call, *args: Any, **kwargs: Any) -> Pair:
    return pair_of(1, call.type.dtype, call.type.shape)


@pair_row(aten.full, aten.fill, aten.full_like, aten.new_full)
def fill(call: Call, *args: Any, **kwargs: Any) -> Pair:
    return pair_of(args[-1], call.type.dtype, call.type.shape)


@pair_row(aten.scalar_tensor)
def scalar_tensor(call: Call, value: Any, **kwargs: Any) -> Pair:
    return pair_of(value, call.type.dtype, ())


@pair_row(aten.constant_pad_nd)
def constant_pad_nd(call: Call, x: Pair, pad: Any, value: Any = 0) -> Any:
    if value != 0:
        raise NotCompiled("a margin of complex numbers that are not zero")
    return each_part(call, x, pad)


@pair_row(aten.index_fill)
def index_fill(call: Call, x: Pair, dim: int, index: Node, value: Any) -> Any:
    return each_part(call, x, dim, index, value if isinstance(value, Pair | Node) else (
        complex(value)))


@pair_row(aten.where)
def where(call: Call, condition: Node, x: Any, y: Any) -> Pair:
    dtype, shape = call.type.dtype, call.type.shape
    truth = expand(condition, shape)
    a, b = pair_of(x, dtype, shape), pair_of(y, dtype, shape)
    return Pair(build.where(truth, a.re, b.re), build.where(truth, a.im, b.im))


@pair_row(aten.masked_fill)
def masked_fill(call: Call, x: Any, mask: Node, value: Any) -> Pair:
    return where(call, mask, value, x)


# --- arithmetic ---------------------------------------------------------------------------
def _two(call: Call, x: Any, y: Any) -> tuple[Pair, Pair]:
    dtype, shape = call.type.dtype, call.type.shape
    return wide_pair(x, dtype, shape), wide_pair(y, dtype, shape)


@pair_row(aten.add)
def add(call: Call, x: Any, y: Any, *, alpha: Any = 1) -> Pair:
    a, b = _two(call, x, y)
    return a + (b if alpha == 1 else b * wide_pair(alpha, b.dtype, b.shape))


@pair_row(aten.sub)
def sub(call: Call, x: Any, y: Any, *, alpha: Any = 1) -> Pair:
    a, b = _two(call, x, y)
    return a - (b if alpha == 1 else b * wide_pair(alpha, b.dtype, b.shape))


@pair_row(aten.rsub)
def rsub(call: Call, x: Any, y: Any, alpha: Any = 1) -> Pair:
    return sub(call, y, x, alpha=alpha)


@pair_row(aten.mul)
def mul(call: Call, x: Any, y: Any) -> Pair:
    a, b = _two(call, x, y)
    return a * b


@pair_row(aten.div)
def div(call: Call, x: Any, y: Any) -> Pair:
    """Smith's method, which forms no squares; by zero each part is divided."""
    a, b = _two(call, x, y)
    sizes = b.each(lambda part: make("abs", (part,)))
    first = make("ge", (sizes.re, sizes.im))
    large, small = build.where(first, b.re, b.im), build.where(first, b.im, b.re)
    ratio = small / large
    scale = 1.0 / (large + small * ratio)
    turned = Pair(build.where(first, a.re, a.im), build.where(first, a.im, -a.re))
    found = Pair((turned.re + build.where(first, a.im, a.re) * ratio) * scale,
                 (turned.im - build.where(first, a.re, -a.im) * ratio) * scale)
    none = make("eq", (make("max", (sizes.re, sizes.im)), number(0, b.dtype, b.shape)))
    return Pair(build.where(none, a.re / sizes.re, found.re),
                build.where(none, a.im / sizes.im, found.im))


@pair_row(aten.reciprocal)
def reciprocal(call: Call, x: Pair) -> Pair:
    return div(call, 1, x)


@pair_row(aten._conj, aten.conj, aten._conj_physical, aten.conj_physical, aten.resolve_conj)
def conj(call: Call, x: Any) -> Pair:
    return pair_of(x, call.type.dtype, call.type.shape).conj()  # a number, in a gradient


@pair_row(aten.abs)
def abs_(call: Call, x: Pair) -> Node:
    return size_of(x)


def size_of(x: Pair) -> Node:
    """The absolute value."""
    v = wide_pair(x, x.dtype, x.shape)
    return make("hypot", (v.re, v.im))


@pair_row(aten.angle)
def angle(call: Call, x: Pair) -> Node:
    v = wide_pair(x, x.dtype, x.shape)
    return make("atan2", (v.im, v.re))


@pair_row(aten.sgn)
def sgn(call: Call, x: Pair) -> Pair:
    v = wide_pair(x, x.dtype, x.shape)
    size = size_of(x)
    zero = number(0, size.dtype, size.shape)
    none = make("eq", (size, zero))
    return v.each(lambda part: build.where(none, zero, part / size))


@pair_row(aten.exp)
def exp(call: Call, x: Pair) -> Pair:
    v = wide_pair(x, wide(x.dtype), x.shape)
    size = make("exp", (v.re,))
    return Pair(size * make("cos", (v.im,)), size * make("sin", (v.im,)))


# --- products of matrices -----------------------------------------------------------------
@pair_row(aten.mm, aten.bmm)
def mm(call: Call, x: Any, y: Any) -> Pair:
    a, b = (pair_of(v, call.type.dtype, v.shape) for v in (x, y))
    return Pair(product(a.re, b.re) - product(a.im, b.im),
                product(a.re, b.im) + product(a.im, b.re))
