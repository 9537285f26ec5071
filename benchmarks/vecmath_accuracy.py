"""Measure the error of every vector function and write the table of docs/vecmath.md.

    python benchmarks/vecmath_accuracy.py            10^8 points for each f32 function, some minutes
    python benchmarks/vecmath_accuracy.py --quick    10^6 points
    python benchmarks/vecmath_accuracy.py --only exp,erf    these, on the screen alone

f32 takes evenly spaced bit patterns, all 2^32 of them with ``--every 1``. f64 takes random points:
the usual range, all exponents, near 0 and 1. The reference is NumPy in f64 for f32, in the 80-bit
type of x86 for f64.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "codegen"))

from native import HOST_TIERS, Natives, pointwise  # noqa: E402
from vecmath_cases import (  # noqa: E402
    BINARY,
    DTYPES,
    reference,
    samples,
    special,
    ulp_error,
)

from tilewright.codegen.cpu import host_target  # noqa: E402
from tilewright.codegen.vecmath import BOUNDS, MATH  # noqa: E402
from tilewright.ir.types import DType, f32  # noqa: E402

DOCUMENT = ROOT / "docs" / "vecmath.md"
CHUNK = 1 << 20
SLOW = (*BINARY, "erf")
"""Functions whose reference takes long: fewer points."""


def points(name: str, dtype: DType, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Chunks of arguments, each of CHUNK elements."""
    rng = np.random.default_rng(0)
    if name in BINARY or dtype is not f32:
        for _ in range(-(-count // CHUNK)):
            yield tuple(np.resize(a, CHUNK) for a in samples(name, dtype, CHUNK, rng))
        return
    yield (np.resize(special(dtype), CHUNK),)
    stride = max(1, 2**32 // count)
    for start in range(0, 2**32, CHUNK * stride):
        bits = np.arange(CHUNK, dtype=np.uint64) * stride + start
        yield (np.minimum(bits, 2**32 - 1).astype(np.uint32).view(np.float32),)


def measure(name: str, dtype: DType, tier: str, count: int) -> tuple[float, tuple[float, ...], int]:
    """The largest error in ulp, where it is, and the number of points."""
    lanes = host_target(tier).lanes(dtype.itemsize)
    arity = 2 if name in BINARY else 1
    kernel = pointwise(name, CHUNK, name, [dtype] * arity, dtype, lanes)
    code = Natives([kernel], host_target(tier))
    out = np.empty(CHUNK, dtype.numpy)
    worst, where, total = 0.0, (0.0,) * arity, 0
    for arguments in points(name, dtype, count):
        code.run(0, [*arguments, out])
        error = ulp_error(out, reference(name, arguments, dtype))
        k = int(error.argmax())
        total += CHUNK
        if error[k] > worst:
            worst, where = float(error[k]), tuple(float(a[k]) for a in arguments)
    return worst, where, total


def row(name: str, dtype: DType, count: int) -> str:
    """A function's row of the table."""
    tiers = HOST_TIERS[-1], HOST_TIERS[0]
    fused, plain = found = [measure(name, dtype, tier, count) for tier in tiers]
    worst = max(found)
    where = ", ".join(f"{a!r}" for a in worst[1])
    bound = BOUNDS[name][dtype is not f32]
    measured = f"{fused[0]:.2f} | {plain[0]:.2f}"
    return f"| {name} | {dtype} | {bound} | {measured} | {where} | {worst[2]:,} |"


def table(names: list[str], count32: int, count64: int) -> str:
    """The document."""
    fused, plain = HOST_TIERS[-1], HOST_TIERS[0]
    lines = [
        "# Error of the vector functions", "",
        "Written by `python benchmarks/vecmath_accuracy.py`. Errors are in units of the last",
        "place, at most one half for a correctly rounded result. *fused* is measured on",
        f"{fused}, *plain* on {plain}, which has no fused multiply-add. *stated* is the bound",
        "that the tests hold. *worst argument* belongs to the larger of the two errors.", "",
        "A GPU runs the same formulas with fused multiply-add, so that its results have the bits",
        "of *fused* (`tests/gpu` compares them), but for the payload of a NaN in bf16. The",
        "approximations of `fast_math` are in [gpu.md](gpu.md).", "",
        "| function | type | stated | fused | plain | worst argument | points |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for dtype in DTYPES:
            count = count32 if dtype is f32 else count64
            lines.append(row(name, dtype, min(count, 10**7) if name in SLOW else count))
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10^6 points for each function")
    parser.add_argument("--every", type=int, default=43, help="distance of f32 bit patterns")
    parser.add_argument("--only", help="names of functions, separated by commas")
    arguments = parser.parse_args()
    counts = (10**6, 10**6) if arguments.quick else (2**32 // arguments.every, 4 * 10**6)
    if arguments.only:
        table(arguments.only.split(","), *counts)
    else:
        DOCUMENT.write_text(table(sorted(MATH), *counts))


if __name__ == "__main__":
    main()
