"""The code of contractions: what it takes, bank conflicts, mistakes that must not go unseen."""

from __future__ import annotations

import re
import shutil
from unittest import mock

import pytest
from bank_conflicts import watched
from contractions import arrays_of, compiled, einsum, machine, sliced
from opcodes import count, opcodes
from planted import caught, changed, loop

from tilewright.codegen.gpu.assembler import assemble
from tilewright.compiler.schedules.gpu.contraction_sides import Tile
from tilewright.ir import loops as k
from tilewright.ir.types import DType, bf16, f16, f32

CUBE = {"m": 1024, "n": 1024, "k": 1024}
LAYOUTS = ("mk,kn->mn", "km,nk->mn")


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture, dtype, spec, most", [
    ("sm_75", f16, "mk,kn->mn", 128), ("sm_80", f32, "mk,nk->mn", 128),
    ("sm_120", f16, "km,kn->mn", 224), ("sm_90a", bf16, "mk,kn->mn", 168),
])
def test_the_largest_blocks_need_no_stack(
    architecture: str, dtype: DType, spec: str, most: int
) -> None:
    c = compiled(einsum(spec, CUBE, dtype), machine(architecture))
    found = assemble(c.program.text, architecture)
    (report,) = found.reports.values()
    assert report.stack == report.spill_stores == report.spill_loads == 0
    assert report.registers <= most
    assert not found.warnings and not found.serialised


def test_most_of_a_loop_is_fmas() -> None:
    body = loop(compiled(einsum("mk,kn->mn", CUBE), machine("sm_80")))
    (found,) = opcodes(".entry f\n" + body).values()
    assert count(found, "fma.rn.f32") == 512
    assert count(found, "fma.rn.f32") >= 0.85 * sum(found.values())
    assert count(found, "ld.shared.v4") == 32 and count(found, "ld.shared") == 32
    assert count(found, "ld.global") == count(found, "ld.global.nc.v4") == 2


@pytest.mark.parametrize("spec", LAYOUTS)
def test_a_fragment_is_used_four_times(spec: str) -> None:
    body = loop(compiled(einsum(spec, CUBE, bf16), machine("sm_80")))
    (found,) = opcodes(".entry f\n" + body).values()
    assert count(found, "mma.sync") == 64 == 4 * count(found, "ldmatrix")
    assert count(found, "cp.async.cg") == 8 and count(found, "bar") == 1


def test_four_wgmma_for_each_64_contracted_elements() -> None:
    body = loop(compiled(einsum("mk,nk->mn", CUBE, bf16), machine("sm_90a")))
    assert body.count("wgmma.mma_async") == 4
    assert body.count("wgmma.mma_async.sync.aligned.m64n256k16") == 4


WATCHED = [("sm_50", f32, spec, {"m": 128, "n": 128, "k": 8}) for spec in LAYOUTS] + [
    ("sm_75", f16, "mk,nk->mn", {"m": 64, "n": 64, "k": 32}),
    ("sm_80", bf16, "mk,kn->mn", {"m": 128, "n": 128, "k": 32}),
    ("sm_80", bf16, "km,nk->mn", {"m": 32, "n": 64, "k": 32}),
    ("sm_90a", bf16, "mk,kn->mn", {"m": 128, "n": 128, "k": 64}),
]


@pytest.mark.parametrize("architecture, dtype, spec, sizes", WATCHED)
def test_nobody_waits_for_a_bank(
    architecture: str, dtype: DType, spec: str, sizes: dict[str, int]
) -> None:
    graph = einsum(spec, sizes, dtype)
    if architecture == "sm_90a":
        graph = sliced("mk,nk->mn", sizes, dtype)
    c = compiled(graph, machine(architecture))
    with watched() as waits:
        c.on_device(arrays_of(c.graph))
    assert len(waits.served) >= 1
    assert {kind: waits.ratio(kind) for kind in waits.served} == dict.fromkeys(waits.served, 1.0)


def test_without_swizzles_they_would() -> None:
    with mock.patch.object(Tile, "turn", lambda self, major: k.Const(0)):
        c = compiled(einsum("km,nk->mn", {"m": 128, "n": 128, "k": 40}, bf16), machine("sm_80"))
    with watched() as waits:
        c.on_device(arrays_of(c.graph))
    assert waits.ratio("ldmatrix") >= 4


def one_more(m: re.Match[str]) -> str:
    """The number at the end, and one."""
    return m[1] + str(int(m[2]) + 1)


BARRIER, WAIT = r"\tbarrier\S* [^;]*;|\tbar\.sync[^;]*;", r"(cp\.async\.wait_group\s+)(\d)"
FIRST, LAST, ALL = slice(0, 1), slice(-1, None), slice(None)
BUGS = {
    "no barrier after a tile is stored": ("sm_50", f32, BARRIER, "", FIRST),
    "no barrier between tiles": ("sm_50", f32, BARRIER, "", slice(1, 2)),
    "no barrier before a stage is filled": ("sm_80", bf16, BARRIER, "", FIRST),
    "a wait for a copy too few": ("sm_80", bf16, WAIT, one_more, FIRST),
    "no group is closed": ("sm_80", bf16, r"cp\.async\.commit_group;", "", FIRST),
    "no wait for copies before wgmma": ("sm_90a", bf16, WAIT, one_more, ALL),
    "no fence between copies and wgmma": ("sm_90a", bf16, r"fence\.proxy\.async[^;]*;", "", ALL),
    "no wait for wgmma": ("sm_90a", bf16, r"wgmma\.wait_group[^;]*;", "", ALL),
}
TRY = r"mbarrier\.try_wait\S*\s+(%p\d+), \[[^;]*;"
BOX_BUGS = {
    "no wait for an empty stage": (TRY, r"setp.eq.u32 \1, 0, 0;", slice(0, -1)),
    "no wait for a full stage": (TRY, r"setp.eq.u32 \1, 0, 0;", LAST),
    "too few bytes announced": (r"(mov\.b32\s+%r\d+, )32768;", r"\g<1>16384;", ALL),
    "nobody leaves a stage": (r"mbarrier\.arrive\.shared\S* [^;]*;", "", ALL),
    "a wrong box": (r"(cp\.async\.bulk\.tensor\.2d\S* [^;]*\{)(%r\d+), (%r\d+)", r"\1\3, \2", LAST),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug: str) -> None:
    architecture, dtype, pattern, to, which = BUGS[bug]
    size = 128 if architecture == "sm_90a" else 64
    sizes = {"m": size, "n": size, "k": 48 if dtype is f32 else 2 * size + 64}
    graph = einsum("mk,nk->mn", sizes, dtype)
    if architecture == "sm_90a":
        graph = sliced("mk,nk->mn", sizes, dtype)
    c = compiled(graph, machine(architecture))
    assert caught(c, changed(c.program.text, pattern, to, which), ("lazy",))


@pytest.mark.parametrize("bug", BOX_BUGS)
def test_planted_bugs_of_boxes_are_caught(bug: str) -> None:
    sizes = {"m": 128, "n": 128, "k": 512}
    c = compiled(einsum("mk,nk->mn", sizes, bf16), machine("sm_90a"))
    assert c.has("cp.async.bulk")
    assert caught(c, changed(c.program.text, *BOX_BUGS[bug]), ("eager", "lazy"))
