"""Complex numbers as pairs of real nodes, and the rows of operators on them.

A row of this table has the form of a row of ``table.py``; its complex tensors are pairs, and the
type in its call is that of the parts. An operator that does the same to each element wherever it
stands does it to both parts, by the row that it has for real tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.ir import build
from tilewright.ir.graph import Node, full
from tilewright.ir.types import DType, Shape, TensorType
from tilewright.torch.nodes import cast, expand, number, wide
from tilewright.torch.table import Call, NotCompiled, Row, find


@dataclass(frozen=True, slots=True)
class Pair:
    """A complex tensor: its real and its imaginary part, of one type."""

    re: Node
    im: Node

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Pair) -> Pair:
        return Pair(self.re - other.re, self.im - other.im)

    def __mul__(self, other: Pair) -> Pair:
        return Pair(self.re * other.re - self.im * other.im,
                    self.re * other.im + self.im * other.re)

    def conj(self) -> Pair:
        """The complex conjugate."""
        return Pair(self.re, -self.im)

    def each(self, f: Callable[[Node], Node]) -> Pair:
        """The same done to both parts."""
        return Pair(f(self.re), f(self.im))

    @property
    def type(self) -> TensorType:
        """The type of the parts."""
        return self.re.type

    @property
    def shape(self) -> Shape:
        """The shape of the tensor."""
        return self.re.shape

    @property
    def dtype(self) -> DType:
        """The element type of the parts."""
        return self.re.dtype


def pair_of(x: Any, dtype: DType, shape: Shape) -> Pair:
    """A tensor or number as a pair of this type and shape."""
    if isinstance(x, Pair):
        return x.each(lambda part: expand(cast(part, dtype), shape))
    if isinstance(x, Node):
        return Pair(expand(cast(x, dtype), shape), number(0, dtype, shape))
    value = complex(x)
    return Pair(number(value.real, dtype, shape), number(value.imag, dtype, shape))


def interleaved(x: Pair) -> Node:
    """The parts side by side on a new last axis, as they lie in memory."""
    shape = (*x.shape, 1)
    return build.concat([build.reshape(x.re, shape), build.reshape(x.im, shape)], len(x.shape))


def apart(x: Node) -> Pair:
    """The parts that stand side by side on the last axis."""
    rank = x.type.rank
    lead = x.shape[:-1]

    def half(i: int) -> Node:
        found = build.part(x, [0] * (rank - 1) + [i], [*lead, i + 1], [1] * rank)
        return build.reshape(found, lead)
    return Pair(half(0), half(1))


PAIR_ROWS: dict[Any, Row] = {}
"""By operator packet."""


def pair_row(*targets: Any) -> Callable[[Row], Row]:
    """Enter a function for these operators on complex tensors."""
    def enter(function: Row) -> Row:
        for target in targets:
            if target in PAIR_ROWS:
                raise ValueError(f"two rows of pairs are for {target}")
            PAIR_ROWS[target] = function
        return function
    return enter


def find_pair_row(target: Any) -> Row | None:
    """The row of an operator for complex tensors, if there is one."""
    return PAIR_ROWS.get(getattr(target, "overloadpacket", target))


def each_part(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A row for what does to each part what the operator's row does to a real tensor."""
    row = find(call.target)
    if row is None:
        raise NotCompiled("the operator is not in the table")
    made = [row(call, *_part(args, which), **_part(kwargs, which)) for which in ("re", "im")]
    if isinstance(made[0], Node):
        return Pair(made[0], made[1])
    return [Pair(re, im) for re, im in zip(*made, strict=True)]


def _part(value: Any, which: str) -> Any:
    """Arguments of one part: a real tensor or number of floats belongs to the real one."""
    if isinstance(value, Pair):
        return getattr(value, which)
    if isinstance(value, tuple | list):
        return type(value)(_part(v, which) for v in value) if type(value) in (tuple, list) else [
            _part(v, which) for v in value]
    if isinstance(value, dict):
        return {name: _part(v, which) for name, v in value.items()}
    if isinstance(value, complex):
        return value.real if which == "re" else value.imag
    if isinstance(value, Node) and value.dtype.is_float and which == "im":
        return full(value.type, 0)
    return value


def wide_pair(x: Any, dtype: DType, shape: Shape) -> Pair:
    """An operand of arithmetic, in the type in which PyTorch computes."""
    return pair_of(x, wide(dtype), shape)
