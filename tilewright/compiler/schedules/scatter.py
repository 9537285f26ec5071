"""Scatters: each thread owns a part of the result and brings to it, in order, what falls into it.

There are no atomics, and the result does not depend on the number of threads. Rows before the
indexed axis are parts of their own. Where they are few, ``put`` divides the indexed axis, of which
every range looks at all indices, if what an index brings is worth that; ``put_along``, whose
columns have indices of their own, divides the columns. Many single elements for few places are
combined in several copies of the result, each for a share of the indices; few are left to one
thread, because looking at an index costs as much as bringing an element.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.reduction import number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.build import reshape
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.indexing import identity
from tilewright.ir.sizes import Dim, ceil_div
from tilewright.ir.types import size_of

PARTS = 4
"""Parts to have work for several threads."""

LEAST_COLUMNS = 64
"""Elements of a row that a part takes at least: whole cache lines."""

LEAST_RANGE = 64
"""Places of the indexed axis that a part takes at least."""

WIDE = 64
"""Bytes that an index brings for which it may be looked at by several threads."""

DENSE = 4
"""Indices per place from which copies of the result are worth while."""

CHUNK = 1 << 14
"""Elements that a thread copies at a time."""


@dataclass(frozen=True)
class _Part:
    """What one iteration of the parallel loop owns: of one outer row the places from ``low`` to
    ``high`` of the indexed axis, and the columns from ``first`` to ``last`` of each.
    """

    row: k.Expr
    low: k.Expr
    high: k.Expr
    first: k.Expr
    last: k.Expr


def lower_scatter(group: Group, target: Target) -> LoweredKernel:
    """``put`` and ``put_along``."""
    return _Scatter(group, target).lower()


class _Scatter:
    """The state of a scatter kernel under construction: rows, the indexed axis, and columns."""

    def __init__(self, group: Group, target: Target) -> None:
        self.group, self.w = group, group.writer()
        self.node = node = group.anchors[0]
        (self.output,) = output_buffers(group)
        axis, shape = node.attrs.axis, node.shape
        self.along = node.op.name == "put_along"
        self.rows, self.size = size_of(shape[:axis]), shape[axis]
        self.columns = size_of(shape[axis + 1:])
        data, index, values = node.inputs
        self.count = index.shape[axis] if self.along else index.type.size
        self.data = reshape(data, (self.rows, self.size, self.columns))
        self.values = reshape(values, (self.rows, self.count, self.columns))
        self.index = reshape(index, self.values.shape if self.along else (self.count,))
        self.lanes = target.lanes(node.dtype.itemsize)
        self.copy: k.Expr | None = None
        # Most of a large result is not touched again.
        self.streaming = estimate(self.output.size) * node.dtype.itemsize > target.l2 * 2

    def lower(self) -> LoweredKernel:
        """The kernel."""
        blocks, ranges = self._division()
        parts = estimate(self.rows) * blocks * ranges
        if parts < PARTS and self._dense():
            return self._in_copies()
        w, size = self.w, estimate(self.output.size)
        apart = blocks > 1 or (parts < PARTS and size > CHUNK)
        if apart:
            offset = self._copy_all()
            w.write(k.Barrier())
        sizes = (self.rows, blocks, ranges)
        with w.loop("p", 0, size_of(sizes), "parallel") as p:
            row, block, share = (w.let("o", e) for e in unflatten(p, sizes))
            low, high = self._bounds("low", "high", share, ranges, self.size)
            first, last = self._bounds("first", "last", block, blocks, self.columns)
            part = _Part(row, low, high, first, last)
            if not apart:
                offset = self._copy_part(part)
            self._indices(part, k.Const(0), k.expr(self.count), ranges > 1)
        return finish(self.group, w, [self.output], inplace=[self.output], offset=offset)

    def _division(self) -> tuple[int, int]:
        """Blocks of columns, and ranges of the indexed axis."""
        columns = estimate(self.columns)
        limits = {"blocks": columns // LEAST_COLUMNS, "ranges": estimate(self.size) // LEAST_RANGE}
        if self.along or columns * self.node.dtype.itemsize < WIDE:
            limits["ranges"] = 1
        wanted, found = -(-PARTS // max(1, estimate(self.rows))), dict.fromkeys(limits, 1)
        for name in ("blocks", "ranges") if self.along else ("ranges", "blocks"):
            found[name] = max(1, min(wanted, limits[name]))
            wanted = -(-wanted // found[name])
        return found["blocks"], found["ranges"]

    def _copy_all(self) -> k.Expr:
        """Copy the data in the order of memory, which the parts do not keep or share alike.

        Returns the offset of its elements.
        """
        with self._chunks() as (first, last):
            if estimate(self.columns) < self.lanes:
                flat_data = reshape(self.data, (self.output.size,))
                with self.w.loop("i", first, last, "vector", width=self.lanes) as i:
                    return self._copy(flat_data, i, (i,))
            with self.w.loop("y", first, last) as y:
                row, place = unflatten(y, (self.rows, self.size))
                with self.w.loop("c", 0, self.columns, "vector", width=self.lanes) as c:
                    offset = k.add(k.mul(y, self.columns), c)
                    return self._copy(self.data, offset, (row, place, c))

    @contextmanager
    def _chunks(self) -> Iterator[tuple[k.Expr, k.Expr]]:
        """A parallel loop over the result, in chunks of places or, if these are narrow, elements;
        gives the first and the last of a chunk.
        """
        w, columns = self.w, estimate(self.columns)
        narrow = columns < self.lanes
        count = self.output.size if narrow else self.rows * self.size
        step = CHUNK if narrow else -(-CHUNK // columns)
        with w.loop("p", 0, ceil_div(count, step), "parallel") as p:
            first = w.let("first", k.mul(p, step))
            yield first, k.minimum(k.add(first, step), count)

    # --- copies of the result -------------------------------------------------------------
    def _dense(self) -> bool:
        """Whether there are many narrow values for few places, and their order does not matter."""
        if self.rows != 1 or self.node.attrs.mode == "set":
            return False
        sizes = (self.size, self.columns, self.count)
        return all(isinstance(d, int) for d in sizes) and (
            estimate(self.count) >= DENSE * estimate(self.size) > 0 < estimate(self.columns))

    def _in_copies(self) -> LoweredKernel:
        """Each part combines a share of the indices in a copy of its own; then all are joined."""
        w, mode, dtype = self.w, self.node.attrs.mode, self.node.dtype
        size = self.output.size
        copies = k.Buffer("copies", dtype, size * PARTS, "global", "workspace")
        # -0.0 changes nothing that it is added to, 0.0 would change -0.0.
        start = -0.0 if mode == "add" and dtype.is_float else identity(mode, dtype)
        result, self.output = self.output, copies
        with w.loop("p", 0, PARTS, "parallel") as p:
            with w.loop("i", 0, size, "vector", width=self.lanes) as i:
                w.write(k.Store(copies, k.add(k.mul(p, size), i), number(start, dtype)))
            first, last = self._bounds("start", "stop", p, PARTS, self.count)
            part = _Part(k.Const(0), k.Const(0), k.expr(self.size), k.Const(0),
                         k.expr(self.columns))
            self.copy = p
            self._indices(part, first, last, False)
        w.write(k.Barrier())
        self.output = result
        whole = reshape(self.data, (size,))
        with w.loop("p", 0, ceil_div(size, CHUNK), "parallel") as p:
            low = w.let("low", k.mul(p, CHUNK))
            high = k.minimum(k.add(low, CHUNK), size)
            with w.loop("i", low, high, "vector", width=self.lanes) as i:
                value = w.value(whole, (i,))
                for copy in range(PARTS):
                    part_of = k.Load(copies, k.add(i, k.mul(copy, size)))
                    value = k.Call(mode, (value, part_of), dtype)
                w.write(k.Store(result, i, value))
        nbytes = copies.size * dtype.itemsize
        return finish(self.group, w, [result], [(copies, nbytes)], [result], i)

    # --- parts ------------------------------------------------------------------------------
    def _bounds(
        self, first: str, second: str, number: k.Expr, count: int, size: Dim
    ) -> tuple[k.Expr, k.Expr]:
        """The start and end of one of ``count`` shares of ``size`` things."""
        low = self.w.let(first, k.floordiv(k.mul(number, size), count))
        return low, self.w.let(second, k.floordiv(k.mul(k.add(number, 1), size), count))

    def _offset(self, part: _Part, place: k.Expr, column: k.Expr) -> k.Expr:
        owner = part.row if self.copy is None else self.copy
        return flat((owner, place, column), self.data.shape)

    def _copy_part(self, part: _Part) -> k.Expr:
        """Copy the data of a part with all columns; returns the offset of its elements."""
        if self.columns == 1:
            with self.w.loop("i", part.low, part.high, "vector", width=self.lanes) as i:
                index = (part.row, i, k.Const(0))
                return self._copy(self.data, self._offset(part, i, k.Const(0)), index)
        with self.w.loop("y", part.low, part.high) as y:
            with self.w.loop("c", 0, self.columns, "vector", width=self.lanes) as c:
                return self._copy(self.data, self._offset(part, y, c), (part.row, y, c))

    def _copy(self, data: Node, offset: k.Expr, index: Index) -> k.Expr:
        value = self.w.value(data, index)
        self.w.write(k.Store(self.output, offset, value, None, self.streaming))
        return offset

    def _indices(self, part: _Part, first: k.Expr, last: k.Expr, ranged: bool) -> None:
        """Bring the values of the indices from ``first`` to ``last`` to their places."""
        with self.w.loop("j", first, last) as j:
            if self.along:
                self._elements(part, j, ranged)
            else:
                self._row(part, j, ranged)

    def _row(self, part: _Part, j: k.Expr, ranged: bool) -> None:
        """result[row, index[j], columns] takes values[row, j, columns]."""
        with self._place(part, (j,), ranged) as place:
            if self.columns == 1:
                self._combine(part, place, j, k.Const(0))
                return
            with self.w.loop("c", part.first, part.last, "vector", width=self.lanes) as c:
                self._combine(part, place, j, c)

    def _elements(self, part: _Part, j: k.Expr, ranged: bool) -> None:
        """result[row, index[row, j, c], c] takes values[row, j, c] for every column c."""
        with self.w.loop("c", part.first, part.last) as c:
            with self._place(part, (part.row, j, c), ranged) as place:
                self._combine(part, place, j, c)

    @contextmanager
    def _place(self, part: _Part, at: Index, ranged: bool) -> Iterator[k.Expr]:
        """The place that an index names, in a branch that is taken if it is the part's."""
        place, mine = self.w.indexed(self.index, at, self.size, None, self.node)
        if ranged:
            # What is inside of the range is inside of the axis.
            mine = k.both(k.compare("ge", place, part.low), k.compare("lt", place, part.high))
        if mine is None:
            yield place
            return
        with self.w.when(mine):
            yield place

    def _combine(self, part: _Part, place: k.Expr, j: k.Expr, column: k.Expr) -> None:
        """One value, or a vector of values of different columns, to its place."""
        mode = self.node.attrs.mode
        offset = self._offset(part, place, column)
        value = self.w.value(self.values, (part.row, j, column))
        if mode == "set":
            self.w.write(k.Store(self.output, offset, value))
        else:
            self.w.write(k.Accumulate(self.output, offset, mode, value))
