"""The patterns of rewrite rules: what they match, and the nodes that they stand for.

:mod:`tilewright.ir.rewrite` describes how they are written.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np

from tilewright.ir.graph import NO_ATTRS, OPS, Attrs, FullAttrs, Node, full, full_value, make
from tilewright.ir.types import DTYPES, DType, TensorType, bool_

COMMUTATIVE = frozenset(("add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"))
ALL = tuple(DTYPES.values())


class Pattern:
    """Base of the pattern classes; operators on patterns build patterns."""

    __slots__ = ()

    def __add__(self, other: PatternLike) -> OpPattern:
        return op("add", self, other)

    def __radd__(self, other: PatternLike) -> OpPattern:
        return op("add", other, self)

    def __sub__(self, other: PatternLike) -> OpPattern:
        return op("sub", self, other)

    def __rsub__(self, other: PatternLike) -> OpPattern:
        return op("sub", other, self)

    def __mul__(self, other: PatternLike) -> OpPattern:
        return op("mul", self, other)

    def __rmul__(self, other: PatternLike) -> OpPattern:
        return op("mul", other, self)

    def __truediv__(self, other: PatternLike) -> OpPattern:
        return op("div", self, other)

    def __rtruediv__(self, other: PatternLike) -> OpPattern:
        return op("div", other, self)

    def __neg__(self) -> OpPattern:
        return op("neg", self)

    def __lt__(self, other: PatternLike) -> OpPattern:
        return op("lt", self, other)

    def __le__(self, other: PatternLike) -> OpPattern:
        return op("le", self, other)

    def __gt__(self, other: PatternLike) -> OpPattern:
        return op("gt", self, other)

    def __ge__(self, other: PatternLike) -> OpPattern:
        return op("ge", self, other)

    def __and__(self, other: PatternLike) -> OpPattern:
        return op("and", self, other)

    def __or__(self, other: PatternLike) -> OpPattern:
        return op("or", self, other)

    def __invert__(self) -> OpPattern:
        return op("not", self)


@dataclass(frozen=True, slots=True)
class Hole(Pattern):
    """Matches any node of these element types; every occurrence is the same node."""

    name: str
    types: tuple[DType, ...] = ALL


@dataclass(frozen=True, slots=True)
class ConstHole(Pattern):
    """Matches a ``full`` node; every occurrence has the same value."""

    name: str
    types: tuple[DType, ...] = ALL


@dataclass(frozen=True, slots=True)
class Literal(Pattern):
    """A ``full`` node with this value."""

    value: int | float | bool


@dataclass(frozen=True, slots=True)
class OpPattern(Pattern):
    """A node of this op (or, with ``kind``, of any op of the kind); ``args`` None: any inputs.

    reads  some input is a node of this op
    only   all inputs are nodes of this op
    """

    op: str
    args: tuple[Pattern, ...] | None
    attrs: str | Attrs | Callable[[Match], Attrs] | None = None
    bind: str | None = None
    kind: str | None = None
    reads: str | None = None
    only: str | None = None

    def may_read(self, ops: Sequence[str]) -> bool:
        """Whether nodes of these ops, in this order, may be the inputs."""
        if self.reads is not None and self.reads not in ops:
            return False
        return self.only is None or all(name == self.only for name in ops)


PatternLike: TypeAlias = "Pattern | int | float | bool"


@dataclass(slots=True)
class Match:
    """What a left side found: ``m["x"]`` is a node, ``m.attrs["p"]`` an attribute record."""

    root: Node
    nodes: dict[str, Node] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def value(self, name: str) -> Any:
        """The NumPy scalar that a const hole found."""
        return full_value(self.nodes[name])


def hole(name: str, types: tuple[DType, ...] = ALL) -> Hole:
    """A pattern for any node of these element types."""
    return Hole(name, types)


def const(name: str, types: tuple[DType, ...] = ALL) -> ConstHole:
    """A pattern for a ``full`` node of these element types."""
    return ConstHole(name, types)


def op(
    name: str, *args: PatternLike | EllipsisType,
    attrs: str | Attrs | Callable[[Match], Attrs] | None = None, bind: str | None = None,
) -> OpPattern:
    """A pattern for a node of the op called ``name``. Raises ``KeyError`` for an unknown op."""
    OPS[name]
    inputs = None if args and args[0] is ... else tuple(as_pattern(a) for a in args)
    return OpPattern(name, inputs, attrs, bind)


def any_op(
    kind: str, bind: str | None = None, reads: str | None = None, only: str | None = None
) -> OpPattern:
    """A pattern for a node of any op of this kind.

    With ``reads``, some input must be a node of this op; with ``only``, all inputs.
    """
    return OpPattern("", None, None, bind, kind, reads, only)


def as_pattern(value: object) -> Pattern:
    """A number as a :class:`Literal`; patterns pass through."""
    if isinstance(value, Pattern):
        return value
    if isinstance(value, (bool, int, float)):
        return Literal(value)
    raise TypeError(f"{value!r} is neither a pattern nor a number")


def orders(pattern: Pattern) -> Iterator[Any]:
    """The pattern with the operands of its commutative ops in every order."""
    if not isinstance(pattern, OpPattern) or pattern.args is None:
        yield pattern
        return
    for args in itertools.product(*(tuple(orders(a)) for a in pattern.args)):
        yield replace(pattern, args=args)
        if pattern.op in COMMUTATIVE:
            yield replace(pattern, args=args[::-1])


Matcher: TypeAlias = "Callable[[Node, Match], bool]"


def matcher(pattern: Pattern) -> Matcher:
    """Whether a node fits; what the holes stand for is entered in the match."""
    if isinstance(pattern, OpPattern):
        return op_matcher(pattern)
    if isinstance(pattern, Hole):
        return hole_matcher(pattern.name, pattern.types)
    if isinstance(pattern, ConstHole):
        return const_matcher(pattern.name, pattern.types)
    assert isinstance(pattern, Literal)
    value = pattern.value
    return lambda node, found: node.op.name == "full" and has_value(node, value)


def hole_matcher(name: str, types: tuple[DType, ...]) -> Matcher:
    """Any node of these types, always the same one."""
    if types is ALL:
        return lambda node, found: found.nodes.setdefault(name, node) is node
    return lambda node, found: (
        node.type.dtype in types and found.nodes.setdefault(name, node) is node)


def const_matcher(name: str, types: tuple[DType, ...]) -> Matcher:
    """A ``full`` node of these types, always of the same value."""
    def fits(node: Node, found: Match) -> bool:
        if node.op.name != "full" or node.dtype not in types:
            return False
        known = found.nodes.setdefault(name, node)
        return known is node or known.dtype is node.dtype and known.attrs == node.attrs
    return fits


def op_matcher(pattern: OpPattern) -> Matcher:
    """A node with the op, attributes and inputs of a pattern."""
    name, kind, attrs, bind = pattern.op, pattern.kind, pattern.attrs, pattern.bind
    args = None if pattern.args is None else tuple([matcher(p) for p in pattern.args])

    def fits(node: Node, found: Match) -> bool:
        if node.op.name != name and node.op.kind != kind:
            return False
        if isinstance(attrs, str):
            if found.attrs.setdefault(attrs, node.attrs) != node.attrs:
                return False
        elif attrs is not None and attrs != node.attrs:
            return False
        if bind is not None:
            found.nodes[bind] = node
        if args is None:
            return pattern.may_read([n.op.name for n in node.inputs])
        if len(args) != len(node.inputs):
            return False
        for matches, source in zip(args, node.inputs, strict=True):  # noqa: SIM110 - twice as fast
            if not matches(source, found):
                return False
        return True
    return fits


def has_value(node: Node, value: int | float | bool) -> bool:
    """Whether a ``full`` node has this value: bools as bools, ints by value, floats by bits."""
    # The sign tells the zeros apart, the name of the type 1, 1.0 and True, which are equal.
    sign, kind = math.copysign(1, value), type(value).__name__
    return _has_value(node.dtype, node.attrs, kind, value, sign)


@functools.lru_cache(maxsize=4096)
def _has_value(dtype: DType, attrs: FullAttrs, kind: str, value: Any, sign: float) -> bool:
    if kind == "bool":
        return dtype is bool_ and attrs.bits == value
    scalar = TensorType(dtype, ())
    node = make("full", (), attrs, None, scalar)
    if kind == "float" and dtype.is_float:
        return full(scalar, value) is node
    return bool(full_value(node) == value)


def build(pattern: Pattern, match: Match, like: TensorType) -> Node:
    """The node that a right side stands for; a lone number takes the type ``like``."""
    if isinstance(pattern, Hole):
        return match[pattern.name]
    if isinstance(pattern, ConstHole):
        found = match[pattern.name]
        return make("full", (), found.attrs, match.root.loc, found.type.with_shape(like.shape))
    if isinstance(pattern, Literal):
        return full(like, pattern.value, match.root.loc)
    assert isinstance(pattern, OpPattern)
    row = OPS[pattern.op]
    assert pattern.args is not None
    if row.kind == "elementwise":
        inputs = build_operands(pattern.op, pattern.args, match, like)
    else:
        inputs = [build(p, match, like.with_shape(())) for p in pattern.args]
    node = make(row, inputs, right_attrs(pattern, match), match.root.loc)
    return fold(node) or node


def build_operands(
    name: str, args: tuple[Pattern, ...], match: Match, like: TensorType
) -> list[Node]:
    """The operands of an elementwise op: its numbers take the shape and type of the others."""
    plain = (Literal, ConstHole)
    built = [None if isinstance(p, plain) else build(p, match, like) for p in args]
    tensors = [n for n in built if n is not None]
    shape = (tensors[0].type if tensors else like).shape
    first = 1 if name == "where" else 0
    typed = [n.dtype for n in built[first:] if n is not None]
    typed += [match[p.name].dtype for p in args[first:] if isinstance(p, ConstHole)]
    dtype = typed[0] if typed else like.dtype
    result = []
    for i, (p, n) in enumerate(zip(args, built, strict=True)):
        wanted = bool_ if i < first else dtype
        result.append(n if n is not None else build(p, match, TensorType(wanted, shape)))
    return result


def right_attrs(pattern: OpPattern, match: Match) -> Attrs:
    """The attribute record of a node of a right side."""
    if pattern.attrs is None:
        return NO_ATTRS
    if isinstance(pattern.attrs, str):
        record: Attrs = match.attrs[pattern.attrs]
        return record
    return pattern.attrs if isinstance(pattern.attrs, Attrs) else pattern.attrs(match)


def fold(node: Node) -> Node | None:
    """The ``full`` node that an elementwise op on ``full`` nodes comes to; None for other nodes."""
    if node.op.kind != "elementwise" or any(n.op.name != "full" for n in node.inputs):
        return None
    values = [np.asarray(full_value(n)) for n in node.inputs]
    return full(node.type, node.op.numpy(node.attrs, node.type.with_shape(()), *values), node.loc)
