"""The names of targets of the simulator: it runs code for any architecture."""

from __future__ import annotations

import functools

from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.compiler.target import Target
from tilewright.errors import UserError

SIMULATED = "sm_80"
"""What the simulator is taken for if nothing else is said."""


@functools.lru_cache(maxsize=64)
def named(name: str) -> Target:
    """The target of ``sim`` or ``sim:sm_90a``. Raises ``UserError`` for an unknown one."""
    device, _, rest = name.partition(":")
    if device != "sim":
        raise UserError(
            f"there is no GPU target '{name}'", expected="sim, sim:sm_80, cuda, cuda:1, pycuda",
            got=name)
    return gpu_target(rest or SIMULATED)
