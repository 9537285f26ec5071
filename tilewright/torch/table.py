"""The table of operators: what a PyTorch operator is as a graph.

A row is a function ``f(call, *arguments, **keywords)`` whose tensors are Nodes and whose numbers
are numbers; it returns a Node, or a list of them for an operator with several results. A result
may have any element type: it is converted to the one that PyTorch gives it. A row that does not
cover some arguments raises :class:`NotCompiled`: the operator then runs in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from tilewright.errors import Location
from tilewright.ir.graph import Node
from tilewright.ir.types import TensorType

Row: TypeAlias = Callable[..., Any]


class NotCompiled(Exception):
    """There is no graph for this operator with these arguments; the message says why."""


@dataclass(frozen=True)
class Check:
    """An operator of PyTorch that raises or does nothing, on a computed value.

    It computes nothing, so it is no operator that is not compiled.
    """

    target: Any
    value: Node
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One call of an operator: what PyTorch knows of its result.

    target  the operator
    out     the type of the result, or a list of the types of the results (None: no tensor)
    args    the arguments as PyTorch's meta tensors and numbers
    loc     the user's line
    paired  whether the result is complex: its type is then that of its parts
    checks  what PyTorch looks at after the part has run, and raises for
    """

    target: Any
    out: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loc: Location | None = None
    paired: bool = False
    checks: list[Check] = field(default_factory=list)

    @property
    def type(self) -> TensorType:
        """The type of the only result."""
        found: TensorType = self.out
        return found


ROWS: dict[Any, Row] = {}
"""By operator overload, or by packet for all overloads of a name. Operators of a package that may
not be there are named: ``package::name``."""


def row(*targets: Any) -> Callable[[Row], Row]:
    """Enter a function for these operators."""
    def enter(function: Row) -> Row:
        for target in targets:
            if target in ROWS:
                raise ValueError(f"two rows are for {target}")
            ROWS[target] = function
        return function
    return enter


def find(target: Any) -> Row | None:
    """The row of an operator, if there is one."""
    found = ROWS.get(target)
    if found is None and isinstance(target, torch._ops.OpOverload):
        found = ROWS.get(target.overloadpacket) or ROWS.get(target._schema.name)
    return found
