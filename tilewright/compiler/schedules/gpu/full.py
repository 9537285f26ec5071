"""Reductions of everything on a GPU: a share for each block, then one block for what they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.gpu.shares import TEAM, Partials, division
from tilewright.compiler.schedules.gpu.sums import Sums, settled
from tilewright.compiler.schedules.gpu.team import teams
from tilewright.compiler.schedules.gpu.vectors import widest, width_for
from tilewright.compiler.schedules.gpu.walk import Pieces, Walk
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import hold
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.types import accumulator


def lower_full(group: Group, target: Target) -> LoweredKernel:
    """Several reductions to scalars in two launches; those of one domain go through it together."""
    sizes = [a.inputs[0].dtype.itemsize for a in group.anchors]
    return widest(lambda width: _lower(group, width), width_for(max(sizes)))


def _lower(group: Group, most: int) -> LoweredKernel:
    w, outputs = group.writer(), output_buffers(group)
    walks: dict[Walk, list[Node]] = {}
    alike: dict[object, Walk] = {}
    for anchor in group.anchors:
        operand = anchor.inputs[0]
        domain = Domain(operand.shape, fixed_boundaries([operand], w.is_leaf, lambda n: False))
        extents = domain.extents or [1]
        key = (domain.shape, tuple(extents))
        if key not in alike:
            width = min(most, width_for(1, extents[-1]))
            alike[key] = Walk(w, extents, width, _index(domain))
        walks.setdefault(alike[key], []).append(anchor)
    divisions = {walk: division(walk, 1) for walk in walks}
    shares = max(d.shares for d in divisions.values())
    partials = Partials(w, group.anchors, 1, shares)
    types = [accumulator(a.dtype) for anchors in walks.values() for a in anchors]
    with teams(w, shares, TEAM, types) as team:
        for walk, anchors in walks.items():
            sums = Sums(w, anchors, walk.width)

            def run(pieces: Pieces, walk: Walk = walk, sums: Sums = sums) -> None:
                walk.each(pieces, lambda spot: sums.accumulate(spot.lane, spot.index))

            part = divisions[walk]
            if part.shares == shares:
                part.walk(walk, team, team.number, run)
            else:
                with w.when(k.compare("lt", team.number, part.shares)):
                    part.walk(walk, team, team.number, run)
            totals = sums.combined(team)
            with team.guard(first_only=True):
                for node, total in totals.items():
                    partials.save(node, 0, team.number, total)
    w.write(k.Barrier())
    with teams(w, 1, TEAM, [accumulator(a.dtype) for a in group.anchors]) as team:
        for node, total in partials.combined(team, group.anchors, 0).items():
            hold(w, node, w.let("r", settled(node, total)), ())
        with team.guard(first_only=True):
            for (value, _), buffer in zip(group.stores, outputs, strict=True):
                zeros: Index = (k.Const(0),) * len(value.shape)
                w.write(k.Store(buffer, k.Const(0), w.value(value, zeros)))
    return finish(group, w, outputs, partials.workspaces())


def _index(domain: Domain) -> Callable[[Sequence[k.Expr]], Index]:
    """The index of the element at a position on the merged axes."""
    def index(positions: Sequence[k.Expr]) -> Index:
        return domain.index(positions) if domain.runs else (k.Const(0),) * len(domain.shape)
    return index
