"""A body of a kernel while it is being written."""

from __future__ import annotations

from typing import Any

from tilewright.ir import loops as k


class Scope:
    """The statements of one loop body under construction."""

    def __init__(self) -> None:
        self.statements: list[k.Stmt] = []
        self.memo: dict[Any, k.Expr] = {}
