"""PyTorch's symbolic sizes as ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tilewright.errors import UnsupportedSize
from tilewright.ir.sizes import Dim, largest, product, smallest, total


def _power(base: Dim, exponent: Dim) -> Dim:
    if not isinstance(exponent, int) or exponent < 0:
        raise UnsupportedSize(f"the size {base}**{exponent}")
    return product([base] * exponent)


FUNCTIONS: dict[str, Callable[..., Dim]] = {
    "Add": lambda *args: total(args), "Mul": lambda *args: product(args), "Pow": _power,
    "FloorDiv": lambda a, b: a // b, "CleanDiv": lambda a, b: a // b,
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
    if expr.is_Integer:
        return int(expr)
    found = FUNCTIONS.get(type(expr).__name__)
    if found is None:
        raise UnsupportedSize(f"the size {expr}")
    return found(*(size_of(a, sizes) for a in expr.args))
