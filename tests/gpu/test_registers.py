"""What ptxas is told of the registers of a block."""

from __future__ import annotations

import re
import shutil

import pytest
from block_kernels import compiled

from tilewright.codegen.gpu.assembler import assemble


def kernel(threads: int, values: int, size: int = 64) -> str:
    """Each thread has many numbers at a time."""
    text = f"""kernel f(x: f32[{values * threads}] in, y: f32[{values * threads}] out) {{
  for b in 0..1 block {{
    alloc s: f32[{size}] shared
    for t in 0..{threads} thread {{
      alloc r: f32[{values}] register
      for i in 0..{values} unroll {{
        r[i] = x[i * {threads} + t]
      }}
      s[t] = r[0]
      for i in 0..{values} unroll {{
        y[i * {threads} + t] = r[{values - 1} - i] * r[(i * 7) % {values}]
      }}
    }}
  }}
}}
"""
    return text if size else re.sub(r".*(alloc s:|s\[t\]).*\n", "", text)


@pytest.mark.parametrize("threads, size, told", [
    (32, 64, True), (64, 64, True), (64, 4096, True), (96, 96, False), (96, 0, True)])
def test_who_gets_all_registers(threads: int, size: int, told: bool) -> None:
    assert (".minnctapersm 1" in compiled(kernel(threads, 4, size))) == told


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
@pytest.mark.parametrize("threads", [32, 64])
def test_nothing_is_spilled(threads: int) -> None:
    (report,) = assemble(compiled(kernel(threads, 150), "sm_90a"), "sm_90a").reports.values()
    assert report.registers > 128
    assert report.stack == report.spill_stores == report.spill_loads == 0
