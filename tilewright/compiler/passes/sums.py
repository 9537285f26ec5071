"""A sum that follows from earlier sums of the graph, or from constants, is not summed again.

    s = sum(e, 1); t = sum(a * e, 1), with ``a`` constant along axis 1
->  s = sum(e, 1); t = a * s

Subtracting the largest element before ``exp`` (softmax, log-sum-exp, cross entropy) gives such a
sum in the gradient: the cotangent of the largest element.
"""

from __future__ import annotations

from tilewright.compiler.target import Target
from tilewright.ir.build import broadcast, place, reshape
from tilewright.ir.graph import Graph, Node, full, full_value, make, rebuild_node
from tilewright.ir.sizes import Dim, product

MOST_STEPS = 40
"""Nodes that are looked at for one sum."""

Axes = tuple[int, ...]


def sums(graph: Graph, target: Target | None = None) -> Graph:
    """The same function with fewer reductions."""
    known: dict[tuple[Node, Axes], Node] = {}
    done: dict[Node, Node] = {}
    for node in graph.nodes():
        fresh = rebuild_node(node, [done[n] for n in node.inputs])
        if fresh.op.name == "sum" and fresh.dtype.is_float:
            found = _Follows(known, fresh).sum(fresh.inputs[0])
            if found is None:
                known[fresh.inputs[0], fresh.attrs.axes] = fresh
            else:
                fresh = place(found, [n for n in known.values() if n is not found], fresh.loc)
        done[node] = fresh
    return graph.rebuild(done[n] for n in graph.outputs)


class _Follows:
    """Looks for the sum of a node without summing."""

    def __init__(self, known: dict[tuple[Node, Axes], Node], root: Node) -> None:
        self.known, self.axes, self.type = known, root.attrs.axes, root.type
        shape = root.inputs[0].shape
        self.kept = [i for i in range(len(shape)) if i not in self.axes]
        self.count = product(shape[axis] for axis in self.axes)
        self.steps = MOST_STEPS

    def sum(self, x: Node) -> Node | None:
        """The sum of ``x``, if it follows."""
        self.steps -= 1
        if self.steps < 0:
            return None
        if (x, self.axes) in self.known:
            return self.known[x, self.axes]
        alone = self.constant(x)
        if alone is not None:
            return alone * self.count
        name = x.op.name
        if name == "neg":
            inner = self.sum(x.inputs[0])
            return None if inner is None else -inner
        if name in ("add", "sub"):
            return self.of_both(x)
        if name in ("mul", "div"):
            return self.of_multiple(x)
        return self.of_choice(x) if name == "where" else None

    def of_both(self, x: Node) -> Node | None:
        """The sum of a sum or difference."""
        left = self.sum(x.inputs[0])
        right = None if left is None else self.sum(x.inputs[1])
        return None if left is None or right is None else make(x.op, (left, right))

    def of_multiple(self, x: Node) -> Node | None:
        """The sum of something times, or divided by, what is constant along the axes."""
        pairs = [x.inputs] if x.op.name == "div" else [x.inputs, x.inputs[::-1]]
        for varying, factor in pairs:
            constant = self.constant(factor)
            inner = None if constant is None else self.sum(varying)
            if constant is not None and inner is not None:
                return make(x.op, (inner, constant))
        return None

    def of_choice(self, x: Node) -> Node | None:
        """The sum of a value at one place of each row, and zeros."""
        condition, value, rest = x.inputs
        zero = rest.op.name == "full" and full_value(rest) == 0
        if not zero or condition.op.name != "eq" or len(self.axes) != 1:
            return None
        for counter, chosen in (condition.inputs, condition.inputs[::-1]):
            along = counter.op.name == "iota" and counter.attrs.axis == self.axes[0]
            if along and self.constant(chosen) is not None and looked_up(chosen, self.count):
                return self.constant(value)
        return None

    def constant(self, x: Node) -> Node | None:
        """``x`` without the axes, if it is the same all along them."""
        self.steps -= 1
        if self.steps < 0 or not x.inputs and x.op.name != "full":
            return None
        kind = self.type.with_dtype(x.dtype)
        if x.op.name == "full":
            return full(kind, full_value(x))
        if x.op.name == "broadcast":
            return self.narrowed(x)
        if x.op.kind != "elementwise":
            return None
        parts = []
        for source in x.inputs:
            part = self.constant(source)
            if part is None:
                return None
            parts.append(part)
        return make(x.op, parts, x.attrs)

    def narrowed(self, x: Node) -> Node | None:
        """A broadcast without the axes, if it repeats its operand along them."""
        source, places = x.inputs[0], x.attrs.axes
        sizes = list(zip(source.shape, places, strict=True))
        if any(p in self.axes and d != 1 for d, p in sizes):
            return None
        left = [(d, self.kept.index(p)) for d, p in sizes if p not in self.axes]
        small = reshape(source, tuple(d for d, _ in left))
        return broadcast(small, self.type.shape, [p for _, p in left])


def looked_up(index: Node, size: Dim) -> bool:
    """Whether an index was looked up in 0, 1, 2 ... ``size - 1``, and so lies among them."""
    while index.op.name in ("broadcast", "reshape"):
        index = index.inputs[0]
    if index.op.name != "take" or index.inputs[0].op.name != "iota":
        return False
    return index.inputs[0].shape == (size,)
