"""The gradient of attention needs no sums over keys but one over the columns of its result.

    p = e / l, l = sum(e, keys); out = contract(p, v); d = contract(g, v)
    sum(d * p, keys)  ->  sum(g * out, columns)
    d / l + (-sum(d * p) / l), times e  ->  (e * (1 / l)) * (d - sum(g * out))

Everything between the exponentials and the contractions of the gradient is a polynomial in ``e``,
``d`` and values per row; written out, the gradient by the largest score cancels. For GPUs, whose
kernels then compute the gradient without the probabilities in memory (T. Dao, "FlashAttention-2",
2023, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tilewright.compiler.schedules.attention import Attention, attentions, fused_attention, wide
from tilewright.compiler.target import Target
from tilewright.ir import build
from tilewright.ir.graph import Graph, Node, full, full_value, rebuild_node, users
from tilewright.ir.types import Shape, accumulator

Monomial: TypeAlias = "frozenset[tuple[Node, int]]"
"""Nodes and their powers, none of which is 0."""

Polynomial: TypeAlias = "dict[Monomial, float]"

ONE: Monomial = frozenset()

MOST_TERMS = 8

CANCELLED = 1e-12
"""Of two opposite coefficients, as much as is left of them by rounding."""


def attention(graph: Graph, target: Target | None = None) -> Graph:
    """The same function with simpler gradients of attention, if the target has kernels for them."""
    if target is None or target.gpu is None or target.gpu.sm < 80:
        return graph
    nodes = graph.nodes()
    found = [a for a in attentions(nodes) if fused_attention(a, target)]
    if not found:
        return graph
    readers, number = users(graph), {n: i for i, n in enumerate(nodes)}
    mapping: dict[Node, Node] = {}
    for a in found:
        mapping |= _Gradient(a, readers, number).mapping
    return graph.rebuild(_replaced(graph.outputs, mapping)) if mapping else graph


def _replaced(outputs: Sequence[Node], mapping: Mapping[Node, Node]) -> list[Node]:
    """The outputs with nodes replaced, also in what others are replaced by."""
    done: dict[Node, Node] = {}
    stack = list(outputs)
    while stack:
        node = stack[-1]
        needs = (mapping[node],) if node in mapping else node.inputs
        missing = [n for n in needs if n not in done]
        if missing:
            stack += missing
            continue
        stack.pop()
        known = [done[n] for n in needs]
        done[node] = known[0] if node in mapping else rebuild_node(node, known)
    return [done[n] for n in outputs]


class _Gradient:
    """What of one attention's gradient is replaced by what."""

    def __init__(
        self, a: Attention, readers: Mapping[Node, Sequence[Node]], number: Mapping[Node, int]
    ) -> None:
        self.a, self.shape = a, a.power.shape
        self.known: dict[Node, Polynomial] = {a.power: _atom(a.power), a.total: _atom(a.total)}
        self.mapping: dict[Node, Node] = {}
        region = sorted(self._region(readers), key=number.__getitem__)
        for node in region:
            self._replace(node, readers)

    def _region(self, readers: Mapping[Node, Sequence[Node]]) -> set[Node]:
        """What rests on the exponentials, element by element or row by row."""
        found, stack = {self.a.power}, [self.a.power]
        while stack:
            for n in readers[stack.pop()]:
                rows = wide(n.shape) == wide(self.shape[:-1]) and n.op.kind != "contract"
                if n not in found and (rows or self._over(n)):
                    found.add(n)
                    stack.append(n)
        return found

    def _replace(self, node: Node, readers: Mapping[Node, Sequence[Node]]) -> None:
        """Note what replaces a node of the region, or contractions that read it."""
        if node is self.a.power or node is self.a.total or not node.dtype.is_float:
            return
        terms = self.of(node)
        if not self._over(node):
            if not terms:
                self.mapping[node] = full(node.type, 0, node.loc)
            return
        if not any(x is self.a.power for term in terms for x, _ in term):
            return
        if node not in self.a.inside:
            self.mapping[node] = self._written(terms, node)
            return
        for reader in readers[node]:
            if reader.op.kind == "contract" and reader is not self.a.last:
                made = self._written(terms, node)
                inputs = [made if n is node else n for n in reader.inputs]
                self.mapping[reader] = rebuild_node(reader, inputs)

    # --- polynomials ----------------------------------------------------------------------
    def of(self, node: Node) -> Polynomial:
        """A node as a polynomial, in itself if it is nothing else."""
        if node not in self.known:
            terms = self._of(node) if node.dtype.is_float else None
            self.known[node] = _atom(node) if terms is None or len(terms) > MOST_TERMS else terms
        return self.known[node]

    def _of(self, node: Node) -> Polynomial | None:
        name, sources = node.op.name, node.inputs
        if name in ("add", "sub"):
            return _sum(self.of(sources[0]), self.of(sources[1]), 1 if name == "add" else -1)
        if name == "mul":
            return _product(self.of(sources[0]), self.of(sources[1]))
        if name == "neg":
            return _product(self.of(sources[0]), {ONE: -1.0})
        if name == "div":
            inverse = _inverse(self.of(sources[1])) if self._of_rows(sources[1]) else None
            above = self.of(sources[0])
            if inverse is not None:
                return _product(above, inverse)
            return None if above else {}
        if name == "where":
            yes, no = self.of(sources[1]), self.of(sources[2])
            return yes if yes == no else None
        if name == "full":
            value = float(full_value(node))
            return {ONE: value} if value else {}
        if name == "cast" and sources[0].dtype.is_float:
            return self.of(sources[0])
        if name == "reshape" and wide(node.shape) == wide(sources[0].shape) or (
            name == "broadcast" and self._of_rows(node)
        ):
            return self.of(sources[0])
        if name == "sum" and self._over(sources[0]) and (
            node.attrs.axes == (sources[0].type.rank - 1,)
        ):
            return self._summed(self.of(sources[0]))
        return None

    def _over(self, node: Node) -> bool:
        """Whether a node has a value per row and key."""
        return wide(node.shape) == wide(self.shape) and node.shape[-1:] == self.shape[-1:]

    def _of_rows(self, node: Node) -> bool:
        """Whether a node is a value per row, or one that is repeated along the keys."""
        if node.op.name != "broadcast" or not self._over(node):
            return wide(node.shape) == wide(self.shape[:-1])
        source, axes = node.inputs[0], node.attrs.axes
        places = [axis for axis, d in zip(axes, source.shape, strict=True) if d != 1]
        return wide(source.shape) == wide(self.shape[:-1]) and places == sorted(places) and (
            node.type.rank - 1 not in places)

    def _summed(self, terms: Polynomial) -> Polynomial | None:
        """The sum over keys."""
        result: Polynomial = {}
        for term, factor in terms.items():
            over = {x: n for x, n in term if self._over(x)}
            rest = frozenset((x, n) for x, n in term if not self._over(x))
            if over.pop(self.a.power, 0) != 1 or list(over.values()) not in ([], [1]):
                return None
            value = _product({rest: factor}, _atom(self.a.total))
            for x in over:
                shared = self._shared(x)
                if shared is None:
                    return None
                value = _product(value, _atom(shared))
            result = _sum(result, value, 1)
        return result

    def _shared(self, product: Node) -> Node | None:
        """The sum over keys of probabilities and ``contract(g, v)``: that of ``g`` and the result,
        over columns.
        """
        if product.op.kind != "contract":
            return None
        last, chances = self.a.last, self.a.chances
        values, places = self.a.values
        a = product.attrs
        # Labels of the product, as those of the attention's last contraction.
        there = _large(product.shape, a.out)
        same = dict(zip(there, _large(last.inputs[self.a.side].shape, chances), strict=True))
        for side, labels in enumerate((a.lhs, a.rhs)):
            own, other = product.inputs[side], product.inputs[1 - side]
            if _uncast(own) is not _uncast(values):
                continue
            column = next(x for x in labels if x not in a.out)
            named = {**same, column: self.a.columns}
            where = [named.get(x, -1) for x in _large(own.shape, labels)]
            seed = [named.get(x, -1) for x in _large(other.shape, (a.rhs, a.lhs)[side])]
            result = _large(last.shape, last.attrs.out)
            if where != _large(values.shape, places) or sorted(seed) != sorted(result):
                continue
            order = [*(x for x in chances if x in result), self.a.columns]
            dtype = accumulator(last.dtype)
            g, out = (
                build.transpose(build.reshape(build.cast(n, dtype), wide(n.shape)), [
                    at.index(x) for x in order])
                for n, at in ((other, seed), (last, result)))
            return build.reduce("sum", g * out, (len(order) - 1,))
        return None

    # --- back to nodes --------------------------------------------------------------------
    def _written(self, terms: Polynomial, node: Node) -> Node:
        """A polynomial in place of a node."""
        result = build.cast(self._factored(terms), node.dtype)
        return build.place(build.reshape(result, node.shape), list(self.known), node.loc)

    def _factored(self, terms: Polynomial) -> Node:
        """What the terms have in common, times the rest."""
        common = _common(terms)
        rest = _product(terms, {_power(common, -1): 1.0})
        over = frozenset((x, n) for x, n in common if self._over(x))
        result = self._monomial(over)
        per_row = self._rows({common - over: 1.0})
        if per_row is not None:
            result = self._times(result, self._repeated(per_row))
        if rest == {ONE: 1.0}:
            return result
        return self._times(result, self._total(rest))

    def _times(self, a: Node, b: Node) -> Node:
        return build.cast(a, self.a.power.dtype) * build.cast(b, self.a.power.dtype)

    def _total(self, terms: Polynomial) -> Node:
        """The terms one after another, those that are values per row as one."""
        rows = {t: c for t, c in terms.items() if not any(self._over(x) for x, _ in t)}
        result: Node | None = None
        for term, factor in terms.items():
            if term in rows:
                continue
            over = frozenset((x, n) for x, n in term if self._over(x))
            value = self._monomial(over)
            per_row = self._rows({term - over: factor})
            if per_row is not None:
                value = self._times(value, self._repeated(per_row))
            result = value if result is None else result + value
        if not rows:
            assert result is not None
            return result
        per_row = self._rows(rows)
        repeated = full(self.a.power.type, 1) if per_row is None else self._repeated(per_row)
        return repeated if result is None else result + repeated

    def _monomial(self, term: Monomial) -> Node:
        """A product of nodes over all places, each as often as its power says."""
        dtype = self.a.power.dtype
        factors = [
            build.cast(build.reshape(x, self.shape), dtype)
            for x, n in _in_order(term) for _ in range(n)]
        result = factors[0] if factors else full(self.a.power.type, 1)
        for factor in factors[1:]:
            result = result * factor
        return result

    def _rows(self, terms: Polynomial) -> Node | None:
        """A polynomial of values per row as one; None: it is 1."""
        if terms == {ONE: 1.0}:
            return None
        kind = self.a.total.type
        result: Node | None = None
        for term, factor in terms.items():
            value = full(kind, factor)
            for x, n in _in_order(term):
                x = build.cast(build.reshape(x, kind.shape), kind.dtype)
                for _ in range(abs(n)):
                    value = value * x if n > 0 else value / x
            result = value if result is None else result + value
        return full(kind, 0) if result is None else result

    def _repeated(self, rows: Node) -> Node:
        """A value per row, along the keys."""
        return build.broadcast(rows, self.shape, range(len(self.shape) - 1))


def _large(shape: Shape, labels: Sequence[int]) -> list[int]:
    """The labels of axes that have more than one element."""
    return [label for label, d in zip(labels, shape, strict=True) if d != 1]


def _uncast(node: Node) -> Node:
    while node.op.name == "cast":
        node = node.inputs[0]
    return node


def _in_order(term: Monomial) -> list[tuple[Node, int]]:
    """The factors of a monomial, those with a positive power first; in a stable order."""
    return sorted(term, key=lambda pair: (pair[1] < 0, pair[0].op.name, pair[1]))


def _atom(node: Node) -> Polynomial:
    return {frozenset({(node, 1)}): 1.0}


def _sum(a: Polynomial, b: Polynomial, sign: float) -> Polynomial:
    result = dict(a)
    for term, factor in b.items():
        before = result.pop(term, 0.0)
        total = before + sign * factor
        if abs(total) > CANCELLED * max(abs(before), abs(factor)):
            result[term] = total
    return result


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for x, p in a.items():
        for y, q in b.items():
            result = _sum(result, {_merged((x, y)): p * q}, 1)
    return result


def _merged(terms: Iterable[Monomial]) -> Monomial:
    powers: dict[Node, int] = {}
    for term in terms:
        for x, n in term:
            powers[x] = powers.get(x, 0) + n
    return frozenset((x, n) for x, n in powers.items() if n)


def _power(term: Monomial, exponent: int) -> Monomial:
    return frozenset((x, n * exponent) for x, n in term)


def _inverse(terms: Polynomial) -> Polynomial | None:
    """One over a polynomial of one term."""
    if len(terms) != 1:
        return None
    ((term, factor),) = terms.items()
    return {_power(term, -1): 1 / factor} if factor else None


def _common(terms: Polynomial) -> Monomial:
    """The factors that all terms have."""
    first, *others = [dict(t) for t in terms]
    least = {}
    for x, n in first.items():
        powers = [n, *(t.get(x, 0) for t in others)]
        if all(p > 0 for p in powers) or all(p < 0 for p in powers):
            least[x] = min(powers) if n > 0 else max(powers)
    return frozenset(least.items())
