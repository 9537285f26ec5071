"""Tilewright functions in a traced program: their graphs become parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tilewright.ir.graph import Node, substitute
from tilewright.torch.differentiable import entry_of
from tilewright.torch.table import Call, row


@row(torch.ops.tilewright.call)
def call(call: Call, entry: int, inputs: Sequence[Node]) -> list[Node]:
    graph = entry_of(entry).graph
    return list(substitute(graph.outputs, dict(zip(graph.inputs, inputs, strict=True))))
