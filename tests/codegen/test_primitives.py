"""Every primitive op on every element type and tier, against its meaning in NumPy."""

from __future__ import annotations

import functools
import itertools

import ml_dtypes
import numpy as np
import pytest
from native import HOST_TIERS, Natives, pointwise, same

from tilewright.codegen.cpu import host_target
from tilewright.codegen.cpu.program import functions
from tilewright.codegen.spelling import CONVERSIONS, SPELLINGS, is_spelled
from tilewright.ir import ops
from tilewright.ir.attrs import CastAttrs
from tilewright.ir.graph import OPS
from tilewright.ir.types import DTYPES, DType, TensorType, bool_, f16, f32, i64, u64

assert ops  # fills the table

N = 77
WIDTH = 16
TRUTHS = ("eq", "ne", "lt", "le", "gt", "ge")
COMPOSITE_ON_FLOATS = ("floordiv", "mod")
"""Exact in the whole range only as composites; codegen's own are for moderate quotients."""


def special(dtype: DType) -> list[float]:
    """The values that are likely to go wrong."""
    if dtype is bool_:
        return [False, True]
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        return [0, 1, 2, 3, 7, 8, info.max, info.max - 1, info.min, info.min + 1, dtype.bits, 100]
    info = ml_dtypes.finfo(dtype.numpy)
    limits = [float(info.max), float(info.tiny), float(info.smallest_subnormal)]
    return [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 3.5, np.nan, np.inf, -np.inf, *limits, -limits[2]]


def sample(dtype: DType, seed: int, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    """Special values in a shuffled order, then values between ``low`` and ``high``."""
    random = np.random.default_rng(seed)
    edges = np.array(special(dtype), object)
    if dtype is bool_:
        rest = random.integers(0, 2, N).astype(object)
    elif dtype.is_int:
        rest = random.integers(0 if dtype.kind == "u" else -20, 100, N).astype(object)
    else:
        rest = random.uniform(low, high, N).astype(object)
    values = np.concatenate([random.permutation(np.concatenate([edges, edges])), rest])[:N]
    with np.errstate(all="ignore"):
        return np.array([dtype.numpy.type(v) for v in values], dtype.numpy)


def cases() -> list[tuple[str, DType, DType]]:
    """(op, element type of the operands, of the result) of all elementwise primitives."""
    found = []
    for op in OPS.values():
        if op.kind != "elementwise" or op.expand is not None or op.name in CONVERSIONS:
            continue
        for dtype in op.types:
            if dtype.is_float and op.name in COMPOSITE_ON_FLOATS:
                continue
            found.append((op.name, dtype, bool_ if op.name in TRUTHS else dtype))
    return found


CASES = [c for c in cases() if is_spelled(c[0], c[1], functions())]


@functools.cache
def compiled(tier: str) -> Natives:
    """All cases of a tier in one module."""
    kernels = [
        pointwise(f"{op}_{dtype}", N, op, [dtype] * (OPS[op].arity or 1), result, WIDTH)
        for op, dtype, result in CASES
    ]
    return Natives(kernels, host_target(tier))


def expected(op: str, result: DType, inputs: list[np.ndarray], attrs: object = None) -> np.ndarray:
    with np.errstate(all="ignore"):
        return OPS[op].numpy(attrs, TensorType(result, inputs[0].shape), *inputs)


def tolerance(op: str, dtype: DType) -> float:
    """Vector functions may be 2 ulp off; a spelled op is exact."""
    if op in SPELLINGS or not dtype.is_float:
        return 0.0
    return 4 * float(ml_dtypes.finfo(dtype.numpy).eps)


@pytest.mark.parametrize("tier", HOST_TIERS)
@pytest.mark.parametrize("op", sorted({c[0] for c in CASES}))
def test_primitive(op: str, tier: str) -> None:
    natives = compiled(tier)
    for number, (name, dtype, result) in enumerate(CASES):
        if name != op:
            continue
        low, high = OPS[op].domain
        inputs = [sample(dtype, 7 * k + 1, low, high) for k in range(OPS[op].arity or 1)]
        out = np.zeros(N, result.numpy)
        with np.errstate(all="ignore"):
            want = expected(op, result, inputs)
        assert natives.run(number, [*inputs, out]) == 0
        same(out, want, tolerance(op, dtype), f"{op} {dtype} {tier}")


def test_every_primitive_has_code() -> None:
    missing = [
        f"{op} on {dtype}" for op, dtype, _ in cases() if not is_spelled(op, dtype, functions())
    ]
    assert missing == []


def fits(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Where a float's integer part is a number of an integer type that C agrees on."""
    with np.errstate(all="ignore"):
        wide = np.trunc(x.astype(np.float64))
    if not dtype.is_int:
        return np.ones(x.shape, bool)
    info = np.iinfo(dtype.numpy)
    return (
        (wide >= float(info.min))
        & (wide <= float(info.max))
        & (wide < 2.0 ** (dtype.bits - (dtype.kind == "i")))
    )


@pytest.mark.parametrize("tier", HOST_TIERS)
def test_casts(tier: str) -> None:
    pairs = list(itertools.product(DTYPES.values(), DTYPES.values()))
    natives = Natives(
        [pointwise(f"cast_{a}_{b}", N, "cast", [a], b, WIDTH) for a, b in pairs], host_target(tier)
    )
    for number, (source, dtype) in enumerate(pairs):
        x = sample(source, number, -100, 100)
        out = np.zeros(N, dtype.numpy)
        natives.run(number, [x, out])
        where = fits(x, dtype) if source.is_float else np.ones(N, bool)
        want = expected("cast", dtype, [x], CastAttrs(dtype))
        same(out[where], want[where], 0.0, f"{source} to {dtype} {tier}")


@pytest.mark.parametrize("tier", HOST_TIERS)
def test_bitcasts(tier: str) -> None:
    pairs = [(a, b) for a in DTYPES.values() for b in DTYPES.values() if a.bits == b.bits]
    natives = Natives(
        [pointwise(f"bits_{a}_{b}", N, "bitcast", [a], b, WIDTH) for a, b in pairs],
        host_target(tier),
    )
    for number, (source, dtype) in enumerate(pairs):
        x = sample(source, number)
        out = np.zeros(N, dtype.numpy)
        natives.run(number, [x, out])
        same(out, expected("bitcast", dtype, [x], CastAttrs(dtype)), 0.0, f"{source} {dtype}")


@pytest.mark.parametrize("tier", HOST_TIERS)
def test_where(tier: str) -> None:
    types = list(DTYPES.values())
    natives = Natives(
        [pointwise(f"where_{t}", N, "where", [bool_, t, t], t, WIDTH) for t in types],
        host_target(tier),
    )
    for number, dtype in enumerate(types):
        inputs = [sample(bool_, 1), sample(dtype, 2), sample(dtype, 3)]
        out = np.zeros(N, dtype.numpy)
        natives.run(number, [*inputs, out])
        same(out, np.where(*inputs), 0.0, f"where {dtype}")


@pytest.mark.parametrize("tier", HOST_TIERS)
def test_every_half_number_survives(tier: str) -> None:
    """f16 to f32 and back, and f64 to f16 halfway between two neighbours and just beside it."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    natives = Natives(
        [
            pointwise("up", 65536, "cast", [f16], f32, WIDTH),
            pointwise("down", 65536, "cast", [f32], f16, WIDTH),
            pointwise("narrow", 65536, "cast", [DTYPES["f64"]], f16, WIDTH),
        ],
        host_target(tier),
    )
    up, down = np.zeros(65536, np.float32), np.zeros(65536, np.float16)
    natives.run(0, [every, up])
    np.testing.assert_array_equal(up, every.astype(np.float32))
    natives.run(1, [up, down])
    np.testing.assert_array_equal(down, every)
    random = np.random.default_rng(5)
    finite = np.abs(every[np.isfinite(every)].astype(np.float64))
    with np.errstate(over="ignore"):
        above = np.nextafter(finite.astype(np.float16), np.float16(np.inf))
    middles = (finite + above.astype(np.float64)) / 2
    exact = np.resize(middles[np.isfinite(middles)], 65536)
    beside = exact * (1 + random.choice([0, 1e-12, -1e-12, 2e-16, -2e-16], 65536))
    natives.run(2, [beside, down])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(down, beside.astype(np.float16))


@pytest.mark.parametrize("tier", HOST_TIERS)
def test_integer_edges(tier: str) -> None:
    """All pairs of 8-bit numbers through division, powers and shifts."""
    every = ("floordiv", "mod", "shl", "shr", "pow")
    types = (DTYPES["i8"], DTYPES["u8"])
    picked = list(itertools.product(every, types))
    natives = Natives(
        [pointwise(f"{op}_{t}_all", 65536, op, [t, t], t, WIDTH) for op, t in picked],
        host_target(tier),
    )
    for number, (op, dtype) in enumerate(picked):
        grid = np.arange(65536, dtype=np.uint32)
        x, y = (
            (grid >> 8).astype(np.uint8).view(dtype.numpy),
            (grid & 255).astype(np.uint8).view(dtype.numpy),
        )
        out = np.zeros(65536, dtype.numpy)
        natives.run(number, [x, y, out])
        same(out, expected(op, dtype, [x, y]), 0.0, f"{op} {dtype}")


def test_wide_types_are_listed() -> None:
    assert {i64, u64} <= set(DTYPES.values())
