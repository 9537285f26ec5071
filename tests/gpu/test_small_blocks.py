"""What ptxas is told of small blocks."""

from __future__ import annotations

import shutil

import pytest
from block_kernels import compiled

from tilewright.codegen.gpu.assembler import assemble


def kernel(threads: int, values: int) -> str:
    """Each thread has many numbers at a time."""
    return f"""kernel f(x: f32[{values * threads}] in, y: f32[{values * threads}] out) {{
  for b in 0..1 block {{
    for t in 0..{threads} thread {{
      alloc r: f32[{values}] register
      for i in 0..{values} unroll {{
        r[i] = x[i * {threads} + t]
      }}
      for i in 0..{values} unroll {{
        y[i * {threads} + t] = r[{values - 1} - i] * r[(i * 7) % {values}]
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize("threads, least", [(32, 16), (64, 8), (96, 0)])
def test_how_many_fit(threads: int, least: int) -> None:
    text = compiled(kernel(threads, 4))
    assert (f".minnctapersm {least}" in text) if least else (".minnctapersm" not in text)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
@pytest.mark.parametrize("threads", [32, 64])
def test_nothing_is_spilled(threads: int) -> None:
    (report,) = assemble(compiled(kernel(threads, 80), "sm_90a"), "sm_90a").reports.values()
    assert report.registers > 64
    assert report.stack == report.spill_stores == report.spill_loads == 0
