"""Accesses of 16 bytes: where they are provable, and what the runtime promises for them."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from block_kernels import compiled, run
from opcodes import count, opcodes

from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.program import build
from tilewright.compiler.plan import ALIGNED, Launch, Plan, Slot
from tilewright.errors import CompilerBug
from tilewright.ir.text import parse
from tilewright.ir.types import DType, TensorType, bf16, f16, f32
from tilewright.runtime.gpu.device import Resident
from tilewright.runtime.gpu.executable import GpuExecutable
from tilewright.runtime.gpu.sim import SimDriver

RANDOM = np.random.default_rng(23)

COPY = """kernel f(n: i64, x: f32[2048] in, h: bf16[2048] in, y: f32[2048] out, g: bf16[2048] out) {
  for b in 0..2 block {
    alloc line: f32[512] shared
    alloc short: bf16[512] shared
    for t in 0..64 thread {
      for v in 0..4 vector(4, 1) {
        line[t * 4 + v] = x[FIRST + v]
      }
      for v in 0..8 vector(8, 1) {
        short[t * 8 + v] = h[b * 512 + t * 8 + v]
      }
      barrier
      for v in 0..4 vector(4, 1) {
        y[FIRST + v] = line[(63 - t) * 4 + v]
      }
      for v in 0..8 vector(8, 1) {
        g[b * 512 + t * 8 + v] = short[(63 - t) * 8 + v]
      }
    }
  }
}
"""


def accesses(first: str) -> Counter[str]:
    (found,) = opcodes(compiled(COPY.replace("FIRST", first))).values()
    return found


def test_vector_loops_are_wide_accesses() -> None:
    found = accesses("b * 256 + t * 4")
    assert count(found, "ld.global") == count(found, "ld.global.nc.v4.b32") == 2
    assert count(found, "st.global") == count(found, "st.global.v4.b32") == 2
    assert count(found, "ld.shared") == count(found, "ld.shared.v4.b32") == 2
    assert count(found, "st.shared") == count(found, "st.shared.v4.b32") == 2
    assert not count(found, "prmt", "cvt.rn")  # 16 bits pass as they are
    text = compiled(COPY.replace("FIRST", "b * 256 + t * 4"))
    assert not re.search(r"shl\.b32\s[^;]*, 16;", text)


@pytest.mark.parametrize("first,loads", [
    ("b * 256 + t * 4 + 8", {"v4.b32": 1}),
    ("b * 256 + t * 4 + 2", {"v2.b32": 2}),
    ("b * 256 + t * 4 + 1", {"b32": 4}),
    ("b * 258 + t * 4", {"v2.b32": 2}),
    ("b * n + t * 4", {"b32": 4}),
    ("n // 4 * 4 + t * 4", {"v4.b32": 1}),
    ("(t % 3) * 4 + min(b, 1) * 64", {"v4.b32": 1}),
])
def test_what_is_known_of_an_address(first: str, loads: dict[str, int]) -> None:
    found = accesses(first)
    wide = count(found, "ld.global.nc.v4.b32") - 1
    two, one = found["ld.global.nc.v2.b32"], found["ld.global.nc.b32"]
    assert {"v4.b32": wide, "v2.b32": two, "b32": one} == {
        "v4.b32": 0, "v2.b32": 0, "b32": 0, **loads}


def test_copies_are_right() -> None:
    x, h = RANDOM.standard_normal(2048).astype(np.float32), RANDOM.standard_normal(2048)
    h = h.astype(bf16.numpy)
    for first, n in (("b * 256 + t * 4", 0), ("b * n + t * 4", 257)):
        step = n or 256
        text = COPY.replace("FIRST", first)
        _, _, y, g = run(text, [x, h, np.zeros_like(x), np.zeros_like(h)], n=n)
        for b in range(2):
            part = x[b * step : b * step + 256].reshape(64, 4)[::-1].ravel()
            np.testing.assert_array_equal(y[b * step : b * step + 256], part)
        np.testing.assert_array_equal(
            g[:1024].reshape(2, 64, 8), h[:1024].reshape(2, 64, 8)[:, ::-1])


# --- the runtime ---------------------------------------------------------------------------------
SCALE = """kernel scale(x: f32[512] in, y: f32[512] inout) {
  for b in 0..4 block {
    alloc line: f32[128] shared
    for t in 0..32 thread {
      for v in 0..4 vector(4, 1) {
        line[t * 4 + v] = y[b * 128 + t * 4 + v]
      }
      barrier
      for v in 0..4 vector(4, 1) {
        y[b * 128 + t * 4 + v] = line[(31 - t) * 4 + v] + x[b * 128 + t * 4 + v]
      }
    }
  }
}
"""


def program(driver: SimDriver) -> GpuExecutable:
    """y, which is donated, with its pieces turned round, and x added."""
    type_ = TensorType(f32, (512,))
    x, y = Slot("input", 0), Slot("input", 1)
    plan = Plan((type_, type_), (), (y,), (), (Launch(parse(SCALE), (x, y), False),), 0, (1,))
    return GpuExecutable(plan, build(plan, gpu_target("sm_80")), driver)


def expected(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (y.reshape(4, 32, 4)[:, ::-1].ravel() + x).astype(np.float32)


def shifted(executable: GpuExecutable, array: np.ndarray, offset: int) -> Resident:
    """The array at an address that is no multiple of 16."""
    device = executable.device
    block = device.memory.take(array.nbytes + 64)
    memory = SimpleNamespace(address=block.address + offset, block=block)
    device.driver.write(memory.address, array)
    return Resident(device, memory, array.dtype, array.shape)


@pytest.mark.parametrize("offsets", [(0, 0), (4, 0), (0, 8), (12, 4)])
def test_misaligned_arguments_are_copied(offsets: tuple[int, int]) -> None:
    executable = program(SimDriver())
    x, y = (RANDOM.standard_normal(512).astype(np.float32) for _ in range(2))
    given = [shifted(executable, a, o) for a, o in zip((x, y), offsets, strict=True)]
    (result,) = executable(given)
    np.testing.assert_array_equal(result.read(), expected(x, y))
    assert result.address % ALIGNED == 0
    assert (result.address == given[1].address) == (offsets[1] == 0)  # in place if it can be


def test_the_simulator_minds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.runtime.gpu.executable.ALIGNED", 1)
    executable = program(SimDriver())
    x = np.zeros(512, np.float32)
    with pytest.raises(CompilerBug, match="16 bytes"):
        executable([shifted(executable, x, 4), shifted(executable, x, 0)])[0].read()


def test_arrays_of_the_host() -> None:
    x, y = (RANDOM.standard_normal(512).astype(np.float32) for _ in range(2))
    np.testing.assert_array_equal(program(SimDriver())([x, y])[0], expected(x, y))


# --- 16 bits -----------------------------------------------------------------------------------
HALVES = """kernel f(x: f32[256] in, h: bf16[256] in, y: bf16[256] out) {
  for b in 0..1 block {
    for t in 0..32 thread {
      for v in 0..8 vector(8, 1) {
        y[t * 8 + v] = cast<bf16>(x[t * 8 + v]) + h[t * 8 + v]
      }
    }
  }
}
"""


def wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32)


@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
def test_pairs_are_rounded_at_once(dtype: DType) -> None:
    text = HALVES.replace("bf16", dtype.name)
    x = RANDOM.standard_normal(256).astype(np.float32)
    x[::7], x[3] = np.inf, np.nan
    h = RANDOM.standard_normal(256).astype(dtype.numpy)
    y = run(text, [x, h, np.zeros_like(h)])[2]
    np.testing.assert_array_equal(wide(y), wide(x.astype(dtype.numpy) + h))
    (found,) = opcodes(compiled(text)).values()
    assert found[f"cvt.rn.{dtype}x2.f32"] == 8 and found["st.global.v4.b32"] == 1
    assert not count(found, f"cvt.rn.{dtype}.f32", "shr", "prmt", "cvt.u16")
    old = run(text, [x, h, np.zeros_like(h)], "sm_70")[2]
    np.testing.assert_array_equal(wide(old), wide(y))
