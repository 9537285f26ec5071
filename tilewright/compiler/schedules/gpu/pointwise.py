"""Pointwise kernels on a GPU: 16 bytes at a time, several of them under way, transposes by tiles.

A small array has a thread for each element. In a large one a thread takes pieces of neighbouring
elements, a block's width apart, and reads all of them before it writes the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.gpu.tiles import lower_tiles
from tilewright.compiler.schedules.gpu.vectors import lanes, widest, width_for
from tilewright.compiler.schedules.group import Group, finish, flops, output_buffers
from tilewright.compiler.schedules.pointwise import axis_across, store_all
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import product

THREADS = 256
"""Threads of a block."""

LARGE = 1 << 17
"""Elements from which on a thread has several: enough for every multiprocessor."""

HEAVY = 24
"""Operations for an element that hide the latency of its accesses."""

HELD = 32
"""Results that a thread holds at most before it writes the first."""


def lower_pointwise(group: Group, target: Target) -> LoweredKernel:
    """Merge axes; pieces of what is left, elements of it, or tiles."""
    simple = lower_elements(group)
    w, values = group.writer(), [value for value, _ in group.stores]
    domain = Domain(group.shape, fixed_boundaries(values, w.is_leaf, lambda n: False))
    if estimate(product(group.shape)) < LARGE:
        return simple
    across = axis_across(w, group, domain)
    if across is not None:
        made = lower_tiles(group, domain, across)
    else:
        itemsize = max(v.dtype.itemsize for v in values)
        extents = domain.extents or [1]
        sizes = extents[-1:] if len(extents) > 1 else ()
        made = widest(
            lambda width: _Pieces(group, domain, width).lower(), width_for(itemsize, *sizes))
    # What may share memory is the same: all that a thread writes to an element it has read before.
    return replace(made, inplace=simple.inplace) if made.args == simple.args else made


def lower_elements(group: Group) -> LoweredKernel:
    """A thread for each element."""
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


class _Pieces:
    """The state of a kernel of pieces under construction.

    flying  pieces of a thread
    """

    def __init__(self, group: Group, domain: Domain, width: int) -> None:
        self.group, self.domain, self.width, self.w = group, domain, width, group.writer()
        self.outputs = output_buffers(group)
        *outer, inner = domain.extents
        self.sizes = [*outer, inner if width == 1 else inner // width]
        self.pieces, self.total = product(self.sizes), product(domain.extents)
        elements = estimate(self.total) * len(group.stores)
        heavy = estimate(flops(group.members(self.w))) > HEAVY * elements
        most = max(1, HELD // (width * len(group.stores)))
        self.flying = min(most, 2 if heavy else 4)
        self.step = THREADS * self.flying

    def lower(self) -> LoweredKernel:
        """The kernel: whole steps, and one block for what is left of the last."""
        w, step = self.w, self.step
        even = isinstance(self.pieces, int) and not self.pieces % step
        even = even and self.pieces * self.width == self.total
        blocks = self.pieces // step + (0 if even else 1)
        with w.loop("b", 0, blocks, "block") as b, w.loop("t", 0, THREADS, "thread") as t:
            first = w.let("first", k.add(k.mul(b, step), t))
            if even:
                self._whole(first)
            else:
                whole = w.let("whole", k.compare("lt", b, k.sub(blocks, 1)))
                with w.when(whole):
                    self._whole(first)
                with w.when(k.Call("not", (whole,), whole.dtype)):
                    self._rest(first, t)
        return finish(self.group, w, self.outputs)

    def _index(self, piece: k.Expr) -> Callable[[k.Expr], Index]:
        """The index of a lane of a piece."""
        *outer, inner = (self.w.let("o", e) for e in unflatten(piece, self.sizes))
        start = k.mul(inner, self.width)
        return lambda lane: self.domain.index([*outer, k.add(start, lane)])

    def _whole(self, first: k.Expr) -> None:
        """All pieces of a thread: read, then written."""
        w, group = self.w, self.group
        if self.flying == 1:
            index = self._index(first)
            with lanes(w, self.width) as lane:
                store_all(group, w, self.outputs, index(lane))
            return
        size = self.flying * self.width
        held = [w.alloc("held", v.dtype, size, "register") for v, _ in group.stores]
        with w.loop("u", 0, self.flying, "unroll") as u:
            index = self._index(k.add(first, k.mul(u, THREADS)))
            with lanes(w, self.width) as lane:
                at = k.add(k.mul(u, self.width), lane)
                for (value, _), register in zip(group.stores, held, strict=True):
                    w.write(k.Store(register, at, w.value(value, index(lane))))
        with w.loop("u", 0, self.flying, "unroll") as u:
            start = k.mul(k.add(first, k.mul(u, THREADS)), self.width)
            with lanes(w, self.width) as lane:
                at = k.add(k.mul(u, self.width), lane)
                for register, buffer in zip(held, self.outputs, strict=True):
                    w.write(k.Store(buffer, k.add(start, lane), k.Load(register, at)))

    def _rest(self, first: k.Expr, t: k.Expr) -> None:
        """The pieces from ``first`` on, a block's width apart, and what is no whole piece."""
        w, group = self.w, self.group
        with w.loop("c", first, self.pieces, step=THREADS) as c:
            index = self._index(c)
            with lanes(w, self.width) as lane:
                store_all(group, w, self.outputs, index(lane))
        if self.pieces * self.width != self.total:
            done = k.mul(k.expr(self.pieces), self.width)
            with w.loop("c", k.add(done, t), self.total, step=THREADS) as c:
                store_all(group, w, self.outputs, self.domain.index([c]))
