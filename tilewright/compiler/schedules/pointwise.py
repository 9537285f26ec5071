"""Pointwise kernels: every element of the results from the elements at its place."""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, flops, output_buffers
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.types import concrete

CHUNK = 16384
"""Elements per share of a flat loop: small enough to balance, large enough to stream."""


def lower_pointwise(group: Group, target: Target) -> LoweredKernel:
    """Merge axes, share the outer ones among the threads, vectorise the innermost."""
    w = group.writer()
    outputs = output_buffers(group)
    values = [value for value, _ in group.stores]
    domain = Domain(group.shape, fixed_boundaries(values, w.is_leaf, lambda n: False))
    extents = domain.extents or [1]
    width = target.lanes(min(v.dtype.itemsize for v in values))
    width = min(width, target.lanes(4)) if any(v.dtype.is_float for v in values) else width
    # Two vectors in flight hide the latency of long expressions, if there are registers for them.
    heavy = flops(group.members(w)) > 24 * sum(v.type.size for v in values)
    interleave = 1 if heavy and target.registers < 32 else 2
    streaming = sum(b.size * b.dtype.itemsize for b in outputs) > target.l2 * 2

    def element(positions: list[k.Expr]) -> k.Expr:
        index = domain.index(positions) if domain.runs else (k.Const(0),) * len(group.shape)
        return store_all(group, w, outputs, index, streaming)

    *outer, inner = extents
    if not outer:
        chunks = max(1, -(-inner // CHUNK))
        with w.loop("p", 0, chunks, "parallel") as p:
            start = k.mul(p, CHUNK)
            stop: k.Expr = k.Const(inner) if chunks == 1 else k.minimum(k.add(start, CHUNK), inner)
            if chunks == 1:
                start = k.Const(0)
            with w.loop("i", start, stop, "vector", width=width, interleave=interleave) as i:
                offset = element([i])
    else:
        rows = 1
        for d in outer:
            rows *= d
        with w.loop("p", 0, rows, "parallel") as p:
            place = [w.let("o", e) for e in unflatten(p, outer)]
            with w.loop("i", 0, inner, "vector", width=width, interleave=interleave) as i:
                offset = element([*place, i])
    return finish(group, w, outputs, inplace=outputs, offset=offset)


def store_all(
    group: Group, w: Writer, outputs: list[k.Buffer], index: Index, streaming: bool = False
) -> k.Expr:
    """Store every value of the group at ``index``; returns the offset."""
    offset: k.Expr = k.Const(0)
    values = [w.value(value, index) for value, _ in group.stores]
    if len(values) > 1:
        # A result may share memory with an operand: everything is read before anything is written.
        values = [w.let("v", value) for value in values]
    for (node, _), buffer, value in zip(group.stores, outputs, values, strict=True):
        offset = flat(index, concrete(node.shape))
        w.write(k.Store(buffer, offset, value, None, streaming))
    return offset
