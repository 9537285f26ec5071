"""What of LLVM IR becomes PTX, from which architecture and which version of PTX on.

LLVM ends the process over an intrinsic that it cannot select for an architecture. So a module is
looked through before LLVM sees it: what is not in these tables is refused. The tables follow the
PTX ISA ("PTX ISA Notes" and "Target ISA Notes" of each instruction); the tests emit and assemble
every row at its least architecture and version.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.codegen.gpu.architectures import architecture, driver_of_ptx, version_text, within
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug, Location, Unsupported, UserError


@dataclass(frozen=True)
class Row:
    """Instructions that come from one architecture (``sm_90a``: there alone) and PTX on.

    names  words; ``{a,b}`` stands for either, ``*`` for any further parts of a name
    """

    least: str
    ptx: int
    names: str

    def patterns(self) -> Iterator[re.Pattern[str]]:
        """What the words match, whole names only."""
        for word in self.names.split():
            text = re.escape(word).replace(r"\{", "(?:").replace(r"\}", ")").replace(",", "|")
            yield re.compile(text.replace(r"\*", r"[\w.:]*"))


INTRINSICS = (
    Row("sm_50", 40, """
        assume lifetime.{start,end}.p0 nvvm.read.ptx.sreg.{tid,ctaid,ntid,nctaid}.{x,y,z}
        nvvm.read.ptx.sreg.{laneid,warpid,smid,clock64,globaltimer} nvvm.membar.{cta,gl,sys}
        nvvm.barrier.cta.{sync,arrive}.aligned.{all,count}
        nvvm.barrier.cta.red.{and,or,popc}.aligned.all
        nvvm.{rsqrt,sqrt,sin,cos,lg2}.approx.f nvvm.{rsqrt,sqrt,sin,cos,lg2,rcp}.approx.ftz.f
        nvvm.ex2.approx.f32 nvvm.ex2.approx.ftz.f32 nvvm.div.approx.f nvvm.div.approx.ftz.f
        nvvm.div.full
    """),
    Row("sm_50", 60, """
        nvvm.bar.warp.sync nvvm.shfl.sync.{bfly,up,down,idx}.{f32,i32}
        nvvm.vote.{any,all,uni,ballot}.sync
    """),
    Row("sm_50", 62, "nvvm.activemask"),
    Row("sm_61", 50, "nvvm.idp4a.{s,u}.{s,u}"),
    Row("sm_70", 60, """
        nvvm.match.any.sync.{i32,i64}
        nvvm.wmma.m16n16k16.load.{a,b}.{row,col}.{f16,stride.f16}.{p1,p3}
        nvvm.wmma.m16n16k16.load.c.{row,col}.{f16,stride.f16,f32,stride.f32}.{p1,p3}
        nvvm.wmma.m16n16k16.store.d.{row,col}.{f16,stride.f16,f32,stride.f32}.{p1,p3}
        nvvm.wmma.m16n16k16.mma.{row,col}.{row,col}.{f16,f32}.{f16,f32}
    """),
    Row("sm_70", 63, "nvvm.nanosleep"),
    Row("sm_70", 64, "nvvm.mma.m8n8k4.{row,col}.{row,col}.f32.f32"),
    Row("sm_75", 65, """
        nvvm.ldmatrix.sync.aligned.m8n8.{x1,x2,x4}.{b16,trans.b16}.p3
        nvvm.mma.m16n8k8.row.col.{f32.f32,f16.f16} nvvm.mma.m8n8k16.row.col.{s8,u8}
    """),
    Row("sm_75", 70, "nvvm.tanh.approx.f32"),
    Row("sm_80", 70, """
        nvvm.cp.async.{cg.shared.global.16,ca.shared.global.4,ca.shared.global.8}
        nvvm.cp.async.{cg.shared.global.16,ca.shared.global.4,ca.shared.global.8}.s
        nvvm.cp.async.ca.shared.global.16 nvvm.cp.async.ca.shared.global.16.s
        nvvm.cp.async.commit.group nvvm.cp.async.wait.{group,all}
        nvvm.cp.async.mbarrier.arrive.noinc.shared
        nvvm.mma.m16n8k16.row.col.{f32.f32,f16.f16,bf16} nvvm.mma.m16n8k8.row.col.{bf16,tf32}
        nvvm.mma.m16n8k4.row.col.tf32 nvvm.mma.m8n8k4.row.col.f64
        nvvm.mma.{m16n8k16,m16n8k32}.row.col.{s8,u8}
        nvvm.f2tf32.rna nvvm.f2bf16.rn nvvm.{ff2bf16x2,ff2f16x2}.rn
        nvvm.redux.sync.{add,min,max,umin,umax,and,or,xor}
        nvvm.mbarrier.{init,inval,arrive,test.wait}.shared
    """),
    Row("sm_80", 71, "nvvm.mbarrier.test.wait.parity.scope.cta.space.cta"),
    Row("sm_89", 84, "nvvm.mma.m16n8k32.row.col.f32.{e4m3,e5m2}.{e4m3,e5m2}.f32"),
    Row("sm_90", 78, """
        nvvm.read.ptx.sreg.clusterid.{x,y,z} nvvm.read.ptx.sreg.cluster.{ctarank,nctarank}
        nvvm.read.ptx.sreg.cluster.ctaid.{x,y,z} nvvm.mapa.shared.cluster
        nvvm.stmatrix.sync.aligned.m8n8.{x1,x2,x4}.{b16,trans.b16}.p3
        nvvm.mbarrier.try.wait.parity.scope.cta.space.cta nvvm.fence.sc.cluster
        nvvm.griddepcontrol.{wait,launch.dependents} nvvm.barrier.cluster.{arrive,wait}.aligned
    """),
    Row("sm_90", 80, """
        nvvm.mbarrier.{arrive,arrive.expect.tx}.scope.cta.space.cta nvvm.elect.sync
        nvvm.fence.mbarrier_init.release.cluster
        nvvm.fence.proxy.async nvvm.fence.proxy.async.{shared_cta,global}
        nvvm.cp.async.bulk.tensor.g2s.tile.{1d,2d,3d,4d,5d}
        nvvm.cp.async.bulk.tensor.{s2g,reduce.add}.tile.{1d,2d,3d,4d,5d}
        nvvm.cp.async.bulk.commit.group nvvm.cp.async.bulk.{wait.group,wait.group.read}
        nvvm.cp.async.bulk.{global.to.shared.cluster,shared.cta.to.global}
        nvvm.prefetch.tensormap.p0
    """),
    Row("sm_90", 86, "nvvm.cp.async.bulk.tensor.g2s.cta.tile.{1d,2d,3d,4d,5d}"),
    Row("sm_90a", 80, """
        nvvm.wgmma.{fence,commit_group,wait_group}.sync.aligned
        nvvm.setmaxnreg.{inc,dec}.sync.aligned.u32
    """),
)
"""LLVM's intrinsics, without ``llvm.``; the generic ones are in :data:`GENERIC`."""

ELEMENT = r"(?:v\d+)?(?:i1|i8|i16|i32|i64|i128|f16|bf16|f32|f64)"
FLOATS = """fabs sqrt floor ceil trunc rint nearbyint roundeven round copysign fma fmuladd minnum
    maxnum minimum maximum"""
INTEGERS = """ctpop ctlz cttz bitreverse abs smax smin umax umin fshl fshr sadd.sat uadd.sat
    ssub.sat usub.sat"""

GENERIC = re.compile(
    "(?:" + "|".join(map(re.escape, f"{FLOATS} {INTEGERS}".split())) + rf")\.{ELEMENT}"
)
"""Generic intrinsics that are selected, or expanded, for every type and architecture."""

ASSEMBLY = (
    Row("sm_50", 40, """
        mov.* setp.* selp.* add.* sub.* and.* or.* xor.* shl.* shr.*
        cvta.* {ld,st}.{global,shared}.{b8,b16,b32,b64,u32,f32,f64}
        {ld,st}.{global,shared}.{v2,v4}.{b32,f32}
        {ld,st}.global.{cs,cg}.* {red,atom}.{global,shared}.{add,min,max}.{u32,s32,u64,f32}
    """),
    Row("sm_60", 50, "{red,atom}.{global,shared}.add.f64"),
    Row("sm_70", 60, "{red,atom}.{relaxed,acquire,release,acq_rel}.{cta,gpu,sys}.* fence.*"),
    Row("sm_75", 70, "tanh.approx.f32 ex2.approx.{f16,f16x2}"),
    Row("sm_80", 74, "ld.global.nc.L1::no_allocate.* ld.global.L2::cache_hint.* createpolicy.*"),
    Row("sm_90", 78, """
        red.relaxed.gpu.global.add.noftz.bf16x2 red.global.add.noftz.bf16x2
        {tanh,ex2}.approx.{bf16,bf16x2} {tanh,ex2}.approx.ftz.{bf16,bf16x2}
    """),
    Row("sm_90", 81, "red.relaxed.gpu.global.add.{v2,v4}.f32 red.global.add.{v2,v4}.f32"),
    Row("sm_90a", 80, "wgmma.{mma_async,fence,commit_group,wait_group}.sync.aligned*"),
)
"""Instructions inside of inline assembly. A name that several rows match takes the last of them."""

IMPOSSIBLE: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (("i128",), re.compile(
        r"\b[su]itofp (?:<\d+ x )?i128\b|\bfpto[su]i .* to (?:<\d+ x )?i128\b"),
     "a conversion between floats and 128-bit integers"),
    (("fp128", "x86_fp80"), re.compile(r"\b(?:fp128|x86_fp80|ppc_fp128)\b"),
     "floats of more than 64 bits"),
    (("atomicrmw",), re.compile(r"\batomicrmw .* (?:acquire|release|acq_rel|seq_cst)\b"),
     "an ordered atomicrmw, whose order LLVM would drop,"),
    (("alloca",), re.compile(r"= alloca [^,\n]+, i\d+ %\S+"), "an alloca whose size is not known"),
    (("invoke", "callbr", "landingpad", "indirectbr", "va_arg"), re.compile(
        r"^ *(?:%\S+ = )?(?:invoke|callbr|landingpad|indirectbr|va_arg)\b.*", re.M),
     "exceptions, indirect branches or variable arguments"),
    (("call",), re.compile(r"call(?<=\bcall)\b[^@\"\n(]* %[\w.]+\("), "a call through a pointer"),
)
"""LLVM IR that no architecture has code for, words of which it has one, and what it is.

Texts are long: words and patterns that begin with letters are found fast in them.
"""

ORDERED = re.compile(
    r"atomic(?:(?<=\bload atomic) .* acquire|(?<=\bstore atomic) .* release)\b")
"""Loads and stores that LLVM selects from sm_70 on."""


@dataclass(frozen=True)
class Use:
    """Something that a module asks for: its name, and from where on it is there."""

    name: str
    least: str
    ptx: int


_COMPILED = {
    id(table): [(pattern, row) for row in table for pattern in row.patterns()]
    for table in (INTRINSICS, ASSEMBLY)
}


@functools.cache
def intrinsic(name: str) -> Use | None:
    """The row of an intrinsic, given without ``llvm.``."""
    if GENERIC.fullmatch(name):
        return Use(f"llvm.{name}", "sm_50", 40)
    found = _row(INTRINSICS, name)
    return None if found is None else Use(f"llvm.{name}", found.least, found.ptx)


@functools.cache
def instruction(name: str) -> Use | None:
    """The row of an instruction of inline assembly."""
    found = _row(ASSEMBLY, name)
    return None if found is None else Use(name, found.least, found.ptx)


def _row(table: tuple[Row, ...], name: str) -> Row | None:
    rows = [row for pattern, row in _COMPILED[id(table)] if pattern.fullmatch(name)]
    return rows[-1] if rows else None


CALLED = re.compile(r"call(?<=\bcall)\b[^\"\n]*?@([\w.$-]+)\(")
INLINE = re.compile(r"asm(?<=\basm) (?:sideeffect )?\"([^\"]*)\"")
STATEMENT = re.compile(r"(?:@!?[%\w]+\s+)?([a-z][\w.:]*)")
DEFINED = re.compile(r"^define\b.*?@([\w.$-]+)\(", re.MULTILINE)


def instructions(text: str) -> Iterator[str]:
    """The names of the instructions in a string of inline assembly, as LLVM IR writes it."""
    plain = re.sub(r"\\([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text)
    for statement in re.split(r"[;\n]", plain):
        found = STATEMENT.match(statement.strip(" \t{}"))
        if found:
            yield found[1]


def uses(text: str, target: Target, loc: Location | None = None) -> Iterator[Use]:
    """All that a module asks for. Raises ``Unsupported`` for what GPUs do not have."""
    for words, pattern, what in IMPOSSIBLE:
        found = pattern.search(text) if any(word in text for word in words) else None
        if found:
            raise _unknown(what, target, loc, found[0])
    if ORDERED.search(text):
        yield Use("an ordered load or store", "sm_70", 60)
    for inline in INLINE.finditer(text):
        yield from (_known(n, instruction(n), target, loc) for n in instructions(inline[1]))
    defined = set(DEFINED.findall(text))
    for name in dict.fromkeys(CALLED.findall(text)):
        if name.startswith("llvm."):
            yield _known(name, intrinsic(name.removeprefix("llvm.")), target, loc)
        elif name not in defined:
            raise CompilerBug(f"code for a GPU calls {name}, which the module does not define")


def _known(name: str, use: Use | None, target: Target, loc: Location | None) -> Use:
    if use is None:
        raise _unknown(name, target, loc, None)
    return use


def _unknown(what: str, target: Target, loc: Location | None, line: str | None) -> UserError:
    return Unsupported(
        f"there is no code for {what} on {target.name}", got=line and line.strip(), loc=loc,
        hint="it is not in the tables of tilewright/codegen/gpu/features.py",
    )


def least_ptx(text: str, target: Target, loc: Location | None = None) -> int:
    """The lowest version of PTX that has all that a module of LLVM IR asks for: 70 for 7.0.

    loc  the user's line that the module is for, for messages

    Raises ``Unsupported`` for what the target's architecture lacks, or a version that its driver
    does not read, and ``CompilerBug`` for calls of functions that are not there.
    """
    if target.gpu is None:
        raise CompilerBug(f"{target.name} is no GPU")
    here = architecture(target.gpu.architecture)
    lowest = here.ptx
    for use in uses(text, target, loc):
        if not within(here, use.least):
            alone = use.least.endswith("a")
            raise Unsupported(
                f"{here.name} does not have {use.name}",
                expected=use.least if alone else f"{use.least} or newer", got=here.name, loc=loc,
            )
        if use.ptx > target.gpu.ptx:
            raise Unsupported(
                f"the driver is too old for {use.name}",
                expected=f"one that reads PTX {version_text(use.ptx)} "
                         f"(CUDA {driver_of_ptx(use.ptx)})",
                got=f"PTX {version_text(target.gpu.ptx)}", loc=loc,
            )
        lowest = max(lowest, use.ptx)
    return lowest
