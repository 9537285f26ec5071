"""Every op is a primitive: composite ops are taken apart as their rows in the op table say.

    y = sign(x)
->  y = where(ne(x, x), x, where(lt(x, 0), -1, where(gt(x, 0), 1, 0)))
"""

from __future__ import annotations

from tilewright.compiler.target import Target
from tilewright.ir.expansions import expand_all
from tilewright.ir.graph import Graph


def expand(graph: Graph, target: Target | None = None) -> Graph:
    """The same function in primitives, of which every target spells all; CPUs have kernels for
    products of groups, too.
    """
    on_gpu = target is not None and target.gpu is not None
    return expand_all(graph, lambda node: on_gpu or node.op.kind != "grouped")
