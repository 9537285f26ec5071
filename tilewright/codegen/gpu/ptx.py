"""LLVM IR text to PTX text.

A GPU has no cheap calls: the module's internal functions are written into their callers. Vectors
are ours, in memory too, so LLVM's own vectorisers stay off; it unrolls, hoists and shares.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tilewright.cache import Entry, cache, key_of
from tilewright.codegen.gpu.features import least_ptx
from tilewright.compiler.target import Target
from tilewright.errors import Location

INTERNAL = re.compile(r"^(define internal .*\)) (?:noinline )?\{$", re.MULTILINE)

_written: dict[str, str] = {}
"""What this process has written, by key."""


def ptx(text: str, target: Target, loc: Location | None = None) -> str:
    """The PTX of a module, in the lowest version that has what the module asks for.

    text  LLVM IR without the lines that name the target
    loc   the user's line that the module is for, for messages

    Raises ``Unsupported`` for what the architecture or the driver lacks, before LLVM is asked, and
    ``CompilerBug`` if LLVM does not accept the module.
    """
    return ptx_of(ptx_key(text, target, loc), text, target, loc)


def ptx_key(text: str, target: Target, loc: Location | None = None) -> str:
    """Under which the disk cache has what :func:`ptx` makes of these arguments. Raises as that."""
    from tilewright.codegen import llvm

    return key_of("ptx", text, target.cpu, str(least_ptx(text, target, loc)), llvm.version())


def ptx_of(key: str, text: str, target: Target, loc: Location | None = None) -> str:
    """As :func:`ptx`, for who knows the key."""
    found = kept(key)
    if found is None:
        version = least_ptx(text, target, loc)
        found = _written[key] = written(text, target, version)
        store = cache()
        if store is not None:
            facts = {"kind": "ptx", "target": target.name, "ptx": version}
            store.store(key, Entry(facts, (found.encode(),)))
    return found


def kept(key: str) -> str | None:
    """The PTX that was written under a key, by this process or another one."""
    found = _written.get(key)
    if found is None:
        store = cache()
        entry = store.load(key) if store is not None else None
        if entry is not None:
            found = _written[key] = entry.blobs[0].decode()
    return found


def written(text: str, target: Target, version: int) -> str:
    """The PTX of a module by LLVM, which ends the process over what it cannot select."""
    from llvmlite import binding

    from tilewright.codegen import llvm

    exact = replace(target, features=f"+ptx{version}")
    module = llvm.parse(llvm.heading(exact) + INTERNAL.sub(r"\1 alwaysinline {", text))
    machine = llvm.target_machine(exact)
    tuning = binding.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_interleaving = False
    builder = binding.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    with llvm.switched(llvm.JOINING, llvm.SINKING):
        result: str = machine.emit_assembly(module)
    return result
