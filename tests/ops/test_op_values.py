"""Every elementwise row and element type, special values: its expansion is what it means."""

import numpy as np
import pytest
from op_harness import (
    STRUCTURED,
    ULPS,
    complaint,
    elementwise_rows,
    expanded,
    graph_of,
    interpreted,
    reference,
    special_inputs,
    structured_inputs,
)

from tilewright.ir.expansions import expand_all
from tilewright.ir.graph import OPS, Graph, full, input_node, make
from tilewright.ir.types import DTYPES, TensorType, f64

PARTLY_PRIMITIVE = {"pow", "mod", "floordiv"}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_expansion_means_the_same(dtype):
    wrong = []
    for op in elementwise_rows(dtype):
        if op.expand is None:
            continue
        arrays = special_inputs(op, dtype)
        graph = graph_of(op, None, arrays)
        want = reference(op, None, arrays, interpreted(graph, arrays)[0])
        got = expanded(graph, arrays)[0]
        wrong.append(complaint(op, dtype, arrays, got, want, ULPS.get(op.name, 0)))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_expansion_leaves_primitives(dtype):
    for op in elementwise_rows(dtype):
        graph = graph_of(op, None, special_inputs(op, dtype))
        left = {n.op.name for n in expand_all(graph).nodes() if n.op.expand is not None}
        assert left <= PARTLY_PRIMITIVE, op.name
        if dtype.is_float and op.name != "ldexp":
            assert left <= {"pow"}, op.name


EXPONENTS = [
    (name, exponent) for name in ("f16", "f32", "f64", "i8", "i64", "u16")
    for exponent in (0, 1, 2, 3, 4, 5, -1, -2, -3, 0.5, 1.5)
    if name[0] == "f" or exponent == int(exponent) and (name[0] == "i" or exponent >= 0)
]


@pytest.mark.parametrize(("name", "exponent"), EXPONENTS)
def test_constant_exponents(name, exponent):
    dtype = DTYPES[name]
    x = special_inputs(OPS["square"], dtype)[0]
    node = input_node("x", TensorType(dtype, x.shape))
    graph = Graph((node,), (make("pow", [node, full(node.type, exponent)]),))
    powers = np.full(x.shape, exponent, x.dtype)
    want = reference(OPS["pow"], None, [x, powers], interpreted(graph, [x])[0])
    assert not complaint(OPS["pow"], dtype, [x], expanded(graph, [x])[0], want, 2)


@pytest.mark.parametrize("name", STRUCTURED)
def test_structured_rows_have_their_declared_type(name):
    op = OPS[name]
    for attrs, shapes in STRUCTURED[name]:
        if op.kind == "source":
            continue
        arrays = structured_inputs(op, attrs, shapes, f64)
        graph = graph_of(op, attrs, arrays)
        result = interpreted(graph, arrays)[0]
        assert result.shape == graph.outputs[0].shape
