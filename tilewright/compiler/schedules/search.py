"""Binary searches, as expressions that any kernel may hold."""

from __future__ import annotations

from tilewright.compiler.schedules.access import RULES, Index, Writer
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.types import bool_, i64

LARGEST_SEARCH = 40
"""Steps of a search in a row whose length is not known: no memory holds a longer one."""


def searchsorted(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    """How many sorted elements come before: a binary search with a fixed number of steps."""
    rows, values = node.inputs
    size = rows.shape[-1]
    steps = size.bit_length() if isinstance(size, int) else LARGEST_SEARCH
    row = index[:-1] if rows.type.rank > 1 else ()
    value = w.value(values, index, mask)
    key = ("searchsorted", node, value, row, mask)
    for scope in w.scopes:
        if key in scope.memo:
            return scope.memo[key]
    depth = max(map(w.depth, (value, *row, *(() if mask is None else (mask,)))))
    value = w.let_at(depth, "v", value)
    count: k.Expr = k.Const(0)
    for step in (1 << bit for bit in reversed(range(steps))):
        further = w.let_at(depth, "n", k.add(count, step))
        inside = k.compare("le", further, size)
        other = w.value(rows, (*row, k.sub(further, 1)), k.both(mask, inside))
        if rows.dtype.is_float:
            # It is looked at twice, and read once.
            other = w.let_at(depth, "x", other)
        before = k.both(inside, _precedes(other, value, node.attrs.right))
        count = w.let_at(depth, "n", k.Call("where", (before or inside, further, count), i64))
    w.scopes[depth].memo[key] = count
    return count


def _precedes(a: k.Expr, b: k.Expr, equal: bool) -> k.Expr:
    """Whether a sorted element stands before a value; NaN counts as larger than any number."""
    result = k.compare("le" if equal else "lt", a, b)
    if not a.dtype.is_float:
        return result
    last: k.Expr | None = k.compare("ne", b, b)
    if not equal:
        last = k.both(last, k.compare("eq", a, a))
    return k.Call("or", (result, last or result), bool_)


RULES["searchsorted"] = searchsorted
