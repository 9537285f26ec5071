"""NVIDIA's own tools, where they are installed: ptxas for what a kernel takes, and disassemblers.

Nothing needs them to run: the driver assembles PTX by itself.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tilewright import config
from tilewright.codegen.gpu.program import GpuProgram
from tilewright.compiler.cost import Resources
from tilewright.errors import CompilerBug, UserError

SERIALISED = "instructions are serialized"
"""What a warning says if wgmma instructions wait for each other; its number says more than that."""

IGNORED_REGISTERS = ("C7504", "C7508")
"""Warnings that say that setmaxnreg has no effect."""


@dataclass(frozen=True)
class Report:
    """What a kernel takes.

    registers     of a thread
    shared        bytes of a block, without what the launch adds
    stack         bytes of a thread's frame in local memory
    spill_stores  bytes that a thread stores because registers ran out
    spill_loads   bytes that it loads again
    """

    kernel: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0


@dataclass(frozen=True)
class Warned:
    """A warning of ptxas: its number (C7510; empty if it has none) and its text."""

    number: str
    text: str


@dataclass(frozen=True)
class Assembled:
    """Machine code of a PTX text.

    cubin     for the driver or a disassembler
    reports   by kernel
    warnings  of ptxas
    """

    cubin: bytes
    reports: dict[str, Report]
    warnings: tuple[Warned, ...]

    @property
    def serialised(self) -> bool:
        """Whether ptxas made wgmma instructions wait for each other."""
        return any(SERIALISED in w.text for w in self.warnings)

    @property
    def ignores_setmaxnreg(self) -> bool:
        """Whether ptxas ignored setmaxnreg."""
        return any(w.number in IGNORED_REGISTERS for w in self.warnings)


def tool(*names: str) -> Path:
    """The first of NVIDIA's tools that is installed. Raises ``UserError`` if none is."""
    for name in names:
        found = config.cuda_tool(name)
        if found is not None:
            return found
    raise UserError(
        f"{' or '.join(names)} is not installed",
        expected="it on PATH, or in the folder bin of CUDA_HOME",
        hint=f"install the CUDA toolkit, or: pip install nvidia-cuda-{PACKAGES[names[0]]}",
    )


PACKAGES = {"ptxas": "nvcc", "nvdisasm": "nvdisasm"}
"""The end of the name of the package that has a tool."""


def assemble(ptx: str, architecture: str) -> Assembled:
    """Machine code of a PTX text by ptxas.

    Raises ``UserError`` where there is no ptxas, or one that does not know the architecture, and
    ``CompilerBug`` if it does not accept the text.
    """
    program = tool("ptxas")
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
        source.write_text(ptx)
        said = _run([str(program), "-v", f"-arch={architecture}", "-o", str(result), str(source)])
        if said.returncode:
            if "is not defined for option 'gpu-name'" in said.stdout:
                raise UserError(
                    f"this ptxas does not know {architecture}", got=str(program),
                    hint="the driver assembles PTX for it all the same",
                )
            raise CompilerBug(f"ptxas does not accept the PTX: {said.stdout.strip()}")
        return Assembled(result.read_bytes(), reports(said.stdout), warnings(said.stdout))


def resources(program: GpuProgram, names: Sequence[str]) -> tuple[Resources, ...]:
    """What each part of a program's kernels takes, in order; `names` are those of its launches.

    Raises what :func:`assemble` raises.
    """
    if not program.text or program.target.gpu is None:
        return ()
    found = assemble(program.text, program.target.gpu.architecture).reports
    steps = {(names[step.launch], step.entry): step for step in program.steps}
    return tuple(
        Resources(name, step.threads, found[entry].registers,
                  max(found[entry].shared, step.shared), found[entry].spill_stores)
        for (name, entry), step in steps.items())


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )


STARTS = re.compile(r"(?:Compiling entry function|Function properties for) '?([\w.$]+)'?")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
WARNING = re.compile(r"(?:warning|info)\s*: (?:\((C\d+)\) )?(.*)")


def reports(said: str) -> dict[str, Report]:
    """What ``ptxas -v`` says of each kernel."""
    found: dict[str, Report] = {}
    kernel = ""
    for line in said.splitlines():
        start = STARTS.search(line)
        if start:
            kernel = start[1]
            found.setdefault(kernel, Report(kernel))
        frame, used, shared = FRAME.search(line), USED.search(line), SHARED.search(line)
        if frame:
            stack, stores, loads = map(int, frame.groups())
            found[kernel] = replace(
                found[kernel], stack=stack, spill_stores=stores, spill_loads=loads)
        if used:
            found[kernel] = replace(found[kernel], registers=int(used[1]))
        if shared:
            found[kernel] = replace(found[kernel], shared=int(shared[1]))
    return found


def warnings(said: str) -> tuple[Warned, ...]:
    """The warnings of ptxas, and its remarks that have a number."""
    found = []
    for line in said.splitlines():
        match = WARNING.search(line)
        if match and (match[1] or "warning" in line):
            found.append(Warned(match[1] or "", match[2]))
    return tuple(found)


def disassemble(cubin: bytes) -> str:
    """The machine instructions of a cubin. Raises ``UserError`` where there is no disassembler."""
    program = tool("nvdisasm", "cuobjdump")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.cubin"
        source.write_bytes(cubin)
        option = "-c" if program.stem == "nvdisasm" else "-sass"
        said = _run([str(program), option, str(source)])
    if said.returncode:
        raise CompilerBug(f"{program.stem} does not accept the cubin: {said.stdout.strip()}")
    return said.stdout


def sass(ptx: str, architecture: str) -> str:
    """The machine instructions of a PTX text. Raises what its two steps raise."""
    return disassemble(assemble(ptx, architecture).cubin)
