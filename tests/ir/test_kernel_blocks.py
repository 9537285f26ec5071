"""Kernels for blocks of threads: text, rules and meaning."""

from __future__ import annotations

from kernels_of_blocks import PRODUCT, SUM

from tilewright.compiler.kernels import structure
from tilewright.ir.text import parse, show
from tilewright.ir.verify import verify

TEXT = """kernel f(n: i64, x: f32[n] in, h: bf16[4096] in, y: f32[n] out) {
  for b in 0..(n + 127) // 128 block {
    alloc tile: bf16[1024] shared
    for t in 0..128 thread {
      alloc a: bf16[8] register
      run async_copy(tile[t * 8], h[t * 8], t < 100)
      run async_commit()
      run async_wait(0)
      barrier
      run ldmatrix_x4(a[0], tile[t * 8])
      let other: f32 = shuffle xor(x[b * 128 + t if b * 128 + t < n], 16)
      y[b * 128 + t if b * 128 + t < n] = other + cast<f32>(a[0])
    }
  }
}
"""


def test_the_text_of_blocks_and_instructions_reads_back() -> None:
    kernel = parse(TEXT)
    assert show(kernel) == TEXT
    assert "async_wait(0:i64)" in structure(kernel)
    assert structure(parse(TEXT.replace("xor(", "up("))) != structure(kernel)


def test_kernels_that_keep_the_rules() -> None:
    for text in (TEXT, SUM, PRODUCT):
        verify(parse(text))
    # Threads of a warp agree on their warp's number, so its threads arrive together.
    verify(parse("""kernel f(x: f32[256] in, y: f32[256] out) {
      for b in 0..1 block {
        alloc s: f32[256] shared
        for t in 0..256 thread {
          let warp: i64 = t // 32
          let lane: i64 = t % 32
          for i in warp..8 step 2 {
            let v: f32 = shuffle down(x[i * 32 + lane], 1)
            if t < 64 {
              let w: f32 = shuffle up(v, 1)
            }
            if (warp - 1) // 4 == b {
              let w: f32 = shuffle up(v, 1)
            }
          }
          s[t] = x[t]
          barrier
          for i in 0..3 {
            let v: f32 = s[255 - t]
            barrier
            s[t] = v
            barrier
          }
          y[t] = s[t]
        }
      }
    }
    """))
