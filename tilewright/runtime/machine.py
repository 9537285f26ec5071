"""Where LLVM IR text becomes callable addresses; the only file of the runtime that touches LLVM."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_ALIVE: list[Any] = []


def load(text: str, names: tuple[str, ...]) -> dict[str, int]:
    """Addresses of the named functions of a module of LLVM IR text, which calls nothing by name.

    The code stays in memory until the process ends: destructors of arrays run it, and these may
    outlive everything else when the interpreter exits.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    # The text is in SSA form and spells its own loads: level 0 gives nearly the same code and takes
    # a fifth of the time.
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0, jit=True)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _ALIVE.append((module, machine, engine))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    return {name: engine.get_function_address(name) for name in names}


def symbol(names: tuple[str, ...], libraries: tuple[str | None, ...] = (None,)) -> int:
    """The address of the first of these C functions that one of the libraries has, or 0."""
    for library in libraries:
        try:
            handle = ctypes.CDLL(library)
        except (OSError, TypeError):
            continue
        for name in names:
            function = getattr(handle, name, None)
            if function is not None:
                return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


LIBRARIES: tuple[str | None, ...] = (
    ("kernel32", "kernelbase", "api-ms-win-core-synch-l1-2-0", "ucrtbase", "msvcrt")
    if sys.platform == "win32" else (None,)
)
