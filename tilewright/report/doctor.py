"""The state of this installation: the machine, the threads, the versions, the switches, a test."""

from __future__ import annotations

import importlib.metadata
import platform

import numpy as np

import tilewright
from tilewright import config
from tilewright.codegen import cpu
from tilewright.codegen.cpu.tiers import NEEDS
from tilewright.errors import TilewrightError, UserError
from tilewright.frontend.jit import jit
from tilewright.report import diskcache
from tilewright.runtime.cores import find_cores
from tilewright.runtime.program import target_named
from tilewright.runtime.threads import threads_in_force

PACKAGES = ("numpy", "llvmlite", "networkx", "ml_dtypes", "optree")


def doctor() -> tuple[str, bool]:
    """The lines to print, and whether code compiles and runs here.

    What fails is a line of the text, not an error.
    """
    runs, outcome = self_check()
    readable, settings = switches()
    sections = {
        "versions": versions(),
        "machine": [*machine(), *diskcache.state()],
        "gpus": gpus(),
        "threads": threads(),
        "switches": settings,
        "self-check": outcome.splitlines(),
    }
    lines = []
    for title, found in sections.items():
        lines += [title, *(f"  {line}" for line in found)]
    return "\n".join(lines), runs and readable


def versions() -> list[str]:
    """Of Python, tilewright and what it needs."""
    lines = [
        f"{'python':<12}{platform.python_version()} ({platform.python_implementation()})",
        f"{'tilewright':<12}{tilewright.__version__}",
    ]
    for name in PACKAGES:
        try:
            lines.append(f"{name:<12}{importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name:<12}missing: pip install {name}")
    try:
        from llvmlite import binding

        lines.append(f"{'llvm':<12}{'.'.join(map(str, binding.llvm_version_info))}")
    except ImportError as error:
        lines.append(f"{'llvm':<12}cannot be loaded: {error}")
    return lines


def machine() -> list[str]:
    """The processor, the tier that code is compiled for and why, the caches."""
    try:
        from tilewright.codegen import llvm

        triple, name, features = llvm.host()
        target = target_named()
    except (TilewrightError, ImportError) as error:
        return str(error).splitlines()
    lines = [f"{'processor':<12}{name}, {triple}"]
    reason = config.source("target")
    why = "the best that the processor has" if reason == "default" else f"chosen by {reason}"
    if target.gpu is not None:
        where = "simulated" if target.gpu.device == "sim" else target.gpu.device
        return [*lines, f"{'target':<12}{target.name}, an NVIDIA GPU, {where} ({why})"]
    lines.append(
        f"{'target':<12}{target.name}: vectors of {target.vector_bytes} bytes, "
        f"{target.registers} registers ({why})"
    )
    if triple.startswith("x86_64"):
        for tier in cpu.TIERS:
            lacking = ", ".join(sorted(NEEDS[tier] - features))
            lines.append(f"{'':<12}{tier}: {f'lacks {lacking}' if lacking else 'runs here'}")
    sizes = zip(("L1 data", "L2", "L3"), (target.l1, target.l2, target.l3), strict=True)
    lines.append(f"{'caches':<12}{', '.join(f'{n} {size >> 10} KiB' for n, size in sizes)}")
    return lines


def gpus() -> list[str]:
    """The GPUs that the CUDA driver sees and whether code runs there, or why there are none."""
    from tilewright.runtime.gpu.drivers import seen

    try:
        lines = seen()
    except UserError as error:  # one that is too old to compile for
        return str(error).splitlines()
    for line in lines[1:]:
        name = line.split()[0]
        if name.startswith("cuda:"):
            lines += [f"{name:<12}{text}" for text in self_check(name)[1].splitlines()]
    return lines


def threads() -> list[str]:
    """How many threads a program runs on, and what limits them."""
    try:
        count = threads_in_force()
    except UserError as error:
        return str(error).splitlines()
    found, source = find_cores(), config.source("num_threads")
    why = "the cores that this process may use"
    if source != "default" and config.get("num_threads"):
        why = f"chosen by {source}"
    quota = "no limit" if found.quota is None else f"{found.quota:g} processors"
    return [
        f"{'in force':<12}{count} ({why})",
        f"{'affinity':<12}{found.affinity} hardware threads of {found.cores} cores",
        f"{'quota':<12}{quota} by control groups",
    ]


def switches() -> tuple[bool, list[str]]:
    """Whether all can be read, and of every switch its value and where that comes from."""
    readable, lines = True, []
    for name, switch in config.SWITCHES.items():
        try:
            value = f"{config.get(name)!r} ({config.source(name)})"
        except UserError as error:
            readable, value = False, f"cannot be read: {error.got}, expected {error.expected}"
        lines.append(f"{switch.variable:<24}{value}")
    return readable, lines


def self_check(target: str | None = None) -> tuple[bool, str]:
    """Compile a tiny function, run it and compare it with NumPy."""
    x = np.linspace(-1, 1, 1001).reshape(7, 143)

    def tiny(x: np.ndarray) -> np.ndarray:
        return np.exp(x).sum(axis=1) @ x

    try:
        got = jit(tiny, target=target)(x)
    except Exception as error:  # whatever is wrong with the installation is the finding
        return False, f"failed: {type(error).__name__}: {error}"
    difference = float(np.abs(got - tiny(x)).max())
    healthy = difference < 1e-9
    words = "compiled, ran and agrees" if healthy else "compiled and ran, but does not agree"
    return healthy, f"{words} with NumPy (largest difference {difference:.1e})"
