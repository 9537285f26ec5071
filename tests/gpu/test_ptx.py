"""LLVM IR to PTX, and what ptxas says of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import calls
import pytest
from opcodes import count, opcodes

from tilewright import config
from tilewright.codegen.gpu import assembler
from tilewright.codegen.gpu import ptx as module
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.assembler import Report, Warned, assemble, disassemble
from tilewright.codegen.gpu.ptx import ptx
from tilewright.errors import CompilerBug, UserError

needs_ptxas = pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")

AXPY = """
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
define internal float @f(float %x, float %y) noinline {
  %p = fmul contract float %x, 2.0
  %s = fadd contract float %p, %y
  ret float %s
}
define ptx_kernel void @axpy(ptr addrspace(1) %a) "nvvm.reqntid"="32,1,1" {
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %p = getelementptr float, ptr addrspace(1) %a, i32 %t
  %x = load float, ptr addrspace(1) %p
  %y = call float @f(float %x, float 1.0)
  store float %y, ptr addrspace(1) %p
  ret void
}
"""


def test_functions_are_written_into_their_callers() -> None:
    text = ptx(AXPY, gpu_target("sm_75"))
    assert ".func" not in text and ".reqntid 32" in text
    found = opcodes(text)["axpy"]
    assert count(found, "ld.global") == count(found, "st.global") == found["fma.rn.f32"] == 1
    assert count(found, "call", "mul.rn", "add.rn") == 0 and found["ret"] == 1


def test_what_is_not_marked_is_not_fused() -> None:
    found = opcodes(ptx(AXPY.replace(" contract", ""), gpu_target("sm_75")))["axpy"]
    assert (found["fma.rn.f32"], found["add.rn.f32"]) == (0, 2)  # x + x, as 2 x is


def test_opcodes_of_several_kernels() -> None:
    text = """
.visible .entry a(
\t.param .u64 .ptr .global .align 1 a_param_0
)
{
\t.reg .pred \t%p<2>;
\tld.param.b64 \t%rd1, [a_param_0];
$L__BB0_1:
\t@!%p1 bra \t$L__BB0_1;
\tmma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r1}, {%r2}, {%r3};
\tld.global.nc.L1::no_allocate.v4.f32 {%f1}, [%rd1];
\tret;
}
.entry b()
{
\tret;
}
"""
    assert opcodes(text) == {
        "a": {"ld.param.b64": 1, "bra": 1, "ret": 1, "ld.global.nc.L1::no_allocate.v4.f32": 1,
              "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32": 1},
        "b": {"ret": 1},
    }
    assert count(opcodes(text)["a"], "mma.sync", "ld.global") == 2


def test_text_is_written_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with config.override(cache=str(tmp_path)):
        first = ptx(AXPY, gpu_target("sm_86"))
        monkeypatch.setattr(module, "_written", {})
        monkeypatch.setattr(module, "written", None)
        assert ptx(AXPY, gpu_target("sm_86")) == first  # from the disk
        with pytest.raises(TypeError):
            ptx(AXPY, gpu_target("sm_80"))


def test_text_that_llvm_does_not_accept_is_a_bug() -> None:
    with pytest.raises(CompilerBug, match="does not accept"):
        ptx("define ptx_kernel void @k() { nothing }", gpu_target("sm_80"))


@needs_ptxas
def test_reports() -> None:
    shared = calls.kernel("nvvm.cp.async.cg.shared.global.16")
    found = assemble(ptx(AXPY + shared, gpu_target("sm_80")), "sm_80")
    assert found.cubin[:4] == b"\x7fELF" and found.warnings == ()
    assert set(found.reports) == {"axpy", "k"}
    axpy, copy = found.reports["axpy"], found.reports["k"]
    assert 4 <= axpy.registers <= 32 and axpy.shared == axpy.stack == axpy.spill_stores == 0
    assert copy.shared == 4096 and not found.serialised


@needs_ptxas
def test_ptx_that_ptxas_does_not_accept_is_a_bug() -> None:
    with pytest.raises(CompilerBug, match="ptxas does not accept the PTX"):
        assemble(".version 7.0\n.target sm_80\nnothing\n", "sm_80")


@needs_ptxas
def test_architecture_that_ptxas_does_not_know() -> None:
    with pytest.raises(UserError, match="this ptxas does not know sm_30"):
        assemble(ptx(AXPY, gpu_target("sm_80")), "sm_30")


SAID = """\
ptxas info    : (C7519) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90a'
ptxas info    : Function properties for one
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 168 registers, used 3 barriers, 16 bytes cumulative stack size, 1024 bytes smem
ptxas warning : (C7508) Potential Performance Loss: 'setmaxnreg' ignored to maintain compatibility
ptxas /tmp/k.ptx, line 3; warning : something else
ptxas info    : Compiling entry function 'two' for 'sm_90a'
ptxas info    : Used 10 registers, used 0 barriers
"""


def test_what_ptxas_says() -> None:
    assert assembler.reports(SAID) == {
        "one": Report("one", 168, 1024, 16, 8, 12), "two": Report("two", 10),
    }
    found = assembler.warnings(SAID)
    assert [w.number for w in found] == ["C7519", "C7508", ""]
    assert found[2] == Warned("", "something else")
    code = assembler.Assembled(b"", {}, found)
    assert code.serialised and code.ignores_setmaxnreg


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "cuda_tool", lambda name: None)
    with pytest.raises(UserError) as caught:
        assemble("", "sm_80")
    assert str(caught.value) == (
        "ptxas is not installed\n"
        "  expected: it on PATH, or in the folder bin of CUDA_HOME\n"
        "  hint:     install the CUDA toolkit, or: pip install nvidia-cuda-nvcc"
    )
    with pytest.raises(UserError, match="nvdisasm or cuobjdump is not installed"):
        disassemble(b"")


def test_tools_of_a_toolkit_that_is_not_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "ptxas"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv("CUDA_HOME", raising=False)
        assert config.cuda_tool("ptxas") is None
        monkeypatch.setenv(variable, str(tmp_path))
        assert config.cuda_tool("ptxas") == program
        monkeypatch.delenv(variable)


def test_disassembly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whichever disassembler there is gets the file; its failure is an error."""
    program = tmp_path / "nvdisasm"
    program.write_text('#!/bin/sh\necho "$1"; cat "$2"\n')
    program.chmod(0o755)
    monkeypatch.setattr(config, "cuda_tool", lambda name: program)
    assert disassemble(b"code") == "-c\ncode"
    program.write_text("#!/bin/sh\necho broken; exit 2\n")
    with pytest.raises(CompilerBug, match="nvdisasm does not accept the cubin: broken"):
        disassemble(b"code")
