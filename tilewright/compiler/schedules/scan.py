"""Scans: what runs along one axis stays in registers or in a small tile.

Off the innermost axis the elements of a row are independent and make vectors. Along the innermost
axis several chains of steps run side by side, each in one register: of different rows, or of
segments of one row, which start from nothing and get what stands before them added at the end.
What is read and what is stored goes through a small buffer, in vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.monoid import Monoid, State, monoid_of, named
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import ceil_div, product

CHAINS = 8
"""Steps in flight: they hide the latency of an addition."""

STEPS = 480
"""Steps of each chain between two exchanges with memory: all fits into half of L1."""

TILE = 1024
"""Columns whose states are kept in L1."""

Place = Callable[[k.Expr], Index]
"""From a position along the scanned axis, in the order of the scan, to an index."""


def lower_scan(group: Group, target: Target) -> LoweredKernel:
    """Scans along one axis of one shape, and what is computed from them at each place."""
    plan = Scan(group, target)
    if plan.inner:
        plan.columns()
    else:
        plan.rows()
    return finish(group, plan.w, plan.outputs)


@dataclass
class _Chains:
    """Chains side by side: the monoid of each scan, its states and the small buffers."""

    monoids: dict[Node, Monoid]
    states: dict[Node, list[k.Buffer]]
    stages: dict[Node, list[k.Buffer]]


class Scan:
    """The state of a scan kernel under construction."""

    def __init__(self, group: Group, target: Target) -> None:
        self.group, self.w = group, group.writer()
        self.outputs = output_buffers(group)
        self.monoids = {a: monoid_of(a) for a in group.anchors}
        (self.axis,) = group.axes
        self.count = group.shape[self.axis]
        self.reverse = group.anchors[0].attrs.reverse
        anchors = set(group.anchors)
        values = [v for v, _ in group.stores] + [n for a in group.anchors for n in a.inputs]
        fixed = fixed_boundaries(
            values, lambda n: n in anchors or self.w.is_leaf(n), lambda n: False)
        self.domain = Domain(group.shape, {*fixed, self.axis - 1, self.axis})
        runs = zip(self.domain.runs, self.domain.extents, strict=True)
        sizes = [(run[0], size) for run, size in runs]
        self.outer = [size for first, size in sizes if first < self.axis]
        self.inner = [size for first, size in sizes if first > self.axis]
        widest = max(t.itemsize for m in self.monoids.values() for t in m.types)
        self.lanes = target.lanes(max(4, widest))

    # --- places -------------------------------------------------------------------------
    def index(self, outer: Sequence[k.Expr], position: k.Expr, inner: Sequence[k.Expr]) -> Index:
        """The index of a place of the merged axes; ``position`` counts in the order of the scan."""
        place = k.sub(self.count - 1, position) if self.reverse else position
        middle = [place] if self.count != 1 else []
        if not self.domain.runs:
            return (k.Const(0),) * len(self.group.shape)
        return self.domain.index([*outer, *middle, *inner])

    def hold(self, node: Node, result: k.Expr, index: Index) -> None:
        """From here on, the element of a scan at ``index`` is this result."""
        hold(self.w, node, self.w.let("r", converted(result, node.dtype)), index)

    def store(self, index: Index) -> None:
        """Store every value of the group at ``index``."""
        store_all(self.group, self.w, self.outputs, index)
        for node in self.group.anchors:
            self.w.bound.pop(node)

    # --- across rows --------------------------------------------------------------------
    def columns(self) -> None:
        """Tiles of the innermost axis in parallel, their states in a small buffer each."""
        w, width = self.w, self.inner[-1]
        others = [*self.outer, *self.inner[:-1]]
        guess = estimate(width)
        tile = min(guess, TILE)
        if estimate(product(others)) * -(-guess // tile) < 8:
            tile = min(guess, max(8 * self.lanes, -(-guess // (8 * self.lanes)) * self.lanes))
        if not isinstance(width, int):
            tile = max(tile, 8 * self.lanes)
        sizes = [*others, ceil_div(width, tile)]
        with w.loop("p", 0, product(sizes), "parallel") as p:
            *place, number = (w.let("o", e) for e in unflatten(p, sizes))
            start = w.let("start", k.mul(number, tile))
            stop = w.let("stop", k.minimum(k.add(start, tile), width))
            outer, middle = place[:len(self.outer)], place[len(self.outer):]
            states = self._states(tile)
            with w.loop("y", 0, self.count) as y:
                position = self.index(outer, y, [*middle, k.Const(0)])[self.axis]
                with w.loop("c", start, stop, "vector", width=self.lanes) as c:
                    index = self.index(outer, y, [*middle, c])
                    assert index[self.axis] == position
                    self._step(states, k.sub(c, start), index)
                    self.store(index)

    def _states(self, tile: int) -> dict[Node, list[k.Buffer]]:
        """Buffers for the carried states of a tile, holding the identities."""
        w = self.w
        states: dict[Node, list[k.Buffer]] = {}
        for node, monoid in self.monoids.items():
            parts = monoid.identity[-monoid.carried:]
            states[node] = [w.alloc("state", part.dtype, tile, "stack") for part in parts]
        with w.loop("c", 0, tile, "vector", width=self.lanes) as c:
            for node, buffers in states.items():
                parts = self.monoids[node].identity[-self.monoids[node].carried:]
                for buffer, part in zip(buffers, parts, strict=True):
                    w.write(k.Store(buffer, c, part))
        return states

    def _step(self, states: dict[Node, list[k.Buffer]], at: k.Expr, index: Index) -> None:
        """Take the elements at ``index`` into the states at ``at``."""
        w = self.w
        for node, buffers in states.items():
            monoid = self.monoids[node]
            element = named(w, "e", monoid.lift(w, index))
            before = tuple(k.Load(b, at) for b in buffers)
            after = named(w, "s", monoid.combine(before, element))
            for buffer, part in zip(buffers, after, strict=True):
                w.write(k.Store(buffer, at, part))
            self.hold(node, after[-1], index)

    # --- along a row --------------------------------------------------------------------
    def rows(self) -> None:
        """Several rows side by side while there are as many; the others one by one."""
        rows = product(self.outer)
        together = rows // CHAINS * CHAINS
        if together != 0:
            with self.w.loop("p", 0, together // CHAINS, "parallel") as p:
                self._side_by_side(k.mul(p, CHAINS))
        if rows != together:
            with self.w.loop("p", together, rows, "parallel") as p:
                self._one_row([self.w.let("o", e) for e in unflatten(p, self.outer)])

    def _at_most(self, limit: int) -> int:
        """The length of the scanned axis, but at most so many steps."""
        return min(self.count, limit) if isinstance(self.count, int) else limit

    def _buffers(self, size: int, whole: bool) -> _Chains:
        """A register per chain and part of a state, holding identities; buffers of ``size``."""
        w = self.w
        states, stages = {}, {}
        for node, monoid in self.monoids.items():
            parts = monoid.identity if whole else monoid.identity[-monoid.carried:]
            states[node] = [w.alloc("acc", part.dtype, CHAINS, "register") for part in parts]
            stages[node] = [w.alloc("stage", part.dtype, size, "stack") for part in monoid.identity]
        return _Chains(self.monoids, states, stages)

    def _reset(self, chains: _Chains) -> None:
        """All chains start from nothing."""
        for node, registers in chains.states.items():
            identity = chains.monoids[node].identity[-len(registers):]
            with self.w.loop("u", 0, CHAINS, "unroll") as u:
                for register, part in zip(registers, identity, strict=True):
                    self.w.write(k.Store(register, u, part))

    def _side_by_side(self, first: k.Expr) -> None:
        """A chain for each of some rows; they go on from block to block."""
        w, steps = self.w, self._at_most(STEPS)
        stride = -(-steps // 16) * 16
        chains = self._buffers(CHAINS * stride, whole=False)
        self._reset(chains)

        def place(u: k.Expr) -> Place:
            outer = [w.let("o", e) for e in unflatten(k.add(first, u), self.outer)]
            return lambda position: self.index(outer, position, [])

        with w.loop("b", 0, self.count, step=steps) as b:
            length = w.let("length", k.minimum(k.sub(self.count, b), steps))
            with w.loop("u", 0, CHAINS) as u:
                self._read(chains, place(u), b, k.mul(u, stride), length)
            self._run(chains, k.Const(stride), length)
            with w.loop("u", 0, CHAINS) as u:
                at, base = place(u), w.let("base", k.mul(u, stride))
                with self._vector(0, length) as i:
                    index = at(k.add(b, i))
                    for node, stage in chains.stages.items():
                        self.hold(node, k.Load(stage[-1], k.add(base, i)), index)
                    self.store(index)

    def _one_row(self, outer: Sequence[k.Expr]) -> None:
        """A chain for each segment of a block; what stands before a segment is added at its end."""
        w = self.w
        block = self._at_most(CHAINS * STEPS)
        chains = self._buffers(-(-block // CHAINS) * CHAINS, whole=True)
        before = {
            node: [w.alloc("before", part.dtype, 1, "register")
                   for part in monoid.identity[-monoid.carried:]]
            for node, monoid in self.monoids.items()
        }
        for node, registers in before.items():
            identity = self.monoids[node].identity[-len(registers):]
            for register, part in zip(registers, identity, strict=True):
                w.write(k.Store(register, k.Const(0), part))

        def place(position: k.Expr) -> Index:
            return self.index(outer, position, [])

        with w.loop("b", 0, self.count, step=block) as b:
            size = w.let("size", k.minimum(k.sub(self.count, b), block))
            length = w.let("length", k.floordiv(k.add(size, CHAINS - 1), CHAINS))
            self._read(chains, place, b, k.Const(0), size)
            self._reset(chains)
            self._run(chains, length, length)
            with w.loop("u", 0, CHAINS) as u:
                base = w.let("base", k.mul(u, length))
                stop = w.let("stop", k.minimum(k.add(base, length), size))
                self._finish_segment(chains, before, place, b, base, stop)
                self._pass_on(chains, before, k.add(base, k.sub(length, 1)))

    def _finish_segment(
        self, chains: _Chains, before: dict[Node, list[k.Buffer]], place: Place, b: k.Expr,
        base: k.Expr, stop: k.Expr,
    ) -> None:
        """Add what stands before a segment, and store."""
        w = self.w
        left = {
            node: named(w, "left", [k.Load(r, k.Const(0)) for r in registers])
            for node, registers in before.items()
        }
        with self._vector(base, stop) as i:
            index = place(k.add(b, i))
            for node, stage in chains.stages.items():
                right = named(w, "e", [k.Load(part, i) for part in stage])
                self.hold(node, chains.monoids[node].combine(left[node], right)[-1], index)
            self.store(index)

    def _pass_on(self, chains: _Chains, before: dict[Node, list[k.Buffer]], last: k.Expr) -> None:
        """What stands before the next segment."""
        w = self.w
        for node, registers in before.items():
            left: State = tuple(k.Load(r, k.Const(0)) for r in registers)
            right = named(w, "e", [k.Load(part, last) for part in chains.stages[node]])
            after = named(w, "s", chains.monoids[node].combine(left, right))
            for register, part in zip(registers, after, strict=True):
                w.write(k.Store(register, k.Const(0), part))

    def _vector(self, start: k.ExprLike, stop: k.ExprLike):  # type: ignore[no-untyped-def]
        return self.w.loop("i", start, stop, "vector", width=self.lanes, interleave=2)

    def _read(
        self, chains: _Chains, place: Place, first: k.Expr, base: k.Expr, size: k.Expr
    ) -> None:
        """Elements from position ``first`` on into the small buffers, from ``base`` on."""
        w = self.w
        base = w.let("base", base)
        with self._vector(0, size) as i:
            index = place(k.add(first, i))
            for node, stage in chains.stages.items():
                for buffer, part in zip(
                    stage, chains.monoids[node].lift(w, index), strict=True
                ):
                    w.write(k.Store(buffer, k.add(base, i), part))

    def _run(self, chains: _Chains, stride: k.Expr, length: k.Expr) -> None:
        """All chains, step by step; results replace the elements in the small buffers."""
        w = self.w
        with w.loop("i", 0, length) as i, w.loop("u", 0, CHAINS, "unroll") as u:
            at = w.let("at", k.add(k.mul(u, stride), i))
            for node, stage in chains.stages.items():
                monoid, registers = chains.monoids[node], chains.states[node]
                element = named(w, "e", [k.Load(part, at) for part in stage])
                left: State = tuple(k.Load(r, u) for r in registers)
                whole = len(registers) == len(stage)
                step = monoid.combine_all if whole else monoid.combine
                after = named(w, "s", step(left, element))
                for register, part in zip(registers, after, strict=True):
                    w.write(k.Store(register, u, part))
                for buffer, part in zip(stage[-len(after):], after, strict=True):
                    w.write(k.Store(buffer, at, part))
