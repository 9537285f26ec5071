"""PyTorch's symbolic sizes as ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tilewright.errors import UnsupportedSize
from tilewright.ir.graph import Node, apply, full
from tilewright.ir.sizes import Dim, largest, product, smallest, total
from tilewright.ir.types import TensorType, f64


def _power(base: Dim, exponent: Dim) -> Dim:
    if not isinstance(exponent, int) or exponent < 0:
        raise UnsupportedSize(f"the size {base}**{exponent}")
    return product([base] * exponent)


def _even(a: Dim, b: Dim) -> Dim:
    """A quotient of floats that is a whole number."""
    if a % b != 0:
        raise UnsupportedSize(f"the number ({a}) / ({b})")
    return a // b


FUNCTIONS: dict[str, Callable[..., Dim]] = {
    "Add": lambda *args: total(args), "Mul": lambda *args: product(args), "Pow": _power,
    "FloorDiv": lambda a, b: a // b, "CleanDiv": lambda a, b: a // b,
    "IntTrueDiv": _even, "FloatTrueDiv": _even, "ToFloat": lambda a: a,
    "Mod": lambda a, b: a % b, "PythonMod": lambda a, b: a % b,
    "ModularIndexing": lambda a, b, c: a // b % c,
    "Max": lambda *args: functools.reduce(largest, args),
    "Min": lambda *args: functools.reduce(smallest, args),
}
"""sympy's functions, and PyTorch's own, by name."""


def size_of(expr: Any, sizes: Mapping[Any, Dim]) -> Dim:
    """An expression of symbols as a size, the symbols being ``sizes``.

    Raises ``UnsupportedSize`` for a function that sizes do not have.
    """
    if expr.is_Symbol:
        return sizes[expr]
    if expr.is_Integer or (expr.is_Float and expr == int(expr)):
        return int(expr)
    found = FUNCTIONS.get(type(expr).__name__)
    if found is None:
        raise UnsupportedSize(f"the size {expr}")
    return found(*(size_of(a, sizes) for a in expr.args))


def value_of(expr: Any, sizes: Mapping[Any, Dim]) -> Dim | Node:
    """An expression of symbols as a size or, where it is a number that no size is, as an f64.

    Raises ``UnsupportedSize`` for a function that is unknown.
    """
    try:
        return size_of(expr, sizes)
    except UnsupportedSize:
        if expr.is_number:
            return full(SCALAR, float(expr))
    found = OPERATIONS.get(type(expr).__name__)
    if found is None:
        raise UnsupportedSize(f"the number {expr}")
    return functools.reduce(found, [_scalar(value_of(a, sizes)) for a in expr.args])


def _scalar(value: Dim | Node) -> Node:
    return value if isinstance(value, Node) else full(SCALAR, value)


SCALAR = TensorType(f64, ())

OPERATIONS: dict[str, Callable[..., Node]] = {
    "Add": lambda a, b: a + b, "Mul": lambda a, b: a * b, "ToFloat": lambda a: a,
    "IntTrueDiv": lambda a, b: a / b, "FloatTrueDiv": lambda a, b: a / b,
    "Pow": lambda a, b: apply("pow", a, b), "FloatPow": lambda a, b: apply("pow", a, b),
    "Max": lambda a, b: apply("max", a, b), "Min": lambda a, b: apply("min", a, b),
}
"""What is computed of two numbers when the program runs."""
