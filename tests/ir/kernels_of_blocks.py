"""Kernels for blocks of threads."""

from pathlib import Path

SUM = """kernel sum(x: f32[256] in, y: f32[4] out) {
  for b in 0..4 block {
    alloc part: f32[2] shared
    for t in 0..64 thread {
      let v: f32 = x[b * 64 + t]
      let a: f32 = shuffle xor(v, 16)
      let v1: f32 = v + a
      let a1: f32 = shuffle xor(v1, 8)
      let v2: f32 = v1 + a1
      let a2: f32 = shuffle xor(v2, 4)
      let v3: f32 = v2 + a2
      let a3: f32 = shuffle xor(v3, 2)
      let v4: f32 = v3 + a3
      let a4: f32 = shuffle xor(v4, 1)
      let v5: f32 = v4 + a4
      if t % 32 == 0 {
        part[t // 32] = v5
      }
      barrier
      if t == 0 {
        y[b] = part[0] + part[1]
      }
    }
  }
}
"""

PRODUCT = """kernel g(x: bf16[1024] in, w: bf16[512] in, y: f32[512] out) {
  for b in 0..1 block {
    alloc xs: bf16[1024] shared
    alloc ws: bf16[512] shared
    for t in 0..32 thread {
      alloc a: bf16[8] register
      alloc bb: bf16[8] register
      alloc c: f32[4] register
      for i in 0..4 unroll {
        run async_copy(xs[t * 32 + i * 8], x[t * 32 + i * 8], true)
      }
      for i in 0..2 unroll {
        run async_copy(ws[t * 16 + i * 8], w[t * 16 + i * 8], true)
      }
      run async_commit()
      run async_wait(0)
      barrier
      for i in 0..4 unroll {
        c[i] = 0.0:f32
      }
      for k in 0..4 {
        run ldmatrix_x4(a[0], xs[t % 16 * 64 + k * 16 + t // 16 * 8])
        run ldmatrix_x4(bb[0], ws[t % 8 * 64 + k * 16 + t // 8 % 2 * 8])
        run mma_m16n8k16(c[0], a[0], bb[0])
      }
      for i in 0..2 unroll {
        y[(t // 4 + i * 8) * 8 + t % 4 * 2] = c[i * 2]
        y[(t // 4 + i * 8) * 8 + t % 4 * 2 + 1] = c[i * 2 + 1]
      }
    }
  }
}
"""


SPECIALISED = (Path(__file__).parent / "blocks" / "specialised.tw").read_text()
