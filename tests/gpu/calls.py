"""A call of every intrinsic of the table, and instructions of inline assembly, as kernels."""

from __future__ import annotations

import re

SIGNATURES = """
i32 nvvm.read.ptx.sreg.tid.x()
i32 nvvm.read.ptx.sreg.laneid()
i64 nvvm.read.ptx.sreg.clock64()
void nvvm.membar.gl()
void nvvm.barrier.cta.sync.aligned.all(i32=0)
void nvvm.barrier.cta.sync.aligned.count(i32=1, i32=64)
void nvvm.barrier.cta.arrive.aligned.count(i32=1, i32=64)
i1 nvvm.barrier.cta.red.and.aligned.all(i32=0, i1)
i32 nvvm.barrier.cta.red.popc.aligned.all(i32=0, i1)
float nvvm.rsqrt.approx.f(float)
float nvvm.sqrt.approx.f(float)
float nvvm.sin.approx.f(float)
float nvvm.cos.approx.f(float)
float nvvm.lg2.approx.f(float)
float nvvm.rsqrt.approx.ftz.f(float)
float nvvm.lg2.approx.ftz.f(float)
float nvvm.rcp.approx.ftz.f(float)
float nvvm.ex2.approx.f32(float)
float nvvm.ex2.approx.ftz.f32(float)
float nvvm.div.approx.f(float, float)
float nvvm.div.approx.ftz.f(float, float)
float nvvm.div.full(float, float)
void nvvm.bar.warp.sync(i32=-1)
float nvvm.shfl.sync.bfly.f32(i32=-1, float, i32, i32=31)
i32 nvvm.shfl.sync.up.i32(i32=-1, i32, i32, i32=0)
i32 nvvm.vote.ballot.sync(i32=-1, i1)
i1 nvvm.vote.uni.sync(i32=-1, i1)
i32 nvvm.activemask()
i32 nvvm.idp4a.s.s(i32, i32, i32)
i32 nvvm.match.any.sync.i32(i32=-1, i32)
h8 nvvm.wmma.m16n16k16.load.a.row.stride.f16.p1(p1, i32)
h8 nvvm.wmma.m16n16k16.load.b.col.stride.f16.p3(p3, i32)
f8 nvvm.wmma.m16n16k16.load.c.row.stride.f32.p1(p1, i32)
void nvvm.wmma.m16n16k16.store.d.row.stride.f32.p1(p1, f8, i32)
f8 nvvm.wmma.m16n16k16.mma.row.col.f32.f32(h16 f8)
void nvvm.nanosleep(i32)
f8 nvvm.mma.m8n8k4.row.col.f32.f32(h4 f8)
i4 nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3(p3)
i2 nvvm.ldmatrix.sync.aligned.m8n8.x2.trans.b16.p3(p3)
f4 nvvm.mma.m16n8k8.row.col.f32.f32(h3 f4)
h2 nvvm.mma.m16n8k8.row.col.f16.f16(h5)
i2 nvvm.mma.m8n8k16.row.col.s8(i4)
float nvvm.tanh.approx.f32(float)
void nvvm.cp.async.ca.shared.global.4(p3, p1)
void nvvm.cp.async.cg.shared.global.16(p3, p1)
void nvvm.cp.async.ca.shared.global.8.s(p3, p1, i32)
void nvvm.cp.async.ca.shared.global.16(p3, p1)
void nvvm.cp.async.ca.shared.global.16.s(p3, p1, i32)
void nvvm.cp.async.cg.shared.global.16.s(p3, p1, i32)
void nvvm.cp.async.commit.group()
void nvvm.cp.async.wait.group(i32=1)
void nvvm.cp.async.wait.all()
void nvvm.cp.async.mbarrier.arrive.noinc.shared(p3)
f4 nvvm.mma.m16n8k16.row.col.f32.f32(h6 f4)
h2 nvvm.mma.m16n8k16.row.col.f16.f16(h8)
f4 nvvm.mma.m16n8k16.row.col.bf16(i6 f4)
f4 nvvm.mma.m16n8k8.row.col.bf16(i3 f4)
f4 nvvm.mma.m16n8k8.row.col.tf32(i6 f4)
f4 nvvm.mma.m16n8k4.row.col.tf32(i3 f4)
d2 nvvm.mma.m8n8k4.row.col.f64(d4)
i4 nvvm.mma.m16n8k32.row.col.s8(i10)
i4 nvvm.mma.m16n8k16.row.col.u8(i7)
i32 nvvm.f2tf32.rna(float)
bfloat nvvm.f2bf16.rn(float)
<2 x bfloat> nvvm.ff2bf16x2.rn(float, float)
<2 x half> nvvm.ff2f16x2.rn(float, float)
i32 nvvm.redux.sync.add(i32, i32=-1)
i32 nvvm.redux.sync.umax(i32, i32=-1)
void nvvm.mbarrier.init.shared(p3, i32)
void nvvm.mbarrier.inval.shared(p3)
i64 nvvm.mbarrier.arrive.shared(p3)
i1 nvvm.mbarrier.test.wait.shared(p3, i64)
i1 nvvm.mbarrier.test.wait.parity.scope.cta.space.cta(p3, i32)
f4 nvvm.mma.m16n8k32.row.col.f32.e4m3.e4m3.f32(i6 f4)
i32 nvvm.read.ptx.sreg.clusterid.x()
i32 nvvm.read.ptx.sreg.cluster.ctarank()
i32 nvvm.read.ptx.sreg.cluster.ctaid.x()
p7 nvvm.mapa.shared.cluster(p3, i32)
void nvvm.stmatrix.sync.aligned.m8n8.x4.b16.p3(p3, i4)
i1 nvvm.mbarrier.try.wait.parity.scope.cta.space.cta(p3, i32)
void nvvm.fence.sc.cluster()
void nvvm.griddepcontrol.wait()
void nvvm.griddepcontrol.launch.dependents()
void nvvm.barrier.cluster.arrive.aligned()
i64 nvvm.mbarrier.arrive.scope.cta.space.cta(p3, i32)
i64 nvvm.mbarrier.arrive.expect.tx.scope.cta.space.cta(p3, i32)
{i32,i1} nvvm.elect.sync(i32=-1)
void nvvm.fence.mbarrier_init.release.cluster()
void nvvm.fence.proxy.async()
void nvvm.fence.proxy.async.shared_cta()
void nvvm.fence.proxy.async.global()
void nvvm.cp.async.bulk.tensor.g2s.tile.1d(p7, p3, p0, i32, i16, i64, i1=false, i1=false, i32=0)
void nvvm.cp.async.bulk.tensor.g2s.tile.2d(p7, p3, p0, i2, i16, i64, i1=false, i1=false, i32=0)
void nvvm.cp.async.bulk.tensor.g2s.tile.5d(p7, p3, p0, i5, i16, i64, i1=false, i1=false, i32=0)
void nvvm.cp.async.bulk.tensor.s2g.tile.2d(p3, p0, i2, i64, i1=false)
void nvvm.cp.async.bulk.tensor.reduce.add.tile.2d(p3, p0, i2, i64, i1=false)
void nvvm.cp.async.bulk.commit.group()
void nvvm.cp.async.bulk.wait.group(i32=0)
void nvvm.cp.async.bulk.wait.group.read(i32=0)
void nvvm.cp.async.bulk.global.to.shared.cluster(p7, p3, p1, i32, i16, i64, i1=false, i1=false)
void nvvm.cp.async.bulk.shared.cta.to.global(p1, p3, i32, i64, i1=false)
void nvvm.prefetch.tensormap.p0(p0)
void nvvm.cp.async.bulk.tensor.g2s.cta.tile.2d(p3, p3, p0, i2, i64, i1=false)
void nvvm.wgmma.fence.sync.aligned()
void nvvm.wgmma.commit_group.sync.aligned()
void nvvm.wgmma.wait_group.sync.aligned(i64=0)
void nvvm.setmaxnreg.dec.sync.aligned.u32(i32=40)
"""
"""A result, a name, arguments. h, f, i and d with a count of 16 or less are so many <2 x half>,
float, i32 or double, p and a number a pointer, and what follows ``=`` a constant.
"""

MANY = {"h": "<2 x half>", "f": "float", "i": "i32", "d": "double"}
POINTERS = {"p0": "ptr %generic", "p1": "ptr addrspace(1) %a", "p3": "ptr addrspace(3) @s",
            "p7": "ptr addrspace(7) %cluster"}
LINE = re.compile(r"(?P<result>\S+|<.*?>) (?P<name>nvvm[\w.]+)\((?P<arguments>.*)\)")
CALLS = {m["name"]: m for m in map(LINE.fullmatch, SIGNATURES.strip().splitlines()) if m}


def types(word: str) -> list[str]:
    """The types that a word stands for."""
    count = word[1:]
    if word[0] in MANY and count.isdigit() and int(count) <= 16 and word not in ("i1", "i16"):
        return [MANY[word[0]]] * int(count)
    return [POINTERS[word].rsplit(" ", 1)[0] if word in POINTERS else word]


def kernel(name: str) -> str:
    """A module whose kernel calls an intrinsic on numbers from memory and stores the result."""
    result = types(CALLS[name]["result"])
    returned = result[0] if len(result) == 1 else "{ " + ", ".join(result) + " }"
    declared, passed, loads = [], [], []
    for word in re.split(r"[ ,]+(?!x )(?!half)(?!bfloat)", CALLS[name]["arguments"]):
        type_, _, constant = word.partition("=")
        for one in types(type_) if word else ():
            declared.append(one)
            if constant:
                passed.append(f"{one} {constant}")
            elif word in POINTERS:
                passed.append(POINTERS[word])
            else:
                k = len(loads)
                loads.append(f"  %p{k} = getelementptr i64, ptr addrspace(1) %a, i64 {k}\n"
                             f"  %v{k} = load {one}, ptr addrspace(1) %p{k}")
                passed.append(f"{one} %v{k}")
    call = f"call {returned} @llvm.{name}({', '.join(passed)})"
    stored = f"  %r = {call}\n  store {returned} %r, ptr addrspace(1) %a"
    return module(
        f"declare {returned} @llvm.{name}({', '.join(declared)})", *loads,
        f"  {call}" if returned == "void" else stored,
    )


def module(declaration: str, *body: str) -> str:
    """A kernel over global memory ``%a`` and shared memory ``@s``."""
    return "\n".join((
        "@s = internal addrspace(3) global [512 x i64] undef, align 128", declaration,
        "define ptx_kernel void @k(ptr addrspace(1) %a) {",
        "  %cluster = addrspacecast ptr addrspace(3) @s to ptr addrspace(7)",
        "  %generic = addrspacecast ptr addrspace(1) %a to ptr",
        "  %f = load float, ptr addrspace(1) %a",
        *body, "  ret void", "}", "",
    ))


ASSEMBLY = {
    "tanh.approx.f32":
        '  %r = call float asm "tanh.approx.f32 $0, $1;", "=f,f"(float %f)\n'
        "  store float %r, ptr addrspace(1) %a",
    "st.global.cs.f32":
        '  call void asm sideeffect "st.global.cs.f32 [$0], $1;", "l,f,~{memory}"'
        "(ptr addrspace(1) %a, float %f)",
    "red.global.add.f64":
        "  %d = fpext float %f to double\n"
        '  call void asm sideeffect "red.global.add.f64 [$0], $1;", "l,d,~{memory}"'
        "(ptr addrspace(1) %a, double %d)",
    "ld.global.nc.L1::no_allocate.L2::256B.f32":
        '  %r = call float asm "ld.global.nc.L1::no_allocate.L2::256B.f32 $0, [$1];", "=f,l"'
        "(ptr addrspace(1) %a)\n  store float %r, ptr addrspace(1) %a",
    "createpolicy.fractional.L2::evict_first.b64":
        '  %r = call i64 asm "createpolicy.fractional.L2::evict_first.b64 $0, 1.0;", "=l"()\n'
        "  store i64 %r, ptr addrspace(1) %a",
    "red.relaxed.gpu.global.add.f32":
        '  call void asm sideeffect "red.relaxed.gpu.global.add.f32 [$0], $1;", "l,f,~{memory}"'
        "(ptr addrspace(1) %a, float %f)",
    "red.relaxed.gpu.global.add.v4.f32":
        '  call void asm sideeffect "red.relaxed.gpu.global.add.v4.f32 [$0], {$1,$1,$1,$1};", '
        '"l,f,~{memory}"(ptr addrspace(1) %a, float %f)',
    "red.relaxed.gpu.global.add.noftz.bf16x2":
        '  call void asm sideeffect "red.relaxed.gpu.global.add.noftz.bf16x2 [$0], $1;", '
        '"l,r,~{memory}"(ptr addrspace(1) %a, i32 0)',
    "wgmma.fence.sync.aligned":
        '  call void asm sideeffect "{\\0A.reg .pred p;\\0Asetp.ne.b32 p, $0, 0;\\0A'
        'wgmma.fence.sync.aligned;\\0A}", "r,~{memory}"(i32 1)',
}
"""Calls of inline assembly, by the instruction that decides."""
