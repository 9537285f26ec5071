"""Small kernels in PTX, by hand, for tests of drivers."""

from __future__ import annotations

HEAD = ".version 7.0\n.target sm_52\n.address_size 64\n"

ADD = """
.visible .entry add(.param .u64 x, .param .u64 n, .param .u64 by)
{
  .reg .pred %p<2>;
  .reg .b32 %r<5>;
  .reg .b64 %d<8>;
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ntid.x;
  mov.u32 %r2, %tid.x;
  mad.lo.s32 %r3, %r0, %r1, %r2;
  cvt.u64.u32 %d0, %r3;
  ld.param.u64 %d1, [n];
  setp.ge.u64 %p0, %d0, %d1;
  @%p0 bra DONE;
  ld.param.u64 %d2, [x];
  ld.param.u64 %d3, [by];
  shl.b64 %d4, %d0, 3;
  add.s64 %d5, %d2, %d4;
  ld.global.u64 %d6, [%d5];
  add.s64 %d7, %d6, %d3;
  st.global.u64 [%d5], %d7;
DONE:
  ret;
}
"""
"""Adds ``by`` to each of the ``n`` 64-bit integers at ``x``; one thread each."""

PLACES = """
.visible .entry places(.param .u64 x)
{
  .reg .b32 %r<24>;
  .reg .b64 %d<4>;
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ctaid.y;
  mov.u32 %r2, %ctaid.z;
  mov.u32 %r3, %nctaid.x;
  mov.u32 %r4, %nctaid.y;
  mad.lo.s32 %r5, %r2, %r4, %r1;
  mad.lo.s32 %r6, %r5, %r3, %r0;
  mov.u32 %r7, %tid.x;
  mov.u32 %r8, %tid.y;
  mov.u32 %r9, %tid.z;
  mov.u32 %r10, %ntid.x;
  mov.u32 %r11, %ntid.y;
  mov.u32 %r12, %ntid.z;
  mad.lo.s32 %r13, %r9, %r11, %r8;
  mad.lo.s32 %r14, %r13, %r10, %r7;
  mul.lo.s32 %r15, %r10, %r11;
  mul.lo.s32 %r16, %r15, %r12;
  mad.lo.s32 %r17, %r6, %r16, %r14;
  mul.lo.s32 %r18, %r2, 100;
  add.s32 %r19, %r18, %r9;
  ld.param.u64 %d0, [x];
  mul.wide.u32 %d1, %r17, 4;
  add.s64 %d2, %d0, %d1;
  st.global.u32 [%d2], %r19;
  ret;
}
"""
"""Each thread of a grid of three dimensions writes 100 times its block's z, plus its own."""

TURN = """
.extern .shared .align 16 .b8 room[];
.visible .entry turn(.param .u64 x)
{
  .reg .b32 %r<12>;
  .reg .b64 %d<4>;
  mov.u32 %r0, %tid.x;
  mov.u32 %r1, %ntid.x;
  ld.param.u64 %d0, [x];
  mul.wide.u32 %d1, %r0, 4;
  add.s64 %d2, %d0, %d1;
  ld.global.u32 %r2, [%d2];
  shl.b32 %r3, %r0, 2;
  mov.u32 %r4, room;
  add.s32 %r5, %r4, %r3;
  st.shared.u32 [%r5], %r2;
  bar.sync 0;
  sub.s32 %r6, %r1, %r0;
  sub.s32 %r7, %r6, 1;
  shl.b32 %r8, %r7, 2;
  add.s32 %r9, %r4, %r8;
  ld.shared.u32 %r10, [%r9];
  st.global.u32 [%d2], %r10;
  ret;
}
"""
"""A block turns its 32-bit integers round, by way of dynamic shared memory."""

ALL = HEAD + TURN + ADD + PLACES
