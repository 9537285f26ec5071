"""Sorts on a GPU of rows that are longer than a block's memory: tiles, then merges of runs.

The first launch sorts tiles of each row. Each further one merges two runs each, a block for each
tile of what comes out: two of its warps find by a search in 32 places at once which parts of the
runs these are, all threads merge them. Where the first places alone are wanted, as in a selection,
no run is longer than these, so that all merges together read and write what the first does.

How many launches a row of a named length needs is known before the run: the others have no blocks.
They are two entries in turn, which find the length of the runs in memory.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.gpu.merging import Run, Tile, choose, search
from tilewright.compiler.schedules.gpu.sort import TileSort
from tilewright.compiler.schedules.gpu.team import WARP, power_of_two
from tilewright.compiler.schedules.group import Group, finish
from tilewright.compiler.schedules.sort import LONGEST
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div, smallest
from tilewright.ir.types import DType, i64, u32

LEAST = 1 << 9
"""Elements of a tile of rows whose length is named, at least: two warps have as many."""


def lower_sort(group: Group, target: Target) -> LoweredKernel:
    """``sort`` and ``argsort`` of the same rows, and what is computed from them at each place."""
    sort = TileSort(group)
    if isinstance(sort.count, int) and sort.count <= sort.most:
        return sort.lower()
    return LongSort(group).lower()


@dataclass(frozen=True)
class Half:
    """Runs of all rows.

    width  how long they are, where the length of a row is named
    """

    keys: k.Buffer
    places: k.Buffer | None
    width: k.Buffer | None


class LongSort(TileSort):
    """The state of such a kernel under construction.

    size  elements of a tile
    cap   elements of a run that anybody asks for
    """

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self.fixed = isinstance(self.count, int)
        self.size = self.most
        if not self.fixed:
            self.size = min(self.most, max(LEAST, power_of_two(estimate(self.count))))
        self.cap = self.stop if isinstance(self.stop, int) else self.count
        self.threads = self.size // self.each
        self.halves: list[Half] = []

    def lower(self) -> LoweredKernel:
        """The kernel."""
        w, count = self.w, self.count
        widths = []
        width = self.size
        while width < (count if isinstance(count, int) else LONGEST):
            widths.append(width)
            width *= 2
        for _ in range(min(2, len(widths))):
            self._half()
        self._sort_tiles()
        for number, width in enumerate(widths):
            w.write(k.Barrier())
            last = self.fixed and number == len(widths) - 1
            self._merge(number, width, last)
        if not self.fixed:
            w.write(k.Barrier())
            self._copy()
        return finish(self.group, w, self.outputs, self.shared)

    def _half(self) -> None:
        """Memory for the runs of all rows."""
        def made(prefix: str, dtype: DType, size: Dim) -> k.Buffer:
            buffer = k.Buffer(self.w.name(prefix), dtype, size, "global", "workspace")
            self.shared.append((buffer, size * dtype.itemsize))
            return buffer

        size = self.rows * self.count
        self.halves.append(Half(
            made("keys", self.kind, size), made("places", u32, size) if self.with_places else None,
            None if self.fixed else made("width", i64, 1)))

    # --- the first launch -----------------------------------------------------------------
    def _sort_tiles(self) -> None:
        """Sort the tiles of all rows."""
        w, count, half = self.w, self.count, self.halves[0]
        tiles = ceil_div(count, self.size)
        with self.blocks(self.rows * tiles, self.threads, self.each) as (b, tile):
            number, row = (w.let("o", e) for e in unflatten(b, (tiles, self.rows)))
            first = w.let("first", k.mul(number, self.size))
            with w.loop("e", 0, self.each, "unroll") as e:
                at = tile.spread(e)
                position = w.let("i", k.add(first, at))
                inside = w.let("inside", k.compare("lt", position, k.expr(count)))
                position = w.let("i", k.minimum(position, k.sub(count, 1)))
                self.read(tile, at, row, position, inside)
            tile.sort(self.size)
            left = k.minimum(k.sub(count, first), k.expr(self.cap))
            self._keep(tile, half, k.add(k.mul(row, count), first), w.let("left", left))
            if not self.fixed:
                # Where nothing is merged, the other half has no runs.
                self._set(b, tile, half, self.size)
                self._set(b, tile, self.halves[1], 0)

    def _set(self, b: k.Expr, tile: Tile, half: Half, width: k.ExprLike) -> None:
        """Say how long the runs of a half are."""
        w = self.w
        alone = k.both(k.compare("eq", b, 0), k.compare("eq", tile.thread, 0))
        assert alone is not None and half.width is not None
        with w.when(alone):
            w.write(k.Store(half.width, k.Const(0), k.expr(width)))

    def _keep(self, tile: Tile, half: Half, first: k.Expr, length: k.Expr) -> None:
        """Store the first ``length`` elements of a tile from ``first`` on."""
        w = self.w
        with w.loop("e", 0, self.each, "unroll") as e:
            at = tile.spread(e)
            with w.when(k.compare("lt", at, length)):
                to, place = w.let("to", k.add(first, at)), tile.place(at)
                w.write(k.Store(half.keys, to, tile.key(at)))
                if half.places is not None and place is not None:
                    w.write(k.Store(half.places, to, place))

    # --- merges ---------------------------------------------------------------------------
    def _grid(self, width: int, last: bool) -> tuple[Dim, int]:
        """Blocks for each row that merge runs of ``width`` elements, and the number of the first
        tile of the last launch.
        """
        count, cap, size = self.count, self.cap, self.size
        if isinstance(count, int):
            assert isinstance(cap, int)
            pairs = -(-count // (2 * width))
            each = -(-min(2 * width, cap) // size)
            rest = min(count - (pairs - 1) * 2 * width, cap)
            first = self.start // size if last and isinstance(self.start, int) else 0
            return (pairs - 1) * each - (-rest // size) - first, first
        tiles = ceil_div(count, size)
        if isinstance(cap, int):
            tiles = ceil_div(count, 2 * width) * -(-min(2 * width, cap) // size)
        # Nothing is to do where there is one run already.
        return tiles * smallest(1, (count - 1) // width), 0

    def _merge(self, number: int, width: int, last: bool) -> None:
        """Merge pairs of runs of ``width`` elements from one half into the other, or, at last, into
        the results.
        """
        w, size = self.w, self.size
        source = self.halves[number % 2]
        blocks, before = self._grid(width, last)
        with self.blocks(self.rows * blocks, self.threads, self.each) as (b, tile):
            block, row = (w.let("o", e) for e in unflatten(b, (blocks, self.rows)))
            known: k.Expr = k.Const(width)
            if source.width is not None:
                known = w.let("width", k.Load(source.width, k.Const(0)))
            left, right, first, end = self._runs(k.add(block, before), row, known)
            length = w.let("length", k.sub(end, first))
            parts = self._bring(tile, source, (left, right), (first, end), width)
            tile.merge(*parts, size.bit_length())
            w.write(k.Barrier())
            if last:
                self._results(tile, row, first, length)
                return
            target = self.halves[1 - number % 2]
            self._keep(tile, target, k.add(left.first, first), length)
            if target.width is not None:
                self._set(b, tile, target, k.mul(known, 2))

    def _runs(
        self, block: k.Expr, row: k.Expr, width: k.Expr
    ) -> tuple[Run, Run, k.Expr, k.Expr]:
        """Two runs in memory, and which of their elements, from where to where, are the block's."""
        w, count, size = self.w, self.count, self.size
        both = w.let("both", k.mul(width, 2))
        each = k.floordiv(k.add(k.minimum(both, k.expr(self.cap)), size - 1), size)
        if k.const_int(each) is None:
            each = w.let("each", each)
        pair = w.let("pair", k.Call("floordiv", (block, each), i64))
        begin = w.let("begin", k.mul(pair, both))
        rest, origin = k.sub(count, begin), k.add(k.mul(row, count), begin)
        cap = k.expr(self.cap)
        left = Run(
            w.let("left", origin), w.let("n", k.minimum(k.minimum(width, rest), cap)))
        further = k.Call("max", (k.sub(rest, width), k.Const(0)), i64)
        right = Run(
            w.let("right", k.add(origin, width)),
            w.let("n", k.minimum(k.minimum(width, further), cap)))
        total = w.let("total", k.minimum(k.add(left.length, right.length), cap))
        first = k.mul(k.sub(block, k.mul(pair, each)), size)
        first = w.let("first", k.minimum(first, total))
        return left, right, first, w.let("end", k.minimum(k.add(first, size), total))

    def _bring(
        self, tile: Tile, source: Half, runs: tuple[Run, Run], bounds: tuple[k.Expr, k.Expr],
        width: int,
    ) -> tuple[Run, Run]:
        """Bring the parts of two runs that are the block's into its tile; where they are there."""
        w, (left, right), (first, end) = self.w, runs, bounds
        ends = self._parts(tile, source, runs, bounds, width)
        own = w.let("own", k.sub(ends[1], ends[0]))
        from_left = w.let("at", k.add(left.first, ends[0]))
        from_right = w.let("at", k.sub(k.sub(k.add(right.first, first), ends[0]), own))
        with w.loop("e", 0, self.each, "unroll") as e:
            at = tile.spread(e)
            here = choose(k.compare("lt", at, own), from_left, from_right)
            where = w.let("where", k.add(here, at))
            inside = w.let("inside", k.compare("lt", at, k.sub(end, first)))
            place = None
            if source.places is not None:
                place = w.let("place", k.Load(source.places, where, inside))
            key = w.let("key", k.Load(source.keys, where, inside, self.last()))
            tile.put(at, key, place)
        w.write(k.Barrier())
        return Run(k.Const(0), own), Run(own, w.let("n", k.sub(self.size, own)))

    def _parts(
        self, tile: Tile, source: Half, runs: tuple[Run, Run], bounds: tuple[k.Expr, k.Expr],
        width: int,
    ) -> list[k.Expr]:
        """How many elements of the left run come before the block's, and how many up to their end:
        a warp looks for each.
        """
        w = self.w
        # A named length is anything: 32 ** 6 elements are as many as a row may have.
        levels = 6 if not self.fixed else -(-(width - 1).bit_length() // 5)
        with w.when(k.compare("lt", tile.thread, 2 * WARP)):
            warp = w.let("warp", k.floordiv(tile.thread, WARP))
            lane = w.let("lane", k.mod(tile.thread, WARP))
            taken = w.let("taken", choose(k.compare("eq", warp, 0), *bounds))
            found = search(w, source.keys, *runs, taken, lane, levels)
            with w.when(k.compare("eq", lane, 0)):
                w.write(k.Store(tile.ends, warp, found))
        w.write(k.Barrier())
        return [w.let("part", k.Load(tile.ends, k.Const(i))) for i in range(2)]

    # --- results --------------------------------------------------------------------------
    def _results(self, tile: Tile, row: k.Expr, first: k.Expr, length: k.Expr) -> None:
        """Store what is wanted of the last merge."""
        w, start, stop = self.w, self.start, self.stop
        with w.loop("q", tile.thread, length, step=tile.threads) as q:
            r = w.let("r", k.add(first, q))
            wanted: k.Expr | None = None
            if start != 0:
                wanted = k.compare("ge", r, k.expr(start))
            if stop != self.cap:
                wanted = k.both(wanted, k.compare("lt", r, k.expr(stop)))
            with w.when(wanted) if wanted is not None else nullcontext():
                self.write(row, tile.key(q), tile.place(q), k.sub(r, start))

    def _copy(self) -> None:
        """Store what is wanted of the half whose runs are the longer ones."""
        w, wanted = self.w, self.stop - self.start
        sizes = (wanted, self.rows) if self.across else (self.rows, wanted)
        with w.loop("p", 0, self.rows * wanted, "parallel") as p:
            one, other = (w.let("o", e) for e in unflatten(p, sizes))
            row, r = (other, one) if self.across else (one, other)
            at = w.let("at", k.add(k.add(k.mul(row, self.count), r), k.expr(self.start)))
            widths = [k.Load(h.width, k.Const(0)) for h in self.halves if h.width is not None]
            first = w.let("first", k.compare("gt", *widths))
            second = w.let("second", k.Call("not", (first,), first.dtype))

            def found(*buffers: k.Buffer) -> k.Expr:
                masks = zip(buffers, (first, second), strict=True)
                return choose(first, *(w.let("x", k.Load(b, at, m)) for b, m in masks))

            places = [h.places for h in self.halves if h.places is not None]
            place = found(*places) if places else None
            self.write(row, found(*(h.keys for h in self.halves)), place, r)
