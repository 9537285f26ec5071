"""Reductions of the taps of sliding windows: pooling, and convolutions of channels one by one."""

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
from tilewright.compiler.schedules.window_tiles import lower_tiles
from tilewright.compiler.schedules.windowed import seen_by
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import product

UNROLLED = 49
"""Taps up to which a window is written out."""

OVERLAP = 2
"""Windows that see an element, from which on it is worth being kept for them."""


def lower_taps(group: Group, target: Target) -> LoweredKernel:
    """Blocks of windows if they overlap much, else a vector of windows at a time."""
    seen = seen_by(group.anchors, group.writer().is_leaf)
    alone = seen is not None and set(group.axes) == set(seen.tap_axes)
    if seen is not None and alone and seen.overlap >= OVERLAP:
        return lower_tiles(group, target, seen)
    return lower_windows(group, target)


def lower_windows(group: Group, target: Target) -> LoweredKernel:
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
            store_kept(group, w, outputs, at, [group.shape[i] for i in kept])
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
