"""Kernels for blocks of threads: their text as PTX, and run by the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.emit import Entry, emit_entry, phases
from tilewright.codegen.gpu.program import Step, step_of
from tilewright.codegen.gpu.ptx import ptx
from tilewright.compiler.plan import Launch
from tilewright.ir.text import parse
from tilewright.ptxsim.simulator import Simulator
from tilewright.ptxsim.tensormap import record
from tilewright.runtime.gpu.executable import tensor_map

TEAM = 17


def entries(text: str, architecture: str = "sm_80") -> list[Entry]:
    """The entries of a kernel in text."""
    return [emit_entry(p, gpu_target(architecture)) for p in phases(parse(text))]


def module(found: Sequence[Entry], architecture: str = "sm_80") -> str:
    """The PTX of entries."""
    declarations = sorted(frozenset().union(*(e.declarations for e in found)))
    return ptx("\n".join([*declarations, *(e.text for e in found)]), gpu_target(architecture))


def compiled(text: str, architecture: str = "sm_80") -> str:
    """The PTX of a kernel in text."""
    return module(entries(text, architecture), architecture)


def launched(entry: Entry, number: int = 0) -> Step:
    """The run of an entry whose sizes have the names of the kernel's."""
    return step_of(entry, number, Launch(
        entry.kernel, (), False, sizes=tuple(var.name for var in entry.kernel.sizes)))


def run(
    text: str, arrays: Sequence[np.ndarray], architecture: str = "sm_80",
    simulator: Simulator | None = None, **sizes: int,
) -> list[np.ndarray]:
    """What a kernel leaves in the arrays of its parameters, which stay as they are."""
    found = entries(text, architecture)
    simulator = simulator or Simulator()
    memory, program = simulator.memory, simulator.load(module(found, architecture))
    places = [memory.allocate(max(1, a.nbytes)) for a in arrays]
    for place, array in zip(places, arrays, strict=True):
        memory.put(place, array.reshape(-1).view(np.uint8))
    team, scratch = memory.allocate(8 * TEAM), memory.allocate(1 << 21)
    memory.put(team, np.zeros(8 * TEAM, np.uint8))
    for n, e in enumerate(found):
        step = launched(e, n)
        blocks = step.blocks(sizes)
        if blocks:
            maps = [record(tensor_map(m, places[m.buffer])) for m in step.matrices(sizes)]
            arguments: tuple[Any, ...] = (*places, *sizes.values(), scratch, team, *maps)
            simulator.launch(program, e.name, (blocks,), (e.threads,), arguments, e.shared)
    code = memory.get(team, 8 * TEAM).view(np.int64)[TEAM - 1]
    assert not code, f"a check failed: {code}"
    return [memory.get(p, a.nbytes).view(a.dtype).copy().reshape(a.shape)
            for p, a in zip(places, arrays, strict=True)]
