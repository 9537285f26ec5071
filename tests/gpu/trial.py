"""LLVM in a process of its own, which it may end, and ptxas where there is one."""

from __future__ import annotations

import os

from tilewright.codegen.gpu.ptx import written
from tilewright.compiler.target import Target


def trial(text: str, target: Target, version: int) -> tuple[str | None, str]:
    """What LLVM writes of a module, None if it ended its process; what it said."""
    made, into = os.pipe()
    said, complaints = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(complaints, 1)
            os.dup2(complaints, 2)
            with os.fdopen(into, "w") as file:
                file.write(written(text, target, version))
            status = 0
        except BaseException as error:
            os.write(2, str(error).encode())
        finally:
            os._exit(status)
    os.close(into)
    os.close(complaints)
    with os.fdopen(made) as file:
        result = file.read()
    with os.fdopen(said) as file:
        complaint = file.read()
    _, status = os.waitpid(child, 0)
    return result if status == 0 else None, complaint
