"""Random graphs and kernels that keep the rules of their languages."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import tilewright.ir  # noqa: F401  (fills the op table)
from tilewright.errors import Location
from tilewright.ir import attrs as a
from tilewright.ir.graph import (
    CONSTANTS,
    OPS,
    ConstAttrs,
    Graph,
    Node,
    full,
    input_node,
    make,
)
from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Barrier,
    Buffer,
    Call,
    Check,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Stmt,
    Store,
    Var,
    add,
    compare,
    mod,
    mul,
)
from tilewright.ir.types import (
    DTYPES,
    FLOATS,
    INTS,
    DType,
    TensorType,
    bool_,
    f32,
    i32,
    i64,
)

dtypes = st.sampled_from(list(DTYPES.values()))
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
names = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True),
    st.sampled_from(["params['w'][0].x", 'a "quoted" name', "f32", "if", "0", "größe", "x.y\n#"]),
)
locations = st.none() | st.builds(
    Location, st.sampled_from(["model.py", "/tmp/a b: c.py"]), st.integers(1, 999),
    st.sampled_from(["step", "<lambda>", "a in b"]),
)
numbers = st.one_of(
    st.integers(-5, 5), st.floats(width=32), st.booleans(),
    st.sampled_from([0.1, -0.0, 1e-45, 3.4e38, float("inf"), float("nan")]),
)


# --- graphs ---------------------------------------------------------------------------------
def any_like(draw: Any, nodes: list[Node], node: Node) -> Node:
    """A node of the type of ``node``."""
    return draw(st.sampled_from([n for n in nodes if n.type == node.type]))


def draw_elementwise(draw: Any, nodes: list[Node], x: Node) -> Node | None:
    rows = [
        op for op in OPS.values()
        if op.kind == "elementwise" and op.attrs is not a.CastAttrs and op.name != "where"
        and x.dtype in op.types
    ]
    row = draw(st.sampled_from(sorted(rows, key=lambda op: op.name)))
    inputs = [x, *(any_like(draw, nodes, x) for _ in range(row.arity - 1))]
    try:
        return make(row, inputs, loc=draw(locations))
    except (TypeError, ValueError):
        return None


def draw_cast(draw: Any, nodes: list[Node], x: Node) -> Node:
    return make("cast", (x,), a.CastAttrs(draw(dtypes)))


def draw_number(draw: Any, nodes: list[Node], x: Node) -> Node:
    return full(x.type, draw(numbers))


def draw_where(draw: Any, nodes: list[Node], x: Node) -> Node:
    return make("where", (make("eq", (x, x)), x, any_like(draw, nodes, x)))


def draw_reduce(draw: Any, nodes: list[Node], x: Node) -> Node | None:
    axes = tuple(i for i in range(x.type.rank) if draw(st.booleans()))
    name = draw(st.sampled_from(["sum", "prod", "reduce_max", "reduce_min"]))
    return None if x.dtype is bool_ else make(name, (x,), a.ReduceAttrs(axes))


def draw_view(draw: Any, nodes: list[Node], x: Node) -> Node:
    rank, shape = x.type.rank, x.shape
    kind = draw(st.sampled_from(
        ["reshape", "transpose", "broadcast", "slice", "flip", "pad", "window"]))
    if kind == "reshape":
        return make(kind, (x,), a.ReshapeAttrs((1, x.type.size)))
    if kind == "transpose":
        return make(kind, (x,), a.TransposeAttrs(tuple(draw(st.permutations(range(rank))))))
    if kind == "broadcast":
        return make(kind, (x,), a.BroadcastAttrs((2, *shape), tuple(range(1, rank + 1))))
    if kind == "slice":
        starts = tuple(draw(st.integers(0, d)) for d in shape)
        return make(kind, (x,), a.SliceAttrs(starts, shape, (2,) * rank))
    if kind == "flip":
        return make(kind, (x,), a.FlipAttrs(tuple(range(rank))))
    if kind == "window":
        axes = tuple(range(rank))
        return make(kind, (x,), a.WindowAttrs(axes, (2,) * rank, (1,) * rank, (2,) * rank))
    value = full(x.type.with_shape(()), draw(numbers))
    return make(kind, (x, value), a.PadAttrs((1,) * rank, (0,) * rank, (2,) * rank))


def draw_contract(draw: Any, nodes: list[Node], x: Node) -> Node:
    labels = tuple(range(x.type.rank))
    out = tuple(draw(st.permutations([n for n in labels if draw(st.booleans())])))
    return make("contract", (x, any_like(draw, nodes, x)), a.ContractAttrs(labels, labels, out))


def draw_concat(draw: Any, nodes: list[Node], x: Node) -> Node | None:
    if not x.type.rank:
        return None
    return make("concat", (x, any_like(draw, nodes, x), x), a.ConcatAttrs(x.type.rank - 1))


def draw_source(draw: Any, nodes: list[Node], x: Node) -> Node:
    if x.type.rank and draw(st.booleans()):
        return make("iota", (), a.IotaAttrs(0), None, x.type)
    data = np.arange(x.type.size).astype(x.dtype.numpy).reshape(x.shape)
    digest = f"test-{x.type}"
    CONSTANTS.setdefault(digest, data)
    return make("const", (), ConstAttrs(digest), None, x.type)


STEPS = (draw_elementwise, draw_elementwise, draw_cast, draw_number, draw_where, draw_reduce,
         draw_view, draw_contract, draw_concat, draw_source)


@st.composite
def graphs(draw: Any) -> Graph:
    """A graph of up to twelve nodes over every kind of op but indexing."""
    taken = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    inputs = tuple(
        input_node(name, TensorType(draw(dtypes), draw(shapes)), draw(st.integers(0, 1)))
        for name in taken
    )
    nodes = list(inputs)
    for _ in range(draw(st.integers(0, 12))):
        made = draw(st.sampled_from(STEPS))(draw, nodes, draw(st.sampled_from(nodes)))
        if made is not None and made.type.size <= 4096:
            nodes.append(made)
    outputs = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3))
    return Graph(inputs, tuple(outputs), draw(names))


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Random arrays for the inputs of a graph."""
    random = np.random.default_rng(seed)
    return [
        (random.normal(0, 3, n.shape) + (n.dtype.kind == "u") * 9).astype(n.dtype.numpy)
        for n in graph.inputs
    ]


# --- kernels --------------------------------------------------------------------------------
ROWS, LANES = 3, 5
SOURCE, COUNTS = Buffer("s", f32, 16, "global", "in"), Buffer("the counts", i32, 16, "global", "in")
RESULT = Buffer("y", f32, ROWS * LANES, "global", "out")
TOTAL = Buffer("total", i64, ROWS, "global", "inout")
BINARY = {
    i64: ["add", "sub", "mul", "floordiv", "mod", "max", "min", "and", "or", "xor", "shl", "shr"],
    i32: ["add", "sub", "mul", "floordiv", "mod", "max", "min", "and", "or", "xor", "shl", "shr"],
    f32: ["add", "sub", "mul", "max", "min"],
    bool_: ["and", "or", "xor", "eq", "ne"],
}


@st.composite
def expressions(draw: Any, dtype: DType, scope: dict[str, Any], depth: int = 3) -> Expr:
    """An expression of this type over the variables and buffers of ``scope``."""
    known = [v for v in scope["variables"] if v.dtype is dtype]
    kind = draw(st.sampled_from(["const", "var", "load", "call", "call", "cast", "where"]))
    if kind == "var" and known:
        return draw(st.sampled_from(known))
    if depth == 0 or kind in ("const", "var"):
        return constant(draw, dtype)

    def inner(t: DType) -> Expr:
        return draw(expressions(t, scope, depth - 1))

    sources = [b for b in scope["buffers"] if b.dtype is dtype]
    if kind == "load":
        if not sources:
            return constant(draw, dtype)
        buffer = draw(st.sampled_from(sources))
        if buffer.space != "global":
            return buffer[draw(st.integers(0, buffer.size - 1))]
        mask = draw(st.none() | st.just(inner(bool_)))
        other = draw(st.none() | st.just(inner(dtype))) if mask is not None else None
        return Load(buffer, mod(inner(i64), buffer.size), mask, other)
    if kind == "where":
        return Call("where", (inner(bool_), inner(dtype), inner(dtype)), dtype)
    if kind == "cast" and dtype is not f32:
        source = draw(st.sampled_from([i64, i32, bool_]))
        return Call("cast", (inner(source),), dtype)
    if dtype is bool_ and draw(st.booleans()):
        return compare(draw(st.sampled_from(["lt", "le", "eq", "ge"])), inner(i64), inner(i64))
    return Call(draw(st.sampled_from(BINARY[dtype])), (inner(dtype), inner(dtype)), dtype)


def constant(draw: Any, dtype: DType) -> Const:
    """A small number of this type."""
    if dtype is bool_:
        return Const(draw(st.booleans()), bool_)
    values = st.floats(-4, 4, width=16) if dtype is f32 else st.integers(-3, 70)
    return Const(draw(values), dtype)


def vector_body(draw: Any, row: Var, lane: Var) -> tuple[Stmt, ...]:
    """Statements of a vector loop: private buffers, a loop, branches, masked and shared writes."""
    scope: dict[str, Any] = {"variables": [row, lane], "buffers": [SOURCE, COUNTS]}
    body: list[Stmt] = []
    mine = Buffer("mine", draw(st.sampled_from([i64, i32])), 2, "register")
    body += [Alloc(mine), Store(mine, Const(0), Const(1, mine.dtype)),
             Store(mine, Const(1), draw(expressions(mine.dtype, scope)))]
    scope["buffers"].append(mine)
    named = Var("n", draw(st.sampled_from([i64, i32, bool_, f32])))
    body.append(Let(named, draw(expressions(named.dtype, scope))))
    scope["variables"].append(named)
    k = Var("k")
    within = {**scope, "variables": [*scope["variables"], k]}
    combine = draw(st.sampled_from(["add", "max", "min", "or", "and", "mul"]))
    body.append(For(k, Const(0), Const(3), (
        Accumulate(mine, Const(draw(st.integers(0, 1))), combine,
                   draw(expressions(mine.dtype, within)), draw(st.none() | st.just(
                       draw(expressions(bool_, within))))),
    ), draw(st.sampled_from(["serial", "unroll"]))))
    body.append(If(compare("lt", row, draw(st.integers(0, 3))),
                   (Store(mine, Const(0), draw(expressions(mine.dtype, scope))),),
                   draw(st.sampled_from([(), (Check(draw(expressions(bool_, scope)), 2),)]))))
    place = add(mul(row, LANES), lane)
    mask = draw(st.none() | st.just(draw(expressions(bool_, scope))))
    value = draw(expressions(f32, scope))
    body.append(Store(RESULT, place, value, mask, draw(st.booleans())))
    shared = draw(st.sampled_from([row, mod(lane, ROWS)]))
    body.append(Accumulate(TOTAL, shared, draw(st.sampled_from(["add", "max", "min", "or"])),
                           draw(expressions(i64, scope)), mask))
    return tuple(body)


@st.composite
def kernels(draw: Any) -> Kernel:
    """A kernel over SOURCE, COUNTS, RESULT and TOTAL with a vector loop in a serial loop.

    The rows share places of TOTAL, so the loop over them is not parallel.
    """
    row, lane, once = Var("r"), Var("lane"), Var("once")
    vector = For(lane, Const(0), Const(LANES), vector_body(draw, row, lane), "vector", 1,
                 draw(st.sampled_from([2, 4])), draw(st.sampled_from([1, 2])))
    body: tuple[Stmt, ...] = (
        For(once, Const(0), Const(1), (For(row, Const(0), Const(ROWS), (vector,)),), "parallel"),
        Barrier(),
    )
    return Kernel(draw(names), (SOURCE, COUNTS, RESULT, TOTAL), body, draw(locations))


__all__ = ["FLOATS", "INTS", "arrays_for", "graphs", "kernels", "names"]
