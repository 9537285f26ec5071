"""Scans on a GPU: off the innermost axis a thread for each column; along it a warp or a block for
each row, which goes on with what stood before.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.gpu.team import WARP, Team, power_of_two, teams
from tilewright.compiler.schedules.group import Group, finish
from tilewright.compiler.schedules.monoid import Monoid, State, named
from tilewright.compiler.schedules.scan import Scan
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import product

MOST_THREADS = 256
"""Threads of a row."""

EACH = 4
"""Elements of a row for each thread at least, where a block has it."""


def lower_scan(group: Group, target: Target) -> LoweredKernel:
    """Scans along one axis of one shape, and what is computed from them at each place."""
    scan = _Scan(group, target)
    if scan.inner:
        scan.columns()
    else:
        scan.rows()
    return finish(group, scan.w, scan.outputs)


class _Scan(Scan):
    """The state of a scan kernel under construction."""

    def columns(self) -> None:
        """A thread for each column, step by step; the states are in registers."""
        w, sizes = self.w, [*self.outer, *self.inner]
        with w.loop("p", 0, product(sizes), "parallel") as p:
            place = [w.let("o", e) for e in unflatten(p, sizes)]
            states = self._carried()
            with w.loop("y", 0, self.count) as y:
                index = self.index(place[:len(self.outer)], y, place[len(self.outer):])
                self._step(states, k.Const(0), index)
                self.store(index)

    def rows(self) -> None:
        """A team for each row: a stretch of one element each, then the next."""
        w = self.w
        threads = power_of_two(-(-estimate(self.count) // EACH))
        size = min(MOST_THREADS, max(WARP, threads))
        types = [t for m in self.monoids.values() for t in m.types]
        warps = [
            k.Buffer(w.name("warps"), t, size // WARP, "shared") for t in types
        ] if size > WARP else []
        with teams(w, product(self.outer), size, (), warps) as team:
            outer = [w.let("o", e) for e in unflatten(team.number, self.outer)]
            states = self._carried()
            with w.loop("c", 0, self.count, step=size) as c:
                self._stretch(team, states, warps, outer, c)

    def _carried(self) -> dict[Node, list[k.Buffer]]:
        """Registers for what runs along the axis, holding identities."""
        w = self.w
        states: dict[Node, list[k.Buffer]] = {}
        for node, monoid in self.monoids.items():
            parts = monoid.identity[-monoid.carried:]
            states[node] = [w.alloc("state", part.dtype, 1, "register") for part in parts]
            for buffer, part in zip(states[node], parts, strict=True):
                w.write(k.Store(buffer, k.Const(0), part))
        return states

    def _stretch(
        self, team: Team, states: dict[Node, list[k.Buffer]], warps: Sequence[k.Buffer],
        outer: Sequence[k.Expr], first: k.Expr,
    ) -> None:
        """One element for each thread, from position ``first`` on."""
        w, count = self.w, self.count
        position = w.let("i", k.add(first, team.thread))
        whole = isinstance(count, int) and count % team.size == 0
        there = None if whole else w.let("there", k.compare("lt", position, k.expr(count)))
        if there is not None:
            position = w.let("i", k.minimum(position, k.sub(count, 1)))
        index = self.index(outer, position, [])
        scanned: dict[Node, State] = {}
        for node, monoid in self.monoids.items():
            element = monoid.lift(w, index)
            if there is not None:
                element = chosen(there, element, monoid.identity)
            scanned[node] = scan_warp(team, monoid, named(w, "e", element))
        if team.size > WARP:
            scanned = self._across_warps(team, warps, scanned)
        left = {
            node: named(w, "left", [k.Load(r, k.Const(0)) for r in registers])
            for node, registers in states.items()}
        after = {
            node: named(w, "s", self.monoids[node].combine(left[node], state))
            for node, state in scanned.items()}
        condition = k.both(there, team.inside)
        for node, state in after.items():
            self.hold(node, state[-1], index)
        if condition is None:
            self.store(index)
        else:
            with w.when(condition):
                self.store(index)
        self._carry(team, states, left, scanned, warps)

    def _across_warps(
        self, team: Team, warps: Sequence[k.Buffer], scanned: dict[Node, State]
    ) -> dict[Node, State]:
        """The states of all threads before, from those of each warp's."""
        w = self.w
        buffers = iter(warps)
        mine = {node: [next(buffers) for _ in state] for node, state in scanned.items()}
        warp = w.let("warp", k.floordiv(team.thread, WARP))
        last = k.compare("eq", k.mod(team.thread, WARP), WARP - 1)
        # Nobody reads any more what the stretch before left.
        w.write(k.Barrier())
        with w.when(last):
            for node, state in scanned.items():
                for buffer, part in zip(mine[node], state, strict=True):
                    w.write(k.Store(buffer, warp, part))
        w.write(k.Barrier())
        found = {}
        for node, state in scanned.items():
            monoid = self.monoids[node]
            before: State = monoid.identity
            for number in range(team.size // WARP - 1):
                right = named(w, "e", [k.Load(b, k.Const(number)) for b in mine[node]])
                both = monoid.combine_all(before, right)
                earlier = k.compare("gt", warp, number)
                before = named(w, "s", chosen(earlier, both, before))
            found[node] = named(w, "s", monoid.combine_all(before, state))
        return found

    def _carry(
        self, team: Team, states: dict[Node, list[k.Buffer]], left: dict[Node, State],
        scanned: dict[Node, State], warps: Sequence[k.Buffer],
    ) -> None:
        """What stands before the next stretch: what the last thread has."""
        w = self.w
        buffers = iter(warps)
        for node, state in scanned.items():
            monoid = self.monoids[node]
            if team.size == WARP:
                total: State = tuple(w.shuffle("lane", part, WARP - 1) for part in state)
            else:
                mine = [next(buffers) for _ in state]
                total = named(w, "e", [k.Load(b, k.Const(0)) for b in mine])
                for number in range(1, team.size // WARP):
                    right = named(w, "e", [k.Load(b, k.Const(number)) for b in mine])
                    total = named(w, "s", monoid.combine_all(total, right))
            after = named(w, "s", monoid.combine(left[node], total))
            for register, part in zip(states[node], after, strict=True):
                w.write(k.Store(register, k.Const(0), part))


def scan_warp(team: Team, monoid: Monoid, state: State) -> State:
    """The states up to and with each thread of the warp: W. D. Hillis and G. L. Steele, "Data
    Parallel Algorithms" (1986).
    """
    w = team.w
    lane = w.let("lane", k.mod(team.thread, WARP))
    distance = 1
    while distance < WARP:
        below = tuple(w.shuffle("up", part, distance) for part in state)
        both = monoid.combine_all(below, state)
        state = named(w, "s", chosen(k.compare("ge", lane, distance), both, state))
        distance *= 2
    return state


def chosen(condition: k.Expr, a: State, b: State) -> State:
    """One of two states."""
    return tuple(
        k.Call("where", (condition, x, y), x.dtype) for x, y in zip(a, b, strict=True))
