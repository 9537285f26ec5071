"""Derivatives of Python functions: grad, value_and_grad, vjp.

A transform traces its function to a Graph, differentiates the Graph, and continues in the trace
that is running. Where none is running, it is jitted: a call on plain arrays compiles once per
signature, as ``jit`` does. Transforms nest to any order.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError, TraceError, UserError
from tilewright.frontend import tree
from tilewright.frontend.leaves import ByArrays
from tilewright.frontend.location import definition, here
from tilewright.frontend.trace import (
    Traced,
    Tracer,
    as_node,
    current,
    inline,
    input_spec,
    trace_function,
    wrap,
)
from tilewright.ir.attrs import CastAttrs
from tilewright.ir.autodiff import pullback, zero_of
from tilewright.ir.graph import Node, full, make, substitute

Function = Callable[..., Any]


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The gradient of ``f``, which returns one floating point number (a 0-d array).

    argnums  which positional argument to differentiate by; a tuple gives a tuple of gradients
    has_aux  ``f`` returns (number, anything); the new function returns (gradient, anything)

    A gradient has the structure of its argument. All leaves of the argument must be floating point.
    Raises ``UserError`` (``ShapeError``, ``DTypeError``) for anything else.
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradients = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients
    return gradient


def value_and_grad(
    f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """A function to (result of ``f``, its gradient); see :func:`grad`.

    With ``has_aux`` the result is the pair (number, aux).
    """
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        return _value_and_grad(f, argnums, has_aux, args, kwargs)

    return _anywhere(f, differentiated)


def vjp(f: Function, *primals: Any) -> tuple[Any, Function]:
    """The result of ``f(*primals)``, and the function from its cotangents to the primals'.

    That function takes one tree and gives a tuple with a tree per primal. Cotangents have the
    structure and types of the result; those of results that are not floating point are ignored.
    All primals must be floating point. Where nothing is traced, the returned function computes
    ``f`` again. Raises ``ShapeError``, ``DTypeError`` or ``TraceError`` for anything else.
    """
    if _in_trace(primals):
        return _vjp(f, primals)

    def backward(primals: tuple[Any, ...], cotangents: Any) -> Any:
        return _vjp(f, primals)[1](cotangents)

    result = _anywhere(f, lambda *args: _vjp(f, args)[0])(*primals)
    run = _anywhere(f, backward)
    return result, lambda cotangents: run(primals, cotangents)


def stop_gradient(values: Any) -> Any:
    """The tree ``values``, constant to derivatives. Plain arrays come back as they are."""
    def stop(leaf: Any) -> Any:
        if not isinstance(leaf, Tracer):
            return leaf
        return wrap(make("stop_gradient", [as_node(leaf)], loc=here()), leaf)
    return tree.map(stop, values)


# --- inside a trace -----------------------------------------------------------------------
def _value_and_grad(
    f: Function, argnums: int | Sequence[int], has_aux: bool, args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    numbers = _positions(f, argnums, len(args))
    chosen = _leaves_of(f, args, kwargs, numbers)
    traced = trace_function(f, args, kwargs, chosen.indices, chosen.paths)
    loss = _scalar_result(f, traced, has_aux)
    seed = full(loss.type, 1)
    found = pullback([loss], [seed], traced.graph.inputs)
    gradients = [zero_of(n, ct) for n, ct in zip(traced.graph.inputs, found, strict=True)]
    whole = traced.graph.rebuild([*traced.graph.outputs, *gradients])
    nodes = inline(whole, [as_node(leaf) for leaf in chosen.leaves])
    count = len(traced.graph.outputs)
    value = _result(traced, nodes[:count])
    parts = chosen.join(nodes[count:])
    return value, parts[0] if isinstance(argnums, int) else parts


def _vjp(f: Function, primals: tuple[Any, ...]) -> tuple[Any, Function]:
    chosen = _leaves_of(f, primals, {}, range(len(primals)))
    traced = trace_function(f, primals, {}, chosen.indices, chosen.paths)
    nodes = [as_node(leaf) for leaf in chosen.leaves]
    graph = traced.graph

    def backward(cotangents: Any) -> Any:
        given = tree.leaves_like(traced.out_tree, cotangents, "the tree of cotangents")
        paths = tree.paths(traced.out_tree, "cotangents")
        seeds = list(map(_seed, graph.outputs, given, paths))
        found = pullback(graph.outputs, seeds, graph.inputs)
        zeros = [zero_of(n, ct) for n, ct in zip(graph.inputs, found, strict=True)]
        return chosen.join(substitute(zeros, dict(zip(graph.inputs, nodes, strict=True))))

    return _result(traced, inline(graph, nodes)), backward


def _result(traced: Traced, nodes: Sequence[Node]) -> Any:
    """The traced function's result in the running trace."""
    values = [wrap(n, weak=weak) for n, weak in zip(nodes, traced.weak, strict=True)]
    return tree.unflatten(traced.out_tree, values)


def _seed(result: Node, cotangent: Any, path: str) -> Node | None:
    """A cotangent as a node of its result's type. Raises if its shape or kind is another."""
    if not result.dtype.is_float:
        return None
    node = as_node(cotangent, path)
    if node.shape != result.shape:
        raise ShapeError(
            f"{path} has another shape than the result", expected=result.type, got=node.type,
            loc=here())
    if node.dtype is result.dtype:
        return node
    if node.dtype.is_float and not isinstance(cotangent, (Tracer, np.ndarray, np.generic)):
        return make("cast", (node,), CastAttrs(result.dtype))
    raise DTypeError(
        f"{path} has another element type than the result", expected=result.type, got=node.type,
        loc=here(), hint="convert it with .astype")


# --- arguments and results ----------------------------------------------------------------
@dataclass(frozen=True)
class _Chosen:
    """The leaves to differentiate by.

    indices  their numbers among the leaves of (args, kwargs)
    paths    of all leaves of (args, kwargs)
    parts    per argument: its structure, and the places of its leaves among the chosen
    """

    indices: tuple[int, ...]
    leaves: tuple[Any, ...]
    paths: tuple[str, ...]
    parts: tuple[tuple[tree.TreeSpec, tuple[int, ...]], ...]

    def join(self, nodes: Sequence[Node]) -> tuple[Any, ...]:
        """Per argument, the tree of the nodes that stand at its leaves' places."""
        return tuple(
            tree.unflatten(spec, [wrap(nodes[i]) for i in places]) for spec, places in self.parts)


def _leaves_of(
    f: Function, args: tuple[Any, ...], kwargs: dict[str, Any], numbers: Sequence[int]
) -> _Chosen:
    """The leaves of these arguments. Raises ``DTypeError`` for one that is not floating point."""
    names = _argument_names(f, len(args))
    paths: list[str] = []
    spans: list[tuple[tree.TreeSpec, int, int]] = []
    leaves: list[Any] = []
    for name, value in [*zip(names, args, strict=True), *sorted(kwargs.items())]:
        found, spec = tree.flatten(value)
        spans.append((spec, len(leaves), len(leaves) + len(found)))
        paths += tree.paths(spec, name)
        leaves += found
    for number in numbers:
        for i in range(*spans[number][1:]):
            _check_float(leaves[i], paths[i])
    # The graph's inputs stand in the order of the leaves, whatever the order of the numbers.
    indices = sorted({i for number in numbers for i in range(*spans[number][1:])})
    places = {i: place for place, i in enumerate(indices)}
    parts = [
        (spec, tuple(places[i] for i in range(start, stop)))
        for spec, start, stop in (spans[number] for number in numbers)
    ]
    return _Chosen(tuple(indices), tuple(leaves[i] for i in indices), tuple(paths), tuple(parts))


def _check_float(leaf: Any, path: str) -> None:
    kind = input_spec(leaf, path).type
    if not kind.dtype.is_float:
        raise DTypeError(
            f"argument {path} cannot be differentiated", loc=here(),
            expected="a floating point array", got=kind,
            hint="convert it with .astype, or leave it out of argnums")


def _positions(f: Function, argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    """The argument numbers, counted from the start. Raises ``UserError`` for one out of range."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -count <= n < count:
            raise UserError(
                f"argnums={argnums} of the gradient of {_name(f)} names no positional argument",
                expected=f"numbers below {count}, the positional arguments of this call", got=n,
                loc=here(), hint="pass the argument to differentiate by position, not by name")
    return tuple(n % count for n in numbers)


def _scalar_result(f: Function, traced: Traced, has_aux: bool) -> Node:
    """The number to differentiate: the first leaf. Raises if that is not a float number."""
    spec = traced.out_tree
    if has_aux and not (spec.type is tuple and spec.num_children == 2):
        raise TraceError(
            f"{_name(f)} with has_aux=True does not return a pair", loc=definition(f),
            expected="(number, anything)", got=tree.describe(spec))
    first = spec.children()[0] if has_aux else spec
    if not first.is_leaf():
        hint = "return (loss, aux) and pass has_aux=True" if not has_aux else None
        raise TraceError(
            f"{_name(f)} does not return one number, so it has no gradient", loc=definition(f),
            expected="a floating point number", got=tree.describe(first), hint=hint)
    node = traced.graph.outputs[0]
    if node.shape != ():
        raise ShapeError(
            f"{_name(f)} does not return one number, so it has no gradient",
            loc=node.loc or definition(f), expected="a 0-d array", got=node.type,
            hint="reduce it with .sum() or .mean(), or use tw.vjp")
    if not node.dtype.is_float:
        raise DTypeError(
            f"{_name(f)} does not return a floating point number, so it has no gradient",
            loc=node.loc or definition(f), expected="a floating point number", got=node.type)
    return node


def _name(f: Function) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _argument_names(f: Function, count: int) -> list[str]:
    """What to call the positional arguments: the parameters' names, those of ``*args`` numbered."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        return [f"args[{i}]" for i in range(count)]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    return names[:count] + [f"{rest}[{i}]" for i in range(max(0, count - len(names)))]


# --- outside of any trace -----------------------------------------------------------------
def _in_trace(values: Any) -> bool:
    return current() is not None or any(isinstance(x, Tracer) for x in tree.leaves(values))


def _anywhere(f: Function, inner: Function) -> Function:
    """``inner`` in a running trace, and jitted where there is none."""
    outside = ByArrays(inner, _is_array, named=f)

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        if _in_trace((args, kwargs)):
            return inner(*args, **kwargs)
        return outside(args, kwargs)
    return run


def _is_array(leaf: Any) -> bool:
    """True for what is traced; flags, strings and functions belong to the signature instead."""
    numbers = isinstance(leaf, (int, float, complex, np.generic)) and not isinstance(leaf, bool)
    return numbers or hasattr(leaf, "__array__") or hasattr(leaf, "__dlpack__")
