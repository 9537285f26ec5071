"""Targets: tiers of the host, and code for machines that are not here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from native import HOST_TIERS, Natives, pointwise
from test_primitives import CASES

from tilewright import config
from tilewright.codegen import llvm
from tilewright.codegen.cpu import host_target
from tilewright.codegen.cpu.program import functions, module_text
from tilewright.codegen.cpu.tiers import TIERS, cache_sizes, other, x86
from tilewright.codegen.emit import emit_kernel
from tilewright.compiler.target import Target
from tilewright.errors import UserError
from tilewright.ir.graph import OPS

ELSEWHERE = {
    "neon": ("aarch64-unknown-linux-gnu", "generic", "+neon"),
    "riscv64": ("riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d,+c"),
    "powerpc64le": ("powerpc64le-unknown-linux-gnu", "pwr8", ""),
    "s390x": ("s390x-unknown-linux-gnu", "z14", "+vector"),
    "wasm32": ("wasm32-unknown-unknown", "generic", "+simd128"),
}
FEW = [c for c in CASES if c[1].name in ("f16", "bf16", "f32", "i32", "u8", "bool")][::5]


def target_named(name: str) -> Target:
    return other(*ELSEWHERE[name]) if name in ELSEWHERE else host_target(name)


def text_for(target: Target) -> str:
    """A module with many primitives in it."""
    found = {}
    for op, dtype, result in FEW:
        types = [dtype] * (OPS[op].arity or 1)
        kernel = pointwise("k", 33, op, types, result, target.lanes(dtype.itemsize), 2)
        emitted = emit_kernel(kernel, target, functions())
        found[emitted.name] = emitted
    return module_text(list(found.values()), "", target, set())


@pytest.mark.parametrize("name", [*ELSEWHERE, *HOST_TIERS])
def test_code_needs_no_library(name: str) -> None:
    """Every target has code for all of it, and calls nothing but the system's yield."""
    target = target_named(name)
    text = llvm.assembly(text_for(target), target)
    called = set(
        re.findall(r"\t(?:bl|call|callq|brasl\s+%r14,|jal|tail|b|jmp)\s+([A-Za-z_][\w.]+)", text)
    )
    ours = {c for c in called if re.fullmatch(r"k[0-9a-f]{16}|tw[_.].+", c)}
    compiler = {"__multi3", "__ashlti3"}  # 128-bit products that wasm does not have
    assert called - ours - compiler <= {"sched_yield"}


def test_neon_code_uses_vectors() -> None:
    target = target_named("neon")
    text = llvm.assembly(text_for(target), target)
    assert ".4s" in text and "fadd" in text


@pytest.mark.parametrize("name", ["neon", "riscv64"])
def test_object_files(name: str) -> None:
    target = target_named(name)
    assert llvm.object_code(text_for(target), target)[:4] == b"\x7fELF"


@pytest.mark.skipif("avx512" not in HOST_TIERS, reason="no AVX-512")
def test_tiers_use_their_registers() -> None:
    from tilewright.ir.types import f32

    def assembly(tier: str) -> str:
        target = host_target(tier)
        kernel = pointwise("k", 64, "add", [f32, f32], f32, target.lanes(4))
        return llvm.assembly(Natives([kernel], target).text, target)

    assert "%zmm" in assembly("avx512")
    assert "%ymm" in assembly("avx2") and "%zmm" not in assembly("avx2")
    assert "%xmm" in assembly("sse2") and "%ymm" not in assembly("sse2")


def test_the_best_tier_is_the_default() -> None:
    if not HOST_TIERS:
        pytest.skip("not x86-64")
    assert host_target().name == HOST_TIERS[-1]
    with config.override(target="sse2"):
        assert host_target().name == "sse2"
        assert host_target("").name == HOST_TIERS[-1]


def test_unknown_tier() -> None:
    if not HOST_TIERS:
        pytest.skip("not x86-64")
    with pytest.raises(UserError) as error:
        host_target("avx1024")
    assert str(error.value) == (
        "there is no target 'avx1024'\n  expected: sse2, avx2, avx512, cpu, sim, cuda, pycuda\n"
        "  got:      avx1024\n"
        "  hint:     did you mean 'avx512'? see the switch TILEWRIGHT_TARGET"
    )


def test_tier_that_the_host_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.codegen.cpu import tiers

    old = ("x86_64-unknown-linux-gnu", "nehalem", frozenset({"sse2", "sse4.1"}))
    monkeypatch.setattr(llvm, "host", lambda: old)
    tiers.tier_target.cache_clear()
    try:
        assert host_target("").name == "sse2"
        with pytest.raises(UserError) as error:
            host_target("avx2")
    finally:
        tiers.tier_target.cache_clear()
    assert str(error.value) == (
        "this machine cannot run code for 'avx2'\n  expected: sse2\n  got:      avx2\n"
        "  hint:     it lacks avx2, bmi2, f16c, fma"
    )


def test_cache_sizes(tmp_path: Path) -> None:
    for number, (level, kind, size) in enumerate(
        [
            ("1", "Data", "48K"),
            ("1", "Instruction", "64K"),
            ("2", "Unified", "2048K"),
            ("3", "Unified", "1G"),
        ]
    ):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert cache_sizes(str(tmp_path)) == (48 << 10, 2 << 20, 1 << 30)
    assert all(s > 0 for s in cache_sizes(str(tmp_path / "none")))


def test_tiers_describe_themselves() -> None:
    features = frozenset({"avx512f", "avx512bf16"})
    wide = x86("avx512", "x86_64-unknown-linux-gnu", "znver4", features)
    assert (wide.vector_bytes, wide.registers, wide.bf16_dot, wide.lanes(4)) == (64, 32, True, 16)
    assert [x86(t, "x86_64", "x", features).vector_bytes for t in TIERS] == [16, 32, 64]
    assert np.dtype(np.float32).itemsize * x86("sse2", "x86_64", "x", features).lanes(4) == 16
