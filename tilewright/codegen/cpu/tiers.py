"""Targets: the tiers of x86-64, and what other CPUs are taken for."""

from __future__ import annotations

import functools
from pathlib import Path

from tilewright import config
from tilewright.compiler.target import Target, meant
from tilewright.errors import UserError

TIERS = ("sse2", "avx2", "avx512")
TARGETS = (*TIERS, "cpu", "sim", "cuda", "pycuda")
"""What the switch ``target`` may name on x86-64, worst first."""

NEEDS = {
    "sse2": frozenset({"sse2"}),
    "avx2": frozenset({"avx2", "fma", "f16c", "bmi2"}),
    "avx512": frozenset({"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"}),
}
"""The host's features without which a tier cannot run."""

AVX2_FEATURES = (
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "popcnt",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi",
    "bmi2",
    "lzcnt",
    "movbe",
)

CACHES = (32 << 10, 1 << 20, 8 << 20)
"""Bytes of L1 data, L2 and L3 cache where the system does not tell."""


def cache_sizes(folder: str = "/sys/devices/system/cpu/cpu0/cache") -> tuple[int, int, int]:
    """Bytes of the first core's L1 data, L2 and L3 caches."""
    found = dict(zip((1, 2, 3), CACHES, strict=True))
    for entry in sorted(Path(folder).glob("index*")):
        try:
            level = int((entry / "level").read_text())
            kind = (entry / "type").read_text().strip()
            text = (entry / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
        number = text.rstrip("KMG")
        if kind != "Instruction" and level in found and number.isdigit() and int(number):
            found[level] = int(number) * units.get(text[len(number) :], 1)
    return found[1], found[2], found[3]


def x86(tier: str, triple: str, cpu: str, features: frozenset[str]) -> Target:
    """The target of a tier on a machine with these features."""
    l1, l2, l3 = cache_sizes()
    if tier == "avx512":
        # LLVM would split vectors in two on some CPUs unless it is told to use the wide ones.
        listed = ",".join([*(f"+{f}" for f in sorted(features)), "-prefer-256-bit"])
        return Target(
            "avx512", 64, 32, l1, l2, l3, triple, cpu, listed, True, True, "avx512bf16" in features
        )
    if tier == "avx2":
        listed = ",".join(f"+{f}" for f in AVX2_FEATURES)
        return Target("avx2", 32, 16, l1, l2, l3, triple, "x86-64", listed, True, True, False)
    return Target("sse2", 16, 16, l1, l2, l3, triple, "x86-64", "", False, False, False)


def other(triple: str, cpu: str, features: str = "") -> Target:
    """A CPU that is not x86-64: vectors of 16 bytes, which LLVM maps to what there is."""
    l1, l2, l3 = cache_sizes()
    if triple.startswith(("aarch64", "arm64")):
        return Target(
            "neon", 16, 32, l1, l2, l3, triple, cpu, features or "+neon", False, True, False
        )
    name = triple.split("-")[0]
    fused = not name.startswith("wasm")
    return Target(name, 16, 32, l1, l2, l3, triple, cpu, features, False, fused, False)


@functools.cache
def tier_target(tier: str) -> Target:
    """The target of a tier ("" or "cpu": the best of this host).

    Raises ``UserError`` if the host lacks it.
    """
    from tilewright.codegen import llvm

    tier = "" if tier == "cpu" else tier

    triple, cpu, features = llvm.host()
    if not triple.startswith("x86_64"):
        if tier:
            raise UserError(f"the target '{tier}' is for x86-64", expected="no target", got=triple)
        return other(triple, cpu, ",".join(f"+{f}" for f in sorted(features)))
    usable = [t for t in TIERS if NEEDS[t] <= features]
    if not tier:
        return x86(usable[-1], triple, cpu, features)
    if tier not in TIERS:
        switch = "see the switch TILEWRIGHT_TARGET"
        raise UserError(
            f"there is no target '{tier}'",
            expected=", ".join(TARGETS),
            got=tier,
            hint=f"{question} {switch}" if (question := meant(tier, TARGETS)) else switch,
        )
    if tier not in usable:
        raise UserError(
            f"this machine cannot run code for '{tier}'",
            expected=" or ".join(usable),
            got=tier,
            hint=f"it lacks {', '.join(sorted(NEEDS[tier] - features))}",
        )
    return x86(tier, triple, cpu, features)


def host_target(name: str | None = None) -> Target:
    """The machine that this process runs on, at the tier ``name``, else the one of the switch
    ``target``, else the best. Raises ``UserError`` for a tier that does not exist here.
    """
    return tier_target(config.get("target") if name is None else name)
