"""The NumPy interpreter of both languages: the definition of what a graph and a kernel mean.

Slow and plain. Threads are in ``interp_thread.py``, blocks of them in ``interp_block.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tilewright.errors import CompilerBug
from tilewright.ir.graph import Graph, Node
from tilewright.ir.interp_block import team_of
from tilewright.ir.interp_thread import poison
from tilewright.ir.loops import Barrier, Kernel, Stmt
from tilewright.ir.sizes import evaluate
from tilewright.ir.types import TensorType, concrete


def run_graph(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of ``graph`` on arrays of its inputs' shapes and dtypes, as fresh arrays.

    Raises ``ValueError`` if the arrays do not fit the inputs, ``IndexError`` for an index outside
    its axis and ``CompilerBug`` if an op gives something else than its type rule says.
    """
    if len(arrays) != len(graph.inputs):
        raise ValueError(f"{len(arrays)} arrays for {len(graph.inputs)} inputs")
    values: dict[Node, np.ndarray] = {}
    for node, array in zip(graph.inputs, arrays, strict=True):
        if TensorType(node.dtype, array.shape) != node.type or array.dtype != node.dtype.numpy:
            raise ValueError(
                f"input {node.attrs.name} is {node.type}, got {array.dtype}{list(array.shape)}"
            )
        values[node] = array
    for node in graph.nodes():
        if node not in values:
            values[node] = run_node(node, [values[n] for n in node.inputs])
    return [np.array(values[n], order="C", copy=True) for n in graph.outputs]


def run_node(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The value of one node. Raises ``CompilerBug`` if it does not have the node's type."""
    if node.op.name == "input":
        raise CompilerBug(f"the graph uses {node.attrs.name}, which is not one of its inputs")
    with np.errstate(all="ignore"):
        result = np.asarray(node.op.numpy(node.attrs, node.type, *inputs))
    if result.shape != concrete(node.type.shape) or result.dtype != node.dtype.numpy:
        raise CompilerBug(
            f"{node.op.name} gave {result.dtype}{list(result.shape)}, its type is {node.type}"
        )
    return result


def run_kernel(
    kernel: Kernel, arrays: Sequence[np.ndarray], threads: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> int:
    """Run ``kernel`` on one C-contiguous array per parameter, in place, with these ``sizes``.

    Returns the code of the first ``Check`` that failed, 0 if none did. Undefined contents
    (workspaces, fresh buffers) are NaN or 0xAB bytes. Between two barriers the threads of the
    team run one after another, so that a missing barrier shows.
    Raises ``CompilerBug`` for an access outside a buffer and for what the language forbids.
    """
    memory: dict[str, np.ndarray] = {}
    sizes = sizes or {}
    if len(arrays) != len(kernel.params):
        raise ValueError(f"{kernel.name}: {len(arrays)} arrays for {len(kernel.params)} parameters")
    for buffer, array in zip(kernel.params, arrays, strict=True):
        if array.dtype != buffer.dtype.numpy or array.size != evaluate(buffer.size, sizes):
            raise ValueError(
                f"{kernel.name}: {buffer.name} is {buffer.dtype}[{buffer.size}], "
                f"got {array.dtype}[{array.size}]"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"{kernel.name}: the array for {buffer.name} is not contiguous")
        memory[buffer.name] = array.reshape(-1)
        if buffer.access == "workspace":
            memory[buffer.name][:] = poison(buffer.dtype)
    team = team_of(kernel.name, memory, threads, sizes)
    with np.errstate(all="ignore"):
        for section in sections(kernel.body):
            for thread in team:
                thread.run_section(section)
    return next((t.failed for t in team if t.failed), 0)


def sections(body: Sequence[Stmt]) -> list[list[Stmt]]:
    """The top level of a kernel, cut at its barriers."""
    result: list[list[Stmt]] = [[]]
    for statement in body:
        if isinstance(statement, Barrier):
            result.append([])
        else:
            result[-1].append(statement)
    return result
