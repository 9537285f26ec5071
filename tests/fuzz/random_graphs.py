"""Random graphs whose results do not depend on the order of rounding, for hypothesis to shrink.

Every float is bounded. It is either *exact*, a number that all orders of summation give, on which
comparisons and conversions are allowed, or *inexact*, to be compared with a tolerance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from random_ordered import Ordered

from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.attrs import (
    CastAttrs,
    FlipAttrs,
    IotaAttrs,
    ReduceAttrs,
)
from tilewright.ir.build import (
    broadcast,
    concat,
    contract,
    pad,
    part,
    put,
    put_along,
    reshape,
    take,
    take_along,
    transpose,
    window,
)
from tilewright.ir.graph import Graph, Node, apply, full, input_node, make
from tilewright.ir.types import (
    DType,
    TensorType,
    accumulator,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
    u32,
)

DIMS = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 70, 300)
MOST_ELEMENTS = 1500
EXACT = {f16: 2**11, bf16: 2**8, f32: 2**24, f64: 2**53}
"""Up to here a float type has every integer."""
LARGEST = 1e4
"""Inexact floats stay below this."""
DTYPES = (f32, f32, f32, f64, f16, bf16, i32, i64, i8, u8, u32, bool_)
INDEX = (i32, i64, u8)


@dataclass(frozen=True)
class Bound:
    """What is known of a node's floats: the largest magnitude, and whether they are exact."""

    limit: float = 0.0
    exact: bool = True


class Maker(Ordered):
    """Draws one graph. Every method either adds a node or does nothing."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.bounds: dict[Node, Bound] = {}

    # --- drawing ------------------------------------------------------------------------
    def pick(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def shape(self) -> tuple[int, ...]:
        rank = self.draw(st.integers(0, 3))
        shape: list[int] = []
        for _ in range(rank):
            left = MOST_ELEMENTS // max(1, math.prod(shape))
            shape.append(self.draw(st.sampled_from([d for d in DIMS if d <= left] or [1])))
        if shape and self.draw(st.integers(0, 39)) == 39:
            shape[self.draw(st.integers(0, rank - 1))] = 0
        return tuple(shape)

    def node(self, *kinds: str) -> Node | None:
        """A node of one of these dtype kinds."""
        fitting = [n for n in self.nodes if not kinds or n.dtype.kind in kinds]
        if not fitting:
            return None
        # Recent nodes first: deep graphs find more than wide ones.
        recent = [n for n in fitting if n.op.kind != "source"][-3:]
        return self.draw(st.sampled_from(fitting[::-1] + 3 * recent))

    def partner(self, x: Node) -> Node:
        """A node of the same type: another one, a broadcast one, a constant or the node itself."""
        same = [n for n in self.nodes if n.type == x.type]
        small = [n for n in self.nodes if n.dtype is x.dtype and fits(n.shape, x.shape)]
        kind = self.pick("same", "small", "constant")
        if kind == "small" and small:
            y = self.draw(st.sampled_from(small))
            axes = range(x.type.rank - y.type.rank, x.type.rank)
            return self.add(broadcast(y, x.shape, list(axes)), self.bounds[y])
        if kind == "constant":
            return self.constant(x.type)
        return self.draw(st.sampled_from(same))

    # --- sources ------------------------------------------------------------------------
    def add(self, node: Node, bound: Bound | None = None) -> Node:
        if node not in self.bounds:
            self.nodes.append(node)
            self.bounds[node] = bound or Bound()
        return node

    def constant(self, type: TensorType) -> Node:
        value = self.draw(st.integers(0 if type.dtype.kind in "ub" else -3, 3))
        return self.add(full(type, value), Bound(3))

    def source(self) -> None:
        type = TensorType(self.pick(*DTYPES), self.shape())
        kind = self.pick("input", "input", "input", "full", "iota")
        if kind == "iota" and type.rank and max(type.shape) <= 127 and type.dtype is not bool_:
            axis = self.draw(st.integers(0, type.rank - 1))
            self.add(make("iota", (), IotaAttrs(axis), type=type), Bound(float(type.shape[axis])))
        elif kind == "full":
            self.constant(type)
        else:
            node = input_node(f"x{len(self.inputs)}", type)
            self.inputs.append(node)
            self.add(node, Bound(4))

    # --- elementwise --------------------------------------------------------------------
    def arithmetic(self) -> None:
        x = self.node("f", "i", "u")
        if x is None:
            return
        y, name = self.partner(x), self.pick("add", "sub", "mul", "max", "min")
        a, b = self.bounds[x], self.bounds[y]
        limit = a.limit * b.limit if name == "mul" else a.limit + b.limit
        self.floats(apply(name, x, y), limit, a.exact and b.exact)

    def floats(self, node: Node, limit: float, exact: bool) -> None:
        """Add the node unless its floats would leave their bounds."""
        if node.dtype.is_float:
            most = EXACT[node.dtype] if exact else LARGEST
            if limit > most or (not exact and node.dtype.bits == 16):
                return
        self.add(node, Bound(limit, exact))

    def whole(self) -> None:
        x = self.node("i", "u")
        if x is None:
            return
        name = self.pick("and", "or", "xor", "shl", "shr", "floordiv", "mod", "pow")
        y = self.partner(x)
        if name == "pow":
            y = apply("and", y, full(y.type, 3))
        self.add(apply(name, x, y))

    def single(self) -> None:
        x = self.node()
        assert x is not None
        names = {
            "f": ("neg", "abs", "floor", "rint", "trunc"),
            "i": ("neg", "abs", "not", "popcount"), "u": ("not", "popcount"), "b": ("not",),
        }[x.dtype.kind]
        name, bound = self.pick(*names), self.bounds[x]
        if bound.exact or name in ("neg", "abs"):
            result = apply(name, x)
            self.add(result, Bound(bound.limit, bound.exact))

    def smooth(self) -> None:
        x = self.node("f")
        if x is None or x.dtype.bits == 16:
            return
        name, bound = self.pick("tanh", "sin", "exp", "sqrt", "log1p", "erf", "div"), self.bounds[x]
        if name == "div":
            self.floats(x / (1 + apply("abs", self.partner(x))), bound.limit, False)
        elif name == "exp":
            self.floats(apply("exp", apply("tanh", x)), 3, False)
        elif name in ("sqrt", "log1p"):
            # Near zero a root would magnify what rounding leaves there.
            self.floats(apply(name, 1 + apply("abs", x)), bound.limit + 1, False)
        elif bound.limit <= 100:
            self.floats(apply(name, x), 1, False)

    def compare(self) -> None:
        x = self.node()
        assert x is not None
        y = self.partner(x)
        if self.bounds[x].exact and self.bounds[y].exact:
            self.add(apply(self.pick("eq", "ne", "lt", "le", "gt", "ge"), x, y))

    def logic(self) -> None:
        x = self.node("b")
        if x is not None:
            self.add(apply(self.pick("and", "or", "xor"), x, self.partner(x)))

    def choose(self) -> None:
        conditions = [n for n in self.nodes if n.dtype is bool_]
        x = self.node()
        fitting = [c for c in conditions if x is not None and c.shape == x.shape]
        if x is None or not fitting:
            return
        y = self.partner(x)
        a, b = self.bounds[x], self.bounds[y]
        chosen = apply("where", self.draw(st.sampled_from(fitting)), x, y)
        self.floats(chosen, max(a.limit, b.limit), a.exact and b.exact)

    def convert(self) -> None:
        x = self.node()
        assert x is not None
        dtype, bound = self.pick(*DTYPES), self.bounds[x]
        if x.dtype.is_float and not dtype.is_float:
            if not bound.exact or bound.limit > 100 or dtype.kind == "u":
                return
        if not x.dtype.is_float and dtype.is_float:
            # Whatever an integer wrapped to must be a number that the float has.
            if x.dtype.bits > 8 or dtype is bf16:
                return
            bound = Bound(256.0 if x.dtype is not bool_ else 1.0)
        self.floats(make("cast", (x,), CastAttrs(dtype)), bound.limit, bound.exact)

    # --- views --------------------------------------------------------------------------
    def view(self) -> None:
        x = self.node()
        assert x is not None
        rank, shape, bound = x.type.rank, x.shape, self.bounds[x]
        kind = self.pick(
            "reshape", "transpose", "broadcast", "slice", "flip", "pad", "concat", "window")
        if kind == "reshape":
            self.add(reshape(x, self.factors(x.type.size)), bound)
        elif kind == "transpose":
            self.add(transpose(x, self.draw(st.permutations(range(rank)))), bound)
        elif kind == "broadcast" and rank < 4:
            axis, size = self.draw(st.integers(0, rank)), self.pick(1, 2, 3, 9)
            if x.type.size * size <= MOST_ELEMENTS:
                axes = [i + (i >= axis) for i in range(rank)]
                self.add(broadcast(x, (*shape[:axis], size, *shape[axis:]), axes), bound)
        elif kind == "slice" and rank:
            starts = [self.draw(st.integers(0, d)) for d in shape]
            stops = [self.draw(st.integers(s, d)) for s, d in zip(starts, shape, strict=True)]
            self.add(part(x, starts, stops, [self.pick(1, 2, 3) for _ in shape]), bound)
        elif kind == "flip" and rank:
            axes = self.draw(st.sets(st.integers(0, rank - 1), min_size=1))
            self.add(make("flip", (x,), FlipAttrs(tuple(sorted(axes)))), bound)
        elif kind == "pad" and x.type.size <= MOST_ELEMENTS // 4 and rank:
            low, high, gap = ([self.pick(0, 0, 1, 2) for _ in shape] for _ in range(3))
            self.add(pad(x, low, high, gap, self.pick(0, 1)), Bound(bound.limit + 1, bound.exact))
        elif kind == "window" and 0 < rank < 4:
            self.windows(x)
        elif kind == "concat" and rank and x.type.size <= MOST_ELEMENTS // 2:
            y, axis = self.partner(x), self.draw(st.integers(0, rank - 1))
            other = self.bounds[y]
            both = Bound(max(bound.limit, other.limit), bound.exact and other.exact)
            self.add(concat([x, y], axis), both)

    def windows(self, x: Node) -> None:
        """Windows along one or two axes."""
        axes = sorted(self.draw(st.sets(st.integers(0, x.type.rank - 1), min_size=1, max_size=2)))
        sizes, steps, apart = ([self.pick(*few) for _ in axes] for few in (
            (1, 2, 3, 5), (1, 1, 2, 3), (1, 1, 2)))
        if x.type.size * math.prod(sizes) <= 4 * MOST_ELEMENTS:
            self.add(window(x, axes, sizes, steps, apart), self.bounds[x])

    def factors(self, size: int) -> tuple[int, ...]:
        """A shape of this many elements."""
        shape = []
        while size > 1 and len(shape) < 3:
            divisors = [d for d in range(2, size + 1) if size % d == 0][:6]
            shape.append(self.draw(st.sampled_from(divisors)))
            size //= shape[-1]
        shape += [size] if size != 1 else []
        if self.draw(st.booleans()):
            shape.insert(self.draw(st.integers(0, len(shape))), 1)
        return tuple(shape)

    # --- reductions, contractions, indices ----------------------------------------------
    def reduce(self) -> None:
        x = self.node()
        if x is None or not x.type.rank:
            return
        axes = tuple(sorted(self.draw(st.sets(st.integers(0, x.type.rank - 1), min_size=1))))
        count = math.prod(x.shape[a] for a in axes)
        names = ("reduce_max", "reduce_min") if x.dtype is bool_ else (
            "sum", "sum", "reduce_max", "reduce_min")
        if x.dtype.is_int:
            names += ("prod",)
        name, bound = self.pick(*names), self.bounds[x]
        if name != "sum" and count == 0 and x.dtype.is_float:
            return
        limit = bound.limit * count if name == "sum" else bound.limit
        self.floats(make(name, (x,), ReduceAttrs(axes)), limit, bound.exact)

    def contraction(self) -> None:
        x = self.node()
        if x is None or not x.type.rank or x.dtype is bool_:
            return
        labels = tuple(range(x.type.rank))
        some = max(1, len(labels) - 1 + self.draw(st.integers(0, 1)))
        shared = sorted(self.draw(st.sets(st.sampled_from(labels), min_size=1, max_size=some)))
        sizes = {i: x.shape[i] for i in shared}
        summed = self.draw(st.sets(st.sampled_from(shared), min_size=self.pick(1, 1, 0)))
        own = []
        for label in range(10, 10 + self.pick(1, 1, 2, 0)):
            sizes[label] = self.pick(5, 2, 3, 1, 17, 33)
            own.append(label)
        rhs = tuple(self.draw(st.permutations([*shared, *own])))
        out = tuple(self.draw(st.permutations(
            [i for i in (*labels, *own) if i not in summed])))
        every = {**dict(enumerate(x.shape)), **sizes}
        if math.prod(every.values()) > 4 * MOST_ELEMENTS:
            return
        y = self.operand(TensorType(x.dtype, tuple(sizes[i] for i in rhs)))
        a, b = self.bounds[x], self.bounds[y]
        limit = a.limit * b.limit * max(1, math.prod(every[i] for i in summed))
        if limit <= EXACT[accumulator(x.dtype)] if x.dtype.is_float else True:
            self.floats(contract(x, y, labels, rhs, out), limit, a.exact and b.exact)

    def operand(self, type: TensorType) -> Node:
        """A node of exactly this type: one that exists, or a new input."""
        same = [n for n in self.nodes if n.type == type]
        if same and self.draw(st.booleans()):
            return self.draw(st.sampled_from(same))
        node = input_node(f"x{len(self.inputs)}", type)
        self.inputs.append(node)
        return self.add(node, Bound(4))

    def gather(self) -> None:
        x = self.node()
        if x is None or not x.type.rank or not x.type.size:
            return
        axis = self.draw(st.integers(0, x.type.rank - 1))
        bound = self.bounds[x]
        name = self.pick("take", "take_along", "put", "put_along")
        along = "along" in name
        shape = self.shape()[:2]
        if along:
            shape = (*x.shape[:axis], self.pick(1, 2, 5), *x.shape[axis + 1:])
        if math.prod(shape) * x.type.size > 4 * MOST_ELEMENTS:
            return
        index = self.operand(TensorType(self.pick(*INDEX), shape))
        index = apply("mod", index, x.shape[axis])
        if index.dtype.kind == "i" and self.draw(st.booleans()):
            index = index - x.shape[axis]
        read = (take_along if along else take)(x, index, axis)
        if name.startswith("take"):
            self.add(read, bound)
            return
        self.scatter(x, index, self.operand(read.type), axis, along)

    def scatter(self, x: Node, index: Node, values: Node, axis: int, along: bool) -> None:
        modes = ("set", "max", "min", "add") + (() if x.dtype.is_float else ("mul",))
        mode = self.pick(*modes)
        bound, other = self.bounds[x], self.bounds[values]
        limit = max(bound.limit, other.limit)
        if mode == "add":
            limit = bound.limit + other.limit * max(1, values.type.size)
        result = (put_along if along else put)(x, index, values, axis, mode)
        self.floats(result, limit, bound.exact and other.exact)


STEPS = ("source", "arithmetic", "arithmetic", "arithmetic", "whole", "single", "smooth", "compare",
         "logic", "choose", "convert", "view", "view", "view", "reduce", "reduce", "contraction",
         "gather", "scan", "order", "search")


def fits(small: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to another by NumPy's rule."""
    tail = wide[len(wide) - len(small):]
    return len(small) <= len(wide) and all(a in (1, b) for a, b in zip(small, tail, strict=True))


@dataclass(frozen=True)
class Case:
    """A random graph, what is known of its results, and the seed of its arguments."""

    graph: Graph
    bounds: tuple[Bound, ...]
    seed: int

    def arrays(self) -> list[np.ndarray]:
        """Whole numbers between -4 and 4 (ints sometimes any number) for the inputs."""
        random = np.random.default_rng(self.seed)
        return [random_array(n, random) for n in self.graph.inputs]


def random_array(node: Node, random: np.random.Generator) -> np.ndarray:
    shape, numpy = node.shape, node.dtype.numpy
    if node.dtype is bool_:
        return random.random(shape) < 0.5
    if node.dtype.is_float:
        return random.integers(-4, 5, shape).astype(numpy)
    info = np.iinfo(numpy)
    if random.random() < 0.3:
        return random.integers(info.min, info.max, shape, numpy, endpoint=True)
    return random.integers(max(info.min, -4), 5, shape).astype(numpy)


@st.composite
def cases(draw: st.DrawFn, most_steps: int = 12) -> Case:
    """A graph of up to so many steps; what nothing reads is a result, and perhaps more."""
    maker = Maker(draw)
    maker.source()
    count = draw(st.integers(1, most_steps))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=count, max_size=count)):
        getattr(maker, step)()
    read = {n for node in maker.nodes for n in node.inputs}
    computed = [n for n in maker.nodes if n.op.kind != "source"]
    ends = [n for n in computed if n not in read][-3:]
    others = draw(st.lists(st.sampled_from((computed or maker.nodes)[::-1]), max_size=2))
    results = (ends + others) or maker.nodes[-1:]
    graph = Graph(tuple(maker.inputs), tuple(results))
    return Case(graph, tuple(maker.bounds[n] for n in results), draw(st.integers(0, 2**16)))


def assert_same(got: np.ndarray, want: np.ndarray, dtype: DType, bound: Bound) -> None:
    """Equal, or close for inexact floats."""
    assert got.dtype == want.dtype and got.shape == want.shape
    if dtype.is_float and not bound.exact:
        near = 2e-4  # an f64 may be the result of a computation in f32
        np.testing.assert_allclose(got, want, rtol=near, atol=near * max(1.0, bound.limit))
    else:
        np.testing.assert_array_equal(got, want)
