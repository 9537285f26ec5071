"""Kernels become object files, assembled while others are emitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tilewright import config
from tilewright.codegen.cpu import library, program
from tilewright.codegen.emit import Emitted
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir.loops import Kernel


@tw.jit
def chain(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = np.maximum(x @ y, 0) @ y.T
    return a, a.sum(0) @ (y - a.max())


@pytest.mark.parametrize("part", [1, 10**9])
@pytest.mark.parametrize("many", [0, 3, 10**9])
def test_results_do_not_depend_on_how_it_is_assembled(
    part: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "PART", part)
    monkeypatch.setattr(library, "MANY_LOOPS", many)
    monkeypatch.setattr(library, "_kernels", {})
    monkeypatch.setattr(library, "_linked", {})
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((40, 24), (24, 24)))
    with config.override(cache="off"):
        a, b = chain.lower(x, y).compile()([x, y])
    expected = np.maximum(x @ y, 0) @ y.T
    np.testing.assert_allclose(a, expected, rtol=1e-4, atol=1e-4)
    total = expected.sum(0) @ (y - expected.max())
    np.testing.assert_allclose(b, total, rtol=1e-3, atol=1e-2)


def test_an_error_of_the_assembler_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    real = library.emitted

    def broken(kernel: Kernel, target: Target) -> Emitted:
        text = "define void @broken() { nothing }"
        return replace(real(kernel, target), name="broken", text=text)

    monkeypatch.setattr(library, "emitted", broken)
    with pytest.raises(CompilerBug, match="does not accept"):
        tw.jit(lambda x: x * 3.25 + 1).compile(np.ones(7))
