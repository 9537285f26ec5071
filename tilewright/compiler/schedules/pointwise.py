"""Pointwise kernels: every element of the results from the elements at its place."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, unflatten
from tilewright.compiler.schedules.contraction_shape import unit_axis
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, flops, output_buffers
from tilewright.compiler.schedules.reduction import hold
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, ceil_div, product, total

CHUNK = 16384
"""Elements per share of a flat loop: small enough to balance, large enough to stream."""

TILE = 128
"""Rows and columns of a tile, where an operand is transposed: its lines fit into L1."""


def lower_pointwise(group: Group, target: Target) -> LoweredKernel:
    """Merge axes, share the outer ones among the threads, vectorise the innermost."""
    return _Pointwise(group, target).lower()


class _Pointwise:
    """The state of a pointwise kernel under construction."""

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

    def lower(self) -> LoweredKernel:
        """The kernel."""
        *outer, inner = self.domain.extents or [1]
        across = axis_across(self.w, self.group, self.domain)
        if not outer:
            self._flat(inner)
        elif across is not None:
            self._tiles(outer, inner, across)
        else:
            with self.w.loop("p", 0, product(outer), "parallel") as p:
                place = [self.w.let("o", e) for e in unflatten(p, outer)]
                self._vectors(place, 0, inner)
        return finish(
            self.group, self.w, self.outputs, inplace=self.outputs, offset=self.offset)

    def _index(self, positions: list[k.Expr]) -> Index:
        zeros: Index = (k.Const(0),) * len(self.group.shape)
        return self.domain.index(positions) if self.domain.runs else zeros

    def _element(self, index: Index) -> None:
        """Store every value of the group at ``index``."""
        self.offset = store_all(self.group, self.w, self.outputs, index, self.streaming)

    def _vectors(self, place: list[k.Expr], start: k.ExprLike, stop: k.ExprLike) -> None:
        """A row of vectors along the innermost axis."""
        with self.w.loop(
            "i", start, stop, "vector", width=self.width, interleave=self.interleave
        ) as i:
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
