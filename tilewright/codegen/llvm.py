"""A thin layer over llvmlite: text in, machine code or assembly out.

Import this module only where code is generated: llvmlite takes long to load.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as binding

from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug


@functools.cache
def initialize() -> None:
    """Make the host's code generator ready."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@functools.cache
def initialize_all() -> None:
    """Make the code generators of all targets ready."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def host() -> tuple[str, str, frozenset[str]]:
    """The triple, the CPU name and the feature names of this machine."""
    initialize()
    features = binding.get_host_cpu_features()
    return (
        binding.get_process_triple(), binding.get_host_cpu_name(),
        frozenset(name for name, on in features.items() if on),
    )


@functools.lru_cache(maxsize=16)
def machine(triple: str, cpu: str, features: str) -> Any:
    """LLVM's target machine, at the highest level of code generation."""
    found = binding.Target.from_triple(triple)
    return found.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default")


def target_machine(target: Target, jit: bool = False) -> Any:
    if target.triple == binding.get_process_triple():
        initialize()
    else:
        initialize_all()
    if not jit:
        return machine(target.triple, target.cpu, target.features)
    # An execution engine takes its machine over, so each gets one of its own.
    found = binding.Target.from_triple(target.triple)
    return found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, codemodel="jitdefault", jit=True
    )


def parse(text: str, verify: bool = True) -> Any:
    """The module that the text describes. Raises ``CompilerBug`` if LLVM does not accept it."""
    try:
        module = binding.parse_assembly(text)
        if verify:
            module.verify()
    except RuntimeError as error:
        raise CompilerBug(f"LLVM does not accept the emitted code: {error}") from error
    return module


def prepared(text: str, target: Target, verify: bool = True) -> Any:
    """A module for a target."""
    module = parse(text, verify)
    module.triple = target.triple
    module.data_layout = str(target_machine(target).target_data)
    return module


class Code:
    """Machine code in memory; it lives as long as this object."""

    def __init__(self, text: str, target: Target, verify: bool = False) -> None:
        initialize()
        module = parse(text, verify)
        module.triple = target.triple
        self._engine = binding.create_mcjit_compiler(module, target_machine(target, jit=True))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """The address of a function."""
        found: int = self._engine.get_function_address(name)
        if not found:
            raise CompilerBug(f"the compiled module has no function {name}")
        return found


def assembly(text: str, target: Target) -> str:
    """The target's assembly of a module."""
    result: str = target_machine(target).emit_assembly(prepared(text, target))
    return result


def object_code(text: str, target: Target) -> bytes:
    """A relocatable object file of a module."""
    result: bytes = target_machine(target).emit_object(prepared(text, target))
    return result
