"""Cotangents of the inputs from the cotangent of the result, for ops that are not plain functions
of single elements: (node, cotangent) -> one node per input, None for zero.
"""

from __future__ import annotations

from typing import TypeAlias

from tilewright.errors import Unsupported
from tilewright.ir.attrs import FlipAttrs
from tilewright.ir.build import (
    cast,
    contract,
    pad,
    part,
    reduce,
    reshape,
    shifted,
    transpose,
    unreduce,
    where,
)
from tilewright.ir.graph import Node, apply, full, make
from tilewright.ir.sizes import Dim, largest
from tilewright.ir.types import accumulator, bool_, size_of
from tilewright.ir.windows import adjoint

Cotangents: TypeAlias = tuple[Node | None, ...]


# --- elementwise and linear ---------------------------------------------------------------
def where_(node: Node, ct: Node) -> Cotangents:
    condition = node.inputs[0]
    return None, where(condition, ct, 0), where(condition, 0, ct)


def cast_(node: Node, ct: Node) -> Cotangents:
    """Rounding to another float type counts as the identity; other casts are constant."""
    x = node.inputs[0]
    return (cast(ct, x.dtype) if x.dtype.is_float else None,)


def nothing(node: Node, ct: Node) -> Cotangents:
    """Constant in every input."""
    return (None,) * len(node.inputs)


# --- reductions ---------------------------------------------------------------------------
def sum_(node: Node, ct: Node) -> Cotangents:
    return (unreduce(ct, node.inputs[0].shape, node.attrs.axes),)


def extreme(node: Node, ct: Node) -> Cotangents:
    """Equal extremes share the cotangent."""
    x, axes = node.inputs[0], node.attrs.axes
    hits = apply("eq", x, unreduce(node, x.shape, axes))
    # Counted in the accumulator type: f16 cannot count beyond 2048.
    wide = accumulator(x.dtype)
    # An axis of size 0, and one with NaN, has no hit.
    count = apply("max", reduce("sum", cast(hits, wide), axes), 1)
    share = ct / cast(count, x.dtype) if wide is x.dtype else cast(cast(ct, wide) / count, x.dtype)
    return (where(hits, unreduce(share, x.shape, axes), 0),)


def product(node: Node, ct: Node) -> Cotangents:
    """Each element's factor is the product of all the others, whether there are zeros or not."""
    x, axes = node.inputs[0], node.attrs.axes
    kept = [i for i in range(len(x.shape)) if i not in axes]
    perm = kept + list(axes)
    moved = transpose(cast(x, accumulator(x.dtype)), perm)
    count = size_of(tuple(x.shape[i] for i in axes))
    if not isinstance(count, int):
        what = f"the gradient of a product of {count} elements, a size known when the program runs"
        raise Unsupported(what, loc=node.loc)
    rows = reshape(moved, (*(x.shape[i] for i in kept), count))
    others = running_product(rows, 1) * running_product(rows, -1)
    back = transpose(reshape(others, moved.shape), [perm.index(i) for i in range(len(perm))])
    spread = unreduce(cast(ct, back.dtype), x.shape, axes)
    return (cast(spread * back, x.dtype),)


def running_product(rows: Node, direction: int) -> Node:
    """Along the last axis, the product of all elements before (or after: -1) each one."""
    axis = len(rows.shape) - 1
    result = shifted(rows, axis, direction, 1)
    step = 1
    while step < rows.shape[-1]:
        result = result * shifted(result, axis, direction * step, 1)
        step *= 2
    return result


# --- views --------------------------------------------------------------------------------
def reshape_(node: Node, ct: Node) -> Cotangents:
    return (reshape(ct, node.inputs[0].shape),)


def transpose_(node: Node, ct: Node) -> Cotangents:
    perm = node.attrs.perm
    return (transpose(ct, [perm.index(i) for i in range(len(perm))]),)


def broadcast_(node: Node, ct: Node) -> Cotangents:
    x, axes = node.inputs[0], node.attrs.axes
    stretched = [
        a for d, a in zip(x.shape, axes, strict=True) if d == 1 and node.shape[a] != 1]
    new = [a for a in range(len(node.shape)) if a not in axes]
    return (reshape(reduce("sum", ct, new + stretched), x.shape),)


def slice_(node: Node, ct: Node) -> Cotangents:
    x, attrs = node.inputs[0], node.attrs
    high = []
    for start, step, count, size in zip(
        attrs.starts, attrs.steps, node.shape, x.shape, strict=True
    ):
        gaps = step - 1 and largest(0, count - 1) * (step - 1)
        high.append(size - start - count - gaps)
    return (pad(ct, attrs.starts, high, [step - 1 for step in attrs.steps]),)


def flip(node: Node, ct: Node) -> Cotangents:
    return (make("flip", (ct,), FlipAttrs(node.attrs.axes)),)


def pad_(node: Node, ct: Node) -> Cotangents:
    """The places of ``x`` go to ``x``, the sum of all others to the value."""
    x, attrs = node.inputs[0], node.attrs
    steps = [gap + 1 for gap in attrs.interior]
    stops = [
        low + (d - 1) * step + 1 if d else low
        for low, d, step in zip(attrs.low, x.shape, steps, strict=True)
    ]
    inner = part(ct, attrs.low, stops, steps)
    ours = pad(full(x.type.with_dtype(bool_), True), attrs.low, attrs.high, attrs.interior, False)
    rest = reduce("sum", where(ours, 0, ct), range(len(node.shape)))
    return inner, rest


def window(node: Node, ct: Node) -> Cotangents:
    shape = node.inputs[0].shape
    return (adjoint(ct, node.attrs, [(0, shape[axis]) for axis in node.attrs.axes]),)


def concat(node: Node, ct: Node) -> Cotangents:
    axis, result = node.attrs.axis, []
    start: Dim = 0
    shape = node.shape
    for x in node.inputs:
        starts: list[Dim] = [0] * len(shape)
        stops = list(shape)
        starts[axis], stops[axis] = start, start + x.shape[axis]
        start = stops[axis]
        result.append(part(ct, starts, stops, [1] * len(shape)))
    return tuple(result)


# --- contraction --------------------------------------------------------------------------
def contract_(node: Node, ct: Node) -> Cotangents:
    """A contraction is linear in each operand; both cotangents are contractions."""
    x, y = node.inputs
    lhs, rhs, out = node.attrs.lhs, node.attrs.rhs, node.attrs.out
    return contract(ct, y, out, rhs, lhs), contract(x, ct, lhs, out, rhs)
