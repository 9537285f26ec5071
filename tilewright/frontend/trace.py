"""Run a Python function on recorded values: function -> Graph.

What a transform needs stands here: :func:`trace_nodes`, :func:`inline`, and from the neighbours
``as_node`` (value -> Node), ``wrap`` (Node -> traced value) and ``current`` (is anything traced).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, Location, UserError
from tilewright.frontend import tree
from tilewright.frontend.build import as_node, checked_dtype, wrap
from tilewright.frontend.location import definition, raised_at
from tilewright.frontend.tracer import Trace, Tracer, current, running
from tilewright.ir.graph import Graph, Node, substitute
from tilewright.ir.types import TensorType

__all__ = [
    "InputSpec",
    "Traced",
    "Tracer",
    "as_node",
    "current",
    "inline",
    "trace_function",
    "trace_nodes",
    "wrap",
]


class InputSpec:
    """The type of an argument leaf; ``weak`` for a Python number, whose type follows its partner's.

    It is no dataclass: those are trees, and this stands in the place of a leaf.
    """

    __slots__ = ("type", "weak")

    def __init__(self, type: TensorType, weak: bool = False) -> None:
        self.type, self.weak = type, weak

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputSpec) and (self.type, self.weak) == (other.type, other.weak)

    def __hash__(self) -> int:
        return hash((self.type, self.weak))

    def __repr__(self) -> str:
        return f"{self.type} (a Python number)" if self.weak else str(self.type)


@dataclass(frozen=True)
class Traced:
    """A traced function.

    graph     one input per leaf that became one, one output per leaf of the result
    paths     where those leaves stand in the arguments, such as ``params['w'][0]``
    out_tree  structure of the result
    weak      per output: whether it is a weakly typed number
    """

    graph: Graph
    paths: tuple[str, ...]
    out_tree: tree.TreeSpec
    weak: tuple[bool, ...]


def trace_nodes(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    level_inputs: Collection[int] | None = None,
    paths: Sequence[str] | None = None,
) -> tuple[Graph, tree.TreeSpec, tuple[Node, ...]]:
    """Run ``function`` in a new innermost trace: (graph, structure of the result, input nodes).

    ``level_inputs`` numbers the leaves of the tree ``(args, kwargs)`` that become fresh inputs of
    the graph, in that order (None: all). Such a leaf is a traced value of an outer trace, an array,
    a number or an :class:`InputSpec`, and only its type is used. Other leaves are handed to the
    function as they are; what it computes from them, or from values that it closes over, are nodes
    that do not depend on the inputs (they may depend on an outer trace's inputs).

    To go on in the outer trace: ``inline(graph, [as_node(leaf) for the chosen leaves])`` gives the
    outputs' nodes there, ``wrap(node)`` makes each a traced value, and ``tree.unflatten(spec,
    values)`` the result. Outside of any trace ``current()`` is None.

    Raises ``TraceError`` for a result that is neither traced nor an array or a number.
    """
    traced = trace_function(function, args, kwargs, level_inputs, paths)
    return traced.graph, traced.out_tree, traced.graph.inputs


def trace_function(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    level_inputs: Collection[int] | None = None,
    paths: Sequence[str] | None = None,
) -> Traced:
    """:func:`trace_nodes` with all that is known about the arguments and results."""
    leaves, spec = tree.flatten((args, kwargs))
    names = paths if paths is not None else tree.paths(spec, "args")
    loc = definition(function)
    with running(getattr(function, "__name__", type(function).__name__)) as trace:
        values = list(leaves)
        for i, leaf in enumerate(leaves):
            if level_inputs is None or i in level_inputs:
                kind = input_spec(leaf, names[i])
                values[i] = Tracer(trace.add_input(names[i], kind.type, loc), trace, kind.weak)
        new_args, new_kwargs = tree.unflatten(spec, values)
        out_leaves, out_tree = tree.flatten(_call(trace, function, new_args, new_kwargs))
        outputs = tuple(
            _result_node(leaf, path, loc)
            for leaf, path in zip(out_leaves, tree.paths(out_tree, "result"), strict=True)
        )
    graph = Graph(tuple(trace.inputs), outputs, trace.name)
    weak = tuple(is_weak(leaf) for leaf in out_leaves)
    return Traced(graph, tuple(trace.paths.values()), out_tree, weak)


def is_weak(leaf: Any) -> bool:
    """True for a Python number or a traced one."""
    if isinstance(leaf, Tracer):
        return leaf.weak
    return isinstance(leaf, (bool, int, float)) and not isinstance(leaf, np.generic)


def input_spec(leaf: Any, path: str) -> InputSpec:
    """The type of a leaf. Raises ``DTypeError`` that names its path if it is not supported."""
    if isinstance(leaf, InputSpec):
        return leaf
    if isinstance(leaf, Tracer):
        return InputSpec(leaf.node.type, leaf.weak)
    array = np.asarray(leaf)
    return InputSpec(
        TensorType(checked_dtype(array.dtype, f"argument {path}"), array.shape), is_weak(leaf)
    )


def _call(
    trace: Trace, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        return function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        # NumPy puts errors of its own in the place of some that a value's methods raise.
        refusal = trace.refusal
        if refusal is None or isinstance(error, UserError) or refusal.loc != raised_at(error):
            raise
        raise refusal from None


def _result_node(leaf: Any, path: str, loc: Location | None) -> Node:
    if isinstance(leaf, (Tracer, np.ndarray, np.generic, bool, int, float)):
        return as_node(leaf, path)
    raise DTypeError(
        f"{path} cannot be returned from a traced function",
        loc=loc,
        expected="arrays and numbers in dicts, lists, tuples and dataclasses",
        got=repr(leaf),
    )


def inline(graph: Graph, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The graph's outputs with ``nodes`` in the place of its inputs."""
    return substitute(graph.outputs, dict(zip(graph.inputs, nodes, strict=True)))
