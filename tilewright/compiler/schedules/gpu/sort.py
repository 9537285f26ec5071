"""Sorts on a GPU of rows that fit into a block's memory: a block sorts one, or several short ones
(``merging.py``). Longer rows are in ``long_sort.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import unflatten
from tilewright.compiler.schedules.gpu.merging import Tile, choose
from tilewright.compiler.schedules.gpu.team import power_of_two
from tilewright.compiler.schedules.group import Group, finish
from tilewright.compiler.schedules.sort import Sort
from tilewright.compiler.schedules.sort_keys import marked, to_key
from tilewright.ir import loops as k
from tilewright.ir.sizes import Dim, ceil_div, product
from tilewright.ir.types import u32

EACH = 8
"""Elements of a thread."""

THREADS = 128
"""Threads of a block of short rows."""

MOST = 1 << 15
"""Bytes of keys and positions of a tile."""


class TileSort(Sort):
    """The state of a sort kernel under construction: rows that fit into a tile."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        nbytes = self.kind.itemsize + u32.itemsize
        self.most, self.each = MOST // power_of_two(nbytes), EACH
        self.rows = product(self.rest)
        # Off the innermost axis neighbouring threads take neighbouring rows.
        self.across = any(d != 1 for d in self.rest[self.axis:])

    # --- a tile ---------------------------------------------------------------------------
    @contextmanager
    def blocks(self, count: Dim, threads: int, each: int) -> Iterator[tuple[k.Expr, Tile]]:
        """Blocks with a tile each."""
        w = self.w
        with w.loop("b", 0, count, "block") as b:
            tile = Tile(w, self.kind, self.with_places, threads, each)
            with w.loop("t", 0, threads, "thread") as t:
                tile.thread = t
                yield b, tile

    def read(
        self, tile: Tile, at: k.Expr, row: k.Expr, position: k.Expr, inside: k.Expr | None
    ) -> None:
        """Bring an element to a place of the tile; if it is not inside, what stands last."""
        w = self.w
        index = [w.let("o", e) for e in unflatten(row, self.rest)]
        x = w.let("x", w.value(self.x, self.index(index, position)))
        key = to_key(x, self.descending)
        if inside is not None:
            key = choose(inside, key, self.last())
        tile.put(at, key, marked(x, position) if self.with_places else None)

    def last(self) -> k.Expr:
        """A key that no other is larger than."""
        return k.Const((1 << self.kind.bits) - 1, self.kind)

    def write(self, row: k.Expr, key: k.Expr, place: k.Expr | None, r: k.Expr) -> None:
        """Store place ``r`` of a row's results."""
        w = self.w
        index = [w.let("o", e) for e in unflatten(row, self.rest)]
        self.element(index, w.let("key", key), None if place is None else w.let("place", place), r)

    # --- the kernel -----------------------------------------------------------------------
    def lower(self) -> LoweredKernel:
        """The kernel: rows at multiples of a power of two."""
        w, count = self.w, self.count
        assert isinstance(count, int)
        length = power_of_two(max(1, count))
        each = min(self.each, length)
        threads = max(THREADS, length // each)
        together = threads * each // length
        with self.blocks(ceil_div(self.rows, together), threads, each) as (b, tile):
            first = w.let("first", k.mul(b, together))
            with w.loop("e", 0, each, "unroll") as e:
                local, position = self._split(tile.spread(e), together, length)
                at = w.let("at", k.add(k.mul(local, length), position))
                row = w.let("row", k.minimum(k.add(first, local), k.sub(self.rows, 1)))
                inside = None
                if count < length:
                    inside = w.let("inside", k.compare("lt", position, count))
                    position = w.let("i", k.minimum(position, count - 1))
                self.read(tile, at, row, position, inside)
            tile.sort(length)
            self._store(tile, first, together, length)
        return finish(self.group, w, self.outputs)

    def _split(self, at: k.Expr, rows: int, length: Dim) -> tuple[k.Expr, k.Expr]:
        """The row, of ``rows``, and the position of the element number ``at``."""
        w = self.w
        if self.across:
            return w.let("local", k.mod(at, rows)), w.let("i", k.floordiv(at, rows))
        return w.let("local", k.floordiv(at, length)), w.let("i", k.mod(at, length))

    def _store(self, tile: Tile, first: k.Expr, together: int, length: int) -> None:
        """Store what is wanted of the rows of a tile."""
        w, wanted = self.w, self.stop - self.start
        with w.loop("q", tile.thread, k.expr(together * wanted), step=tile.threads) as q:
            local, r = self._split(q, together, wanted)
            row = w.let("row", k.add(first, local))
            with w.when(k.compare("lt", row, k.expr(self.rows))):
                at = w.let("at", k.add(k.add(k.mul(local, length), r), k.expr(self.start)))
                self.write(row, tile.key(at), tile.place(at), r)
