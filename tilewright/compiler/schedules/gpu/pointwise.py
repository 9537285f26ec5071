"""Pointwise kernels on a GPU: a thread for each element, neighbours in memory side by side."""

from __future__ import annotations

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.sizes import product


def lower_pointwise(group: Group, target: Target) -> LoweredKernel:
    """Merge axes, give every element of what is left to a thread."""
    w = group.writer()
    outputs = output_buffers(group)
    values = [value for value, _ in group.stores]
    domain = Domain(group.shape, fixed_boundaries(values, w.is_leaf, lambda n: False))
    extents = domain.extents or [1]
    with w.loop("p", 0, product(extents), "parallel") as p:
        place = [w.let("o", e) for e in unflatten(p, extents)]
        zeros: Index = (k.Const(0),) * len(group.shape)
        offset = store_all(group, w, outputs, domain.index(place) if domain.runs else zeros)
    return finish(group, w, outputs, inplace=outputs, offset=offset)
