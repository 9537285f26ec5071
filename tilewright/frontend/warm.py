"""The code generator is loaded in the background, from the first ``tw.jit`` on.

Loading LLVM takes longer than tracing and optimising a function. A program that marks its functions
goes on to read its data meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading

from tilewright.runtime.support import support

_lock = threading.Lock()


def begin() -> threading.Thread | None:
    """The thread that loads, once per process. ``None`` where no thread can be started."""
    with _lock:
        return _begin()


@functools.cache
def _begin() -> threading.Thread | None:
    loader = threading.Thread(target=_load, name="tilewright-load")
    try:
        loader.start()
    except RuntimeError:
        return None
    if hasattr(os, "register_at_fork"):
        # A child process has no such thread: it would wait for half-loaded modules for ever.
        os.register_at_fork(before=loader.join)
    return loader


def finish() -> None:
    """Wait until everything is loaded."""
    loader = begin()
    if loader is not None:
        loader.join()


def _load() -> None:
    """Do once, ahead of time, what the first compilation does."""
    # Whoever compiles meets the same error again, in a place where it can be told to the user.
    with contextlib.suppress(Exception):
        from tilewright.codegen import cpu, llvm

        llvm.heading(cpu.host_target())
        llvm.linker()
        support()
