"""What the reduction schedules share: accumulators, identities, and the row kernel itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, flat, strides, unflatten
from tilewright.compiler.schedules.domain import Domain, fixed_boundaries
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.meaning import highest, lowest
from tilewright.ir.sizes import Dim, product, total
from tilewright.ir.types import DType, Shape, accumulator

COMBINE = {"sum": "add", "prod": "mul", "reduce_max": "max", "reduce_min": "min"}

CACHED_FLOPS = 6
"""A value this costly that two passes over a row need is kept in a scratch row."""


def identity(node: Node) -> k.Const:
    """What an accumulator of this reduction starts from."""
    dtype = accumulator(node.dtype)
    if node.op.name == "sum":
        return number(0, dtype)
    if node.op.name == "prod":
        return number(1, dtype)
    limit = lowest if node.op.name == "reduce_max" else highest
    return number(limit(dtype.numpy), dtype)


def number(value: object, dtype: DType) -> k.Const:
    """A constant as a Python number of the dtype's kind."""
    if dtype.is_float:
        return k.Const(float(value), dtype)  # type: ignore[arg-type]
    whole = bool(value) if dtype.kind == "b" else int(value)  # type: ignore[call-overload]
    return k.Const(whole, dtype)


def converted(value: k.Expr, dtype: DType) -> k.Expr:
    """The value in an element type."""
    return value if value.dtype is dtype else k.Call("cast", (value,), dtype)


def accumulators(w: Writer, anchors: Sequence[Node]) -> dict[Node, k.Buffer]:
    """A register per reduction, holding its identity."""
    registers = {}
    for node in anchors:
        register = w.alloc("acc", accumulator(node.dtype), 1, "register")
        w.write(k.Store(register, k.Const(0), identity(node)))
        registers[node] = register
    return registers


def accumulate(w: Writer, registers: dict[Node, k.Buffer], index: Index) -> None:
    """Add the operands' elements at ``index`` to the registers."""
    operands = [w.value(node.inputs[0], index) for node in registers]
    for (node, register), value in zip(registers.items(), operands, strict=True):
        wide = converted(value, register.dtype)
        w.write(k.Accumulate(register, k.Const(0), COMBINE[node.op.name], wide))


def hold(w: Writer, node: Node, value: k.Expr, at: Index) -> None:
    """From here on, the element of ``node`` at ``at`` is ``value``."""
    def held(index: Index) -> k.Expr | None:
        return value if index == at else None
    w.bound[node] = held


def levels(nodes: Sequence[Node], anchors: Sequence[Node]) -> dict[Node, int]:
    """How many reductions of the group, one after another, each node rests on."""
    result: dict[Node, int] = {}
    inside = set(anchors)
    for node in nodes:
        below = max((result.get(n, 0) for n in node.inputs), default=0)
        result[node] = below + (node in inside)
    return result


MOST_KEPT = 1 << 16
"""Elements of the longest scratch row."""


@dataclass
class _Row:
    """The state of a row kernel under construction."""

    group: Group
    w: Writer
    level: dict[Node, int]
    kept: Index
    outputs: list[k.Buffer]
    width: int
    streaming: bool
    interleave: int

    @property
    def length(self) -> Dim:
        """The elements of a row."""
        return product(self.group.shape[axis] for axis in self.group.axes)


def lower_rows(group: Group, target: Target) -> LoweredKernel:
    """Reductions over the same trailing axes, and what is computed from them, row by row.

    Pass p over a row computes the reductions that rest on p - 1 others; a row is small enough to
    stay in the cache between passes.
    """
    w = group.writer()
    members = group.members(w)
    level = levels(members, group.anchors)
    outer_axes = [i for i in range(len(group.shape)) if i not in group.axes]
    outer = [group.shape[i] for i in outer_axes]
    outputs = output_buffers(group)
    wide = [v for v, _ in group.stores if v.shape == group.shape]
    size = max([n.inputs[0].dtype.itemsize for n in group.anchors] + [4])
    big = estimate(total(v.type.nbytes for v in wide)) > 2 * target.l2
    with w.loop("r", 0, product(outer), "parallel") as r:
        kept = tuple(w.let("o", e) for e in unflatten(r, outer))
        # Long expressions on every element: vectors in flight hide their latency.
        flying = 4 if target.registers >= 32 else 2
        row = _Row(group, w, level, kept, outputs, target.lanes(size), big, flying)
        passes = max((level[a] for a in group.anchors), default=0)
        kept_values, room = _cached_values(row, members, passes)
        if not kept_values or isinstance(row.length, int):
            _all_passes(row, passes, kept_values, room)
        else:
            short = w.let("short", k.compare("le", row.length, room))
            for condition, values in (
                (short, kept_values), (k.Call("not", (short,), short.dtype), [])
            ):
                before = dict(w.bound)
                with w.when(condition):
                    _all_passes(row, passes, values, room)
                w.bound = before
    return finish(group, w, outputs)


def _all_passes(row: _Row, passes: int, kept: Sequence[tuple[int, Node]], room: int) -> None:
    """The row, with scratch rows of this many elements for the values that are kept."""
    cached = {
        node: (first, row.w.alloc("row", node.dtype, room, "stack")) for first, node in kept}
    for p in range(1, passes + 1):
        anchors = [a for a in row.group.anchors if row.level[a] == p]
        _reduce_pass(row, anchors, p, cached)
    _store_pass(row, passes, cached)
    _store_row_values(row)


def _row_loops(row: _Row, values: Sequence[Node]) -> tuple[Domain, list[Dim]]:
    """The reduced axes, merged as far as these values allow, and their sizes."""
    group, w = row.group, row.w
    held = set(group.anchors)
    fixed = set(fixed_boundaries(values, lambda n: w.is_leaf(n) or n in held, lambda n: False))
    for i in range(len(group.shape) - 1):
        if (i in group.axes) != (i + 1 in group.axes):
            fixed.add(i)
    shape = [d if i in group.axes else 1 for i, d in enumerate(group.shape)]
    domain = Domain(shape, fixed)
    return domain, domain.extents or [1]


def _pass(
    row: _Row, values: Sequence[Node], interleave: int, body: Callable[[Index], None]
) -> None:
    """Run ``body(index)`` for every element of the row."""
    domain, extents = _row_loops(row, values)
    w = row.w

    def full_index(positions: Sequence[k.Expr]) -> Index:
        inner = domain.index(positions) if domain.runs else (k.Const(0),) * len(row.group.shape)
        outer = iter(row.kept)
        return tuple(
            inner[i] if i in row.group.axes else next(outer) for i in range(len(row.group.shape))
        )

    def nest(positions: list[k.Expr], rest: list[Dim]) -> None:
        if len(rest) == 1:
            width = row.width
            with w.loop("c", 0, rest[0], "vector", width=width, interleave=interleave) as c:
                body(full_index([*positions, c]))
        else:
            with w.loop("s", 0, rest[0]) as s:
                nest([*positions, s], rest[1:])
    nest([], extents)


def _reduce_pass(
    row: _Row, anchors: list[Node], number_: int, cached: dict[Node, tuple[int, k.Buffer]]
) -> None:
    w = row.w
    registers = accumulators(w, anchors)
    full = [
        (value, buffer) for (value, _), buffer in zip(row.group.stores, row.outputs, strict=True)
        if value.shape == row.group.shape and row.level[value] == number_ - 1
        and value not in cached
    ]

    def body(index: Index) -> None:
        _save(row, number_, cached, index)
        for value, buffer in full:
            w.write(k.Store(buffer, flat(index, row.group.shape), w.value(value, index)))
        accumulate(w, registers, index)

    operands = [a.inputs[0] for a in anchors]
    _pass(row, operands, 2 if len(anchors) > 1 else 4, body)
    for node, register in registers.items():
        total = converted(k.Load(register, k.Const(0)), node.dtype)
        hold(w, node, w.let("r", total), row.kept)
    _hold_cached(row, number_, cached)


def _store_pass(row: _Row, passes: int, cached: dict[Node, tuple[int, k.Buffer]]) -> None:
    """Write the full-shape results that rest on the last reductions."""
    w = row.w
    last = [
        (value, buffer) for (value, _), buffer in zip(row.group.stores, row.outputs, strict=True)
        if value.shape == row.group.shape and value not in row.group.anchors
        and (row.level[value] == passes or value in cached)
    ]
    if not last:
        return

    def body(index: Index) -> None:
        values = [w.let("v", w.value(value, index)) for value, _ in last]
        for (_, buffer), value in zip(last, values, strict=True):
            w.write(k.Store(buffer, flat(index, row.group.shape), value, None, row.streaming))
    _pass(row, [value for value, _ in last], row.interleave, body)


def _store_row_values(row: _Row) -> None:
    """Write the results that have one element per row."""
    w = row.w
    for (value, _), buffer in zip(row.group.stores, row.outputs, strict=True):
        if value.shape == row.group.shape and value not in row.group.anchors:
            continue
        sizes = [d for i, d in enumerate(row.group.shape) if i not in row.group.axes]
        index = align(row.kept, sizes, value.shape)
        w.write(k.Store(buffer, flat(index, value.shape), w.value(value, index)))


def align(kept: Index, sizes: Sequence[Dim], shape: Shape) -> Index:
    """The index of a row's element in a value of this shape: kept axes, and axes of size 1."""
    real = [position for position, d in zip(kept, sizes, strict=True) if d != 1]
    result: list[k.Expr] = []
    for d in shape:
        result.append(k.Const(0) if d == 1 else real.pop(0))
    return tuple(result)


def store_kept(
    group: Group, w: Writer, outputs: Sequence[k.Buffer], kept: Index, sizes: Sequence[Dim]
) -> None:
    """Store what has one element per place that a reduction keeps."""
    values = []
    for (value, _), buffer in zip(group.stores, outputs, strict=True):
        shape = value.shape
        index = align(kept, sizes, shape)
        values.append((buffer, flat(index, shape), w.let("v", w.value(value, index))))
    for buffer, offset, v in values:
        w.write(k.Store(buffer, offset, v))


# --- values kept between passes ---------------------------------------------------------


def _cached_values(
    row: _Row, members: Sequence[Node], passes: int
) -> tuple[list[tuple[int, Node]], int]:
    """Costly full-shape values that several passes need, with their first pass, and how long a
    row may be for which they are kept.
    """
    group = row.group
    # A named size may well be larger than what is expected of it.
    room = row.length if isinstance(row.length, int) else min(4 * estimate(row.length), MOST_KEPT)
    if room > MOST_KEPT:
        return [], room
    needed: dict[Node, set[int]] = {n: set() for n in members}
    for anchor in group.anchors:
        needed[anchor.inputs[0]].add(row.level[anchor]) if anchor.inputs[0] in needed else None
    for value, _ in group.stores:
        if value.shape == group.shape:
            needed[value].add(passes + 1)
    for node in reversed(members):
        if node in group.anchors:
            continue
        for source in node.inputs:
            if source in needed and source not in group.anchors:
                needed[source] |= needed[node]
    result = []
    for node in members:
        costly = node.op.kind == "elementwise" and node.op.flops >= CACHED_FLOPS
        if costly and node.shape == group.shape and len(needed[node]) > 1:
            result.append((min(needed[node]), node))
    return result, room


def _offset_in_row(group: Group, index: Index) -> k.Expr:
    axes = group.axes
    sizes = [group.shape[i] for i in axes]
    offset: k.Expr = k.Const(0)
    for axis, step in zip(axes, strides(sizes), strict=True):
        offset = k.add(offset, k.mul(index[axis], step))
    return offset


def _save(row: _Row, number_: int, cached: dict[Node, tuple[int, k.Buffer]], index: Index) -> None:
    """Compute and keep the values that this pass is the first to need."""
    for node, (first, buffer) in cached.items():
        if first == number_:
            value = row.w.let("e", row.w.value(node, index))
            row.w.write(k.Store(buffer, _offset_in_row(row.group, index), value))
            hold(row.w, node, value, index)


def _hold_cached(row: _Row, number_: int, cached: dict[Node, tuple[int, k.Buffer]]) -> None:
    """After their pass, kept values are read from the scratch row."""
    for node, (first, buffer) in cached.items():
        if first == number_:
            row.w.bound[node] = _reader(row.group, buffer)


def _reader(group: Group, buffer: k.Buffer) -> Callable[[Index], k.Expr | None]:
    def read(index: Index) -> k.Expr | None:
        return k.Load(buffer, _offset_in_row(group, index))
    return read

