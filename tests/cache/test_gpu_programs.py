"""Programs for GPUs read from the disk cache do what they did when they were compiled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fresh_process import forget

import tilewright as tw
from tilewright import config
from tilewright.cache import SUFFIX, Cache, Entry, pack
from tilewright.codegen.gpu import formulas, program, ptx
from tilewright.codegen.gpu.formulas import Formula
from tilewright.compiler import pipeline
from tilewright.errors import CompilerBug, OutOfBounds, OutOfMemory
from tilewright.frontend.compiled import Compiled
from tilewright.ir.loops import Call, Var
from tilewright.ir.types import i64
from tilewright.runtime.gpu.device import device_of
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import SimDriver, sim_driver

X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(12, 5)


def compiled(f: Callable[..., Any], *args: Any, target: str = "sim", **options: Any) -> Compiled:
    return tw.jit(f, target=target, **options).lower(*args).compile()


def again(monkeypatch: pytest.MonkeyPatch, f: Callable[..., Any], *args: Any, **o: Any) -> Compiled:
    """The function compiled in a new process, so to speak."""
    forget(monkeypatch)
    return compiled(f, *args, **o)


def two_kernels(x: np.ndarray) -> np.ndarray:
    return np.sort(x * 2, axis=0).cumsum(axis=1)


def test_nothing_is_compiled_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(two_kernels, X)
    assert not first.made.found
    forget(monkeypatch)
    monkeypatch.setattr(pipeline, "GRAPH", None)
    monkeypatch.setattr(program, "emit_entry", None)
    monkeypatch.setattr(ptx, "written", None)
    second = compiled(two_kernels, X)
    assert second.made.found and second.as_text("ptx") == first.as_text("ptx")
    np.testing.assert_array_equal(second([X])[0], first([X])[0])
    np.testing.assert_allclose(second([X])[0], two_kernels(X), rtol=1e-5)


def test_its_texts_are_those_of_a_compilation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = compiled(two_kernels, X), again(monkeypatch, two_kernels, X)
    assert second.made.found
    for stage in ("graph", "optimised graph", "kernels", "loops", "llvm", "ptx"):
        assert second.as_text(stage) == first.as_text(stage), stage
    assert second.cost().kernels == first.cost().kernels
    assert second.native.steps == first.native.steps


def test_another_architecture_is_another_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(two_kernels, X)
    assert not again(monkeypatch, two_kernels, X, target="sim:sm_75").made.found
    assert not again(monkeypatch, two_kernels, X, fast_math=True).made.found
    assert again(monkeypatch, two_kernels, X).made.found


def test_tensor_maps_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a product of matrices that tensor copies feed."""
    a, b = (np.ones((2048, 2048), np.float16) for _ in range(2))
    first = compiled(np.matmul, a, b, target="sim:sm_90a")
    second = again(monkeypatch, np.matmul, a, b, target="sim:sm_90a")
    assert second.made.found and second.native.steps == first.native.steps
    assert any(step.maps for step in second.native.steps)
    maps = [[step.matrices({}) for step in made.native.steps] for made in (first, second)]
    assert maps[0] == maps[1]


NAMED = {"dynamic": {"x": ["n", None]}}


def test_named_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(two_kernels, X, **NAMED)
    second = again(monkeypatch, two_kernels, X, **NAMED)
    assert (first.made.found, second.made.found) == (False, True)
    for rows in (2, 12, 40):
        x = np.random.default_rng(rows).standard_normal((rows, 5), np.float32)
        np.testing.assert_allclose(second.executable([x])[0], two_kernels(x), rtol=1e-4, atol=1e-5)


def test_errors_name_the_lines_of_this_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        return np.sort(x, axis=0)[i].cumsum(axis=0)

    i = np.array([3, 12])
    compiled(look_up, X, i)
    read = again(monkeypatch, look_up, X, i)
    assert read.made.found
    with pytest.raises(OutOfBounds, match="index outside an axis of size 12") as bounds:
        read([X, i])
    assert "test_gpu_programs.py" in str(bounds.value)
    text = read.native.text.replace("st.global", "st.local", 1)
    monkeypatch.setattr(read.native, "text", text)
    wrong = gpu_executable(read.made.executable.plan, read.native, SimDriver())
    with (config.override(reproducers=str(folder / "scripts")),
          pytest.raises(CompilerBug, match="the code for a GPU is wrong") as fault):
        wrong([X, np.array([3, 4])])
    assert len(list((folder / "scripts").glob("*.py"))) == 1
    assert "  kernel:   sort" in str(fault.value)
    assert re.search(r"at: +\S*test_gpu_programs.py:\d+", str(fault.value))


def test_memory_that_is_not_there_is_told_by_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(two_kernels, X)
    read = again(monkeypatch, two_kernels, X)
    assert read.made.found
    device = device_of(sim_driver())
    device.memory.trim()
    monkeypatch.setattr(device.driver, "allocate", no_memory)
    with pytest.raises(OutOfMemory, match=r"B for f32\[12, 5\], \S*test_gpu_programs.py"):
        read([X])


def no_memory(nbytes: int) -> int:
    raise OutOfMemory("the memory of sim is used up", expected="at most 0 B")


def test_ptx_that_is_gone_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(two_kernels, X)
    (folder / (first.native.key + SUFFIX)).unlink()
    assert not again(monkeypatch, two_kernels, X).made.found
    assert again(monkeypatch, two_kernels, X).made.found


@pytest.mark.parametrize("change", [
    {"ptx": 5}, {"steps": None}, {"steps": [["entry"]]}, {"steps": [[*"abcdefghi"]]},
])
def test_facts_of_another_form_are_refused_and_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    key = compiled(two_kernels, X).made.key
    entry = Cache(folder, 1 << 30).read(key)
    assert json.loads(json.dumps(entry.facts)) == entry.facts
    (folder / (key + SUFFIX)).write_bytes(pack(key, Entry(entry.facts | change, entry.blobs)))
    second = again(monkeypatch, two_kernels, X)
    assert not second.made.found
    np.testing.assert_allclose(second([X])[0], two_kernels(X), rtol=1e-5)
    assert again(monkeypatch, two_kernels, X).made.found


# --- formulas -------------------------------------------------------------------------------
@pytest.mark.parametrize(("formula", "value"), [
    (7, 7), ("n", 1000), (("floordiv", ("add", "n", 127), 128), 8),
    (("max", ("mod", "n", 7), 3), 6),
    (("min", ("mul", "n", "n"), ("sub", 5, "n")), -995),
])
def test_formulas(formula: Formula, value: int) -> None:
    assert formulas.number(formula, {"n": 1000}) == value
    assert formulas.read(json.loads(json.dumps(formula))) == formula


def test_what_is_no_formula() -> None:
    for data, error in ((["exec", 1, 2], ValueError), (["add", 1], ValueError), (None, TypeError)):
        with pytest.raises(error):
            formulas.read(data)
    with pytest.raises(CompilerBug, match="not known before the launch"):
        formulas.formula(Call("add", (Var("n", i64), Var("i", i64)), i64), {"n": "n"})
