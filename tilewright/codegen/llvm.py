"""A thin layer over llvmlite: text in, machine code or assembly out.

Import this module only where code is generated: llvmlite takes long to load.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
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
        binding.get_process_triple(),
        binding.get_host_cpu_name(),
        frozenset(name for name, on in features.items() if on),
    )


def placed_together(triple: str) -> bool:
    """Whether the linker puts all parts of an object close to each other; Windows' does not."""
    return "windows" not in triple


def version() -> str:
    """LLVM's version."""
    return ".".join(map(str, binding.llvm_version_info))


@functools.lru_cache(maxsize=16)
def target_machine(target: Target, rough: bool = False) -> Any:
    """LLVM's machine for a target, its code generator made ready: best code, at any address.

    With ``rough``, any code, quickly.
    """
    if target.triple == binding.get_process_triple():
        initialize()
    else:
        initialize_all()
    return binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=0 if rough else 3,
        reloc="pic",
        codemodel="default" if placed_together(target.triple) else "large",
    )


@functools.lru_cache(maxsize=16)
def heading(target: Target) -> str:
    """The lines of a module that say what it is for."""
    layout = target_machine(target).target_data
    return f'target datalayout = "{layout}"\ntarget triple = "{target.triple}"\n'


@functools.cache
def linker() -> Any:
    """What places object code in this process' memory, one block per object."""
    triple, cpu, _ = host()
    found = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, jit=True)
    return binding.create_lljit_compiler(found, use_jit_link=placed_together(triple))


def parse(text: str, verify: bool = True) -> Any:
    """The module that the text describes. Raises ``CompilerBug`` if LLVM does not accept it."""
    try:
        module = binding.parse_assembly(text)
        if verify:
            module.verify()
    except RuntimeError as error:
        raise CompilerBug(f"LLVM does not accept the emitted code: {error}") from error
    return module


_switches = threading.Lock()
"""Held while code is made, so that the switches are those of one thread."""


STRENGTH = "disable-lsr"
"""LLVM does not look for cheaper induction variables, which takes it a third of its time."""

JOINING = "disable-nvptx-load-store-vectorizer"
"""LLVM does not make one access of neighbouring ones: it reads beyond them, to whole vectors."""

SINKING = "disable-machine-sink"
"""LLVM does not move sums into the branches that store them: their operands would wait there."""


@contextlib.contextmanager
def switched(*names: str) -> Iterator[None]:
    """Some of LLVM's switches are on.

    They belong to the process, in which others may use LLVM as well: they are set back.
    """
    with _switches:
        for name in names:
            binding.set_option("tilewright", f"-{name}=true")
        try:
            yield
        finally:
            for name in names:
                binding.set_option("tilewright", f"-{name}=false")


_numbers = itertools.count()


class Code:
    """Object files linked into memory; they live as long as this object.

    ``exported`` are the functions whose addresses are wanted, ``imported`` the addresses of
    functions that the code calls and this process' libraries do not have.
    """

    def __init__(
        self,
        images: Iterable[bytes],
        exported: Iterable[str],
        imported: Mapping[str, int] | None = None,
    ) -> None:
        library = binding.JITLibraryBuilder().add_current_process()
        for image in images:
            library.add_object_img(image)
        self.names = tuple(exported)
        for name in self.names:
            library.export_symbol(name)
        for name, address in (imported or {}).items():
            library.import_symbol(name, address)
        try:
            self._tracker = library.link(linker(), f"tilewright{next(_numbers)}")
        except RuntimeError as error:
            raise CompilerBug(f"object code cannot be linked: {error}") from error

    def address(self, name: str) -> int:
        """The address of an exported function."""
        found: int = self._tracker[name]
        return found


def assembly(text: str, target: Target) -> str:
    """The target's assembly of a module."""
    result: str = target_machine(target).emit_assembly(parse(heading(target) + text))
    return result


def object_code(
    text: str, target: Target, verify: bool = False, quick: bool = False, rough: bool = False
) -> bytes:
    """A relocatable object file of a module; ``quick``: without :data:`STRENGTH`, ``rough`` as in
    :func:`target_machine`.

    Another thread that runs Python meanwhile delays every call of LLVM: there are few.
    """
    module = parse(heading(target) + text, verify)
    with switched(STRENGTH) if quick else switched():
        result: bytes = target_machine(target, rough).emit_object(module)
    return result
