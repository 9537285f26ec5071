"""Pads and concats as expressions that any kernel may hold: which part an element is in."""

from __future__ import annotations

from tilewright.compiler.schedules.access import RULES, Index, Writer
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, less


def padded(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    """An element of a pad: of what is padded, or the filler."""
    source, filler = node.inputs
    inside: k.Expr | None = None
    at: list[k.Expr] = []
    attrs = node.attrs
    for i, low, high, gap, d in zip(
        index, attrs.low, attrs.high, attrs.interior, source.shape, strict=True
    ):
        # Axis by axis: what one of them allows does not change with the others.
        here: k.Expr | None = None
        position = k.sub(i, low)
        if low:
            here = k.both(here, k.compare("ge", position, 0))
        if gap:
            here = k.both(here, k.compare("eq", k.mod(position, gap + 1), 0))
            position = k.floordiv(position, gap + 1)
        if high or gap:
            here = k.both(here, k.compare("lt", position, d))
        known = None if here is None else w.settle(here)
        if known is False:
            return w.value(filler, ())
        inside = inside if known else k.both(inside, here)
        at.append(position)
    if inside is None:
        return w.value(source, tuple(at), mask)
    inside = w.let_at(w.depth(inside), "inside", inside)
    value = w.value(source, tuple(at), k.both(mask, inside))
    return k.Call("where", (inside, value, w.value(filler, ())), node.dtype)


def joined(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    """An element of a concat, of the part that the index is in."""
    axis = node.attrs.axis
    start: Dim = 0
    result: k.Expr | None = None
    ends = []
    for part in node.inputs:
        size = part.shape[axis]
        ends.append((part, start, start + size))
        start += size
    position = index[axis]
    for part, low, high in reversed([e for e in ends if less(e[1], e[2]) is not False]):
        here = None if high == start else k.compare("lt", position, high)
        below = None if low == 0 else k.compare("ge", position, low)
        inside = k.both(below, here)
        known = None if inside is None else w.settle(inside)
        if known is False:
            continue
        at = (*index[:axis], k.sub(position, low), *index[axis + 1:])
        value = w.value(part, at, mask if known else k.both(mask, inside))
        if known:
            return value
        if result is None or here is None:
            result = value
        else:
            result = k.Call("where", (here, value, result), node.dtype)
    assert result is not None
    return result


RULES["pad"], RULES["concat"] = padded, joined
