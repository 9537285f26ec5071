"""Numbers that the host must know before a launch, as plain data: arithmetic on named sizes.

    ("floordiv", ("add", "n", 127), 128)      blocks of 128 threads for n elements
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Union

from tilewright.errors import CompilerBug
from tilewright.ir import loops as k

Formula = Union[int, str, tuple[str, "Formula", "Formula"]]  # noqa: UP007 - it names itself
"""A number, the name of a size, or an operation on two of these."""

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "min": min, "max": max,
}


def number(formula: Formula, sizes: Mapping[str, int]) -> int:
    """The number of a formula, given those of the sizes."""
    if isinstance(formula, tuple):
        op, a, b = formula
        return OPERATIONS[op](number(a, sizes), number(b, sizes))
    return sizes[formula] if isinstance(formula, str) else formula


def joined(op: str, a: Formula, b: Formula) -> Formula:
    """An operation, done now if both numbers are known."""
    if isinstance(a, int) and isinstance(b, int):
        return OPERATIONS[op](a, b)
    return op, a, b


def ceiling(a: Formula, b: int) -> Formula:
    """A quotient, rounded up."""
    return joined("floordiv", joined("add", a, b - 1), b)


def formula(e: k.Expr, known: Mapping[str, Formula]) -> Formula:
    """The formula of index arithmetic on the variables that are known.

    Raises ``CompilerBug`` for what is not known before the launch.
    """
    if isinstance(e, k.Call) and e.op in OPERATIONS:
        a, b = (formula(arg, known) for arg in e.args)
        return joined(e.op, a, b)
    constant = k.const_int(e)
    if constant is not None:
        return constant
    if isinstance(e, k.Var) and e.name in known:
        return known[e.name]
    raise CompilerBug("the bounds of a parallel loop are not known before the launch")


def computable(e: k.Expr, known: Mapping[str, Formula]) -> bool:
    """Whether :func:`formula` gives the number of an expression."""
    if isinstance(e, k.Call):
        return e.op in OPERATIONS and all(computable(a, known) for a in e.args)
    return k.const_int(e) is not None or (isinstance(e, k.Var) and e.name in known)


def blocks(kernel: k.Kernel, threads: int, known: Mapping[str, Formula]) -> Formula:
    """Blocks of the grid of a stretch of a kernel, of ``threads`` threads each; 0 or less: nothing
    is to do. ``known`` has the kernel's sizes.
    """
    most: Formula = 1
    known = dict(known)
    for s in kernel.body:
        if isinstance(s, k.Let) and computable(s.value, known):
            known[s.var.name] = formula(s.value, known)
        elif isinstance(s, k.For):
            trip = ceiling(
                joined("sub", formula(s.stop, known), formula(s.start, known)), s.step)
            if s.kind == "block":
                return trip
            most = joined("max", most, trip)
    return ceiling(most, threads)


def read(data: Any) -> Formula:
    """A formula from what JSON makes of one. Raises ``TypeError`` or ``ValueError`` for others."""
    if isinstance(data, int | str):
        return data
    op, a, b = data
    if op not in OPERATIONS:
        raise ValueError(f"no operation of a formula: {op}")
    return op, read(a), read(b)
