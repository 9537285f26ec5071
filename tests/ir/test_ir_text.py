"""Both texts parse back to what they show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from ir_strategies import graphs, kernels

from tilewright.errors import Location, UserError
from tilewright.ir.attrs import ContractAttrs
from tilewright.ir.graph import (
    CONSTANTS,
    ConstAttrs,
    FullAttrs,
    Graph,
    apply,
    full,
    full_value,
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
    For,
    If,
    Kernel,
    Let,
    Load,
    Prefetch,
    Store,
    Var,
    compare,
    expr,
)
from tilewright.ir.sizes import named
from tilewright.ir.text import parse, show
from tilewright.ir.types import (
    DTYPES,
    FLOATS,
    TensorType,
    bf16,
    bool_,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
)


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_graphs_parse_back_to_the_same_nodes(graph: Graph) -> None:
    text = show(graph)
    again = parse(text)
    assert again == graph
    assert again.name == graph.name
    assert all(x is y for x, y in zip(again.outputs, graph.outputs, strict=True))
    assert show(again) == text


@settings(max_examples=100, deadline=None)
@given(kernels())
def test_kernels_parse_back_to_equal_kernels(kernel: Kernel) -> None:
    text = show(kernel)
    assert parse(text) == kernel
    assert show(parse(text)) == text


def test_graph_text(golden) -> None:
    x = input_node("params['w'][0].x", TensorType(f32, (8, named("n"))))
    w = input_node("w", TensorType(f32, (8, 4)), level=1)
    loc = Location("model.py", 12, "step")
    y = make("contract", (x, w), ContractAttrs((0, 1), (0, 2), (1, 2)), loc)
    z = apply("where", y < 0.5, y * -0.0, full(y.type, np.inf))
    text = show(Graph((x, w), (z, full(TensorType(u8, (3,)), 7), x), "step"))
    golden("graph", text)
    assert parse(text).nodes()[2].loc == loc


def test_kernel_text(golden) -> None:
    x, i = Buffer("x", f32, 64, "global", "inout"), Var("i")
    t, n, e = Buffer("a tile", f64, 4, "stack"), Var("n"), Var("e", f32)
    masked = Load(x, n, Call("lt", (n, Const(9)), bool_), Const(0.5, f32))
    index = Call("mul", (Call("sub", (i, Call("sub", (n, i), i64)), i64), expr(3)), i64)
    kernel = Kernel("demo", (x, Buffer("p", i8, 1, "global", "workspace")), (
        For(i, Const(0), Const(64), (
            Alloc(t),
            Let(n, Call("min", (i, Const(-3)), i64)),
            Let(e, Call("exp", (masked,), f32)),
            Check(Call("and", (compare("ge", index, 0), Const(True, bool_)), bool_), 4),
            Prefetch(x, Call("add", (i, Const(100)), i64)),
            If(Call("eq", (n, Const(0)), bool_), (
                Store(x, i, Call("div", (e, Call("add", (e, Const(-1.0, f32)), f32)), f32),
                      Call("ne", (i, n), bool_), True),
            ), (Accumulate(x, i, "max", Call("cast", (n,), f32)),)),
            For(Var("k"), n, index, (
                Accumulate(t, Const(0), "add", Call("bitcast", (i,), f64)),
                If(Const(False, bool_), ()),
            ), "serial", 2),
            For(Var("v"), Const(0), Const(8), (
                Store(x, Var("v"), Call("where", (Const(True, bool_), e, Const(2.0, f32)), f32)),
            ), "vector", 1, 8, 2),
        ), "parallel"),
        Barrier(),
    ), Location("a b.py", 3, "<lambda>"))
    text = show(kernel)
    golden("kernel", text)
    assert parse(text) == kernel


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=repr)
def test_every_value_keeps_its_bits(dtype) -> None:
    ones = (1 << dtype.itemsize * 8) - 1
    patterns = [0, 1] if dtype is bool_ else [0, 1, ones, ones >> 1, ones // 3, ones // 7]
    for bits in patterns:
        node = make("full", (), FullAttrs(bits), None, TensorType(dtype, (2,)))
        text = show(Graph((), (node,)))
        assert parse(text).outputs[0] is node, text


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_special_floats_in_kernels(dtype) -> None:
    x = Buffer("x", dtype, 1, "global", "out")
    i = Var("i")
    for value in (0.1, -0.0, np.inf, -np.inf, np.nan, 1e-3, 2.0**-20):
        store = Store(x, i, Const(np.asarray(value).astype(dtype.numpy)[()], dtype))
        kernel = Kernel("k", (x,), (For(i, Const(0), Const(1), (store,), "parallel"),))
        again = parse(show(kernel))
        found = again.body[0].body[0].value.value
        wanted = np.asarray(store.value.value)
        assert np.asarray(found).astype(dtype.numpy).tobytes() == wanted.tobytes()


def test_small_constants_bring_their_data() -> None:
    node = make("const", (), ConstAttrs("text-small"), None, TensorType(i32, (2, 2)))
    CONSTANTS["text-small"] = np.arange(4, dtype=np.int32).reshape(2, 2)
    text = show(Graph((), (node,)))
    del CONSTANTS["text-small"]
    assert parse(text).outputs[0] is node
    np.testing.assert_array_equal(CONSTANTS["text-small"], [[0, 1], [2, 3]])


def test_shared_numbers_and_ambiguous_ones() -> None:
    x = input_node("x", TensorType(f32, (2,)))
    one, half = full(x.type, 1), full(TensorType(bf16, ()), 0.5)
    graph = Graph((x,), (apply("add", one, one), x + one, half))
    text = show(graph)
    assert parse(text) == graph
    assert "add(%x, 1.0)" in text
    assert full_value(parse(text).outputs[2]) == 0.5


ERRORS = {
    "unknown op": (
        "graph g(%x: f32[2]) -> (f32[2]) {\n  %0 = contrac(%x) : f32[2]\n  return %0\n}",
        "line 2, column 8: there is no op called contrac\n"
        "      %0 = contrac(%x) : f32[2]\n"
        "           ^\n"
        "  hint:     did you mean contract?",
    ),
    "unknown value": (
        "graph g(%x: f32[2]) -> (f32[2]) {\n  return %y\n}",
        "line 2, column 10: %y is not defined\n"
        "      return %y\n"
        "             ^",
    ),
    "wrong results": (
        "graph g(%x: f32[2]) -> (f32[3]) {\n  return %x\n}",
        "line 2, column 10: the results have the types [f32[2]], declared are [f32[3]]\n"
        "      return %x\n"
        "             ^",
    ),
    "unknown attribute": (
        "graph g(%x: f32[2]) -> (f32[2]) {\n  %0 = flip(%x) [axis=0] : f32[2]\n  return %0\n}",
        "line 2, column 8: flip has no attribute axis\n"
        "      %0 = flip(%x) [axis=0] : f32[2]\n"
        "           ^",
    ),
    "unknown buffer": (
        "kernel k(x: f32[2] out) {\n  for i in 0..2 parallel {\n    y[i] = 0.0:f32\n  }\n}",
        "line 3, column 5: there is no buffer called y\n"
        "        y[i] = 0.0:f32\n"
        "        ^",
    ),
    "strange character": (
        "kernel k(x: f32[2] out) {\n  $\n}",
        "line 2, column 3: the character '$' has no meaning here\n"
        "      $\n"
        "      ^",
    ),
    "missing type": (
        "kernel k(x: f32[2] out) {\n  x[0] = cast(1)\n}",
        "line 2, column 10: the element type of cast is missing\n"
        "      x[0] = cast(1)\n"
        "             ^\n"
        "  hint:     write cast<f32>(...)",
    ),
    "no language": (
        "program p() {}",
        "line 1, column 1: expected graph or kernel, found program\n"
        "    program p() {}\n"
        "    ^",
    ),
    "cut off": (
        "graph g(%x: f32[2]",
        "line 1, column 19: expected ',', found the end of the text\n"
        "    graph g(%x: f32[2]\n"
        "                      ^",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_parse_errors(name: str) -> None:
    text, message = ERRORS[name]
    with pytest.raises(UserError) as caught:
        parse(text)
    assert str(caught.value) == message
