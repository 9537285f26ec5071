"""Reductions of everything: a fixed number of shares, then their partial results in order."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import (
    COMBINE,
    accumulators,
    converted,
    hold,
    identity,
)
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import accumulator

SHARES = 32
"""Parts that a large reduction is cut into, whatever the number of threads."""


def lower_full(group: Group, target: Target) -> LoweredKernel:
    """Several reductions to scalars in one kernel.

    Their domains may differ: each is cut along its outermost axis into the same number of pieces,
    and a piece of one follows the same piece of the other while their common operand is in the
    cache.
    """
    w = group.writer()
    outputs = output_buffers(group)
    partials = [
        k.Buffer(f"part{i}", accumulator(a.dtype), SHARES, "global", "workspace")
        for i, a in enumerate(group.anchors)
    ]
    domains = [_domain(w, a.inputs[0]) for a in group.anchors]
    same = all(d.extents == domains[0].extents and d.shape == domains[0].shape for d in domains)
    largest = max(estimate(a.inputs[0].type.nbytes) for a in group.anchors)
    steps = 1 if same else max(1, largest // (SHARES * target.l2 // 4))
    with w.loop("p", 0, SHARES, "parallel") as p:
        registers = accumulators(w, group.anchors)
        if same:
            _share(w, registers, domains[0], p, SHARES, target)
        else:
            with w.loop("q", 0, steps) as q:
                piece = w.let("piece", k.add(k.mul(p, steps), q))
                for domain, (node, register) in zip(domains, registers.items(), strict=True):
                    _share(w, {node: register}, domain, piece, SHARES * steps, target)
        for register, buffer in zip(registers.values(), partials, strict=True):
            w.write(k.Store(buffer, p, k.Load(register, k.Const(0))))
    w.write(k.Barrier())
    with w.loop("z", 0, 1, "parallel"):
        for node, buffer in zip(group.anchors, partials, strict=True):
            register = w.alloc("total", buffer.dtype, 1, "register")
            w.write(k.Store(register, k.Const(0), identity(node)))
            with w.loop("s", 0, SHARES) as s:
                combine = COMBINE[node.op.name]
                w.write(k.Accumulate(register, k.Const(0), combine, k.Load(buffer, s)))
            total = converted(k.Load(register, k.Const(0)), node.dtype)
            hold(w, node, w.let("r", total), ())
        for (value, _), buffer in zip(group.stores, outputs, strict=True):
            zeros: Index = (k.Const(0),) * len(value.shape)
            w.write(k.Store(buffer, k.Const(0), w.value(value, zeros)))
    sizes: list[tuple[k.Buffer, Dim]] = [(b, b.size * b.dtype.itemsize) for b in partials]
    return finish(group, w, outputs, sizes)


def _domain(w: Writer, operand: Node) -> Domain:
    return Domain(operand.shape, fixed_boundaries([operand], w.is_leaf, lambda n: False))


def _share(
    w: Writer, registers: dict[Node, k.Buffer], domain: Domain, piece: k.Expr, pieces: int,
    target: Target,
) -> None:
    """Accumulate piece number ``piece`` of ``pieces`` of the outermost axis."""
    extents = domain.extents or [1]
    low = w.let("low", k.floordiv(k.mul(piece, extents[0]), pieces))
    high = w.let("high", k.floordiv(k.mul(k.add(piece, 1), extents[0]), pieces))
    width = target.lanes(max(max(n.inputs[0].dtype.itemsize for n in registers), 4))
    interleave = 4 if len(registers) == 1 else 2

    def body(positions: Sequence[k.Expr]) -> None:
        index = domain.index(positions) if domain.runs else (k.Const(0),) * len(domain.shape)
        operands = [w.value(node.inputs[0], index) for node in registers]
        for (node, register), value in zip(registers.items(), operands, strict=True):
            wide = converted(value, register.dtype)
            w.write(k.Accumulate(register, k.Const(0), COMBINE[node.op.name], wide))

    if len(extents) == 1:
        with w.loop("i", low, high, "vector", width=width, interleave=interleave) as i:
            body([i])
        return
    *middle, inner = extents[1:]
    rows = product(middle)
    with w.loop("y", low, high) as y, w.loop("m", 0, rows) as m:
        place = [w.let("o", e) for e in unflatten(m, middle)]
        with w.loop("i", 0, inner, "vector", width=width, interleave=interleave) as i:
            body([y, *place, i])
