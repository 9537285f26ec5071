"""What is known of the numbers in an integer tensor: an index surely inside needs no check.

Numbers that may leave their type wrap, so that any number of the type can come of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tilewright.ir.graph import Node, full_value
from tilewright.ir.types import DType

DEPTH = 24
"""Operations that are looked through."""


class Span(NamedTuple):
    """The numbers from ``low`` to ``high``, both included."""

    low: int
    high: int


def range_of(node: Node, given: Callable[[Node], bool] = lambda node: False) -> Span:
    """The numbers that the elements of an integer or bool tensor can be, however it is computed.

    Nothing is known of the nodes that are ``given``. A gather may give 0 where its index is
    outside: the error is reported after the run.
    """
    return _range(node, given, DEPTH, {})


def _range(
    node: Node, given: Callable[[Node], bool], depth: int, known: dict[Node, Span]
) -> Span:
    found = known.get(node)
    if found is not None:
        return found
    found = whole = numbers_of(node.dtype)
    rule = _RULES.get(node.op.name)
    floats = any(n.dtype.is_float for n in node.inputs)
    if rule is not None and depth and not floats and not given(node):
        span = rule(node, *(_range(n, given, depth - 1, known) for n in node.inputs))
        if whole.low <= span.low and span.high <= whole.high:
            found = span
    known[node] = found
    return found


def numbers_of(dtype: DType) -> Span:
    """All numbers of an integer type, 0 and 1 for bool."""
    if not dtype.is_int:
        return Span(0, 1)
    limits = np.iinfo(dtype.numpy)
    return Span(int(limits.min), int(limits.max))


def union(*spans: Span) -> Span:
    """The smallest span around these."""
    return Span(min(s.low for s in spans), max(s.high for s in spans))


def _full(node: Node) -> Span:
    value = int(full_value(node))
    return Span(value, value)


def _iota(node: Node) -> Span:
    size = node.shape[node.attrs.axis]
    return Span(0, max(0, size - 1) if isinstance(size, int) else numbers_of(node.dtype).high)


def _same(node: Node, x: Span) -> Span:
    return x


def _any(node: Node, *parts: Span) -> Span:
    return union(*parts)


def _where(node: Node, condition: Span, x: Span, y: Span) -> Span:
    return union(x, y)


def _taken(node: Node, x: Span, index: Span) -> Span:
    return union(x, Span(0, 0))


def _add(node: Node, x: Span, y: Span) -> Span:
    return Span(x.low + y.low, x.high + y.high)


def _sub(node: Node, x: Span, y: Span) -> Span:
    return Span(x.low - y.high, x.high - y.low)


def _mul(node: Node, x: Span, y: Span) -> Span:
    corners = [a * b for a in x for b in y]
    return Span(min(corners), max(corners))


def _max(node: Node, x: Span, y: Span) -> Span:
    return Span(max(x.low, y.low), max(x.high, y.high))


def _min(node: Node, x: Span, y: Span) -> Span:
    return Span(min(x.low, y.low), min(x.high, y.high))


def _mod(node: Node, x: Span, y: Span) -> Span:
    """The sign is the divisor's; 0 divides to 0."""
    return Span(0, y.high - 1) if y.low > 0 else numbers_of(node.dtype)


def _floordiv(node: Node, x: Span, y: Span) -> Span:
    if y.low < 1:
        return numbers_of(node.dtype)
    corners = [a // b for a in x for b in y]
    return Span(min(corners), max(corners))


_RULES: dict[str, Callable[..., Span]] = {
    "full": _full, "iota": _iota, "where": _where, "add": _add, "sub": _sub,
    "mul": _mul, "max": _max, "min": _min, "mod": _mod, "floordiv": _floordiv, "concat": _any,
    "pad": _any, "take": _taken, "take_along": _taken,
    **dict.fromkeys(("cast", "reshape", "transpose", "broadcast", "slice", "flip", "positive",
                     "stop_gradient"), _same),
}
