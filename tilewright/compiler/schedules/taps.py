"""Reductions of the taps of sliding windows: pooling, and convolutions of channels one by one."""

from __future__ import annotations

from contextlib import ExitStack

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import (
    accumulate,
    accumulators,
    align,
    converted,
    hold,
)
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, product

UNROLLED = 49
"""Taps up to which a window is written out."""


def lower_taps(group: Group, target: Target) -> LoweredKernel:
    """A vector of windows next to one another at a time: all their taps, in registers."""
    w, outputs = group.writer(), output_buffers(group)
    kept = [i for i in range(len(group.shape)) if i not in group.axes]
    inner = next((i for i in reversed(kept) if group.shape[i] != 1), kept[-1])
    outer = [i for i in kept if i != inner]
    sizes = [group.shape[i] for i in outer]
    width = target.lanes(max(max(n.inputs[0].dtype.itemsize, 4) for n in group.anchors))
    flying = 4 if len(group.anchors) == 1 else 1
    with w.loop("p", 0, product(sizes), "parallel") as p:
        place = dict(zip(outer, (w.let("o", e) for e in unflatten(p, sizes)), strict=True))
        with w.loop(
            "c", 0, group.shape[inner], "vector", width=width, interleave=flying
        ) as c:
            place[inner] = c
            registers = accumulators(w, group.anchors)
            with ExitStack() as loops:
                for axis in group.axes:
                    place[axis] = loops.enter_context(w.loop(
                        "y", 0, group.shape[axis], kind_of(group, axis)))
                accumulate(w, registers, tuple(place[i] for i in range(len(group.shape))))
            at = tuple(place[i] for i in kept)
            for node, register in registers.items():
                total = converted(k.Load(register, k.Const(0)), node.dtype)
                hold(w, node, w.let("r", total), at)
            store_windows(group, w, outputs, at, [group.shape[i] for i in kept])
        for node in group.anchors:
            w.bound.pop(node)
    return finish(group, w, outputs)


def kind_of(group: Group, axis: int) -> k.LoopKind:
    """Loops are unrolled from the innermost outwards, while there are few taps."""
    taps = 1
    for other in reversed(group.axes):
        taps *= estimate(group.shape[other])
        if other == axis:
            break
    return "unroll" if taps <= UNROLLED and isinstance(group.shape[axis], int) else "serial"


def store_windows(
    group: Group, w: Writer, outputs: list[k.Buffer], kept: Index, sizes: list[Dim]
) -> None:
    """Store what has one element per window."""
    values = []
    for (value, _), buffer in zip(group.stores, outputs, strict=True):
        shape = value.shape
        index = align(kept, sizes, shape)
        values.append((buffer, flat(index, shape), w.let("v", w.value(value, index))))
    for buffer, offset, v in values:
        w.write(k.Store(buffer, offset, v))
