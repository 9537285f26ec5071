"""wgmma whichever way its operands lie: along k, or along m and n in squares of 64 x 64; tf32."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from contractions import (
    Compiled,
    arrays_of,
    check,
    close,
    compiled,
    einsum,
    machine,
    sliced,
)
from planted import caught, changed, loop

from tilewright.codegen.gpu.assembler import assemble
from tilewright.ir.interp import run_graph
from tilewright.ir.types import DType, bf16, f16, f32

FORMS = {"mk,nk->mn": "0, 0", "mk,kn->mn": "0, 1", "km,nk->mn": "1, 0", "km,kn->mn": "1, 1"}
"""The transpose bits of A and B."""

FEEDINGS = "boxes", "copies"


def product(
    spec: str, feeding: str, sizes: dict[str, int], dtype: DType = bf16, multiprocessors: int = 1
) -> Compiled:
    """A product whose tiles come as boxes of matrices, or are copied by all threads."""
    write = einsum if feeding == "boxes" else sliced
    target = machine("sm_90a", multiprocessors, tf32=dtype is f32)
    c = compiled(write(spec, sizes, dtype), target)
    assert c.has("wgmma.mma_async")
    assert c.has("cp.async.bulk.tensor") == (feeding == "boxes") != c.has("cp.async.cg")
    return c


@pytest.mark.parametrize("feeding", FEEDINGS)
@pytest.mark.parametrize("spec", FORMS)
def test_every_layout(spec: str, feeding: str) -> None:
    # Rows, columns and contracted elements end inside of a tile.
    c = product(spec, feeding, {"m": 120, "n": 200, "k": 136}, f16)
    bits = re.findall(r"wgmma\.mma_async.*p, 1, 1, (\d, \d);", c.program.text)
    assert set(bits) == {FORMS[spec]}
    check(c)


def test_the_gradient_of_weights_is_wgmma() -> None:
    c = compiled(einsum("bkm,bkn->bmn", {"b": 2, "m": 72, "n": 72, "k": 128}, bf16, "residual"),
                 machine("sm_90a"))
    assert c.has("wgmma.mma_async") and c.has("cp.async.bulk.tensor")
    check(c)


@pytest.mark.parametrize("feeding", FEEDINGS)
def test_tf32_along_k(feeding: str) -> None:
    c = product("mk,nk->mn", feeding, {"m": 120, "n": 200, "k": 84}, f32)
    assert re.search(r"wgmma\.mma_async\S*k8\.f32\.tf32\.tf32 ", c.program.text)
    check(c, 4e-3)
    # What is beyond 10 bits of mantissa is cut off.
    arrays = arrays_of(c.graph)
    short = [(a.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for a in arrays]
    want, = run_graph(c.graph, short)
    close(c.on_device(arrays), [want], 1e-5)


@pytest.mark.parametrize("spec", ["mk,kn->mn", "km,nk->mn", "km,kn->mn"])
def test_tf32_across_is_mma(spec: str) -> None:
    c = compiled(einsum(spec, dict.fromkeys("mnk", 128), f32), machine("sm_90a", 1, tf32=True))
    assert c.has("mma.sync.aligned.m16n8k8.row.col.f32.tf32") and not c.has("wgmma")


def test_f32_is_not_tf32_without_the_switch() -> None:
    c = compiled(einsum("mk,nk->mn", dict.fromkeys("mnk", 128), f32), machine("sm_90a"))
    assert c.has("fma.rn.f32") and "tf32" not in c.program.text


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("feeding", FEEDINGS)
@pytest.mark.parametrize("spec, dtype", [*((s, bf16) for s in FORMS), ("mk,nk->mn", f32)])
def test_four_products_for_each_128_bytes_along_k(
    spec: str, dtype: DType, feeding: str
) -> None:
    c = product(spec, feeding, dict.fromkeys("mnk", 2048), dtype, 132)
    assert [loop(c).count(word) for word in ("wgmma.mma_async", "wgmma.wait_group")] == [4, 1]
    found = assemble(c.program.text, "sm_90a")
    assert not found.warnings and not found.serialised
    (report,) = found.reports.values()
    assert report.stack == report.spill_stores == report.spill_loads == 0


def of_descriptors(change: Callable[[int], int]) -> Callable[[re.Match[str]], str]:
    """A change of the constant bits of a descriptor, which begin with those of the swizzle."""
    return lambda m: str(change(int(m[0])))


CONSTANT, FIELD = r"\b4611686\d{12}\b", 0x3FFF
BITS = r"(wgmma\.mma_async.*p, 1, 1, )(\d), (\d);"
TRY = r"mbarrier\.try_wait\S*\s+(%p\d+), \[[^;]*;"
BUGS = {
    "A taken along k": (BITS, r"\g<1>0, \3;"),
    "B taken along k": (BITS, r"\g<1>\2, 0;"),
    "another swizzle": (CONSTANT, of_descriptors(lambda bits: bits ^ 3 << 62)),
    "no swizzle": (CONSTANT, of_descriptors(lambda bits: bits & ~(3 << 62))),
    "another stride of 8 rows": (CONSTANT, of_descriptors(lambda bits: bits - (32 << 32))),
    "another step to the next square": (CONSTANT, of_descriptors(lambda bits: bits - (64 << 16))),
    "offsets exchanged": (CONSTANT, of_descriptors(
        lambda bits: bits & ~(FIELD << 16 | FIELD << 32)
        | (bits >> 32 & FIELD) << 16 | (bits >> 16 & FIELD) << 32)),
    "no wait for wgmma": (r"wgmma\.wait_group[^;]*;", ""),
}
OF_FEEDINGS = {
    "boxes": {
        "no wait for a full stage": (TRY, r"setp.eq.u32 \1, 0, 0;"),
        "squares exchanged": (
            r"(cp\.async\.bulk\.tensor\.2d\S* [^;]*\{)(%r\d+), (%r\d+)", r"\1\3, \3"),
    },
    "copies": {
        "no wait for copies": (
            r"(cp\.async\.wait_group\s+)(\d)", lambda m: m[1] + str(int(m[2]) + 1)),
        "no fence between copies and wgmma": (r"fence\.proxy\.async[^;]*;", ""),
    },
}


TF32_BUGS = (
    "another swizzle", "another stride of 8 rows", "no wait for wgmma", "no wait for a full stage")


@pytest.mark.parametrize("bug", TF32_BUGS)
def test_planted_bugs_of_tf32_are_caught(bug: str) -> None:
    c = product("mk,nk->mn", "boxes", {"m": 128, "n": 128, "k": 64}, f32)
    pattern, to = (BUGS | OF_FEEDINGS["boxes"])[bug]
    assert caught(c, changed(c.program.text, pattern, to, slice(None)), ("lazy",))


@pytest.mark.parametrize("feeding, bug", [
    (feeding, bug) for feeding in FEEDINGS for bug in [*BUGS, *OF_FEEDINGS[feeding]]])
def test_planted_bugs_are_caught(feeding: str, bug: str) -> None:
    # Two squares of each operand.
    c = product("km,kn->mn", feeding, {"m": 128, "n": 128, "k": 128})
    pattern, to = (BUGS | OF_FEEDINGS[feeding])[bug]
    assert caught(c, changed(c.program.text, pattern, to, slice(None)), ("lazy",))
