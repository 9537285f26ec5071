"""Products of groups of rows with a matrix each, as of experts: where a group ends is data."""

from __future__ import annotations

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node
from tilewright.ir.groups import contract_groups
from tilewright.ir.types import bool_, i64
from tilewright.torch.nodes import cast
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten


def product(x: Node, weights: Node, ends: Node) -> Node:
    """Each row (rows, k) by the matrix of its group, of (groups, k, n)."""
    return contract_groups(x, weights, ends, (0, 1), (2, 1, 3), (0, 3))


def outer(x: Node, y: Node, ends: Node) -> Node:
    """Per group, x (rows, k) transposed by y (rows, n): (groups, k, n)."""
    return contract_groups(x, y, ends, (0, 1), (0, 3), (2, 1, 3))


@row("transformers::grouped_mm_fallback")
def grouped_mm(call: Call, x: Node, weights: Node, ends: Node) -> Node:
    return product(x, weights, _ends(ends))


@row("transformers::grouped_mm_fallback_backward")
def grouped_mm_backward(
    call: Call, x: Node, weights: Node, ends: Node, gradient: Node
) -> list[Node]:
    back, ends = build.transpose(weights, (0, 2, 1)), _ends(ends)
    return [product(gradient, back, ends), outer(x, gradient, ends)]


def _ends(ends: Node) -> Node:
    if ends.dtype is bool_:
        raise NotCompiled("ends that are no numbers")
    return cast(ends, i64)
