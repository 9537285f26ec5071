"""What the rule tables share: rules whose right side is a function, and nodes to try them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.ir.build import place
from tilewright.ir.graph import Node, full, full_value, input_node
from tilewright.ir.patterns import OpPattern
from tilewright.ir.rewrite import Match, Rule, rule
from tilewright.ir.sizes import Dim
from tilewright.ir.types import DType, TensorType, f32


def law(
    name: str, left: OpPattern, right: Callable[[Match], Node | None], *,
    when: Callable[[Match], bool] | None = None,
    examples: Callable[[], Sequence[Node]] | None = None,
) -> Rule:
    """A rule whose right side is a function; the nodes that it makes get the root's line."""
    def placed(match: Match) -> Node | None:
        result = right(match)
        return None if result is None else place(result, match.root.inputs, match.root.loc)
    return rule(name, left, placed, when=when, examples=examples)


def sample(*shape: int, dtype: DType = f32, name: str = "x") -> Node:
    """An input for the examples of a rule."""
    return input_node(name, TensorType(dtype, shape))


def number(value: object, *shape: int, dtype: DType = f32) -> Node:
    """A constant for the examples of a rule."""
    return full(TensorType(dtype, shape), value)


def all_full(nodes: Sequence[Node]) -> bool:
    """Whether all nodes are constants with the same bits."""
    return all(n.op.name == "full" and n.attrs == nodes[0].attrs for n in nodes)


def fits(count: Dim, dtype: DType) -> bool:
    """Whether a number of elements may stand as a factor in this type.

    In f32 and f64 the rounding of the count is no worse than that of the product; ints wrap as
    the sum that the product replaces does. The 16-bit floats must hold it exactly.
    """
    if dtype.bits > 16 or not dtype.is_float:
        return True
    if not isinstance(count, int):
        return False
    with np.errstate(all="ignore"):
        return float(np.asarray(count).astype(dtype.numpy)) == count


def power_of_two(node: Node) -> bool:
    """Whether a constant is 2, 4, 8 ... or, for floats, also 1/2, 1/4 ... of either sign."""
    value = float(full_value(node))
    if not np.isfinite(value) or value == 0:
        return False
    if node.dtype.is_int:
        return int(full_value(node)).bit_count() == 1 and value > 1
    return bool(abs(np.frexp(value)[0]) == 0.5)
