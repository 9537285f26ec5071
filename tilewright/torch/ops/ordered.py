"""Running results along an axis, sorting, the largest few, and places in sorted rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tilewright.ir import build, ordered
from tilewright.ir.graph import Node
from tilewright.torch.nodes import axis_of, cast
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


def _scan(op: str) -> Callable[..., Node]:
    def function(call: Call, x: Node, dim: int, *, dtype: Any = None) -> Node:
        return ordered.scan(op, cast(x, call.type.dtype), dim)
    return function


row(aten.cumsum)(_scan("add"))
row(aten.cumprod)(_scan("mul"))


def _cumulative_extreme(op: str) -> Callable[..., list[Node]]:
    def function(call: Call, x: Node, dim: int) -> list[Node]:
        return list(ordered.cumulative_extreme(op, x, dim))
    return function


row(aten.cummax)(_cumulative_extreme("max"))
row(aten.cummin)(_cumulative_extreme("min"))


@row(aten.logcumsumexp)
def logcumsumexp(call: Call, x: Node, dim: int) -> Node:
    return ordered.logcumsumexp(x, dim)


@row(aten.sort.default, aten.sort.stable)
def sort(
    call: Call, x: Node, dim: int = -1, descending: bool = False, *, stable: bool | None = None
) -> list[Node]:
    return list(ordered.sort(x, dim, descending))


@row(aten.argsort.default, aten.argsort.stable)
def argsort(
    call: Call, x: Node, dim: int = -1, descending: bool = False, *, stable: bool | None = None
) -> Node:
    return ordered.argsort(x, dim, descending)


@row(aten.topk)
def topk(
    call: Call, x: Node, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> list[Node]:
    return list(ordered.topk(x, k, dim, largest))


def _kept(call: Call, made: tuple[Node, Node]) -> list[Node]:
    """A value per row and its place, with an axis of size 1 if PyTorch has it."""
    return [build.reshape(x, t.shape) for x, t in zip(made, call.out, strict=True)]


@row(aten.kthvalue)
def kthvalue(call: Call, x: Node, k: int, dim: int = -1, keepdim: bool = False) -> list[Node]:
    return _kept(call, ordered.kth_value(x, k - 1, dim))


@row(aten.median.dim)
def median(call: Call, x: Node, dim: int, keepdim: bool = False) -> list[Node]:
    return _kept(call, ordered.median(x, dim))


@row(aten.median.default)
def median_of_all(call: Call, x: Node) -> Node:
    if not x.type.size:
        raise NotCompiled("the median of nothing")
    return ordered.median(build.reshape(x, (x.type.size,)), 0)[0]


@row(aten.mode)
def mode(call: Call, x: Node, dim: int = -1, keepdim: bool = False) -> list[Node]:
    axis = axis_of(dim, x.type.rank)
    if x.type.rank and not x.shape[axis]:
        raise NotCompiled("the mode of nothing")
    return _kept(call, ordered.mode(x, axis))
