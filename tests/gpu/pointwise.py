"""Kernels that apply one primitive to every element, without schedules or the Kernel language."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tilewright.codegen.builder import Builder, llvm_type
from tilewright.codegen.convert import from_memory, machine_of, memory, to_memory
from tilewright.codegen.spelling import spell
from tilewright.codegen.vecmath import MATH
from tilewright.compiler.target import Target
from tilewright.ir.types import DType, i64
from tilewright.ptxsim.simulator import Program, Simulator

BLOCK = 128


def pointwise(
    name: str, op: str, types: Sequence[DType], result: DType, target: Target, lanes: int = 1
) -> str:
    """LLVM IR of a kernel with a thread for each ``lanes`` elements; buffers, then the result."""
    b, machine = Builder(), machine_of(target)
    b.fused, b.contract = target.fma, target.contract
    b.declarations |= {f"declare i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in ("tid", "ctaid")}
    args = []
    for k, dtype in enumerate(types):
        kind = llvm_type(memory(dtype), lanes)
        loaded = b.define(memory(dtype), lanes,
                          f"load {kind}, ptr addrspace(1) {place(b, f'%a{k}', kind)}, align 1")
        args.append(from_memory(b, loaded, dtype, machine))
    value = spell(b, op, args, types, result, machine, MATH)
    stored = to_memory(b, value, result, machine)
    b.write(f"  store {stored.typed}, ptr addrspace(1) {place(b, '%out', stored.type)}, align 1")
    parameters = [f"ptr addrspace(1) %a{k}" for k in range(len(types))] + ["ptr addrspace(1) %out"]
    return "\n".join((
        *sorted(b.declarations),
        f"define ptx_kernel void @{name}({', '.join(parameters)}) {{",
        "  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()",
        "  %c = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()",
        f"  %first = mul i32 %c, {BLOCK}", "  %i = add i32 %first, %t",
        *b.lines, "  ret void", "}", "",
    ))


def place(b: Builder, buffer: str, kind: str) -> str:
    """The thread's place in a buffer."""
    return b.define(i64, 1, f"getelementptr {kind}, ptr addrspace(1) {buffer}, i32 %i").name


def joined(kernels: Sequence[str]) -> str:
    """One module of several; what they share is declared or defined once."""
    shared: dict[str, None] = {}
    own = []
    for text in kernels:
        head, _, kernel = text.partition("define ptx_kernel")
        own.append("define ptx_kernel" + kernel)
        shared |= dict.fromkeys(pieces(head))
    return "\n".join([*shared, *own])


def pieces(head: str) -> list[str]:
    """Declarations, constants and whole functions."""
    found: list[str] = []
    inside = False
    for line in head.splitlines():
        if inside:
            found[-1] += "\n" + line
        elif line:
            found.append(line)
        inside = line.startswith("define") or inside and line != "}"
        if line.startswith("@") and line.endswith("["):
            inside = True
        if inside and line.endswith("]") and found[-1].startswith("@"):
            inside = False
    return found


def run(
    text: str, name: str, arrays: Sequence[np.ndarray], result: DType, lanes: int = 1
) -> np.ndarray:
    """What a kernel of a PTX text makes of arrays, by the simulator."""
    simulator, program = loaded(text)
    step = BLOCK * lanes
    blocks = -(-arrays[0].size // step)
    padded = [np.resize(a, blocks * step) for a in arrays]
    memory = simulator.memory
    places = [memory.allocate(a.nbytes) for a in padded]
    for address, array in zip(places, padded, strict=True):
        memory.put(address, array)
    size = blocks * step * result.itemsize
    places.append(memory.allocate(size))
    simulator.launch(program, name, (blocks,), (BLOCK,), places)
    out = memory.get(places[-1], size).view(result.numpy)[: arrays[0].size].copy()
    for address in places:
        memory.free(address)
    return out


@functools.lru_cache(maxsize=8)
def loaded(text: str) -> tuple[Simulator, Program]:
    """A simulator with this text, which is parsed once."""
    simulator = Simulator()
    return simulator, simulator.load(text)
