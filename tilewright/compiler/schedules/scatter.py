"""Scatters: each thread owns a part of the result and brings to it, in order, what falls into it.

There are no atomics, and the result does not depend on the number of threads. Rows before the
indexed axis are parts of their own. Where they are few, ``put`` divides the indexed axis, of which
every range looks at all indices, and ``put_along``, whose columns have indices of their own, the
columns; what is too short for that is divided the other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.build import reshape
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div
from tilewright.ir.types import size_of

PARTS = 4
"""Parts to have work for several threads."""

LEAST_COLUMNS = 64
"""Elements of a row that a part takes at least: whole cache lines."""

LEAST_RANGE = 64
"""Places of the indexed axis that a part takes at least."""

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
        # Most of a large result is not touched again.
        self.streaming = estimate(self.output.size) * node.dtype.itemsize > target.l2 * 2

    def lower(self) -> LoweredKernel:
        """The kernel."""
        w, (blocks, ranges) = self.w, self._division()
        if blocks > 1:
            offset = self._copy_all()
            w.write(k.Barrier())
        sizes = (self.rows, blocks, ranges)
        with w.loop("p", 0, size_of(sizes), "parallel") as p:
            row, block, share = (w.let("o", e) for e in unflatten(p, sizes))
            low, high = self._bounds("low", "high", share, ranges, self.size)
            first, last = self._bounds("first", "last", block, blocks, self.columns)
            part = _Part(row, low, high, first, last)
            if blocks == 1:
                offset = self._copy_part(part)
            with w.loop("j", 0, self.count) as j:
                if self.along:
                    self._elements(part, j, ranges > 1)
                else:
                    self._row(part, j, ranges > 1)
        return finish(self.group, w, [self.output], inplace=[self.output], offset=offset)

    def _division(self) -> tuple[int, int]:
        """Blocks of columns, and ranges of the indexed axis."""
        limits = {
            "blocks": estimate(self.columns) // LEAST_COLUMNS,
            "ranges": estimate(self.size) // LEAST_RANGE,
        }
        wanted, found = -(-PARTS // max(1, estimate(self.rows))), dict.fromkeys(limits, 1)
        for name in ("blocks", "ranges") if self.along else ("ranges", "blocks"):
            found[name] = max(1, min(wanted, limits[name]))
            wanted = -(-wanted // found[name])
        return found["blocks"], found["ranges"]

    def _copy_all(self) -> k.Expr:
        """Copy the data in the order of memory, which blocks of columns are not.

        Returns the offset of its elements.
        """
        w, count, step = self.w, self.rows * self.size, -(-CHUNK // estimate(self.columns))
        with w.loop("p", 0, ceil_div(count, step), "parallel") as p:
            first = w.let("first", k.mul(p, step))
            with w.loop("y", first, k.minimum(k.add(first, step), count)) as y:
                row, place = unflatten(y, (self.rows, self.size))
                with w.loop("c", 0, self.columns, "vector", width=self.lanes) as c:
                    return self._copy(k.add(k.mul(y, self.columns), c), (row, place, c))

    def _bounds(
        self, first: str, second: str, number: k.Expr, count: int, size: Dim
    ) -> tuple[k.Expr, k.Expr]:
        """The start and end of one of ``count`` shares of ``size`` things."""
        low = self.w.let(first, k.floordiv(k.mul(number, size), count))
        return low, self.w.let(second, k.floordiv(k.mul(k.add(number, 1), size), count))

    def _offset(self, part: _Part, place: k.Expr, column: k.Expr) -> k.Expr:
        return flat((part.row, place, column), self.data.shape)

    def _copy_part(self, part: _Part) -> k.Expr:
        """Copy the data of a part with all columns; returns the offset of its elements."""
        if self.columns == 1:
            with self.w.loop("i", part.low, part.high, "vector", width=self.lanes) as i:
                return self._copy(self._offset(part, i, k.Const(0)), (part.row, i, k.Const(0)))
        with self.w.loop("y", part.low, part.high) as y:
            with self.w.loop("c", 0, self.columns, "vector", width=self.lanes) as c:
                return self._copy(self._offset(part, y, c), (part.row, y, c))

    def _copy(self, offset: k.Expr, index: Index) -> k.Expr:
        value = self.w.value(self.data, index)
        self.w.write(k.Store(self.output, offset, value, None, self.streaming))
        return offset

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
