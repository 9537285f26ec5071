"""Scatter-add: each thread owns a range of the result and adds what falls into it, in order."""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.types import concrete

SHARES = 4
"""Ranges of the indexed axis; every range scans all indices, so few of them."""


def lower_scatter(group: Group, target: Target) -> LoweredKernel:
    """``take_add`` and ``take_along_add``: no atomics, and sums in the order of the indices."""
    node = group.anchors[0]
    w = group.writer()
    (output,) = output_buffers(group)
    shape, axis = concrete(node.shape), node.attrs.axis
    outer, size = shape[:axis], shape[axis]
    shares = min(SHARES, max(1, size // 64))
    sizes = [*outer, shares]
    count = 1
    for d in sizes:
        count *= d
    lanes = target.lanes(node.dtype.itemsize)
    with w.loop("p", 0, count, "parallel") as p:
        *place, share = (w.let("o", e) for e in unflatten(p, sizes))
        low = w.let("low", k.floordiv(k.mul(share, size), shares))
        high = w.let("high", k.floordiv(k.mul(k.add(share, 1), size), shares))
        _start(w, node, output, tuple(place), low, high, lanes)
        if node.op.name == "take_add":
            _add_slices(w, node, output, tuple(place), low, high, lanes)
        else:
            _add_along(w, node, output, tuple(place), low, high)
    return finish(group, w, [output])


def _inner_size(node: Node) -> tuple[tuple[int, ...], int]:
    inner = concrete(node.shape)[node.attrs.axis + 1:]
    count = 1
    for d in inner:
        count *= d
    return inner, count


def _start(
    w: Writer, node: Node, output: k.Buffer, place: Index, low: k.Expr, high: k.Expr, lanes: int
) -> None:
    """Copy the range of the operand that is added to."""
    inner, count = _inner_size(node)
    base = flat((*place, k.Const(0), *[k.Const(0)] * len(inner)), concrete(node.shape))
    if count == 1:
        with w.loop("i", low, high, "vector", width=lanes) as i:
            index = (*place, i, *[k.Const(0)] * len(inner))
            w.write(k.Store(output, k.add(base, i), w.value(node.inputs[0], index)))
        return
    with w.loop("y", low, high) as y, w.loop("c", 0, count, "vector", width=lanes) as c:
        index = (*place, y, *unflatten(c, inner))
        offset = k.add(k.add(base, k.mul(y, count)), c)
        w.write(k.Store(output, offset, w.value(node.inputs[0], index)))


def _add_slices(
    w: Writer, node: Node, output: k.Buffer, place: Index, low: k.Expr, high: k.Expr, lanes: int
) -> None:
    """result[..., indices[j], ...] += values[..., j, ...] for every j in order."""
    _, indices, values = node.inputs
    inner, count = _inner_size(node)
    index_shape = concrete(indices.shape)
    base = flat((*place, k.Const(0), *[k.Const(0)] * len(inner)), concrete(node.shape))
    with w.loop("j", 0, indices.type.size) as j:
        at = tuple(w.let("a", e) for e in unflatten(j, index_shape))
        target, inside = w.indexed(indices, at, concrete(node.shape)[node.attrs.axis], None, node)
        mine = k.both(k.compare("ge", target, low), k.compare("lt", target, high))
        with w.when(k.both(inside, mine) or inside):
            row = w.let("row", k.add(base, k.mul(target, count)))
            if count == 1:
                value = w.value(values, (*place, *at, *[k.Const(0)] * len(inner)))
                w.write(k.Accumulate(output, row, "add", value))
                return
            with w.loop("c", 0, count, "vector", width=lanes) as c:
                value = w.value(values, (*place, *at, *unflatten(c, inner)))
                w.write(k.Accumulate(output, k.add(row, c), "add", value))


def _add_along(
    w: Writer, node: Node, output: k.Buffer, place: Index, low: k.Expr, high: k.Expr
) -> None:
    """result[..., indices[..., j, ...], ...] += values[..., j, ...] for every j in order."""
    _, indices, values = node.inputs
    axis = node.attrs.axis
    inner, count = _inner_size(node)
    length = concrete(indices.shape)[axis]
    with w.loop("j", 0, length) as j, w.loop("c", 0, count) as c:
        rest = tuple(w.let("a", e) for e in unflatten(c, inner))
        at = (*place, j, *rest)
        target, inside = w.indexed(indices, at, concrete(node.shape)[axis], None, node)
        mine = k.both(k.compare("ge", target, low), k.compare("lt", target, high))
        with w.when(k.both(inside, mine) or inside):
            offset = flat((*place, target, *rest), concrete(node.shape))
            w.write(k.Accumulate(output, offset, "add", w.value(values, at)))
