"""Kernels whose warps copy boxes of matrices for others that multiply them, as PTX."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from block_kernels import compiled, run

from tilewright.codegen.gpu.assembler import assemble
from tilewright.errors import Unsupported
from tilewright.ir.interp import run_kernel
from tilewright.ir.text import parse
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.simulator import Simulator

TEXT = (Path(__file__).parents[1] / "ir" / "blocks" / "specialised.tw").read_text()


def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    a, w = (random.standard_normal(16384).astype(ml_dtypes.bfloat16) for _ in range(2))
    return [a, w, np.zeros(8192, np.float32)]


@pytest.mark.parametrize("simulator", [
    None, Simulator(1, copies="lazy"), Simulator(2, copies="lazy")], ids=["plain", "1", "2"])
def test_the_product_is_the_interpreters(simulator: Simulator | None) -> None:
    given, want = arrays(), arrays()
    found = run(TEXT, given, "sm_90a", simulator)[2]
    run_kernel(parse(TEXT), want)
    np.testing.assert_allclose(found, want[2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("old, new", [
    ("run mbarrier_wait(bars[k % 2], k // 2)", ""),
    ("run mbarrier_wait(bars[k % 2], k // 2)", "run mbarrier_wait(bars[k % 2], (k + 2) // 2 % 2)"),
    ("run mbarrier_arrive(bars[k % 2 + 2])", ""),
    ("run mbarrier_wait(bars[k % 2 + 2], (k // 2 + 1) % 2)", ""),
    ("run mbarrier_expect(bars[k % 2], 16384)", "run mbarrier_expect(bars[k % 2], 20000)"),
    ("run wgmma_wait(0)", ""),
], ids=["no wait", "wrong phase", "no arrival", "no wait for the others", "too much", "no end"])
def test_planted_bugs_are_caught(old: str, new: str) -> None:
    assert old in TEXT
    want = arrays()
    run_kernel(parse(TEXT), want)
    wrong = 0
    for simulator in (Simulator(1, copies="lazy"), Simulator(2), Simulator()):
        try:
            found = run(TEXT.replace(old, new), arrays(), "sm_90a", simulator)[2]
            wrong += not np.allclose(found, want[2], rtol=1e-5, atol=1e-4)
        except Fault:
            wrong += 1
    assert wrong


def test_an_architecture_without_them() -> None:
    with pytest.raises(Unsupported, match="sm_80 does not have"):
        compiled(TEXT, "sm_80")


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
def test_ptxas_takes_it() -> None:
    text = compiled(TEXT, "sm_90a")
    assembled = assemble(text, "sm_90a")
    assert not assembled.warnings
    (report,) = assembled.reports.values()
    assert report.stack == report.spill_stores == report.spill_loads == 0
    # The loop over k is unrolled: two boxes in each of four steps.
    assert len(re.findall(r"cp\.async\.bulk\.tensor\.2d", text)) == 8
    assert "ld.local" not in text and "st.local" not in text
