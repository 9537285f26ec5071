"""The vector functions on a GPU give the CPU's bits, in every type and any number of lanes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from native import Natives
from native import pointwise as cpu_kernel
from pointwise import joined, pointwise, run
from trial import trial
from vecmath_cases import BINARY, samples

from tilewright.codegen.cpu import host_target
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.features import least_ptx
from tilewright.codegen.vecmath import MATH
from tilewright.ir.types import DType, bf16, f16, f32, f64

NAMES = sorted(MATH)
POINTS = 3_000
DTYPES = (f32, f64, f16, bf16)


def types(name: str, dtype: DType) -> list[DType]:
    return [dtype] * (2 if name in BINARY else 1)


@functools.cache
def compiled(dtype: DType, architecture: str, lanes: int = 1) -> str:
    """The PTX of all functions."""
    target = gpu_target(architecture)
    text = joined([pointwise(n, n, types(n, dtype), dtype, target, lanes) for n in NAMES])
    ptx, said = trial(text, target, least_ptx(text, target))
    assert ptx is not None, said
    return ptx


@functools.cache
def arguments(name: str, dtype: DType) -> list[np.ndarray]:
    """Special numbers and others, POINTS of them."""
    drawn = samples(name, dtype if dtype is f64 else f32, POINTS, np.random.default_rng(11))
    step = max(1, drawn[0].size // POINTS)
    with np.errstate(all="ignore"):
        return [np.resize(a[::step], POINTS).astype(dtype.numpy) for a in drawn]


@functools.cache
def on_cpu(dtype: DType) -> dict[str, np.ndarray]:
    """The results of the best tier of this machine, if it has fused multiply-add."""
    target = host_target("")
    if not target.fma:
        pytest.skip("this CPU has no fused multiply-add, which every GPU has")
    width = target.lanes(4 if dtype.itemsize == 2 else dtype.itemsize)
    code = Natives([cpu_kernel(n, POINTS, n, types(n, dtype), dtype, width) for n in NAMES], target)
    results = {}
    for number, name in enumerate(NAMES):
        results[name] = np.empty(POINTS, dtype.numpy)
        code.run(number, [*arguments(name, dtype), results[name]])
    return results


def same_bits(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Equal bits, but any NaN for a NaN."""
    with np.errstate(all="ignore"):
        nan = np.isnan(want.astype(np.float64))
        assert (np.isnan(got.astype(np.float64)) == nan).all(), what
    bits = np.dtype(f"u{want.itemsize}")
    np.testing.assert_array_equal(got.view(bits)[~nan], want.view(bits)[~nan], err_msg=what)


@pytest.mark.parametrize("architecture", ["sm_50", "sm_80"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_are_the_cpus(dtype: DType, architecture: str) -> None:
    want = on_cpu(dtype)
    text = compiled(dtype, architecture)
    for name in NAMES:
        same_bits(run(text, name, arguments(name, dtype), dtype), want[name], f"{name} {dtype}")


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_lanes_do_not_matter(dtype: DType, lanes: int) -> None:
    one, several = compiled(dtype, "sm_80"), compiled(dtype, "sm_80", lanes)
    for name in NAMES:
        given = arguments(name, dtype)
        want = run(one, name, given, dtype)
        same_bits(run(several, name, given, dtype, lanes), want, f"{name} {dtype}")
