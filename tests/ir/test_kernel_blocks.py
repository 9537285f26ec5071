"""Kernels for blocks of threads: text, rules and meaning."""

from __future__ import annotations

from tilewright.compiler.kernels import structure
from tilewright.ir.text import parse, show

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


def test_the_text_of_blocks_and_instructions_reads_back():
    kernel = parse(TEXT)
    assert show(kernel) == TEXT
    assert "async_wait(0:i64)" in structure(kernel)
    assert structure(parse(TEXT.replace("xor(", "up("))) != structure(kernel)
