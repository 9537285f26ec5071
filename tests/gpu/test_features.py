"""The tables of what LLVM selects, against LLVM and ptxas; refusals; the lowest version of PTX."""

from __future__ import annotations

import shutil

import calls
import pytest
from trial import trial

from tilewright.codegen.gpu import features
from tilewright.codegen.gpu.architectures import ARCHITECTURES, gpu_target
from tilewright.codegen.gpu.assembler import assemble
from tilewright.codegen.gpu.features import INTRINSICS, Row, least_ptx
from tilewright.codegen.gpu.ptx import ptx
from tilewright.errors import CompilerBug, Location, Unsupported

WORDS = [(row, word) for row in INTRINSICS for word in row.names.split()]
NEEDS_NO_CODE = "assume lifetime.{start,end}.p0"


def emitted(text: str, name: str) -> str:
    """PTX for an architecture; LLVM works in a process of its own."""
    target = gpu_target(name)
    result, said = trial(text, target, least_ptx(text, target))
    assert result is not None, said
    return result


def assembles(text: str, name: str) -> None:
    """ptxas takes what LLVM wrote, if there is one that knows the architecture."""
    result = emitted(text, name)
    if shutil.which("ptxas") and ARCHITECTURES[name].sm >= 75:
        assemble(result, name)


@pytest.mark.parametrize("name", calls.CALLS)
def test_intrinsics_assemble_at_their_least(name: str) -> None:
    use = features.intrinsic(name)
    assert use is not None
    result = emitted(calls.kernel(name), use.least)
    first = ARCHITECTURES[use.least].ptx
    assert f".version {max(use.ptx, first) / 10}" in result
    assembles(calls.kernel(name), use.least)


@pytest.mark.parametrize("row,word", WORDS, ids=[w for _, w in WORDS])
def test_every_word_has_an_example(row: Row, word: str) -> None:
    if word in NEEDS_NO_CODE:
        return
    patterns = list(Row(row.least, row.ptx, word).patterns())
    assert any(p.fullmatch(name) for p in patterns for name in calls.CALLS)


@pytest.mark.parametrize("name", calls.ASSEMBLY)
def test_assembly_assembles_at_its_least(name: str) -> None:
    use = features.instruction(name)
    assert use is not None
    assembles(calls.module("", calls.ASSEMBLY[name]), use.least)


GENERIC = [
    (name, arguments, element)
    for names, elements in ((features.FLOATS, ("f16", "bf16", "f32", "f64", "v2f32", "v4f64")),
                            (features.INTEGERS, ("i8", "i16", "i32", "i64", "v2i32", "i128")))
    for name in names.split() for element in elements
    for arguments in [3 if name.startswith(("fma", "fmul", "fsh")) else
                      2 if name[:3] in ("cop", "min", "max", "sma", "smi", "uma", "umi") or
                      name.endswith(".sat") else 1]
]
SCALARS = {"f16": "half", "bf16": "bfloat", "f32": "float", "f64": "double"}


def generic(name: str, arguments: int, element: str) -> str:
    """Lines that call a generic intrinsic, and its declaration."""
    lanes, scalar = (int(element[1]), element[2:]) if element[0] == "v" else (1, element)
    one = SCALARS.get(scalar, scalar)
    type_ = one if lanes == 1 else f"<{lanes} x {one}>"
    flag = name in ("ctlz", "cttz", "abs")
    passed = [f"{type_} %x"] * arguments + ["i1 false"] * flag
    declared = [type_] * arguments + ["i1"] * flag
    function = f"llvm.{name}.{element}"
    return calls.module(
        f"declare {type_} @{function}({', '.join(declared)})",
        f"  %x = load {type_}, ptr addrspace(1) %a",
        f"  %r = call {type_} @{function}({', '.join(passed)})",
        f"  store {type_} %r, ptr addrspace(1) %a",
    )


@pytest.mark.parametrize("name", ["sm_50", "sm_75", "sm_90a"])
def test_generic_intrinsics_need_no_function(name: str) -> None:
    """All of them in one module, a kernel each."""
    kernels = [
        generic(*case).replace("@k(", f"@k{k}(").replace("@s", f"@s{k}")
        for k, case in enumerate(GENERIC)
    ]
    text = emitted("\n".join(kernels), name)
    assert text.count(".entry k") == len(GENERIC)
    assert "call" not in text and ".extern .func" not in text


def test_some_intrinsics_end_the_process() -> None:
    """Why the tables are there: LLVM does not raise an exception for them."""
    text = calls.module(
        "declare float @llvm.log.f32(float)", "  %r = call float @llvm.log.f32(float %f)",
        "  store float %r, ptr addrspace(1) %a",
    )
    assert trial(text, gpu_target("sm_80"), 70)[0] is None
    with pytest.raises(Unsupported):
        ptx(text, gpu_target("sm_80"))


LOC = Location("train.py", 7, "loss")


def refusal(text: str, name: str, **known: int) -> str:
    with pytest.raises(Unsupported) as caught:
        ptx(text, gpu_target(name, **known), LOC)
    return str(caught.value)


def test_what_a_newer_architecture_has_is_refused() -> None:
    text = calls.kernel("nvvm.cp.async.commit.group")
    assert refusal(text, "sm_75") == (
        "sm_75 does not have llvm.nvvm.cp.async.commit.group\n"
        "  expected: sm_80 or newer\n"
        "  got:      sm_75\n"
        "  at:       train.py:7 in loss"
    )


def test_what_one_architecture_has_is_refused_elsewhere() -> None:
    text = calls.kernel("nvvm.wgmma.fence.sync.aligned")
    for name in ("sm_90", "sm_120"):
        assert refusal(text, name) == (
            f"{name} does not have llvm.nvvm.wgmma.fence.sync.aligned\n"
            "  expected: sm_90a\n"
            f"  got:      {name}\n"
            "  at:       train.py:7 in loss"
        )


def test_what_is_in_no_table_is_refused() -> None:
    text = calls.module(
        "declare double @llvm.sin.f64(double)", "  %r = call double @llvm.sin.f64(double 1.0)",
    )
    assert refusal(text, "sm_90a") == (
        "there is no code for llvm.sin.f64 on sm_90a\n"
        "  at:       train.py:7 in loss\n"
        "  hint:     it is not in the tables of tilewright/codegen/gpu/features.py"
    )


def test_an_old_driver_is_refused() -> None:
    text = calls.kernel("nvvm.mma.m16n8k32.row.col.f32.e4m3.e4m3.f32")
    assert refusal(text, "sm_89", ptx=80) == (
        "the driver is too old for llvm.nvvm.mma.m16n8k32.row.col.f32.e4m3.e4m3.f32\n"
        "  expected: one that reads PTX 8.4 (CUDA 12.4)\n"
        "  got:      PTX 8.0\n"
        "  at:       train.py:7 in loss"
    )


IMPOSSIBLE = {
    "  %l = fptosi float %f to i128": "a conversion between floats and 128-bit integers",
    "  %l = fpext float %f to fp128": "floats of more than 64 bits",
    "  %l = atomicrmw fadd ptr addrspace(1) %a, float %f seq_cst":
        "an ordered atomicrmw, whose order LLVM would drop,",
    "  %l = alloca i8, i64 %n": "an alloca whose size is not known",
    "  call void %function(float %f)": "a call through a pointer",
    '  call void asm sideeffect "vote.sync.any.pred p, q, -1;", ""()': "vote.sync.any.pred",
}


@pytest.mark.parametrize("line", IMPOSSIBLE)
def test_impossible_lines_are_refused(line: str) -> None:
    message = refusal(calls.module("", line), "sm_90a")
    assert message.splitlines()[0] == f"there is no code for {IMPOSSIBLE[line]} on sm_90a"


def test_ordered_loads_need_volta() -> None:
    line = '  %l = load atomic i32, ptr addrspace(1) %a syncscope("device") acquire, align 4'
    assert refusal(calls.module("", line), "sm_61").splitlines()[0] == (
        "sm_61 does not have an ordered load or store"
    )
    assert least_ptx(calls.module("", line), gpu_target("sm_70")) == 60


def test_functions_that_are_not_there_are_bugs() -> None:
    text = calls.module("declare void @expf()", "  call void @expf()")
    with pytest.raises(CompilerBug, match="calls expf, which the module does not define"):
        ptx(text, gpu_target("sm_80"))


@pytest.mark.parametrize("name,call,version", [
    ("sm_50", "nvvm.read.ptx.sreg.tid.x", 40), ("sm_50", "nvvm.shfl.sync.bfly.f32", 60),
    ("sm_75", "nvvm.shfl.sync.bfly.f32", 63),
    ("sm_75", "nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3", 65),
    ("sm_80", "nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3", 70),
    ("sm_90", "nvvm.cp.async.bulk.commit.group", 80),
    ("sm_90a", "nvvm.cp.async.bulk.tensor.g2s.cta.tile.2d", 86), ("sm_120", "nvvm.activemask", 87),
])
def test_the_lowest_version_is_chosen(name: str, call: str, version: int) -> None:
    text = calls.kernel(call)
    assert least_ptx(text, gpu_target(name)) == version
    assert f".version {version / 10}\n.target {name}\n" in emitted(text, name)
