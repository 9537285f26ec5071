"""Laws of reductions and contractions. Sums may be reassociated; nothing else changes."""

from __future__ import annotations

from tilewright.compiler.rules.law import fits, law, number, sample
from tilewright.ir.attrs import ContractAttrs, PadAttrs, ReduceAttrs, WindowAttrs
from tilewright.ir.build import (
    broadcast,
    cast,
    contract,
    pad,
    part,
    reduce,
    reshape,
    transpose,
    window,
)
from tilewright.ir.graph import Node, full, full_value, make
from tilewright.ir.meaning import highest, lowest
from tilewright.ir.rewrite import Match, Rules, any_op, hole, op
from tilewright.ir.sizes import less, product
from tilewright.ir.types import accumulator, bool_, f16, i32

x, y = hole("x"), hole("y")
REDUCTIONS = ("sum", "prod", "reduce_max", "reduce_min")


# --- reductions -----------------------------------------------------------------------------
def identity(m: Match) -> Node:
    """A reduction over no elements: what it starts from."""
    dtype = m.root.dtype
    start = {
        "sum": 0, "prod": 1, "reduce_max": lowest(dtype.numpy), "reduce_min": highest(dtype.numpy),
    }
    return full(m.root.type, start[m.root.op.name])


def without_units(m: Match) -> Node | None:
    """A reduction of a shape without axes of size 1 among those that are reduced."""
    operand, axes = m.root.inputs[0], m.root.attrs.axes
    units = [a for a in axes if operand.shape[a] == 1]
    if not units and axes:
        return None
    keep = [a for a in range(operand.type.rank) if a not in units]
    smaller = reshape(operand, tuple(operand.shape[a] for a in keep))
    return reduce(m.root.op.name, smaller, [keep.index(a) for a in axes if a not in units])


def of_transpose(m: Match) -> Node:
    """A reduction of a transpose: the same reduction, then a transpose of what is left."""
    perm, axes = m["t"].attrs.perm, m.root.attrs.axes
    kept = [perm[i] for i in range(len(perm)) if i not in axes]
    smaller = reduce(m.root.op.name, m["t"].inputs[0], [perm[a] for a in axes])
    left = sorted(kept)
    return transpose(smaller, [left.index(a) for a in kept])


def of_all(m: Match) -> Node | None:
    """A reduction of everything does not care for the shape."""
    if len(m.root.attrs.axes) != m["v"].type.rank:
        return None
    inner = m["v"].inputs[0]
    if tuple(d for d in inner.shape if d != 1) == m["v"].shape:
        return None  # the law of units made this reshape
    return reduce(m.root.op.name, inner, range(inner.type.rank))


def stretched(m: Match) -> Node | None:
    """A reduction over axes that a broadcast repeats: times their size, or nothing at all."""
    wide, small, axes = m["b"], m["b"].inputs[0], m.root.attrs.axes
    places = wide.attrs.axes
    repeated = [
        a for a in range(wide.type.rank) if a not in places or small.shape[places.index(a)] == 1
    ]
    gone = [a for a in axes if a in repeated and wide.shape[a] != 1]
    count = product(wide.shape[a] for a in gone)
    if not gone or (m.root.op.name == "sum" and not fits(count, m.root.dtype)):
        return None
    if m.root.op.name != "sum" and not less(0, count):
        return None  # there may be nothing to choose from
    dropped = [i for i, a in enumerate(places) if a in axes]
    result = reduce(m.root.op.name, small, dropped)
    if m.root.op.name == "sum":
        result = result * full(result.type, count)
    left = [a for a in range(wide.type.rank) if a not in axes]
    return broadcast(result, m.root.shape, [left.index(a) for a in places if a not in axes])


def of_full(m: Match) -> Node | None:
    """A reduction of a constant."""
    operand = m.root.inputs[0]
    value = full_value(operand)
    count = product(operand.shape[a] for a in m.root.attrs.axes)
    some = less(0, count)
    if m.root.op.name == "sum":
        if not fits(count, m.root.dtype):
            return None
        return full(m.root.type, value) * full(m.root.type, count)
    if m.root.op.name == "prod":
        return full(m.root.type, value) if value == 1 or (some and value == 0) else None
    return full(m.root.type, value) if some else None


def reductions(node: Node, *axes: int) -> list[Node]:
    """Every reduction that there is of this node."""
    names = REDUCTIONS[2:] if node.dtype is bool_ else REDUCTIONS
    return [make(name, (node,), ReduceAttrs(axes)) for name in names]


REDUCE = Rules(
    law("reduce-nothing", any_op("reduce"), identity,
        when=lambda m: m.root.inputs[0].type.size == 0 and m.root.type.size > 0,
        examples=lambda: [*reductions(sample(3, 0), 1), *reductions(sample(3, 0, dtype=bool_), 1)]),
    law("reduce-units", any_op("reduce"), without_units,
        examples=lambda: [*reductions(sample(3, 1, 4), 1, 2), *reductions(sample(3, 1), 1),
                          *reductions(sample(3, 4))]),
    *(law(f"{name}-transpose", op(name, op("transpose", ..., bind="t")), of_transpose,
          examples=lambda: [*reductions(transpose(sample(2, 3, 4), (2, 0, 1)), 1),
                            *reductions(transpose(sample(2, 3, 4), (2, 0, 1)), 0, 1)])
      for name in REDUCTIONS),
    *(law(f"{name}-{view}-all", op(name, op(view, ..., bind="v")), of_all,
          examples=lambda: [*reductions(reshape(sample(2, 6), (3, 4)), 0, 1),
                            *reductions(reshape(sample(1, 2, 3), (2, 3)), 0, 1)])
      for name in REDUCTIONS for view in ("reshape",)),
    *(law(f"{name}-broadcast", op(name, op("broadcast", ..., bind="b")), stretched,
          examples=lambda: [*reductions(broadcast(sample(3), (2, 3), (1,)), 0),
                            *reductions(broadcast(sample(3), (2, 3), (1,)), 0, 1),
                            *reductions(broadcast(sample(3, 1), (3, 5), (0, 1)), 1),
                            *reductions(broadcast(sample(3, dtype=f16), (5, 3, 2), (1,)), 0)])
      for name in ("sum", "reduce_max", "reduce_min")),
    *(law(f"{name}-full", op(name, op("full")), of_full,
          examples=lambda: [*reductions(number(2.5, 3, 4), 1), *reductions(number(1.0, 3, 4), 1)])
      for name in REDUCTIONS),
)


# --- contractions ---------------------------------------------------------------------------
def labels_of(m: Match) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The labels of the root's operands and result."""
    return m.root.attrs.lhs, m.root.attrs.rhs, m.root.attrs.out


def sizes_of(node: Node) -> dict[int, int]:
    """The size of each label of a contraction."""
    x, y = node.inputs
    return dict(zip(node.attrs.lhs + node.attrs.rhs, x.shape + y.shape, strict=True))


def permuted(labels: tuple[int, ...], perm: tuple[int, ...]) -> tuple[int, ...]:
    """The labels of a transpose's operand, from those of its result."""
    result = [0] * len(perm)
    for axis, p in enumerate(perm):
        result[p] = labels[axis]
    return tuple(result)


def absorb_left(m: Match) -> Node:
    """A contraction whose left operand is a transpose."""
    lhs, rhs, out = labels_of(m)
    return contract(m["t"].inputs[0], m["y"], permuted(lhs, m["t"].attrs.perm), rhs, out)


def absorb_right(m: Match) -> Node:
    """A contraction whose right operand is a transpose."""
    lhs, rhs, out = labels_of(m)
    return contract(m["x"], m["t"].inputs[0], lhs, permuted(rhs, m["t"].attrs.perm), out)


def drop_units(m: Match) -> Node | None:
    """A contraction without labels of size 1."""
    sizes = sizes_of(m.root)
    if 1 not in sizes.values():
        return None
    operands, labels = [], []
    for operand, names in zip(m.root.inputs, labels_of(m)[:2], strict=True):
        kept = tuple(label for label in names if sizes[label] != 1)
        operands.append(reshape(operand, tuple(sizes[label] for label in kept)))
        labels.append(kept)
    out = tuple(label for label in m.root.attrs.out if sizes[label] != 1)
    smaller = contract(operands[0], operands[1], labels[0], labels[1], out)
    return reshape(smaller, m.root.shape)


def spread(operand: Node, labels: tuple[int, ...], out: tuple[int, ...], like: Node) -> Node:
    """An operand, transposed and broadcast to the labels ``out``."""
    order = sorted(range(len(labels)), key=lambda i: out.index(labels[i]))
    places = [out.index(labels[i]) for i in order]
    return broadcast(transpose(operand, order), like.shape, places)


def as_product(m: Match) -> Node | None:
    """A contraction that sums nothing, as a product."""
    lhs, rhs, out = labels_of(m)
    if not set(lhs) | set(rhs) <= set(out):
        return None
    x, y = m.root.inputs
    return spread(x, lhs, out, m.root) * spread(y, rhs, out, m.root)


def with_ones(m: Match) -> Node | None:
    """A contraction with a tensor of ones: a sum of the other operand, repeated."""
    lhs, rhs, out = labels_of(m)
    x, y = m.root.inputs
    if x.op.name == "full":
        x, y, lhs, rhs = y, x, rhs, lhs
    if y.op.name != "full" or full_value(y) != 1 or m.root.dtype is bool_:
        return None
    kept = tuple(label for label in lhs if label in out)
    total = reduce("sum", x, [i for i, label in enumerate(lhs) if label not in out])
    return spread(total, kept, out, m.root)


def as_sum(m: Match) -> Node | None:
    """A contraction with an operand all of whose labels the other has, as a sum of a product.

    Each element of the larger operand is read once, so there is nothing for a contraction to keep
    in registers, and the sum can share its kernel with what stands around it.
    """
    lhs, rhs, out = labels_of(m)
    x, y = m.root.inputs
    if not set(rhs) <= set(lhs):
        x, y, lhs, rhs = y, x, rhs, lhs
    if not set(rhs) <= set(lhs):
        return None
    x, lhs, units = with_units(x, lhs)
    x, lhs = as_it_lies(x, lhs)
    wide = accumulator(m.root.dtype)
    product = cast(x, wide) * spread(cast(y, wide), rhs, lhs, x)
    name = "reduce_max" if m.root.dtype is bool_ else "sum"
    total = reduce(name, product, [i for i, label in enumerate(lhs) if label not in out + units])
    kept = [label for label in lhs if label in out]
    sizes = dict(zip(lhs, x.shape, strict=True))
    total = reshape(cast(total, m.root.dtype), tuple(sizes[label] for label in kept))
    return transpose(total, [kept.index(label) for label in out])


def with_units(x: Node, labels: tuple[int, ...]) -> tuple[Node, tuple[int, ...], tuple[int, ...]]:
    """Windows without axes of size 1 as the windows that they were; labels of those axes."""
    if x.op.name != "reshape" or x.inputs[0].op.name != "window":
        return x, labels, ()
    seen, left, made = x.inputs[0], [*zip(labels, x.shape, strict=True)], []
    fresh = max(labels) + 1
    for d in seen.shape:
        if left and left[0][1] == d:
            made.append(left.pop(0)[0])
        elif d == 1:
            made.append(fresh + len(made))
        else:
            return x, labels, ()
    return (x, labels, ()) if left else (seen, tuple(made), tuple(set(made) - set(labels)))


def as_it_lies(x: Node, labels: tuple[int, ...]) -> tuple[Node, tuple[int, ...]]:
    """Windows of a transpose as windows of what is transposed."""
    source = x.inputs[0] if x.op.name == "window" else x
    turned = source.inputs[0] if source.op.name == "pad" else source
    if source is x or turned.op.name != "transpose":
        return x, labels
    perm, rank = turned.attrs.perm, source.type.rank
    plain, back = turned.inputs[0], sorted(range(rank), key=perm.__getitem__)
    if source.op.name == "pad":
        a = source.attrs
        around = PadAttrs(*(tuple(v[i] for i in back) for v in (a.low, a.high, a.interior)))
        plain = make("pad", (plain, source.inputs[1]), around)
    a = x.attrs
    order = sorted(range(len(a.axes)), key=lambda n: perm[a.axes[n]])
    seen = make("window", (plain,), WindowAttrs(
        tuple(perm[a.axes[n]] for n in order),
        *(tuple(v[n] for n in order) for v in (a.sizes, a.strides, a.dilations))))
    places = tuple(labels[i] for i in back)
    return seen, (*places, *(labels[rank + n] for n in order))


def nothing_summed(m: Match) -> bool:
    """Whether the contraction has a result but sums over no elements."""
    return m.root.type.size > 0 and 0 in sizes_of(m.root).values()


def products() -> list[Node]:
    """Contractions of all sorts."""
    a, b = sample(2, 3, 4), sample(5, 3, 4, name="y")
    row, ones = sample(1, 3), number(1.0, 3, 4)
    turned = transpose(sample(4, 3, 5, name="y"), (2, 1, 0))
    return [
        contract(transpose(sample(3, 2), (1, 0)), sample(3, 4, name="y"), (0, 1), (1, 2), (0, 2)),
        contract(a, turned, (0, 1, 2), (3, 1, 2), (3, 0)),
        contract(row, sample(3, 4, name="y"), (0, 1), (1, 2), (2, 0)),
        contract(row, sample(1, 4, name="y"), (0, 1), (0, 2), (2, 1)),
        contract(sample(2, dtype=i32), sample(3, 2, dtype=i32, name="y"), (0,), (1, 0), (1, 0)),
        contract(a, b, (0, 1, 2), (3, 1, 2), (0, 3, 1, 2)),
        contract(sample(2), sample(3, name="y"), (0,), (1,), (1, 0)),
        contract(sample(2, 3), ones, (0, 1), (1, 2), (2, 0)),
        contract(sample(3, 2, 5), sample(5, 2, 3, name="y"), (0, 1, 2), (2, 1, 0), (1, 0)),
        contract(sample(2, 4, 5), sample(5, 2, name="y"), (0, 1, 2), (2, 0), (1, 0)),
        contract(sample(5), sample(5, 2, name="y"), (0,), (0, 1), (1,)),
        contract(window(pad(transpose(sample(5, 2, 6), (1, 2, 0)), (0, 1, 2), (0, 0, 1), (0, 0, 0)),
                        (1, 2), (2, 3), (1, 2), (2, 1)), sample(2, 3, 2, name="y"),
                 (0, 1, 2, 3, 4), (3, 4, 0), (1, 0, 2)),
        contract(window(transpose(sample(7, 4), (1, 0)), (1,), (2,), (1,), (1,)),
                 sample(4, 6, name="y"), (0, 1, 2), (0, 1), (2, 0)),
        contract(reshape(window(sample(1, 3, 1, 7), (3,), (2,), (1,), (1,)), (3, 6, 2)),
                 sample(3, 2, name="y"), (0, 1, 2), (0, 2), (1, 0)),
        contract(sample(5, dtype=f16), sample(5, dtype=f16, name="y"), (0,), (0,), ()),
        contract(sample(5, 2, dtype=bool_), sample(2, 5, dtype=bool_, name="y"), (0, 1), (1, 0),
                 (1,)),
        contract(ones, sample(3, 4, dtype=ones.dtype), (0, 1), (0, 1), ()),
        contract(sample(2, 0), sample(0, 3, name="y"), (0, 1), (1, 2), (0, 2)),
    ]


CONTRACT = Rules(
    law("contract-nothing", op("contract", x, y), lambda m: full(m.root.type, 0),
        when=nothing_summed, examples=products),
    law("contract-units", op("contract", x, y), drop_units, examples=products),
    law("contract-product", op("contract", x, y), as_product, examples=products),
    law("contract-ones", op("contract", x, y), with_ones, examples=products),
    law("contract-transpose-left", op("contract", op("transpose", ..., bind="t"), y), absorb_left,
        examples=products),
    law("contract-transpose-right", op("contract", x, op("transpose", ..., bind="t")),
        absorb_right, examples=products),
    # After the transposes: a sum would read them in their order.
    law("contract-sum", op("contract", x, y), as_sum, examples=products),
)


# --- laws for a node that nothing else reads ------------------------------------------------
def turned_result(m: Match) -> Node:
    """A transpose of a contraction, as a contraction whose result has its axes in that order."""
    attrs, perm = m["c"].attrs, m.root.attrs.perm
    out = tuple(attrs.out[p] for p in perm)
    return make("contract", m["c"].inputs, ContractAttrs(attrs.lhs, attrs.rhs, out))


def sliced_result(m: Match) -> Node:
    """A slice of a contraction, as a contraction of slices."""
    inner, a = m["c"], m.root.attrs
    spans = dict(zip(inner.attrs.out, zip(a.starts, a.stops, a.steps, strict=True), strict=True))
    operands = []
    for x, labels in zip(inner.inputs, (inner.attrs.lhs, inner.attrs.rhs), strict=True):
        each = [spans.get(label, (0, d, 1)) for label, d in zip(labels, x.shape, strict=True)]
        operands.append(part(x, *zip(*each, strict=True)) if each else x)
    return make("contract", operands, inner.attrs)


def merged_axes(m: Match) -> Node:
    """A reduction of a reduction of the same kind, as one."""
    inner = m["r"]
    kept = [a for a in range(inner.inputs[0].type.rank) if a not in inner.attrs.axes]
    axes = set(inner.attrs.axes) | {kept[a] for a in m.root.attrs.axes}
    return reduce(m.root.op.name, inner.inputs[0], axes)


ONLY_USER = Rules(
    law("transpose-contract", op("transpose", op("contract", ..., bind="c")), turned_result,
        examples=lambda: [transpose(contract(sample(2, 3), sample(3, 4, name="y"),
                                             (0, 1), (1, 2), (0, 2)), (1, 0))]),
    law("slice-contract", op("slice", op("contract", ..., bind="c")), sliced_result,
        examples=lambda: [part(contract(sample(6, 3), sample(3, 9, name="y"),
                                        (0, 1), (1, 2), (2, 0)), (2, 1), (9, 4), (3, 1)),
                          part(contract(sample(4, 6, 3), sample(3, 4, name="y"),
                                        (0, 1, 2), (2, 0), (0, 1)), (1, 0), (4, 5), (2, 1))]),
    *(law(f"{name}-{name}", op(name, op(name, ..., bind="r")), merged_axes,
          examples=lambda: [r for i in reductions(sample(2, 3, 4), 1) for r in reductions(i, 1)])
      for name in REDUCTIONS),
)
"""Laws that would do the work of the inner node twice if another node read it as well."""

