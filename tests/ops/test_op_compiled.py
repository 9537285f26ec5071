"""Every row of the op table as machine code, on every tier, and as PTX, against its meaning."""

import zlib

import numpy as np
import pytest
from op_harness import (
    MODES,
    SIZES,
    STRUCTURED,
    SUMS,
    ULPS,
    compiled,
    complaint,
    elementwise_rows,
    graph_of,
    input_dtypes,
    interpreted,
    mismatches,
    random_values,
    reference,
    rng_of,
    run_together,
    special_inputs,
    special_values,
    structured_inputs,
    sum_distance,
)

from tilewright.codegen.cpu import TIERS
from tilewright.errors import OutOfBounds
from tilewright.ir.attrs import CastAttrs, IndexAttrs, IotaAttrs, PutAttrs, ReduceAttrs
from tilewright.ir.graph import OPS, Graph, full, input_node, make
from tilewright.ir.types import DTYPES, FLOATS, TensorType, bf16, bool_, f32, f64, i64


def is_sum(op, attrs):
    """Whether the order of additions or multiplications may show in the result."""
    return op.name in SUMS or getattr(attrs, "mode", "") in ("add", "mul")


GPU = "sm_80"
"""An architecture whose PTX the simulator runs."""

EITHER_ZERO = ("max", "min", "fmax", "fmin")
"""Ops that leave open which of 0.0 and -0.0 comes out; CPUs happen to choose as NumPy does."""

tiers = pytest.mark.parametrize("tier", TIERS)
everywhere = pytest.mark.parametrize(
    "tier", (*TIERS, GPU, pytest.param("cuda", marks=pytest.mark.gpu)))
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)


def check_elementwise(tier, dtype, cases):
    """``cases`` are (op, arrays)."""
    graphs = [graph_of(op, None, arrays) for op, arrays in cases]
    results = run_together(compiled(tier), graphs, [arrays for _, arrays in cases])
    wrong = []
    for (op, arrays), graph, got in zip(cases, graphs, results, strict=True):
        want = reference(op, None, arrays, interpreted(graph, arrays)[0])
        if tier not in TIERS and op.name in EITHER_ZERO and dtype.is_float:
            got, want = got + dtype.numpy.type(0), want + dtype.numpy.type(0)
        # The f64 reference is NumPy itself, which may be a unit off as well.
        room = ULPS[op.name] + (dtype is f64) if op.name in ULPS else 0
        wrong.append(complaint(op, dtype, arrays, got, want, room))
    assert not any(wrong), "\n".join(filter(None, wrong))


@everywhere
@dtypes
def test_special_values(tier, dtype):
    check_elementwise(tier, dtype, [
        (op, special_inputs(op, dtype)) for op in elementwise_rows(dtype)])


@tiers
@dtypes
def test_ragged_sizes(tier, dtype):
    """Each row meets each size on one of the tiers."""
    turn = TIERS.index(tier)
    cases = []
    for op in elementwise_rows(dtype):
        for number, size in enumerate(SIZES):
            if (zlib.crc32(f"{op.name} {dtype}".encode()) + number) % len(TIERS) == turn:
                rng = rng_of(op.name, dtype, size)
                arrays = [random_values(d, (size,), rng, op) for d in input_dtypes(op, dtype)]
                cases.append((op, arrays))
    check_elementwise(tier, dtype, cases)


@everywhere
@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_a_chain(tier, size):
    """One fused kernel of several types around the width of a vector."""
    rng = rng_of("chain", size)
    x, y = (rng.normal(size=size).astype(np.float32) for _ in range(2))
    n = rng.integers(-9, 9, size).astype(np.int8)
    a, b = (input_node(name, TensorType(f32, (size,))) for name in "xy")
    c = input_node("n", TensorType(DTYPES["i8"], (size,)))
    wide = make("cast", [make("where", [a > b, a, b])], CastAttrs(f64))
    graph = Graph((a, b, c), (wide * make("cast", [c], CastAttrs(f64)), make("exp", [a - b])))
    got = compiled(tier)(graph, [x, y, n])
    assert np.array_equal(got[0], np.maximum(x, y).astype(np.float64) * n)
    np.testing.assert_allclose(got[1], np.exp(x - y), rtol=1e-6)


def castable(source, target):
    """Values of ``source`` that have a value in ``target``."""
    values = special_values(source)
    if not source.is_float or target.is_float or target is bool_:
        return values
    limits = np.iinfo(target.numpy)
    wide = np.trunc(values.astype(np.float64))
    with np.errstate(invalid="ignore"):
        inside = (wide >= float(limits.min)) & (wide <= float(limits.max))
        # The largest integers round up to a float beyond the range.
        return values[inside & (wide < 2.0 ** (target.bits - (target.kind == "i")))]


@everywhere
@dtypes
def test_casts(tier, dtype):
    graphs, arrays = [], []
    for target in DTYPES.values():
        x = np.tile(castable(dtype, target), 3)
        graphs.append(graph_of(OPS["cast"], CastAttrs(target), [x], f"{target}_"))
        arrays.append([x])
    wrong = [
        complaint(OPS["cast"], f"{dtype} to {target}", x, got, interpreted(graph, x)[0], 0)
        for target, graph, x, got in zip(
            DTYPES.values(), graphs, arrays, run_together(compiled(tier), graphs, arrays),
            strict=True)
    ]
    assert not any(wrong), "\n".join(filter(None, wrong))


@everywhere
def test_bitcasts(tier):
    pairs = [(a, b) for a in DTYPES.values() for b in DTYPES.values()
             if a.bits == b.bits and bool_ not in (a, b)]
    arrays = [[np.tile(special_values(a), 3)] for a, _ in pairs]
    graphs = [graph_of(OPS["bitcast"], CastAttrs(b), x, f"{a}_{b}_")
              for (a, b), x in zip(pairs, arrays, strict=True)]
    results = run_together(compiled(tier), graphs, arrays)
    for (source, target), x, got in zip(pairs, arrays, results, strict=True):
        if target.is_float:
            # Moving a NaN through a register may change its payload.
            want = x[0].view(target.numpy)
            assert mismatches(got, want, 0).sum() == 0, (source, target)
        else:
            assert got.tobytes() == x[0].tobytes(), (source, target)


def tier_and_dtype():
    """f32 on every tier, the other element types on one tier each, three of them as PTX too."""
    others = [d for d in DTYPES.values() if d is not f32]
    return [(tier, f32) for tier in (*TIERS, GPU)] + [(GPU, d) for d in (f64, bf16, i64)] + [
        (TIERS[i % len(TIERS)], d) for i, d in enumerate(others)]


@pytest.mark.parametrize(("tier", "dtype"), tier_and_dtype(), ids=str)
def test_structured_rows(tier, dtype):
    cases = [
        (OPS[name], attrs, structured_inputs(OPS[name], attrs, shapes, dtype))
        for name, variants in STRUCTURED.items() for attrs, shapes in variants
        if dtype in OPS[name].types
    ]
    graphs = [graph_of(op, attrs, arrays) for op, attrs, arrays in cases]
    results = run_together(compiled(tier), graphs, [arrays for _, _, arrays in cases])
    wrong = []
    for (op, attrs, arrays), graph, got in zip(cases, graphs, results, strict=True):
        want = interpreted(graph, arrays)[0]
        if is_sum(op, attrs) and dtype.is_float:
            distance, room = sum_distance(op, attrs, arrays, got)
            if got.dtype != want.dtype or not (distance <= room).all():
                wrong.append(f"{op.name} {attrs} {dtype}: off by {distance.max()}")
        else:
            wrong.append(complaint(op, f"{attrs} {dtype}", arrays, got, want, 0))
    assert not any(wrong), "\n".join(filter(None, wrong))


@everywhere
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_reductions_of_special_values(tier, dtype):
    """NaN and infinities, wherever they stand in a row that is longer than a vector."""
    rows = np.ones((12, 37))
    for row, places in enumerate(((0,), (36,), (17,), (0, 36), (5, 20), (36, 1))):
        rows[row, places[0]] = np.nan if row < 3 else np.inf
        if len(places) == 2:
            rows[row, places[1]] = -np.inf if row < 5 else np.nan
    rows[6, 3], rows[7, 36], rows[8] = np.inf, -np.inf, -0.0
    x = rows.astype(dtype.numpy)
    names = ("sum", "prod", "reduce_max", "reduce_min")
    for data, axis in ((x, 1), (np.ascontiguousarray(x.T), 0), (x[:6].reshape(-1), 0)):
        graphs = [graph_of(OPS[n], ReduceAttrs((axis,)), [data]) for n in names]
        results = run_together(compiled(tier), graphs, [[data]] * 4)
        for name, graph, got in zip(names, graphs, results, strict=True):
            want = interpreted(graph, [data])[0]
            same = (got == want) | (np.isnan(got) & np.isnan(want))
            assert same.all(), (name, axis, got, want)


@everywhere
def test_sources(tier):
    numbers = [d for d in DTYPES.values() if d is not bool_]
    shapes = [(7,), (3, 17), (2, 0)]
    outputs = []
    for dtype in DTYPES.values():
        for value in special_values(dtype)[:8]:
            outputs.append(full(TensorType(dtype, (5,)), value))
        if dtype in numbers:
            outputs += [
                make("iota", (), IotaAttrs(axis), type=TensorType(dtype, shape))
                for shape in shapes for axis in range(len(shape))
            ]
    graph = Graph((), tuple(outputs))
    for node, got, want in zip(
        outputs, compiled(tier)(graph, []), interpreted(graph, []), strict=True
    ):
        assert got.tobytes() == want.tobytes() and got.shape == want.shape, node


INDEXED = [("take", IndexAttrs(0)), ("take_along", IndexAttrs(0)),
           *((name, PutAttrs(0, mode)) for name in ("put", "put_along") for mode in MODES)]


@everywhere
@pytest.mark.parametrize(("name", "attrs"), INDEXED, ids=str)
@pytest.mark.parametrize("index", [5, -6, 2**40])
def test_index_outside_its_axis(tier, name, attrs, index):
    x, places = np.arange(5.0), np.array([0, index, 1])
    arrays = [x, places] + ([np.ones(3)] if OPS[name].arity == 3 else [])
    run = compiled(tier)
    graph = graph_of(OPS[name], attrs, arrays)
    with pytest.raises(OutOfBounds):
        run(graph, arrays)
    places[1] = 4
    assert np.array_equal(run(graph, arrays)[0], interpreted(graph, arrays)[0])


@everywhere
@pytest.mark.parametrize("dtype", [DTYPES[n] for n in ("i8", "u8", "i32", "u64")], ids=str)
def test_narrow_indices(tier, dtype):
    x = np.arange(40.0).reshape(8, 5)
    places = np.array([[7, 0], [3, 3]]).astype(dtype.numpy)
    graph = graph_of(OPS["take"], IndexAttrs(0), [x, places])
    assert np.array_equal(compiled(tier)(graph, [x, places])[0], x[places])


@everywhere
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 5, -1, -2, 0.5, 1.5])
def test_constant_exponents(tier, exponent):
    graphs, arrays, types = [], [], [f32, f64, DTYPES["f16"], i64, DTYPES["u8"]]
    types = [d for d in types if d.is_float or exponent == int(exponent) >= 0]
    for dtype in types:
        x = special_values(dtype)
        node = input_node(f"x_{dtype}", TensorType(dtype, x.shape))
        graphs.append(Graph((node,), (make("pow", [node, full(node.type, exponent)]),)))
        arrays.append([x])
    run = compiled(tier)
    for dtype, graph, x in zip(types, graphs, arrays, strict=True):
        powers = np.full(x[0].shape, exponent, x[0].dtype)
        want = reference(OPS["pow"], None, [x[0], powers], interpreted(graph, x)[0])
        assert not complaint(OPS["pow"], dtype, x, run(graph, x)[0], want, 3)
