"""Reductions of the taps of windows on a GPU: a thread for each window, neighbours side by side."""

from __future__ import annotations

from contextlib import ExitStack

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import (
    accumulate,
    accumulators,
    converted,
    hold,
    store_kept,
)
from tilewright.compiler.schedules.taps import kind_of
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.sizes import product


def lower_taps(group: Group, target: Target) -> LoweredKernel:
    """Each thread reduces all taps of its window, in order."""
    w, outputs = group.writer(), output_buffers(group)
    kept = [i for i in range(len(group.shape)) if i not in group.axes]
    sizes = [group.shape[i] for i in kept]
    with w.loop("p", 0, product(sizes), "parallel") as p:
        at = tuple(w.let("o", e) for e in unflatten(p, sizes))
        place = dict(zip(kept, at, strict=True))
        registers = accumulators(w, group.anchors)
        with ExitStack() as loops:
            for axis in group.axes:
                place[axis] = loops.enter_context(
                    w.loop("y", 0, group.shape[axis], kind_of(group, axis)))
            accumulate(w, registers, tuple(place[i] for i in range(len(group.shape))))
        for node, register in registers.items():
            total = converted(k.Load(register, k.Const(0)), node.dtype)
            hold(w, node, w.let("r", total), at)
        store_kept(group, w, outputs, at, sizes)
    return finish(group, w, outputs)
