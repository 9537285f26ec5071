"""Every primitive on every element type: emitted, assembled, and right in the simulator."""

from __future__ import annotations

import functools
import itertools
import shutil

import numpy as np
import pytest
from native import same
from opcodes import opcodes
from pointwise import joined, pointwise, run
from test_primitives import CASES, N, expected, fits, sample, tolerance
from trial import trial

from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.assembler import assemble
from tilewright.codegen.gpu.features import least_ptx
from tilewright.ir.attrs import CastAttrs
from tilewright.ir.graph import OPS
from tilewright.ir.types import DTYPES, DType, bf16, bool_, f16, f32

ARCHITECTURES = ("sm_50", "sm_75", "sm_80", "sm_90a", "sm_120")
PAIRS = list(itertools.product(DTYPES.values(), DTYPES.values()))
SAME_SIZE = [(a, b) for a, b in PAIRS if a.bits == b.bits]


def emitted(kernels: list[str], name: str) -> str:
    """The PTX of kernels, written in a process that may end."""
    text, target = joined(kernels), gpu_target(name)
    ptx, said = trial(text, target, least_ptx(text, target))
    assert ptx is not None, said
    return ptx


@functools.cache
def primitives(name: str, lanes: int = 1) -> str:
    """All primitives in one module."""
    target = gpu_target(name)
    return emitted([
        pointwise(f"{op}_{dtype}", op, [dtype] * (OPS[op].arity or 1), result, target, lanes)
        for op, dtype, result in CASES
    ], name)


@functools.cache
def conversions(name: str) -> str:
    """All casts and bit casts, and selections, in one module."""
    target = gpu_target(name)
    return emitted([
        *(pointwise(f"cast_{a}_{b}", "cast", [a], b, target) for a, b in PAIRS),
        *(pointwise(f"bits_{a}_{b}", "bitcast", [a], b, target) for a, b in SAME_SIZE),
        *(pointwise(f"where_{t}", "where", [bool_, t, t], t, target) for t in DTYPES.values()),
    ], name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_primitive_has_code(name: str) -> None:
    """Without calls, without local memory, and in a version that ptxas takes."""
    for text, count in ((primitives(name), len(CASES)),
                        (conversions(name), len(PAIRS) + len(SAME_SIZE) + len(DTYPES))):
        found = opcodes(text)
        assert len(found) == count
        assert not any({"call", "call.uni"} & set(counts) for counts in found.values())
        assert ".local" not in text
        if shutil.which("ptxas") and name != "sm_50":
            for report in assemble(text, name).reports.values():
                assert report.stack == report.spill_stores == report.spill_loads == 0, report


@pytest.mark.parametrize("name", ["sm_50", "sm_80"])
def test_primitives(name: str) -> None:
    text = primitives(name)
    for op, dtype, result in CASES:
        low, high = OPS[op].domain
        inputs = [sample(dtype, 7 * k + 1, low, high) for k in range(OPS[op].arity or 1)]
        got = run(text, f"{op}_{dtype}", inputs, result)
        with np.errstate(all="ignore"):
            want = expected(op, result, inputs)
        same(got, want, tolerance(op, dtype), f"{op} {dtype} {name}")


def test_primitives_on_pairs() -> None:
    text = primitives("sm_80", lanes=2)
    for op, dtype, result in CASES:
        low, high = OPS[op].domain
        inputs = [sample(dtype, 7 * k + 1, low, high) for k in range(OPS[op].arity or 1)]
        with np.errstate(all="ignore"):
            want = expected(op, result, inputs)
        got = run(text, f"{op}_{dtype}", inputs, result, lanes=2)
        same(got, want, tolerance(op, dtype), f"{op} {dtype}")


@pytest.mark.parametrize("name", ["sm_50", "sm_80"])
def test_conversions(name: str) -> None:
    text = conversions(name)
    for number, (source, dtype) in enumerate(PAIRS):
        x = sample(source, number, -100, 100)
        where = fits(x, dtype) if source.is_float else np.ones(N, bool)
        want = expected("cast", dtype, [x], CastAttrs(dtype))
        got = run(text, f"cast_{source}_{dtype}", [x], dtype)
        same(got[where], want[where], 0.0, f"{source} to {dtype} {name}")
    for number, (source, dtype) in enumerate(SAME_SIZE):
        x = sample(source, number)
        got = run(text, f"bits_{source}_{dtype}", [x], dtype)
        same(got, expected("bitcast", dtype, [x], CastAttrs(dtype)), 0.0, f"{source} {dtype}")
    for dtype in DTYPES.values():
        inputs = [sample(bool_, 1), sample(dtype, 2), sample(dtype, 3)]
        got = run(text, f"where_{dtype}", inputs, dtype)
        same(got, np.where(*inputs), 0.0, f"where {dtype}")


@pytest.mark.parametrize("name", ["sm_50", "sm_80"])
@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_every_half_number_survives(dtype: DType, name: str) -> None:
    """To f32 and back; numbers halfway between two of them, and beside that, round to even."""
    text = conversions(name)
    every = np.arange(65536, dtype=np.uint16).view(dtype.numpy)
    with np.errstate(all="ignore"):
        wide = every.astype(np.float32)
        same(run(text, f"cast_{dtype}_f32", [every], f32), wide, 0.0, "up")
        same(run(text, f"cast_f32_{dtype}", [wide], dtype), every, 0.0, "down")
        middles = wide + np.nextafter(every, dtype.numpy.type(np.inf)).astype(np.float32)
        middles = np.where(np.isfinite(middles), middles / 2, 1.0).astype(np.float32)
        for toward in (-np.inf, None, np.inf):
            x = middles if toward is None else np.nextafter(middles, np.float32(toward))
            same(run(text, f"cast_f32_{dtype}", [x], dtype), x.astype(dtype.numpy), 0.0, "middle")
        beside = middles.astype(np.float64) * (1 + 1e-14)
        same(run(text, f"cast_f64_{dtype}", [beside], dtype), beside.astype(dtype.numpy), 0.0,
             "beside the middle")


def test_conversions_are_instructions() -> None:
    for name, instruction in (("sm_80", "cvt.rn.bf16x2.f32"), ("sm_50", "cvt.rn.f16.f32")):
        kind = "bf16" if "bf16" in instruction else "f16"
        assert opcodes(conversions(name))[f"cast_f32_{kind}"][instruction] == 1
    assert "cvt.rn.bf16.f32" not in conversions("sm_75")


