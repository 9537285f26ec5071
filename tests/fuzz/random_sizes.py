"""Random graphs with named sizes, for hypothesis to shrink, in the manner of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from random_graphs import LARGEST, Bound, Maker, random_array

from tilewright.ir.attrs import FlipAttrs, ReduceAttrs
from tilewright.ir.build import broadcast, concat, contract, pad, part, reshape, take, transpose
from tilewright.ir.graph import Graph, Node, apply, input_node, make
from tilewright.ir.sizes import Dim, evaluate, named
from tilewright.ir.symbolic import specialise
from tilewright.ir.types import Shape, TensorType, f32, i64

n, m = named("n"), named("m")
DIMS: tuple[Dim, ...] = (n, n, m, 1, 3, 4, 17, 2 * n, n + 1)
USUAL = {"n": 6, "m": 20}
NUMBERS = [{"n": a, "m": b} for a, b in ((6, 20), (1, 1), (0, 5), (2, 33), (35, 3), (17, 16))]


def usual(shape: Shape) -> int:
    """How many elements a shape has for the usual sizes."""
    return math.prod(evaluate(d, USUAL) for d in shape)


class SizedMaker(Maker):
    """Draws one graph with named sizes; sums are kept small enough for every number."""

    def shape(self) -> Shape:  # type: ignore[override]
        rank = self.draw(st.integers(0, 3))
        shape: list[Dim] = []
        for _ in range(rank):
            shape.append(self.draw(st.sampled_from(DIMS)))
            if usual(tuple(shape)) > 1000:
                shape.pop()
        return tuple(shape)

    def source(self) -> None:
        """Always an input, so that every name is known."""
        dtype = self.pick(f32, f32, f32, i64)
        node = input_node(f"x{len(self.inputs)}", TensorType(dtype, self.shape()))
        self.inputs.append(node)
        self.add(node, Bound(4))

    def view(self) -> None:
        x = self.node()
        assert x is not None
        rank, shape, bound = x.type.rank, x.shape, self.bounds[x]
        kind = self.pick("merge", "split", "transpose", "broadcast", "slice", "flip", "pad",
                         "concat")
        if kind == "merge" and rank > 1:
            at = self.draw(st.integers(0, rank - 2))
            joined = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2:])
            self.add(reshape(x, joined), bound)
        elif kind == "split" and rank:
            at, by = self.draw(st.integers(0, rank - 1)), self.pick(2, 3, n, 4)
            if shape[at] % by == 0:
                self.add(reshape(x, (*shape[:at], by, shape[at] // by, *shape[at + 1:])), bound)
        elif kind == "transpose":
            self.add(transpose(x, self.draw(st.permutations(range(rank)))), bound)
        elif kind == "broadcast" and rank < 4:
            axis, size = self.draw(st.integers(0, rank)), self.pick(1, 2, n, m)
            if usual((*shape, size)) <= 3000:
                axes = [i + (i >= axis) for i in range(rank)]
                self.add(broadcast(x, (*shape[:axis], size, *shape[axis:]), axes), bound)
        elif kind == "slice" and rank:
            starts = [self.pick(0, 0, 1) for _ in shape]
            stops = [d - self.pick(0, 0, 1, 2) for d in shape]
            if all(evaluate(b - a, USUAL) >= 0 for a, b in zip(starts, stops, strict=True)):
                self.add(part(x, starts, stops, [self.pick(1, 2, 3) for _ in shape]), bound)
        elif kind == "flip" and rank:
            axes = self.draw(st.sets(st.integers(0, rank - 1), min_size=1))
            self.add(make("flip", (x,), FlipAttrs(tuple(sorted(axes)))), bound)
        elif kind == "pad" and rank and usual(shape) <= 500:
            low, high = ([self.pick(0, 0, 1, n) for _ in shape] for _ in range(2))
            gap = [self.pick(0, 0, 1) for _ in shape]
            self.add(pad(x, low, high, gap, self.pick(0, 1)), Bound(bound.limit + 1, bound.exact))
        elif kind == "concat" and rank and usual(shape) <= 1000:
            y, axis = self.partner(x), self.draw(st.integers(0, rank - 1))
            other = self.bounds[y]
            both = Bound(max(bound.limit, other.limit), bound.exact and other.exact)
            self.add(concat([x, y], axis), both)

    def reduce(self) -> None:
        x = self.node("f", "i")
        if x is None or not x.type.rank or usual(x.shape) > 3000:
            return
        axes = tuple(sorted(self.draw(st.sets(st.integers(0, x.type.rank - 1), min_size=1))))
        name, bound = self.pick("sum", "sum", "reduce_max", "reduce_min"), self.bounds[x]
        if name == "sum":
            self.floats(make(name, (x,), ReduceAttrs(axes)), bound.limit * 1000, bound.exact)
        else:
            # Over no elements these are infinite.
            kept = apply("max", apply("min", make(name, (x,), ReduceAttrs(axes)), 9), -9)
            self.floats(kept, 9, bound.exact)

    def contraction(self) -> None:
        x = self.node("f")
        if x is None or x.dtype is not f32 or not x.type.rank or self.bounds[x].limit > 50:
            return
        labels = tuple(range(x.type.rank))
        shared = sorted(self.draw(st.sets(st.sampled_from(labels), min_size=1)))
        summed = self.draw(st.sets(st.sampled_from(shared), min_size=self.pick(1, 1, 0)))
        sizes: dict[int, Dim] = {i: x.shape[i] for i in shared}
        if self.pick(True, True, False):
            sizes[10] = self.pick(n, m, 5, 33)
        rhs = tuple(self.draw(st.permutations(list(sizes))))
        every = {**dict(enumerate(x.shape)), **sizes}
        if usual(tuple(every.values())) > 20000:
            return
        out = tuple(self.draw(st.permutations([i for i in every if i not in summed])))
        y = self.operand(TensorType(f32, tuple(sizes[i] for i in rhs)))
        if self.bounds[y].limit <= 50:
            self.floats(contract(x, y, labels, rhs, out), LARGEST, False)

    def gather(self) -> None:
        x = self.node()
        if x is None or not x.type.rank or usual(x.shape) > 1000:
            return
        axis, shape = self.draw(st.integers(0, x.type.rank - 1)), self.shape()[:1]
        if usual((*x.shape, *shape)) > 5000:
            return
        index = self.operand(TensorType(i64, shape))
        # Inside any axis that has an element.
        self.add(take(x, apply("mul", index, 0), axis), self.bounds[x])


STEPS = ("source", "arithmetic", "arithmetic", "single", "smooth", "compare", "choose", "view",
         "view", "view", "reduce", "reduce", "contraction", "gather")


@dataclass(frozen=True)
class SizedCase:
    """A random graph with named sizes, what is known of its results, and a seed."""

    graph: Graph
    bounds: tuple[Bound, ...]
    seed: int

    def arrays(self, sizes: Mapping[str, int]) -> list[np.ndarray]:
        """Whole numbers between -4 and 4 for the inputs."""
        random = np.random.default_rng(self.seed)
        numbers = specialise(Graph(self.graph.inputs, ()), sizes)
        return [random_array(node, random) for node in numbers.inputs]


@st.composite
def sized_cases(draw: st.DrawFn, most_steps: int = 10) -> SizedCase:
    """A graph of up to so many steps; what nothing reads is a result."""
    maker = SizedMaker(draw)
    for name, size in (("n", n), ("m", m)):
        node = input_node(name, TensorType(f32, (size,)))
        maker.inputs.append(node)
        maker.add(node, Bound(4))
    count = draw(st.integers(1, most_steps))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=count, max_size=count)):
        getattr(maker, step)()
    read = {i for node in maker.nodes for i in node.inputs}
    computed: list[Node] = [x for x in maker.nodes if x.op.kind != "source"]
    results = [x for x in computed if x not in read][-3:] or maker.nodes[-1:]
    graph = Graph(tuple(maker.inputs), tuple(results))
    return SizedCase(graph, tuple(maker.bounds[x] for x in results), draw(st.integers(0, 2**16)))
