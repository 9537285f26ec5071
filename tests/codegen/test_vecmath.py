"""Vector functions against wider references, on every tier of the host."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from native import HOST_TIERS, Natives, pointwise
from vecmath_cases import BINARY, DTYPES, REFERENCE, reference, samples, slack, ulp_error

from tilewright.codegen import llvm
from tilewright.codegen.cpu import host_target
from tilewright.codegen.cpu.tiers import other
from tilewright.codegen.vecmath import BOUNDS, MATH
from tilewright.compiler.target import Target
from tilewright.ir.loops import Kernel
from tilewright.ir.types import DType, f32, f64

POINTS = 80_003
NAMES = sorted(MATH)
DOCUMENT = Path(__file__).parents[2] / "docs" / "vecmath.md"


def kernel(name: str, dtype: DType, n: int, width: int) -> Kernel:
    return pointwise(name, n, name, [dtype] * (2 if name in BINARY else 1), dtype, width)


@functools.cache
def cases(name: str, dtype: DType) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Arguments and the reference."""
    drawn = samples(name, dtype, POINTS, np.random.default_rng(7))
    arguments = tuple(np.resize(a, POINTS) for a in drawn)
    return arguments, reference(name, arguments, dtype)


@functools.cache
def compiled(tier: str, dtype: DType, width: int = 0, n: int = POINTS) -> Natives:
    """All functions in one module, with full vectors unless a width is given."""
    target = host_target(tier)
    width = width or target.lanes(dtype.itemsize)
    return Natives([kernel(name, dtype, n, width) for name in NAMES], target)


def values(code: Natives, name: str, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
    out = np.empty_like(arguments[0])
    code.run(NAMES.index(name), [*arguments, out])
    return out


@pytest.mark.parametrize("tier", HOST_TIERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_error_is_below_the_bound(name: str, dtype: DType, tier: str) -> None:
    arguments, want = cases(name, dtype)
    got = values(compiled(tier, dtype), name, arguments)
    error = ulp_error(got, want)
    k = int(error.argmax())
    where = tuple(a[k] for a in arguments)
    bound = BOUNDS[name][dtype is f64] + slack(dtype)
    assert error[k] <= bound, f"{name}{where} = {got[k]!r}, should be {want[k]!r}: {error[k]} ulp"


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lanes_do_not_matter(dtype: DType, width: int) -> None:
    """Few lanes and one give the very bits that full vectors give."""
    n = 2_001
    tier = HOST_TIERS[-1]
    for name in NAMES:
        arguments = tuple(a[:n].copy() for a in cases(name, dtype)[0])
        narrow = values(compiled(tier, dtype, width, n), name, arguments)
        full = values(compiled(tier, dtype, 0, n), name, arguments)
        np.testing.assert_array_equal(narrow, full, err_msg=name)
        zero = full == 0
        assert (np.signbit(narrow) == np.signbit(full))[zero].all(), name


HARD = (
    # The f64 closest to a multiple of pi/2, and others with long runs of zeros after it.
    ("cos", 6381956970095103.0 * 2.0**797, -4.687165924254628e-19),
    ("sin", 6381956970095103.0 * 2.0**797, 1.0),
    ("tan", 6381956970095103.0 * 2.0**797, -2.133485385753704e18),
    ("sin", 1e22, -0.8522008497671888),
    ("cos", 1.7976931348623157e308, -0.9999876894265599),
    ("sin", math.pi, 1.2246467991473532e-16),
    ("cos", math.pi / 2, 6.123233995736766e-17),
    ("exp", 709.782712893384, 1.797693134862273e308),
    ("exp", -745.1332191019411, 5e-324),
    ("log", 5e-324, -744.4400719213812),
    ("log2", 2.0**-1074, -1074.0),
    ("log10", 1000.0, 3.0),
    ("cbrt", -27.0, -3.0),
    ("expm1", 1e-320, 1e-320),
    ("log1p", -1e-320, -1e-320),
    ("sinh", 710.4758600739439, 1.7976931348621744e308),
)


@pytest.mark.parametrize("tier", HOST_TIERS)
@pytest.mark.parametrize("name,x,want", HARD)
def test_hard_arguments(name: str, x: float, want: float, tier: str) -> None:
    arguments = (np.full(POINTS, x),)
    error = ulp_error(values(compiled(tier, f64), name, arguments), np.full(POINTS, want))
    assert error.max() <= 2


def test_huge_lanes_leave_their_neighbours_alone() -> None:
    """The long reduction of one lane changes nothing in the others."""
    x = np.linspace(-50, 50, POINTS).astype(np.float32)
    mixed = x.copy()
    mixed[::7] = 3e33
    for name in ("sin", "cos", "tan"):
        for tier in HOST_TIERS:
            plain = values(compiled(tier, f32), name, (x,))
            other_lanes = values(compiled(tier, f32), name, (mixed,))
            kept = np.arange(POINTS) % 7 != 0
            np.testing.assert_array_equal(plain[kept], other_lanes[kept])


@pytest.mark.parametrize("name", [*HOST_TIERS, "neon"])
def test_no_calls_of_a_library(name: str) -> None:
    neon = ("aarch64-unknown-linux-gnu", "generic", "+neon")
    target: Target = other(*neon) if name == "neon" else host_target(name)
    for dtype in DTYPES:
        kernels = [kernel(f, dtype, 64, target.lanes(dtype.itemsize)) for f in NAMES]
        text = llvm.assembly(Natives(kernels, target).text if name != "neon" else
                             neon_text(kernels, target), target)
        called = set(re.findall(r"\t(?:bl|call|callq|b|jmp)\s+([A-Za-z_][\w.]+)", text))
        assert {c for c in called if not c.startswith(("tw.", "tw_", "sched_yield"))} == set()


def neon_text(kernels: list[Kernel], target: Target) -> str:
    """The module, without machine code that this process could load."""
    from tilewright.codegen.cpu.program import functions, module_text
    from tilewright.codegen.emit import emit_kernel

    return module_text([emit_kernel(k, target, functions()) for k in kernels], "", target, set())


def test_every_function_has_a_reference() -> None:
    assert set(REFERENCE) == set(MATH) == set(BOUNDS)


def test_bounds_keep_the_promise() -> None:
    assert all(0.5 <= bound <= 2 for pair in BOUNDS.values() for bound in pair)


def test_the_table_lists_every_function() -> None:
    """One row per function and type, with today's bound, and no measured error above it."""
    rows = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1] in ("f32", "f64"):
            rows[cells[0], cells[1]] = [float(c) for c in cells[2:5]]
    assert set(rows) == {(name, dtype.name) for name in NAMES for dtype in DTYPES}
    for (name, dtype_name), (stated, fused, plain) in rows.items():
        assert stated == BOUNDS[name][dtype_name == "f64"], name
        assert max(fused, plain) <= stated, name
