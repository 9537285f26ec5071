"""Index arithmetic of GPU kernels: in 32 bits where the numbers fit, never where they may not."""

from __future__ import annotations

import re
from unittest import mock

import numpy as np
import pytest
from block_kernels import compiled, entries, module, run
from opcodes import opcodes

from tilewright.codegen.gpu import indices
from tilewright.errors import CompilerBug
from tilewright.ptxsim.simulator import Simulator

FAR = """kernel f(x: f32[{size}] in, y: f32[64] out) {{
  for b in 0..4 block {{
    for t in 0..64 thread {{
      if b == 3 {{
        y[t] = x[b * {stride} + t * 2]
      }}
    }}
  }}
}}
"""


def far(stride: int) -> list[float]:
    """What the kernel reads beyond three strides, where alone there is memory."""
    text = FAR.format(size=4 * stride, stride=stride)
    simulator, found = Simulator(), entries(text)
    memory, numbers = simulator.memory, np.arange(128, dtype=np.float32)
    x, y, team = (memory.allocate(512) for _ in range(3))
    memory.put(x, numbers.view(np.uint8))
    memory.put(team, np.zeros(512, np.uint8))
    start = (x - 4 * 3 * stride) % 2**64
    arguments = (start, y, team, team)
    simulator.launch(
        simulator.load(module(found)), found[0].name, (4,), (64,), arguments, found[0].shared)
    return list(memory.get(y, 256).view(np.float32))


@pytest.mark.parametrize("stride", [
    1 << 10, (2**31 - 127) // 3, 2**31 // 3 - 40, 1 << 30, 3 << 29, 1 << 40])
def test_elements_far_away_are_found(stride: int) -> None:
    assert far(stride) == list(range(0, 128, 2))


def test_without_the_look_at_the_range_they_would_not_be() -> None:
    with mock.patch.object(indices, "MOST", 2**50), pytest.raises((CompilerBug, IndexError)):
        far(3 << 29)


@pytest.mark.parametrize("low, high, step", [
    (2**31 - 9, 2**31 - 1, 1), (2**31 - 9, 2**31, 1), (2**31 - 30, 2**31 - 2, 7),
    (-(2**31), -(2**31) + 9, 1), (-(2**31) - 5, -(2**31) + 5, 2), (-4, 9, 3), (2**40, 2**40 + 9, 1),
])
def test_counters_near_the_ends_of_32_bits(low: int, high: int, step: int) -> None:
    text = f"""kernel f(n: i64[1] in, y: i64[64] out) {{
  for b in 0..1 block {{
    for t in 0..32 thread {{
      alloc last: i64[2] register
      last[0] = 0
      last[1] = 0
      for i in {low}..{high}{f" step {step}" if step > 1 else ""} {{
        last[0] += i * 3 - t
        last[1] = last[1] + 1
      }}
      y[t] = last[0]
      y[t + 32] = last[1]
    }}
  }}
}}
"""
    _, y = run(text, [np.zeros(1, np.int64), np.zeros(64, np.int64)])
    places = np.arange(low, high, step)
    want = [int((places * 3 - t).sum()) for t in range(32)] + [len(places)] * 32
    np.testing.assert_array_equal(y, want)


def wide(text: str) -> int:
    """How many instructions compute 64 bits."""
    (found,) = opcodes(text).values()
    return sum(n for name, n in found.items() if re.fullmatch(r"(?!ld|st|mov).*(64|wide.*)", name))


def test_what_fits_is_added_up_in_32_bits() -> None:
    text = """kernel f(x: f32[{size}] in, y: f32[{size}] out) {{
  for b in 0..{blocks} block {{
    for t in 0..128 thread {{
      for i in 0..{steps} {{
        y[b * {stride} + i * 640 + t * 5] = x[b * {stride} + i * 640 + t * 5]
      }}
    }}
  }}
}}
"""
    small = {"size": 640 * 9 * 100, "blocks": 100, "stride": 640 * 9, "steps": 9}
    large = {**small, "size": 640 * 9 * 2**20, "blocks": 2**20}
    found = [wide(compiled(text.format(**sizes))) for sizes in (small, large)]
    assert found[0] < found[1], found
