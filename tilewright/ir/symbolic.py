"""Graphs with sizes that are known when the program runs: what they need, and graphs for numbers.

What such a graph means is what :func:`specialise` makes of it for the sizes of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from tilewright.errors import Location
from tilewright.ir.graph import Attrs, Graph, Node, make
from tilewright.ir.sizes import Dim, Size, less, names_of, product, substitute
from tilewright.ir.types import TensorType


def sizes_in(node: Node) -> Iterator[Dim]:
    """The sizes that a node mentions, in its type and its attributes."""
    yield from node.shape
    for value in _values(node.attrs):
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Size):
                yield item


def _values(attrs: Attrs) -> Iterator[Any]:
    return (getattr(attrs, f.name) for f in fields(attrs))


def specialise(graph: Graph, values: Mapping[str, Dim]) -> Graph:
    """The graph with other sizes, such as numbers, in the places of names.

    Raises ``ValueError`` where these values break a rule of an op: what a reshape, a slice or a pad
    takes for granted.
    """
    done: dict[Node, Node] = {}
    for node in graph.nodes():
        inputs = [done[n] for n in node.inputs]
        attrs = replaced(node.attrs, values)
        shape = tuple(substitute(d, values) for d in node.shape)
        type = TensorType(node.dtype, shape) if node.op.kind == "source" else None
        done[node] = make(node.op, inputs, attrs, node.loc, type)
    return Graph(
        tuple(done[n] for n in graph.inputs), tuple(done[n] for n in graph.outputs), graph.name
    )


def replaced(attrs: Attrs, values: Mapping[str, Dim]) -> Attrs:
    """An attribute record with other sizes in the places of names."""
    changes: dict[str, Any] = {}
    for f in fields(attrs):
        value = getattr(attrs, f.name)
        if isinstance(value, Size):
            changes[f.name] = substitute(value, values)
        elif isinstance(value, tuple) and any(isinstance(v, Size) for v in value):
            changes[f.name] = tuple(
                substitute(v, values) if isinstance(v, Size) else v for v in value)
    return replace(attrs, **changes) if changes else attrs


@dataclass(frozen=True)
class Condition:
    """What must hold of the sizes of a run: ``a == b``, or ``a <= b``."""

    relation: Literal["==", "<="]
    a: Dim
    b: Dim
    what: str
    loc: Location | None = None

    def holds(self, a: int, b: int) -> bool:
        """Whether the numbers are in the relation."""
        return a == b if self.relation == "==" else a <= b


def conditions(nodes: Sequence[Node]) -> tuple[Condition, ...]:
    """What the types of these nodes take for granted and no arithmetic of sizes shows."""
    found: dict[tuple[str, Dim, Dim], Condition] = {}
    for node in nodes:
        for condition in CONDITIONS.get(node.op.name, _none)(node):
            a, b = condition.a, condition.b
            open_ = a != b if condition.relation == "==" else less(b, a) is not False
            if open_:
                found.setdefault((condition.relation, a, b), condition)
    return tuple(found.values())


def _none(node: Node) -> Iterator[Condition]:
    return iter(())


def _reshape(node: Node) -> Iterator[Condition]:
    source = node.inputs[0]
    what = f"reshape of {source.type} to {node.type}"
    yield Condition("==", product(source.shape), product(node.shape), what, node.loc)


def _slice(node: Node) -> Iterator[Condition]:
    for start, stop, size in zip(
        node.attrs.starts, node.attrs.stops, node.inputs[0].shape, strict=True
    ):
        what = f"slice {start}:{stop} of an axis of size {size}"
        for low, high in ((0, start), (start, stop), (stop, size)):
            yield Condition("<=", low, high, what, node.loc)


def _pad(node: Node) -> Iterator[Condition]:
    for width in (*node.attrs.low, *node.attrs.high):
        yield Condition("<=", 0, width, f"padding by {width}", node.loc)


def _window(node: Node) -> Iterator[Condition]:
    attrs = node.attrs
    for axis, taps, apart in zip(attrs.axes, attrs.sizes, attrs.dilations, strict=True):
        size, reach = node.inputs[0].shape[axis], apart * (taps - 1) + 1
        yield Condition("<=", reach, size, f"windows of {reach} places", node.loc)


def _sort(node: Node) -> Iterator[Condition]:
    start, stop, size = node.attrs.start, node.attrs.stop, node.inputs[0].shape[node.attrs.axis]
    what = f"places {start} to {stop} of a sorted axis of size {size}"
    for low, high in ((0, start), (start, stop), (stop, size), (size, (1 << 31) - 1)):
        yield Condition("<=", low, high, what, node.loc)


CONDITIONS: dict[str, Callable[[Node], Iterator[Condition]]] = {
    "reshape": _reshape, "slice": _slice, "pad": _pad, "window": _window,
    "sort": _sort, "argsort": _sort,
}


def places_of(shapes: Sequence[Sequence[Dim]]) -> dict[str, tuple[int, int, int, int]]:
    """Name -> (input, axis, factor, offset): its number is (the axis' size - offset) / factor.

    Raises ``ValueError`` for a name that stands alone, but for a factor and an offset, in no axis.
    """
    found: dict[str, tuple[int, int, int, int]] = {}
    for number, shape in enumerate(shapes):
        for axis, dim in enumerate(shape):
            for name, factor, offset in _linear(dim):
                best = found.get(name)
                if best is None or best[2:] != (1, 0) == (factor, offset):
                    found[name] = (number, axis, factor, offset)
    every = names_of(d for shape in shapes for d in shape)
    missing = [name for name in every if name not in found]
    if missing:
        raise ValueError(f"the size {missing[0]} does not follow from the size of any axis")
    return found


def _linear(dim: Dim) -> Iterator[tuple[str, int, int]]:
    if not isinstance(dim, Size):
        return
    offset = dict(dim.terms).get((), 0)
    factors = [(m, c) for m, c in dim.terms if m]
    if len(factors) == 1 and len(factors[0][0]) == 1 and isinstance(factors[0][0][0], str):
        yield factors[0][0][0], factors[0][1], offset
