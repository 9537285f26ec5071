"""Pointwise kernels: every element of the results from the elements at its place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, unflatten
from tilewright.compiler.schedules.contraction_shape import unit_axis
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, flops, output_buffers
from tilewright.compiler.schedules.reduction import hold
from tilewright.compiler.schedules.regions import (
    MOST_REGIONS,
    Asked,
    Places,
    Region,
    regions_of,
)
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div, product, total

CHUNK = 16384
"""Elements per share of a flat loop: small enough to balance, large enough to stream."""

SHARES = 32
"""Shares of a kernel in regions at least, for balance."""

FEW = 8
"""Shares that are too few for balance."""

LEAST = 256
"""Elements of a row that are not worth sharing."""

TILE = 128
"""Rows and columns of a tile, where an operand is transposed: its lines fit into L1."""


def lower_pointwise(group: Group, target: Target) -> LoweredKernel:
    """Merge axes, share the outer ones among the threads, vectorise the innermost."""
    return _Pointwise(group, target).lower()


class _Pointwise:
    """The state of a pointwise kernel under construction.

    places   what is known of the loop variables
    alone    operands of which an element reads nothing but its own place
    upright  vectors are along another axis than the innermost
    """

    def __init__(self, group: Group, target: Target) -> None:
        self.group, self.w = group, group.writer()
        w, values = self.w, [value for value, _ in group.stores]
        self.outputs = output_buffers(group)
        fixed = fixed_boundaries(values, w.is_leaf, lambda n: False)
        self.domain = Domain(group.shape, fixed)
        width = target.lanes(min(v.dtype.itemsize for v in values))
        floats = any(v.dtype.is_float for v in values)
        self.width = min(width, target.lanes(4)) if floats else width
        # Two vectors in flight hide the latency of long expressions, given the registers for them.
        elements = estimate(total(v.type.size for v in values))
        heavy = estimate(flops(group.members(w))) > 24 * elements
        self.interleave = 1 if heavy and target.registers < 32 else 2
        size = total(b.size * b.dtype.itemsize for b in self.outputs)
        self.streaming = estimate(size) > target.l2 * 2
        self.offset: k.Expr = k.Const(0)
        self.places = Places()
        self.alone: list[Node] = []
        self.upright = False

    def lower(self) -> LoweredKernel:
        """The kernel."""
        *outer, inner = self.domain.extents or [1]
        across = axis_across(self.w, self.group, self.domain)
        cut = {} if across is not None else self._cut()
        if cut:
            self._in_regions(cut)
        elif not outer:
            self._flat(inner)
        elif across is not None:
            self._tiles(outer, inner, across)
        else:
            with self.w.loop("p", 0, product(outer), "parallel") as p:
                place = [self.w.let("o", e) for e in unflatten(p, outer)]
                self._vectors(place, 0, inner)
        made = finish(
            self.group, self.w, self.outputs, inplace=self.outputs, offset=self.offset)
        return made if not cut else replace(made, inplace=self._inplace(made))

    def _index(self, positions: list[k.Expr]) -> Index:
        zeros: Index = (k.Const(0),) * len(self.group.shape)
        return self.domain.index(positions) if self.domain.runs else zeros

    def _element(self, index: Index) -> None:
        """Store every value of the group at ``index``."""
        self.offset = store_all(self.group, self.w, self.outputs, index, self.streaming)

    def _vectors(
        self, place: list[k.Expr], start: k.ExprLike, stop: k.ExprLike,
        region: Region | None = None,
    ) -> None:
        """A row of vectors along the innermost axis, within a region of it."""
        with self.w.loop(
            "i", start, stop, "vector", width=self.width, interleave=self.interleave
        ) as i:
            if region is not None:
                self.places.of[i.name] = region.places
            self._element(self._index([*place, i]))

    def _flat(self, size: Dim) -> None:
        """One axis, in chunks."""
        w, chunks = self.w, ceil_div(size, CHUNK) or 1
        with w.loop("p", 0, chunks, "parallel") as p:
            if chunks == 1:
                self._vectors([], 0, size)
            else:
                start = k.mul(p, CHUNK)
                self._vectors([], start, k.minimum(k.add(start, CHUNK), size))

    def _cut(self) -> dict[int, list[Region]]:
        """The merged axes in whose regions pads and concats are known, and the regions."""
        members = self.group.members(self.w)
        if not any(n.op.name in ("pad", "concat") for n in members):
            return {}
        extents = self.domain.extents
        names = [f"axis{i}" for i in range(len(extents))]
        w, found = self.group.writer(), Asked()
        w.settle = found.settle
        with w.loop("p", 0, 1, "parallel"):
            index = self._index([k.Var(name) for name in names])
            offset = store_all(self.group, w, self.outputs, index)
        self.alone = [n for n, buffer in w.inputs.items() if w.offsets.get(buffer) == {offset}]
        cut: dict[int, list[Region]] = {}
        copies = 1
        for axis, (name, size) in enumerate(zip(names, extents, strict=True)):
            regions = regions_of(found.of(name), name, size) if isinstance(size, int) else None
            if regions is None or copies * len(regions) > MOST_REGIONS:
                continue
            if axis == len(names) - 1:
                if any(r.step > 1 for r in regions):
                    continue
                if any(r.count < self.width for r in regions):
                    whole = [d for i, d in enumerate(extents[:-1]) if i not in cut]
                    short = max(r.count for r in regions) < self.width
                    if not short or not whole or estimate(whole[-1]) < self.width:
                        continue
                    self.upright = True
            cut[axis] = regions
            copies *= len(regions)
        return cut

    def _inplace(self, made: LoweredKernel) -> tuple[tuple[int, int], ...]:
        """The results and the operands of which nothing is read but an element's own place."""
        params = made.kernel.params
        operands = [self.w.inputs[n] for n in self.alone if n in self.w.inputs]
        return tuple(
            (params.index(out), params.index(b)) for out in self.outputs for b in operands
            if b.dtype.itemsize == out.dtype.itemsize and b.size == out.size)

    def _in_regions(self, cut: dict[int, list[Region]]) -> None:
        """One region after the other, of all axes that have some."""
        self.w.settle = self.places.settle
        *outer, inner = self.domain.extents
        last = len(outer)
        whole = [d for axis, d in enumerate(outer) if axis not in cut]
        length = inner if last in cut else share_of(inner, product(whole))
        boxes = [dict(zip(cut, box, strict=True)) for box in itertools.product(*cut.values())]
        if self.upright or estimate(product(whole) * ceil_div(inner, length)) >= FEW:
            self._across(boxes, whole, length)
            return
        for box in boxes:
            row = box[last].count if last in box else inner
            size = share_of(row, product(self._sizes(box)))
            with self._shares([*self._sizes(box), ceil_div(row, size)]) as (*place, at):
                for axis, region in box.items():
                    if axis != last:
                        r = k.add(k.mul(place[axis], region.step), region.start)
                        place[axis] = self._known(self.w.let("r", r), region)
                self._row(place, box.get(last), self._span(at, size, row))

    def _sizes(self, box: dict[int, Region]) -> list[Dim]:
        """How many places there are in a box along all axes but the innermost."""
        outer = self.domain.extents[:-1]
        return [box[axis].count if axis in box else d for axis, d in enumerate(outer)]

    @contextmanager
    def _shares(self, sizes: list[Dim]) -> Iterator[list[k.Expr]]:
        """A loop that the threads share, over all places of these axes."""
        with self.w.loop("p", 0, product(sizes), "parallel") as p:
            yield [self.w.let("o", e) for e in unflatten(p, sizes)]

    def _across(self, boxes: list[dict[int, Region]], whole: list[Dim], length: Dim) -> None:
        """The shares are of the axes that are whole: each goes through all boxes.

        Of short rows it takes several at a time, for whole cache lines in each box. Parts of the
        innermost axis that are shorter than a vector are written by vectors along another.
        """
        *outer, inner = self.domain.extents
        rows = TILE if self.upright else rows_of(inner, whole)
        tall = [*whole[:-1], ceil_div(whole[-1], rows)] if rows > 1 else whole
        with self._shares([*tall, ceil_div(inner, length)]) as (*place, at):
            span = self._span(at, length, inner)
            block = self._span(place[-1], rows, whole[-1]) if rows > 1 else None
            for box in boxes:
                with ExitStack() as loops:
                    along = {axis: self._along(r, loops) for axis, r in box.items()
                             if self.upright or axis < len(outer)}
                    rest = list(place)
                    if block is not None:
                        rest[-1] = loops.enter_context(self._down(block))
                    free = iter(rest)
                    here = [along[i] if i in along else next(free) for i in range(len(outer))]
                    if self.upright:
                        self._element(self._index([*here, along[len(outer)]]))
                        continue
                    region = box.get(len(outer))
                    whole_row = (k.Const(0), k.expr(region.count)) if region else span
                    self._row(here, region, whole_row)

    def _down(self, rows: tuple[k.Expr, k.Expr]) -> AbstractContextManager[k.Var]:
        """A loop over several rows; the vectors are along it if they are not along the rows."""
        if not self.upright:
            return self.w.loop("y", *rows)
        return self.w.loop("y", *rows, "vector", width=self.width, interleave=self.interleave)

    def _along(self, region: Region, loops: ExitStack) -> k.Expr:
        """A loop over a region of an outer axis, or its only place."""
        if region.count == 1:
            return k.Const(region.start)
        loop = self.w.loop("r", region.start, region.stop, step=region.step)
        return self._known(loops.enter_context(loop), region)

    def _known(self, position: k.Expr, region: Region) -> k.Expr:
        """A position, known to be in a region."""
        if isinstance(position, k.Var):
            self.places.of[position.name] = region.places
        return position

    def _row(
        self, place: list[k.Expr], region: Region | None, span: tuple[k.ExprLike, k.ExprLike]
    ) -> None:
        """Vectors along a span of the innermost axis, or of a region of it."""
        first = 0 if region is None else region.start
        self._vectors(place, k.add(span[0], first), k.add(span[1], first), region)

    def _span(self, at: k.Expr, length: Dim, size: Dim) -> tuple[k.Expr, k.Expr]:
        """The share ``at`` of a row: where it starts and stops."""
        if length == size:
            return k.Const(0), k.expr(size)
        low = self.w.let("low", k.mul(at, length))
        return low, self.w.let("high", k.minimum(k.add(low, length), size))

    def _tiles(self, outer: list[Dim], inner: Dim, across: int) -> None:
        """Square tiles over the innermost axis and the one along which an operand is contiguous."""
        w = self.w
        tiles = ceil_div(outer[across], TILE), ceil_div(inner, TILE)
        sizes = [*outer[:across], tiles[0], *outer[across + 1:], tiles[1]]
        with w.loop("p", 0, product(sizes), "parallel") as p:
            place = [w.let("o", e) for e in unflatten(p, sizes)]
            low, start = w.let("low", k.mul(place[across], TILE)), k.mul(place.pop(), TILE)
            high = k.minimum(k.add(low, TILE), outer[across])
            stop = w.let("stop", k.minimum(k.add(start, TILE), inner))

            def at(y: k.Expr) -> list[k.Expr]:
                return [*place[:across], y, *place[across + 1:]]

            def rows() -> None:
                with w.loop("y", low, high) as y:
                    self._vectors(at(y), start, stop)

            turned = _squares(w, self.group, self.width)
            if not turned:
                rows()
                return
            tall = k.compare("eq", k.sub(high, low), TILE)
            wide = k.compare("eq", k.sub(stop, start), TILE)
            whole = w.let("whole", k.Call("and", (tall, wide), tall.dtype))
            with w.when(whole):
                _square_tile(
                    w, turned, self.width, (low, high), (start, stop),
                    lambda y, x: self._index([*at(y), x]), self._element)
            with w.when(k.Call("not", (whole,), whole.dtype)):
                rows()


def share_of(inner: Dim, rows: Dim) -> Dim:
    """How much of a row a thread takes at a time, where so many rows are all that can be shared."""
    if not isinstance(rows, int) or rows >= SHARES:
        return inner
    if not isinstance(inner, int):
        return CHUNK
    pieces = min(ceil_div(SHARES, max(rows, 1)), ceil_div(inner, LEAST))
    return min(inner, ceil_div(ceil_div(inner, pieces), LEAST) * LEAST)


def rows_of(inner: Dim, whole: list[Dim]) -> int:
    """How many rows of a last whole axis are taken together."""
    if not whole or not isinstance(inner, int):
        return 1
    rows = LEAST // max(inner, 1)
    return rows if rows > 1 and estimate(product(whole)) >= rows * SHARES else 1


def axis_across(w: Writer, group: Group, domain: Domain) -> int | None:
    """The merged axis along which a transposed operand is contiguous, if it is not the innermost.

    Vectors of such an operand are gathered; in square tiles its cache lines are read once.
    """
    for node in group.members(w):
        if node.op.name == "transpose" and node.shape == group.shape:
            axis = unit_axis(node, w.is_leaf)
            for number, run in enumerate(domain.runs[:-1]):
                if axis in run:
                    return number
    return None


def _squares(w: Writer, group: Group, width: int) -> list[Node]:
    """The transposes to be read in squares of vectors, if the group is small enough to unroll."""
    members = group.members(w)
    turned = [
        n for n in members if n.op.name == "transpose" and n.shape == group.shape
        and w.is_leaf(n.inputs[0]) and n.dtype.itemsize >= 4
    ]
    cheap = sum(n.op.flops for n in members if n.op.kind == "elementwise") <= 8
    return turned if cheap and 1 < width <= 16 and len(turned) == 1 else []


def _square_tile(
    w: Writer, turned: list[Node], width: int, rows: tuple[k.Expr, k.Expr],
    columns: tuple[k.Expr, k.Expr], index: Callable[[k.Expr, k.Expr], Index],
    element: Callable[[Index], None],
) -> None:
    """A tile by squares: transposed operands are read along their rows and turned in registers."""
    with w.loop("y", *rows, step=width) as y, w.loop("x", *columns, step=width) as x:
        squares = {n: w.alloc("square", n.dtype, width * width, "register") for n in turned}
        for node, square in squares.items():
            with w.loop("n", 0, width, "unroll") as n:
                with w.loop("v", 0, width, "vector", width=width) as v:
                    value = w.value(node, index(k.add(y, v), k.add(x, n)))
                    w.write(k.Store(square, k.add(k.mul(n, width), v), value))
        with w.loop("u", 0, width, "unroll") as u:
            with w.loop("v", 0, width, "vector", width=width) as v:
                at = index(k.add(y, u), k.add(x, v))
                for node, square in squares.items():
                    hold(w, node, k.Load(square, k.add(k.mul(v, width), u)), at)
                element(at)
        for node in turned:
            w.bound.pop(node)


def store_all(
    group: Group, w: Writer, outputs: list[k.Buffer], index: Index, streaming: bool = False
) -> k.Expr:
    """Store every value of the group at ``index``; returns the offset."""
    offset: k.Expr = k.Const(0)
    values = [w.value(value, index) for value, _ in group.stores]
    if len(values) > 1:
        # A result may share memory with an operand: everything is read before anything is written.
        values = [w.let("v", value) for value in values]
    for (node, _), buffer, value in zip(group.stores, outputs, values, strict=True):
        offset = flat(index, node.shape)
        w.write(k.Store(buffer, offset, value, None, streaming))
    return offset
