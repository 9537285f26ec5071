"""The runtime's machine code: the shorthand, and that every platform's text assembles."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from tilewright.runtime.native_match import PLACES
from tilewright.runtime.native_prepare import PLACES as CALL_PLACES
from tilewright.runtime.native_text import expand
from tilewright.runtime.support import FUNCTIONS, native_source


@pytest.mark.parametrize("line, expected", [
    ("  %x = at %p NAME", ["%x = getelementptr i64, ptr %p, i64 5"]),
    ("  %x = at %p %i", ["%x = getelementptr i64, ptr %p, i64 %i"]),
    ("  %x = word i32 %p 3",
     ["%s0 = getelementptr i64, ptr %p, i64 3", "%x = load i32, ptr %s0, align 8"]),
    ("  put ptr null %p NAME",
     ["%s0 = getelementptr i64, ptr %p, i64 5", "store ptr null, ptr %s0, align 8"]),
    ("  capi void %p NAME(ptr %a)",
     ["%s0 = getelementptr i64, ptr %p, i64 5", "%s0f = load ptr, ptr %s0, align 8",
      "call void %s0f(ptr %a)"]),
    ("  %r = capi i32 %p NAME()",
     ["%s0 = getelementptr i64, ptr %p, i64 5", "%s0f = load ptr, ptr %s0, align 8",
      "%r = call i32 %s0f()"]),
    ("  ret void", ["ret void"]),
])
def test_shorthand(line: str, expected: list[str]) -> None:
    assert [made.strip() for made in expand(line, {"NAME": 5}).splitlines()] == expected


def test_an_unknown_place() -> None:
    with pytest.raises(KeyError, match="NOWHERE"):
        expand("  %x = at %p NOWHERE", {"NAME": 5})


def test_a_name_means_one_place() -> None:
    both = PLACES.keys() & CALL_PLACES.keys()
    assert both == set()


@pytest.mark.parametrize("system, machine, triple", [
    ("linux", "x86_64", "x86_64-unknown-linux-gnu"),
    ("linux", "aarch64", "aarch64-unknown-linux-gnu"),
    ("linux", "riscv64", "riscv64-unknown-linux-gnu"),
    ("darwin", "arm64", "arm64-apple-macosx"),
    ("darwin", "x86_64", "x86_64-apple-macosx"),
    ("win32", "AMD64", "x86_64-pc-windows-msvc"),
    ("freebsd14", "amd64", "x86_64-unknown-freebsd"),
])
def test_every_platform_assembles(system: str, machine: str, triple: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(native_source(system, machine))
    module.triple = triple
    module.verify()
    defined = {f.name for f in module.functions if not f.is_declaration}
    assert set(FUNCTIONS) <= defined
    assert [f.name for f in module.functions if f.is_declaration and f.name[:5] != "llvm."] == []
    target = llvm.Target.from_triple(triple).create_target_machine(opt=0)
    assert len(target.emit_object(module)) > 1000
