"""Registers and shared memory in the costs of a function for a GPU."""

from __future__ import annotations

import re
import shutil
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import config
from tilewright.codegen.gpu import assembler
from tilewright.codegen.gpu.assembler import Assembled, Report

X = np.ones((64, 64), np.float32)


def lowered(number: float) -> Any:
    return tw.jit(lambda a: np.tanh(a @ a).sum(1) + number, target="sim:sm_80").lower(X)


def test_without_ptxas_the_costs_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "cuda_tool", lambda name: None)
    cost = lowered(1.5).cost()
    assert cost.resources == () and cost.flops > 2 * 64**3
    assert str(cost).splitlines()[-1] == (
        "registers and shared memory: not known, ptxas is not installed (install the CUDA "
        "toolkit, or: pip install nvidia-cuda-nvcc)")


def test_what_ptxas_says_is_told_by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def assemble(ptx: str, architecture: str) -> Assembled:
        assert architecture == "sm_80"
        entries = re.findall(r"\.entry (\w+)", ptx)
        return Assembled(b"", {e: Report(e, 40 + i, 1024 * i, 0, 8 * i) for i, e in
                               enumerate(entries)}, ())

    monkeypatch.setattr(assembler, "assemble", assemble)
    found = lowered(2.5)
    cost = found.cost()
    kernels = {launch.kernel.name for launch in found.compiled.plan.launches}
    assert {r.kernel for r in cost.resources} == kernels
    assert {r.registers for r in cost.resources} == {40, 41}
    assert all(r.threads % 32 == 0 and r.shared >= 0 for r in cost.resources)
    lines = str(cost).splitlines()
    assert lines[-3].split() == ["kernel", "threads", "registers", "shared", "spilled"]
    assert lines[-1].split()[0] in kernels and lines[-1].endswith("B")


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="needs ptxas")
def test_real_costs() -> None:
    for r in lowered(3.5).cost().resources:
        assert 0 < r.registers <= 255 and r.spilled == 0


def test_a_function_for_a_cpu_has_none() -> None:
    cost = tw.jit(lambda a: np.tanh(a)).lower(X).cost()
    assert cost.resources == () and cost.unknown == "" and "registers" not in str(cost)
