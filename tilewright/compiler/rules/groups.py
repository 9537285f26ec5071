"""Laws of products of groups: nothing to add up, and transposes around them."""

from __future__ import annotations

from tilewright.compiler.rules.law import law, number, sample
from tilewright.compiler.rules.reductions import permuted
from tilewright.ir.build import transpose
from tilewright.ir.graph import Node, full
from tilewright.ir.groups import contract_groups
from tilewright.ir.rewrite import Match, Rules, hole, op
from tilewright.ir.types import i64

x, y, ends = hole("x"), hole("y"), hole("ends")


def nothing_summed(m: Match) -> bool:
    """Whether there is a result, but no element to add up."""
    return m.root.type.size > 0 and any(0 in n.shape for n in m.root.inputs)


def absorb_left(m: Match) -> Node:
    """A product whose left operand is a transpose."""
    a, t = m.root.attrs, m["t"]
    lhs = permuted(a.lhs, t.attrs.perm)
    return contract_groups(t.inputs[0], m["y"], m["ends"], lhs, a.rhs, a.out)


def absorb_right(m: Match) -> Node:
    """A product whose right operand is a transpose."""
    a, t = m.root.attrs, m["t"]
    rhs = permuted(a.rhs, t.attrs.perm)
    return contract_groups(m["x"], t.inputs[0], m["ends"], a.lhs, rhs, a.out)


def turned_result(m: Match) -> Node:
    """A transpose of a product, as a product whose result has its axes in that order."""
    a = m["c"].attrs
    out = tuple(a.out[p] for p in m.root.attrs.perm)
    left, right, stops = m["c"].inputs
    return contract_groups(left, right, stops, a.lhs, a.rhs, out)


def products() -> list[Node]:
    """Products of groups of both forms, with transposes on either side."""
    parts = sample(3, dtype=i64, name="ends")
    a, b, w = sample(5, 4), sample(5, 2, name="y"), sample(3, 4, 2, name="w")
    turned = transpose(sample(4, 5), (1, 0)), transpose(sample(2, 3, 4, name="w"), (1, 2, 0))
    return [
        contract_groups(turned[0], w, parts, (0, 1), (2, 1, 3), (0, 3)),
        contract_groups(a, turned[1], parts, (0, 1), (2, 1, 3), (3, 0)),
        contract_groups(turned[0], b, parts, (0, 1), (0, 3), (2, 1, 3)),
        contract_groups(a, transpose(sample(2, 5, name="y"), (1, 0)), parts, (0, 1), (0, 3),
                        (2, 3, 1)),
        contract_groups(sample(5, 0), sample(3, 0, 2, name="w"), parts, (0, 1), (2, 1, 3), (0, 3)),
        contract_groups(sample(0, 4), sample(0, 2, name="y"), parts, (0, 1), (0, 3), (2, 1, 3)),
        contract_groups(a, sample(0, 4, 2, name="w"), number(0, 0, dtype=i64), (0, 1), (2, 1, 3),
                        (0, 3)),
    ]


def turned_products() -> list[Node]:
    """Transposes of products of groups."""
    one, _, two = products()[:3]
    return [transpose(one, (1, 0)), transpose(two, (2, 0, 1))]


GROUPS = Rules(
    law("groups-nothing", op("contract_groups", x, y, ends), lambda m: full(m.root.type, 0),
        when=nothing_summed, examples=products),
    law("groups-transpose-left", op("contract_groups", op("transpose", ..., bind="t"), y, ends),
        absorb_left, examples=products),
    law("groups-transpose-right", op("contract_groups", x, op("transpose", ..., bind="t"), ends),
        absorb_right, examples=products),
)

OF_GROUPS = Rules(
    law("transpose-groups", op("transpose", op("contract_groups", ..., bind="c")), turned_result,
        examples=turned_products),
)
"""Laws that would do the work of the product twice if another node read it as well."""
