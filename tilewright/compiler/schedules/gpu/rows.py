"""Rows on a GPU: a row for some threads of a warp, a warp, a block, or several blocks.

Each element is read and written once: a thread keeps what later passes need in registers, or in
shared memory where there are too many; rows too long for that are read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.gpu.kept import Kept, alive, kept_values, pass_of
from tilewright.compiler.schedules.gpu.online import Online, Pair, pair_at, settled_total
from tilewright.compiler.schedules.gpu.sums import Sums, settled
from tilewright.compiler.schedules.gpu.team import MOST_THREADS, WARP, Team, power_of_two, teams
from tilewright.compiler.schedules.gpu.walk import Pieces, Spot, Walk
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import align, hold, levels
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import product
from tilewright.ir.types import accumulator

SHORT = 1024
"""Elements of a row that the threads of a warp share and keep at most."""

EACH = 16
"""Elements of a longer row for each thread, where there are threads enough."""

PIECES = 2
"""Accesses of a thread to a short row that are worth fewer threads."""

HELD = 64
"""Elements that a thread keeps in registers at most."""

ROOM = 4
"""How many times longer than expected a row of a named length may be to be kept."""

HELD_OF_MANY = 32
"""The same in a block of 1024 threads, which have 64 registers each."""


@dataclass(frozen=True)
class Layout:
    """How rows are laid out.

    team   threads of a row
    slots  pieces of each thread that are written out; 0: they are in loops
    keep   where elements are kept between passes; None: they are read again
    """

    team: int
    slots: int
    keep: k.Space | None


class Rows:
    """The state of a row kernel under construction."""

    def __init__(self, group: Group, target: Target, width: int) -> None:
        self.group, self.target, self.w = group, target, group.writer()
        self.outputs = output_buffers(group)
        self.members = group.members(self.w)
        self.level = levels(self.members, group.anchors)
        self.passes = max((self.level[a] for a in group.anchors), default=0)
        self.outer = [d for i, d in enumerate(group.shape) if i not in group.axes]
        self.stores = list(zip((v for v, _ in group.stores), self.outputs, strict=True))
        self.wide = [
            (v, b) for v, b in self.stores if v.shape == group.shape and v not in group.anchors]
        self.kept: Index = ()
        self.domain = self._domain()
        self.walk = Walk(self.w, self.domain.extents or [1], width, self._index)

    def _domain(self) -> Domain:
        """The reduced axes, merged as far as what is read and written allows."""
        group, w, held = self.group, self.w, set(self.group.anchors)
        values = [*(a.inputs[0] for a in group.anchors), *(v for v, _ in self.wide)]
        fixed = set(fixed_boundaries(values, lambda n: w.is_leaf(n) or n in held, lambda n: False))
        for i in range(len(group.shape) - 1):
            if (i in group.axes) != (i + 1 in group.axes):
                fixed.add(i)
        return Domain([d if i in group.axes else 1 for i, d in enumerate(group.shape)], fixed)

    def wide_buffers(self) -> list[k.Buffer | Node]:
        """What has an element for each of a row: operands and results."""
        members = set(self.members)
        leaves = {n for m in self.members for n in m.inputs if n not in members}
        size = estimate(product(self.group.shape))
        return [*(n for n in leaves if estimate(n.type.size) == size), *(b for _, b in self.wide)]

    def _index(self, positions: Sequence[k.Expr]) -> Index:
        """The index of the element of the row at these positions."""
        shape = self.group.shape
        inner = self.domain.index(positions) if self.domain.runs else (k.Const(0),) * len(shape)
        outer = iter(self.kept)
        return tuple(
            inner[i] if i in self.group.axes else next(outer) for i in range(len(shape)))

    # --- the kernel -----------------------------------------------------------------------
    def layout(self, kept: Sequence[Node]) -> Layout:
        """For rows of which these values are kept at once."""
        pieces, width = self.walk.pieces, self.walk.width
        count = estimate(pieces)
        length = count * width
        if length * max(1, len(kept)) <= SHORT:
            team = min(WARP, power_of_two(-(-count // PIECES)))
        else:
            team = min(MOST_THREADS, max(2 * WARP, power_of_two(-(-length // EACH))))
        most = HELD if team < MOST_THREADS else HELD_OF_MANY
        if not isinstance(pieces, int):
            # A named size may well be larger than what is expected of it.
            slots = max(1, min(-(-ROOM * count // team), most // (2 * width * max(1, len(kept)))))
            return Layout(team, slots, "register")
        slots = self.walk.slots(team)
        if slots * width * max(1, len(kept)) <= most:
            return Layout(team, slots, "register")
        gpu = self.target.gpu
        assert gpu is not None
        fits = length * sum(n.dtype.itemsize for n in kept) <= gpu.shared_most - (1 << 11)
        return Layout(team, 0, "shared" if fits else None)

    def lower(self) -> LoweredKernel:
        """The kernel."""
        w, group = self.w, self.group
        spans = kept_values(group, self.members, self.level)
        layout = self.layout([s.node for s in alive(spans)])
        if layout.keep == "shared" and len(self.stages()) == 2 and not self.wide_at(3):
            # A maximum and a sum, for which nothing needs to be kept.
            layout = replace(layout, keep=None)
        kept = Kept(self.walk, spans if layout.keep else [])
        types = [accumulator(a.dtype) for a in sorted(group.anchors, key=self.level.__getitem__)]
        shared = self.memory(kept, layout) if layout.keep == "shared" else []
        rows = product(self.outer)
        with teams(w, rows, layout.team, types, shared) as team:
            self.kept = tuple(w.let("o", e) for e in unflatten(team.number, self.outer))
            self._row(team, layout, kept)
        return finish(group, w, self.outputs)

    def memory(self, kept: Kept, layout: Layout) -> list[k.Buffer]:
        """Where values are kept: a row of them in shared memory, a thread's in its registers."""
        pieces = self.walk.pieces if layout.keep == "shared" else layout.slots
        assert layout.keep is not None and isinstance(pieces, int)
        return kept.allocate(layout.keep, pieces)

    def _row(self, team: Team, layout: Layout, kept: Kept) -> None:
        """All passes; for rows that may be longer than there is room for, in two versions."""
        w, pieces = self.w, self.walk.pieces
        if isinstance(pieces, int):
            self._passes(team, layout, kept)
            return
        short = w.let("short", k.compare("le", k.expr(pieces), layout.slots * team.size))
        versions = (
            (short, layout, kept),
            (k.Call("not", (short,), short.dtype), replace(layout, slots=0, keep=None),
             Kept(self.walk, [])),
        )
        for condition, version, held in versions:
            before, parts = dict(w.bound), list(team.parts)
            with w.when(condition):
                self._passes(team, version, held)
            w.bound, team.parts = before, parts

    def _passes(self, team: Team, layout: Layout, kept: Kept) -> None:
        """All passes over a row, then what has one element for it."""
        if layout.keep == "register":
            for buffer in self.memory(kept, layout):
                self.w.write(k.Alloc(buffer))
        for p, pair in self.stages(online=layout.keep is None):
            if pair is not None:
                self._pair(team, p, pair)
            else:
                self._pass(team, layout, p, kept)
        self._store_row_values(team)

    def _pass(self, team: Team, layout: Layout, p: int, kept: Kept) -> None:
        """The reductions that rest on p - 1 others, and the wide values that rest on those."""
        anchors = [a for a in self.group.anchors if self.level[a] == p]
        stores = bool(self.wide_at(p))
        if not anchors and not stores:
            return
        sums = Sums(self.w, anchors, self.walk.width)
        fresh = kept.fresh(p)
        kept.begin(fresh, stores and team.inside is not None, team.size)

        def body(spot: Spot) -> None:
            kept.hold(spot)
            kept.save(spot, fresh)
            self.store_wide(p, spot)
            sums.accumulate(spot.lane, spot.index)
            kept.release(fresh)

        with team.guard() if stores else nullcontext():
            if layout.slots:
                self.walk.unrolled(team, layout.slots, body)
            else:
                self.walk.looped(team, body)
        kept.done(p)
        self.hold(sums.combined(team))

    def wide_at(self, p: int) -> list[tuple[Node, k.Buffer]]:
        """What pass p writes for each element."""
        return [(v, b) for v, b in self.wide if pass_of(v, self.level) == p]

    def stages(self, online: bool = True) -> list[tuple[int, Pair | None]]:
        """The passes by number; one that is a pair does the work of the next, too, if ``online``.
        """
        pieces = self.walk.pieces
        found: list[tuple[int, Pair | None]] = []
        p = 1
        while p <= self.passes + 1:
            pair = None
            if online and isinstance(pieces, int) and pieces and not self.wide_at(p + 1):
                pair = pair_at(self.group.anchors, self.level, p)
            found.append((p, pair))
            p += 1 if pair is None else 2
        return found

    def _pair(self, team: Team, p: int, pair: Pair) -> None:
        """One pass for a maximum and a sum of exponentials."""
        online = Online(self.w, pair, self.walk.width)
        self.walk.grouped(team, lambda pieces: self.take(online, p, pieces))
        self.hold_pair(pair, *online.combined(team))

    def take(self, online: Online, p: int, pieces: Pieces) -> None:
        """Go on with some pieces, of which the wide values of pass p are stored."""
        w = self.w
        held = w.alloc("held", online.dtype, pieces.count * self.walk.width, "register")

        def body(spot: Spot) -> None:
            self.store_wide(p, spot)
            w.write(k.Store(held, spot.own, w.value(online.pair.operand, spot.index)))

        self.walk.each(pieces, body)
        online.take(held)

    def store_wide(self, p: int, spot: Spot) -> None:
        """Write the wide values of pass p at an element."""
        w = self.w
        stores = self.wide_at(p)
        values = [w.let("v", w.value(v, spot.index)) for v, _ in stores]
        for (value, buffer), v in zip(stores, values, strict=True):
            w.write(k.Store(buffer, flat(spot.index, value.shape), v))

    def hold_pair(self, pair: Pair, top: k.Expr, total: k.Expr) -> None:
        """From here on, these are the maximum and the sum that belongs to it."""
        hold(self.w, pair.top, top, self.kept)
        hold(self.w, pair.total, self.w.let("r", settled_total(top, total)), self.kept)

    def hold(self, totals: Mapping[Node, k.Expr]) -> None:
        """From here on, the reductions are these."""
        for node, total in totals.items():
            hold(self.w, node, self.w.let("r", settled(node, total)), self.kept)

    def _store_row_values(self, team: Team) -> None:
        """Write the results that have one element per row."""
        w, wide = self.w, {v for v, _ in self.wide}
        narrow = [(v, b) for v, b in self.stores if v not in wide]
        if not narrow:
            return
        with team.guard(first_only=True):
            for value, buffer in narrow:
                index = align(self.kept, self.outer, value.shape)
                w.write(k.Store(buffer, flat(index, value.shape), w.value(value, index)))
