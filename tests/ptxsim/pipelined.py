"""A warp-specialised matrix product by hand in PTX, small enough to plant bugs in.

Four warps compute C [64, 16] = A [64, 64 steps] B^T [16, 64 steps] in f32 from bf16 with wgmma, one
thread of a fifth warp copies the tiles of each step by TMA into a ring of stages; the result
leaves by a TMA store. `gemm` gives the text; tests replace single lines of it.
"""

from __future__ import annotations

STAGES = 2
A_BYTES, B_BYTES = 64 * 64 * 2, 16 * 64 * 2
STAGE_BYTES = A_BYTES + B_BYTES
DESCRIPTOR = 16 >> 4 << 16 | 1024 >> 4 << 32 | 1 << 62
"""K-major, a swizzle of 128 bytes, 8 lines in 1024 bytes."""

ACCUMULATORS = "{" + ", ".join(f"%f{i}" for i in range(8)) + "}"

TEXT = f"""
.version 8.0
.target sm_90a
.address_size 64

.visible .entry gemm(
  .param .align 64 .b8 map_a[128],
  .param .align 64 .b8 map_b[128],
  .param .align 64 .b8 map_c[128],
  .param .u32 steps
)
.reqntid 160, 1, 1
{{
  .shared .align 1024 .b8 tiles[{STAGES * STAGE_BYTES}];
  .shared .align 128 .b8 result[4096];
  .shared .align 8 .b64 full[{STAGES}];
  .shared .align 8 .b64 empty[{STAGES}];
  .reg .pred %p<9>;
  .reg .b32 %r<40>, %t, %steps, %step, %stage, %phase, %full, %empty, %tile;
  .reg .b32 %released;
  .reg .b64 %d<40>;
  .reg .f32 %f<8>;

  mov.u32 %t, %tid.x;
  ld.param.u32 %steps, [steps];
  mov.u32 %step, 0;
  mov.u32 %stage, 0;
  setp.ne.u32 %p0, %t, 0;
  @%p0 bra READY;
  mov.u32 %r0, full;
  mov.u32 %r1, empty;
  mbarrier.init.shared::cta.b64 [%r0], 1;
  mbarrier.init.shared::cta.b64 [%r0+8], 1;
  mbarrier.init.shared::cta.b64 [%r1], 128;
  mbarrier.init.shared::cta.b64 [%r1+8], 128;
  fence.mbarrier_init.release.cluster;
READY:
  bar.sync 0;
  setp.ge.u32 %p0, %t, 128;
  @%p0 bra PRODUCER;

  mov.u32 %phase, 0;
  mov.u32 %released, empty;
CONSUME:
  mov.u32 %r0, full;
  mad.lo.u32 %full, %stage, 8, %r0;
  mov.u32 %r1, empty;
  mad.lo.u32 %empty, %stage, 8, %r1;
FULL:
  mbarrier.try_wait.parity.shared::cta.b64 %p1, [%full], %phase;
  @!%p1 bra FULL;
  mov.u32 %r2, tiles;
  mad.lo.u32 %tile, %stage, {STAGE_BYTES}, %r2;
  shr.u32 %r3, %tile, 4;
  cvt.u64.u32 %d0, %r3;
  or.b64 %d0, %d0, {DESCRIPTOR};
  add.u64 %d1, %d0, {A_BYTES >> 4};
  setp.ne.u32 %p2, %step, 0;
  setp.eq.u32 %p3, %t, %t;
  wgmma.fence.sync.aligned;
  wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {ACCUMULATORS},
    %d0, %d1, %p2, 1, 1, 0, 0;
""" + "".join(f"""
  add.u64 %d2, %d0, {2 * k};
  add.u64 %d3, %d1, {2 * k};
  wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {ACCUMULATORS},
    %d2, %d3, %p3, 1, 1, 0, 0;
""" for k in (1, 2, 3)) + f"""
  wgmma.commit_group.sync.aligned;
  wgmma.wait_group.sync.aligned 1;
  setp.eq.u32 %p4, %step, 0;
  @%p4 bra KEEP;
  mbarrier.arrive.shared::cta.b64 %d4, [%released];
KEEP:
  mov.u32 %released, %empty;
  add.u32 %stage, %stage, 1;
  setp.ne.u32 %p5, %stage, {STAGES};
  @%p5 bra SAME;
  mov.u32 %stage, 0;
  xor.b32 %phase, %phase, 1;
SAME:
  add.u32 %step, %step, 1;
  setp.lt.u32 %p6, %step, %steps;
  @%p6 bra CONSUME;
  wgmma.wait_group.sync.aligned 0;

  shr.u32 %r4, %t, 5;
  and.b32 %r5, %t, 31;
  shr.u32 %r6, %r5, 2;
  and.b32 %r7, %r5, 3;
  mad.lo.u32 %r8, %r4, 16, %r6;
  mov.u32 %r9, result;
  mad.lo.u32 %r9, %r8, 64, %r9;
  mad.lo.u32 %r9, %r7, 8, %r9;
  st.shared.v2.f32 [%r9], {{%f0, %f1}};
  st.shared.v2.f32 [%r9+512], {{%f2, %f3}};
  st.shared.v2.f32 [%r9+32], {{%f4, %f5}};
  st.shared.v2.f32 [%r9+544], {{%f6, %f7}};
  fence.proxy.async.shared::cta;
  bar.sync 1, 128;
  setp.ne.u32 %p0, %t, 0;
  @%p0 bra DONE;
  mov.u32 %r10, result;
  mov.b64 %d10, map_c;
  cvta.param.u64 %d10, %d10;
  mov.u32 %r11, 0;
  cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%d10, {{%r11, %r11}}], [%r10];
  cp.async.bulk.commit_group;
  cp.async.bulk.wait_group.read 0;
  bra DONE;

PRODUCER:
  setp.ne.u32 %p0, %t, 128;
  @%p0 bra DONE;
  mov.u32 %phase, 1;
  mov.u32 %r12, 0;
  mov.b64 %d11, map_a;
  cvta.param.u64 %d11, %d11;
  mov.b64 %d12, map_b;
  cvta.param.u64 %d12, %d12;
PRODUCE:
  mov.u32 %r0, full;
  mad.lo.u32 %full, %stage, 8, %r0;
  mov.u32 %r1, empty;
  mad.lo.u32 %empty, %stage, 8, %r1;
EMPTY:
  mbarrier.try_wait.parity.shared::cta.b64 %p1, [%empty], %phase;
  @!%p1 bra EMPTY;
  mbarrier.arrive.expect_tx.shared::cta.b64 %d13, [%full], {STAGE_BYTES};
  mov.u32 %r2, tiles;
  mad.lo.u32 %tile, %stage, {STAGE_BYTES}, %r2;
  add.u32 %r13, %tile, {A_BYTES};
  shl.b32 %r14, %step, 6;
  cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
    [%tile], [%d11, {{%r14, %r12}}], [%full];
  cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
    [%r13], [%d12, {{%r14, %r12}}], [%full];
  add.u32 %stage, %stage, 1;
  setp.ne.u32 %p5, %stage, {STAGES};
  @%p5 bra AHEAD;
  mov.u32 %stage, 0;
  xor.b32 %phase, %phase, 1;
AHEAD:
  add.u32 %step, %step, 1;
  setp.lt.u32 %p6, %step, %steps;
  @%p6 bra PRODUCE;
DONE:
  ret;
}}
"""


def gemm(old: str = "", new: str = "", count: int = 1) -> str:
    """The PTX, `count` occurrences of a piece of it replaced; there must be that many."""
    if old and TEXT.count(old) != count:
        raise ValueError(f"{old!r} occurs {TEXT.count(old)} times, not {count}")
    return TEXT.replace(old, new) if old else TEXT
