"""Pointwise kernels on a GPU: pieces of 16 bytes, what is left of them, tiles of transposes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from on_sim import agree, compare, program_of
from opcodes import count, opcodes

import tilewright as tw
from tilewright.compiler.schedules.gpu import pointwise
from tilewright.compiler.schedules.gpu.vectors import divides, whole, width_for
from tilewright.ir.loops import Kernel
from tilewright.ir.sizes import named
from tilewright.ir.text import parse

RANDOM = np.random.default_rng(13)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays are large from a few elements on."""
    monkeypatch.setattr(pointwise, "LARGE", 64)


@pytest.mark.usefixtures("large")
def test_pieces() -> None:
    agree(lambda x, y: x * y + 1, f32(2048), f32(2048))
    agree(lambda x, y: x * y + 1, f32(8200), f32(8200))
    agree(lambda x, y: (x * y, x - y), f32(4099), f32(4099))
    agree(lambda x, y: np.exp(x) * y, f32(50, 36), f32(36))
    agree(lambda x, y: np.exp(x) * y, f32(61, 3), f32(3))
    agree(lambda x, y: (np.tanh(x) * y, x + y), f32(50, 30), f32(50, 1))
    agree(lambda x: np.concatenate([x[:, 1:], x[:, :1]], axis=1), f32(20, 16))
    agree(lambda x: x[:, ::-1] * 2 + x, f32(20, 16))
    agree(lambda x, i: x[i] * 2, f32(20, 16), RANDOM.integers(0, 20, 33))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.bool_])
def test_element_types_of_pieces(dtype: Any) -> None:
    x = (f32(2500) * 3).astype(dtype)
    agree(lambda x: (x == x[0], x.astype(np.float32) + 1), x)
    agree(lambda x: np.maximum(x, x[::-1]), x)


@pytest.mark.usefixtures("large")
def test_tiles() -> None:
    agree(lambda x, y: x.T * y, f32(50, 33), f32(33, 50))
    agree(lambda x: x.transpose(2, 1, 0) * 1, f32(40, 3, 64))
    agree(lambda x, b: np.exp(b) + x.T * b, f32(20, 70), f32(20))
    agree(lambda x, b: np.exp(b) + x.T * b, f32(70, 20), f32(20, 1))
    agree(lambda x: x.transpose(0, 2, 1) + x.transpose(0, 2, 1)[:1], f32(2, 9, 70))
    agree(lambda x, y: x.T.astype(np.float32) + np.exp(y.T), f32(33, 40) > 0, f32(33, 40))


@pytest.mark.usefixtures("large")
def test_sizes_with_names_in_pieces() -> None:
    def f(x: Any, y: Any) -> Any:
        return x * y + 1, x.T * 2

    compiled = tw.jit(f, dynamic={"x": {0: "n"}, "y": {0: "n"}}, target="sim", )
    for n in (1, 40, 700):
        x, y = f32(n, 12), f32(n, 12)
        compare(compiled(x, y), tw.jit(f)(x, y))


@pytest.mark.usefixtures("large")
def test_memory_that_is_given_away_is_used() -> None:
    f = tw.jit(lambda w, g: w - g, target="sim", donate_argnames="w")
    w, g = f32(2500), f32(2500)
    want = w - g
    plan = f.compile(w, g).plan
    assert any(slot.kind == "input" for slot in plan.results)
    np.testing.assert_array_equal(f(w, g), want)


def test_accesses_of_16_bytes() -> None:
    """Four of each operand are on their way before the first result is written."""
    x = np.zeros((512, 512), np.float32)
    text = program_of(lambda x, y: x + y, x, x, architecture="sm_90a").text
    counts = sum(opcodes(text).values(), Counter())
    assert count(counts, "ld.global.nc.v4") == count(counts, "ld.global") == 8
    assert count(counts, "st.global.v4") == count(counts, "st.global") == 4
    assert count(counts, "bra") == 0
    assert text.rindex("ld.global") < text.index("st.global")
    half = x.astype(ml_dtypes.bfloat16)
    text = program_of(lambda x, y: x + y, half, half, architecture="sm_90a").text
    counts = sum(opcodes(text).values(), Counter())
    assert count(counts, "ld.global.nc.v4") == count(counts, "ld.global") == 8


LANES = """kernel lanes(x: f32[64] in, i: i64[64] in, y: f32[64] out) {
  for p in 0..4 parallel {
    let o: i64 = p * 4
    for v in 0..4 vector(4, 1) {
      y[o * 4 + v] = PLACE
    }
  }
}
"""


@pytest.mark.parametrize("place, good", [
    ("x[o * 4 + v]", True), ("x[o]", True), ("x[p * 8 + (v + 4)]", True), ("x[0]", True),
    ("x[o * 4 + (v + 1)]", False), ("x[p * 2 + v]", False), ("x[v * 2]", False),
    ("x[3 - v]", False), ("x[i[v]]", False), ("x[i[p]]", True), ("x[i[p] + v]", False),
    ("x[o * 4 + v if v < 3]", False), ("x[(o * 4 + v) // 2]", False),
])
def test_what_is_one_access(place: str, good: bool) -> None:
    kernel = parse(LANES.replace("PLACE", place))
    assert isinstance(kernel, Kernel)
    assert whole(kernel) == good


def test_widths() -> None:
    n = named("n")
    assert [width_for(size) for size in (1, 2, 4, 8)] == [16, 8, 4, 2]
    assert [width_for(4, size) for size in (12, 6, 7, 4 * n, n, 2 * n + 4)] == [4, 2, 1, 4, 1, 2]
    assert divides(3, 6 * n + 9) and not divides(3, 6 * n + 8)
