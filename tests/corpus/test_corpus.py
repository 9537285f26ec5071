"""A fixed corpus of graphs: their kernels, and the LLVM IR of every tier, stay as they are.

A change that means to leave the emitted code alone proves it here. ``golden/kernels`` holds what
the schedules wrote for a machine with 32-byte vectors, ``golden/llvm.tw`` a digest of the LLVM IR
per graph and tier; ``--bless`` accepts what is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tilewright.codegen import cpu
from tilewright.codegen.cpu.program import program_text
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.target import Target
from tilewright.errors import UserError
from tilewright.ir.graph import Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse, show
from tilewright.runtime.executable import Executable

GRAPHS = sorted(Path(__file__).parent.glob("*.tw"))
X86 = "x86_64-unknown-linux-gnu"
TIERS = {
    "avx512": Target("avx512", 64, 32, 1 << 15, 1 << 20, 1 << 25, X86, "x86-64-v4", ""),
    "avx2": Target("avx2", 32, 16, 1 << 15, 1 << 20, 1 << 25, X86, "x86-64-v3", ""),
    "sse2": Target("sse2", 16, 16, 1 << 15, 1 << 20, 1 << 25, X86, "x86-64", "",
                   masked=False, fma=False),
}
Golden = Callable[[str, str], None]


def read(path: Path) -> Graph:
    graph = parse(path.read_text())
    assert isinstance(graph, Graph)
    return graph


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_kernels(path: Path, golden: Golden) -> None:
    plan = compile_graph(read(path), TIERS["avx2"]).plan
    golden(f"kernels/{path.stem}", "\n".join(show(launch.kernel) for launch in plan.launches))


def test_llvm_ir(golden: Golden) -> None:
    lines = []
    for path in GRAPHS:
        for name, target in TIERS.items():
            text = program_text(compile_graph(read(path), target).plan, target)
            lines.append(f"{path.stem} {name} {hashlib.sha256(text.encode()).hexdigest()[:16]}")
    golden("llvm", "\n".join(lines) + "\n")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_results(path: Path, tier: str) -> None:
    try:
        target = cpu.host_target(tier)
    except UserError:
        pytest.skip(f"this machine has no {tier}")
    graph = read(path)
    random = np.random.default_rng(0)
    arrays = [
        random.integers(1, 9, n.shape).astype(n.dtype.numpy) if n.dtype.is_int
        else random.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs
    ]
    plan = compile_graph(graph, target).plan
    results = Executable(plan, cpu.build(plan, target))(arrays)
    for got, want in zip(results, run_graph(graph, arrays), strict=True):
        assert got.dtype == want.dtype
        close = 2e-2 if got.dtype == np.float16 else 2e-5
        np.testing.assert_allclose(got, want, rtol=close, atol=close)
