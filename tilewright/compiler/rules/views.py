"""Laws of views and sources: views compose and cancel, views of constants are constants."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.rules.law import all_full, law, number, sample
from tilewright.ir.attrs import (
    BroadcastAttrs,
    ConcatAttrs,
    FlipAttrs,
    IotaAttrs,
    PadAttrs,
    ReshapeAttrs,
    ScanAttrs,
    SearchAttrs,
    SliceAttrs,
    SortAttrs,
    TransposeAttrs,
)
from tilewright.ir.build import (
    broadcast,
    cast,
    concat,
    contract,
    pad,
    part,
    reduce,
    reshape,
    transpose,
    window,
)
from tilewright.ir.graph import Node, apply, full, full_value, make
from tilewright.ir.groups import contract_groups
from tilewright.ir.rewrite import Match, Rules, any_op, const, hole, op, rule
from tilewright.ir.sizes import less
from tilewright.ir.types import TensorType, bool_, i32, i64

x, y = hole("x"), hole("y")


def embedding(small: Sequence[object], large: Sequence[object]) -> list[int] | None:
    """Where the axes of ``small`` stand in ``large``, if that only adds axes of size 1 to it."""
    places = []
    at = 0
    for axis, size in enumerate(large):
        if at < len(small) and small[at] == size:
            places.append(axis)
            at += 1
        elif size != 1:
            return None
    return places if at == len(small) else None


# --- reshape and transpose ------------------------------------------------------------------
def moves_units(m: Match) -> bool:
    """Whether a transpose leaves the order of all axes but those of size 1."""
    shape = m["x"].shape
    wide = [p for p in m.attrs["p"].perm if shape[p] != 1]
    return wide == sorted(wide)


def transposed_broadcast(m: Match) -> Node | None:
    """transpose(broadcast(x)) as a broadcast of x, transposed first if need be."""
    perm, axes = m.attrs["p"].perm, m.attrs["b"].axes
    places = [perm.index(a) for a in axes]
    order = sorted(range(len(places)), key=places.__getitem__)
    return broadcast(transpose(m["x"], order), m.root.shape, [places[i] for i in order])


RESHAPES = Rules(
    rule("reshape-same", op("reshape", x, attrs="a"), x,
         when=lambda m: m["x"].shape == m.attrs["a"].shape,
         examples=lambda: [make("reshape", (sample(2, 3),), ReshapeAttrs((2, 3)))]),
    rule("reshape-reshape", op("reshape", op("reshape", x, attrs="a"), attrs="b"),
         op("reshape", x, attrs="b"),
         examples=lambda: [reshape(reshape(sample(2, 3), (6,)), (3, 2))]),
    rule("transpose-same", op("transpose", x, attrs="p"), x,
         when=lambda m: m.attrs["p"].perm == tuple(range(m["x"].type.rank)),
         examples=lambda: [make("transpose", (sample(2, 3),), TransposeAttrs((0, 1)))]),
    law("transpose-transpose", op("transpose", op("transpose", x, attrs="p"), attrs="q"),
        lambda m: transpose(m["x"], [m.attrs["p"].perm[i] for i in m.attrs["q"].perm]),
        examples=lambda: [transpose(transpose(sample(2, 3, 4), (1, 2, 0)), (0, 2, 1)),
                          transpose(transpose(sample(2, 3), (1, 0)), (1, 0))]),
    law("transpose-units", op("transpose", x, attrs="p"), lambda m: reshape(m["x"], m.root.shape),
        when=moves_units, examples=lambda: [transpose(sample(2, 1, 3), (1, 0, 2))]),
    law("transpose-broadcast", op("transpose", op("broadcast", x, attrs="b"), attrs="p"),
        transposed_broadcast,
        examples=lambda: [transpose(broadcast(sample(3), (2, 3), (1,)), (1, 0)),
                          transpose(broadcast(sample(2, 3), (2, 4, 3), (0, 2)), (2, 1, 0))]),
)


# --- broadcast ------------------------------------------------------------------------------
def broadcast_of_reshape(m: Match) -> Node | None:
    """broadcast(reshape(x)) as a broadcast of x, where the reshape only adds axes of size 1."""
    inner = m["x"].shape
    places = embedding(inner, m["r"].shape)
    if places is None or len(inner) >= len(m["r"].shape):
        return None
    return broadcast(m["x"], m.root.shape, [m.attrs["b"].axes[p] for p in places])


def with_units_last(m: Match) -> Node | None:
    """An op on reshapes that add axes of size 1, as a reshape of the op."""
    root = m.root
    shapes = {n.inputs[0].shape for n in root.inputs if n.op.name == "reshape"}
    others = [n for n in root.inputs if n.op.name not in ("reshape", "full")]
    if len(shapes) != 1 or others:
        return None
    (shape,) = shapes
    if len(shape) >= root.type.rank or embedding(shape, root.shape) is None:
        return None
    inputs = [
        n.inputs[0] if n.op.name == "reshape"
        else make("full", (), n.attrs, n.loc, n.type.with_shape(shape))
        for n in root.inputs
    ]
    return reshape(make(root.op, inputs, root.attrs), root.shape)


UNITS = Rules(
    law("op-units", any_op("elementwise", reads="reshape"), with_units_last,
        examples=lambda: [
            reshape(sample(3), (3, 1)) * 2.5,
            reshape(sample(3), (1, 3)) + reshape(sample(3, name="y"), (1, 3)),
            cast(reshape(sample(2, 2), (2, 1, 2)), i32)]),
)

BROADCASTS = Rules(
    law("broadcast-units", op("broadcast", x, attrs="b"), lambda m: reshape(m["x"], m.root.shape),
        when=lambda m: m["x"].type.size == m.root.type.size,
        examples=lambda: [broadcast(sample(3), (1, 3, 1), (1,)),
                          make("broadcast", (sample(3),), BroadcastAttrs((3,), (0,)))]),
    law("broadcast-broadcast", op("broadcast", op("broadcast", x, attrs="a"), attrs="b"),
        lambda m: broadcast(
            m["x"], m.root.shape, [m.attrs["b"].axes[i] for i in m.attrs["a"].axes]),
        examples=lambda: [broadcast(broadcast(sample(3), (2, 3), (1,)), (2, 4, 3), (0, 2))]),
    law("broadcast-reshape", op("broadcast", op("reshape", x, attrs="r", bind="r"), attrs="b"),
        broadcast_of_reshape,
        examples=lambda: [broadcast(reshape(sample(3), (3, 1)), (3, 4), (0, 1)),
                          broadcast(reshape(sample(1), (1, 1)), (3, 4), (0, 1))]),
)


# --- slice, flip, pad, concat ---------------------------------------------------------------
def composed_slices(m: Match) -> Node:
    """A slice of a slice as one slice."""
    a, b = m.attrs["a"], m.attrs["b"]
    starts = [s + t * step for s, step, t in zip(a.starts, a.steps, b.starts, strict=True)]
    steps = [s * t for s, t in zip(a.steps, b.steps, strict=True)]
    stops = [
        start + (size - 1) * step + 1 if size else start
        for start, step, size in zip(starts, steps, m.root.shape, strict=True)
    ]
    return part(m["x"], starts, stops, steps)


def slice_of_pad(m: Match) -> Node | None:
    """A slice that reads nothing but the padded tensor, as a slice of that."""
    a, b, shape = m.attrs["a"], m.attrs["b"], m["x"].shape
    if any(a.interior) or m.root.type.size == 0:
        return None
    starts = [s - low for s, low in zip(b.starts, a.low, strict=True)]
    last = [
        start + (size - 1) * step
        for start, size, step in zip(starts, m.root.shape, b.steps, strict=True)
    ]
    if min(starts, default=0) < 0 or any(p >= d for p, d in zip(last, shape, strict=True)):
        return None
    return part(m["x"], starts, [p + 1 for p in last], b.steps)


def slice_of_concat(m: Match) -> Node | None:
    """A slice that reads nothing but one part, as a slice of that."""
    axis = m["c"].attrs.axis
    starts, stops, steps = (list(v) for v in (m.attrs["b"].starts, m.attrs["b"].stops,
                                              m.attrs["b"].steps))
    if m.root.type.size == 0:
        return None
    last = starts[axis] + (m.root.shape[axis] - 1) * steps[axis]
    offset = 0
    for piece in m["c"].inputs:
        size = piece.shape[axis]
        if offset <= starts[axis] and last < offset + size:
            starts[axis] -= offset
            stops[axis] = last - offset + 1
            return part(piece, starts, stops, steps)
        offset += size
    return None


def flattened(m: Match) -> Node | None:
    """A concat without empty parts, and with the parts of parts along the same axis as its own."""
    axis = m.root.attrs.axis
    parts: list[Node] = []
    for piece in m.root.inputs:
        inner = piece.op.name == "concat" and piece.attrs.axis == axis
        parts.extend(piece.inputs if inner else (piece,))
    parts = [p for p in parts if p.shape[axis] != 0]
    if not parts or tuple(parts) == m.root.inputs and len(parts) > 1:
        return None
    return concat(parts, axis)


def adjacent(a: Node, b: Node, axis: int) -> Node | None:
    """Two slices of one tensor, the second of which goes on where the first ends, as one."""
    if a.op.name != "slice" or b.op.name != "slice" or a.inputs[0] is not b.inputs[0]:
        return None
    x, first, second = a.inputs[0], a.attrs, b.attrs
    # A single element has no step of its own.
    steps = [s.steps[axis] for s, n in ((first, a), (second, b)) if n.shape[axis] != 1]
    step = steps[0] if steps else second.starts[axis] - first.starts[axis]
    if not isinstance(step, int) or step < 1 or any(s != step for s in steps):
        return None
    if first.starts[axis] + a.shape[axis] * step != second.starts[axis]:
        return None
    for i in range(x.type.rank):
        if i != axis and (first.starts[i], first.steps[i], a.shape[i]) != (
            second.starts[i], second.steps[i], b.shape[i]
        ):
            return None
    stops, strides = list(first.stops), list(first.steps)
    stops[axis], strides[axis] = second.starts[axis] + (b.shape[axis] - 1) * step + 1, step
    return part(x, first.starts, stops, strides)


def joined_slices(m: Match) -> Node | None:
    """A concat of slices next to each other in one tensor, as fewer of them."""
    axis, parts = m.root.attrs.axis, list(m.root.inputs[:1])
    for piece in m.root.inputs[1:]:
        whole = adjacent(parts[-1], piece, axis)
        if whole is None:
            parts.append(piece)
        else:
            parts[-1] = whole
    return concat(parts, axis) if len(parts) < len(m.root.inputs) else None


def beside(m: Match) -> Node | None:
    """A slice that reads nothing but what a pad fills in."""
    a, b, x = m.attrs["a"], m.attrs["b"], m["x"]
    for i, (start, count, step) in enumerate(zip(b.starts, m.root.shape, b.steps, strict=True)):
        last = start + (count - 1) * step
        gap = a.interior[i]
        stop = a.low[i] + x.shape[i] + (gap and (x.shape[i] - 1) * gap)
        if less(last, a.low[i]) or less(start, stop) is False:
            return broadcast(m["y"], m.root.shape, ())
    return None


def chosen_pad(m: Match) -> Node | None:
    """A choice between a pad and a constant, by the same pad of truths, as one pad."""
    inside, chosen, other = m.root.inputs
    truth, falsehood = inside.inputs
    same = inside.attrs == chosen.attrs and truth.shape == chosen.inputs[0].shape
    if not same or any(n.op.name != "full" for n in inside.inputs):
        return None
    if not full_value(truth) or full_value(falsehood):
        return None
    filler = make("full", (), other.attrs, type=other.type.with_shape(()))
    return make("pad", (chosen.inputs[0], filler), chosen.attrs)


def flips(m: Match) -> Node:
    """A flip of a flip: the axes that only one of them turns round."""
    axes = tuple(sorted(set(m.attrs["a"].axes) ^ set(m.attrs["b"].axes)))
    return make("flip", (m["x"],), FlipAttrs(axes)) if axes else m["x"]


def flipped(*axes: int) -> Node:
    """An example: a flip."""
    return make("flip", (sample(2, 3, 4),), FlipAttrs(axes))


def joined(*shapes: tuple[int, ...], axis: int = 0) -> Node:
    """An example: a concat of inputs."""
    parts = tuple(sample(*s, name=f"x{i}") for i, s in enumerate(shapes))
    return make("concat", parts, ConcatAttrs(axis))


PARTS = Rules(
    rule("slice-whole", op("slice", x, attrs="a"), x,
         when=lambda m: m["x"].shape == m.root.shape and set(m.attrs["a"].steps) <= {1},
         examples=lambda: [make("slice", (sample(4),), SliceAttrs((0,), (4,), (1,)))]),
    law("slice-slice", op("slice", op("slice", x, attrs="a"), attrs="b"), composed_slices,
        examples=lambda: [
            part(part(sample(9, 9), (1, 0), (8, 9), (2, 1)), (1, 2), (4, 9), (2, 3))]),
    law("slice-pad", op("slice", op("pad", x, y, attrs="a"), attrs="b"), slice_of_pad,
        examples=lambda: [part(pad(sample(4), (2,), (3,), (0,)), (2,), (6,), (1,)),
                          part(pad(sample(4), (2,), (3,), (0,)), (3,), (6,), (2,)),
                          part(pad(sample(4), (2,), (3,), (0,)), (1,), (6,), (1,))]),
    law("slice-concat", op("slice", op("concat", ..., bind="c"), attrs="b"), slice_of_concat,
        examples=lambda: [part(joined((2, 3), (4, 3)), (2, 0), (6, 3), (1, 1)),
                          part(joined((2, 3), (4, 3)), (3, 1), (6, 3), (2, 1))]),
    law("slice-pad-beside", op("slice", op("pad", x, y, attrs="a"), attrs="b"), beside,
        examples=lambda: [part(pad(sample(4), (2,), (3,), (0,)), (0,), (2,), (1,)),
                          part(pad(sample(4), (2,), (3,), (1,)), (9,), (12,), (2,)),
                          part(pad(sample(4), (2,), (3,), (1,)), (8,), (12,), (2,))]),
    law("where-pad", op("where", op("pad", ...), op("pad", ...), const("c")), chosen_pad,
        examples=lambda: [apply("where", pad(number(True, 2, dtype=bool_), (1,), (2,), (1,), False),
                                pad(sample(2), (1,), (2,), (1,)), value)
                          for value in (0.0, -0.0, 2.5)]),
    law("concat-slices", op("concat", ...), joined_slices,
        examples=lambda: [
            concat([part(sample(9, 2), (start, 0), (stop, 2), (step, 1))
                    for start, stop, step in ranges], 0)
            for ranges in (((0, 3, 1), (3, 9, 1)), ((1, 2, 1), (3, 9, 2)), ((0, 5, 2), (6, 7, 1)),
                           ((0, 3, 1), (3, 4, 1), (4, 6, 1)), ((2, 3, 1), (5, 6, 1)))]),
    law("concat-flat", op("concat", ...), flattened,
        examples=lambda: [joined((2, 3)), joined((2, 3), (0, 3)),
                          concat([joined((2, 3), (1, 3)), sample(4, 3, name="y")], 0)]),
    rule("flip-none", op("flip", x, attrs="a"), x,
         when=lambda m: all(m["x"].shape[axis] == 1 for axis in m.attrs["a"].axes),
         examples=lambda: [flipped(), make("flip", (sample(1, 3),), FlipAttrs((0,)))]),
    law("flip-flip", op("flip", op("flip", x, attrs="a"), attrs="b"), flips,
        examples=lambda: [make("flip", (flipped(0, 2),), FlipAttrs((0, 1))),
                          make("flip", (flipped(0),), FlipAttrs((0,)))]),
    rule("pad-none", op("pad", x, y, attrs="a"), x,
         when=lambda m: m["x"].shape == m.root.shape,
         examples=lambda: [make("pad", (sample(4), number(0.0)), PadAttrs((0,), (0,), (0,)))]),
)


# --- views of constants and counts ----------------------------------------------------------
def refilled(m: Match) -> Node:
    """A constant of the root's shape."""
    return make("full", (), m.root.inputs[0].attrs, m.root.loc, m.root.type)


def recounted(m: Match) -> Node | None:
    """A view of iota as an iota, where the view keeps the counted axis whole."""
    node, counts = m.root, m["x"]
    axis = counts.attrs.axis
    if counts.shape[axis] == 1:
        return full(node.type, 0)
    if node.op.name == "transpose":
        place = node.attrs.perm.index(axis)
    elif node.op.name == "broadcast":
        place = node.attrs.axes[axis]
    elif node.op.name == "slice":
        if node.shape[axis] != counts.shape[axis]:
            return None
        place = axis
    else:
        wide = [d for d in node.shape if d != 1]
        if wide != [d for d in counts.shape if d != 1]:
            return None
        number_of_wide = sum(counts.shape[i] != 1 for i in range(axis))
        place = [i for i, d in enumerate(node.shape) if d != 1][number_of_wide]
    return make("iota", (), IotaAttrs(place), type=node.type)


def iota(*shape: int, axis: int = 0) -> Node:
    """An example: counts."""
    return make("iota", (), IotaAttrs(axis), type=TensorType(i32, shape))


def empties() -> list[Node]:
    """Nodes without elements."""
    return [sample(0, 3) + sample(0, 3, name="y"), transpose(sample(0, 3), (1, 0)),
            reduce("sum", sample(3, 0, 2), (0,)),
            contract(sample(0, 3), sample(3, 2, name="y"), (0, 1), (1, 2), (0, 2)),
            contract_groups(sample(0, 3), sample(2, 3, 4, name="y"),
                            number(0, 2, dtype=i64), (0, 1), (2, 1, 3), (0, 3)),
            make("cumsum", (sample(0, 3),), ScanAttrs(1)),
            make("sort", (sample(2, 3),), SortAttrs(1, False, 2, 2)),
            make("searchsorted", (sample(3), sample(0, 2, name="y")), SearchAttrs(True)),
            make("zeta", (sample(0, 2), sample(0, 2, name="y")))]


def views_of(node: Node) -> list[Node]:
    """A node of shape (2, 3), reshaped, transposed, broadcast, sliced and flipped."""
    return [reshape(node, (3, 2)), transpose(node, (1, 0)), broadcast(node, (2, 4, 3), (0, 2)),
            part(node, (0, 1), (2, 3), (1, 1)), make("flip", (node,), FlipAttrs((1,)))]


SOURCES = Rules(
    *(law(f"empty-{kind}", any_op(kind), lambda m: full(m.root.type, 0),
          when=lambda m: 0 in m.root.shape, examples=empties)
      for kind in ("elementwise", "view", "reduce", "contract", "grouped", "scan", "sort",
                   "search", "routine")),
    *(law(f"{name}-full", op(name, ...), refilled, when=lambda m: all_full(m.root.inputs),
          examples=lambda: [*views_of(number(2.5, 2, 3)),
                            concat([number(1.0, 2), number(1.0, 3)], 0),
                            pad(number(1.0, 3), (1,), (2,), (0,), number(1.0)),
                            window(number(2.5, 3, 4), (1,), (2,), (1,), (1,))])
      for name in ("reshape", "transpose", "broadcast", "slice", "flip", "concat", "pad",
                   "window")),
    *(law(f"{name}-iota", op(name, op("iota", bind="x")), recounted,
          examples=lambda: [*views_of(iota(2, 3)), *views_of(iota(2, 3, axis=1)),
                            reshape(iota(2, 3), (2, 1, 3)), broadcast(iota(1, 3), (2, 3), (0, 1))])
      for name in ("reshape", "transpose", "broadcast", "slice")),
)

VIEWS = SOURCES + RESHAPES + UNITS + BROADCASTS + PARTS
