"""Programs read from the disk cache do what they did when they were compiled."""

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
from tilewright.codegen.cpu import library
from tilewright.compiler import pipeline
from tilewright.frontend.compiled import Compiled
from tilewright.ir.digest import graph_text

SCALE = np.linspace(1, 2, 5000, dtype=np.float32)
X = np.linspace(-1, 1, 5000, dtype=np.float32)


def compiled(function: Callable[..., Any], *args: Any, **options: Any) -> Compiled:
    return tw.jit(function, **options).lower(*args).compile()


def again(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], *args: Any, **options: Any
) -> Compiled:
    """The function compiled in a new process, so to speak."""
    forget(monkeypatch)
    return compiled(function, *args, **options)


def programs(folder: Path) -> list[tuple[str, Entry]]:
    store = Cache(folder, 1 << 30)
    entries = [(f.key, store.read(f.key)) for f in store.files()]
    return [(key, entry) for key, entry in entries if entry.facts["kind"] == "program"]


def captured(x: np.ndarray) -> np.ndarray:
    table = np.array([1.0, 2.0, 3.5, 4.25], np.float32)
    return np.exp(x) * SCALE + table.sum() * np.arange(4, dtype=np.float32)[x.size % 4]


def test_a_program_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(captured, X)
    second = again(monkeypatch, captured, X)
    assert (first.made.found, second.made.found) == (False, True)
    np.testing.assert_array_equal(second([X])[0], first([X])[0])
    np.testing.assert_allclose(second([X])[0], captured(X), rtol=1e-5)


def test_nothing_is_compiled_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(captured, X)
    forget(monkeypatch)
    monkeypatch.setattr(pipeline, "GRAPH", None)
    monkeypatch.setattr(library, "emitted", None)
    np.testing.assert_allclose(tw.jit(captured)(X), captured(X), rtol=1e-5)


def test_its_texts_are_those_of_a_compilation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = compiled(captured, X), again(monkeypatch, captured, X)
    assert second.made.found
    for stage in ("graph", "optimised graph", "kernels", "loops", "llvm", "asm"):
        assert second.as_text(stage) == first.as_text(stage), stage
    names = [stage.name for stage in first.stages]
    assert [stage.name for stage in second.stages] == names
    assert str(second.cost()) == str(first.cost())


def test_another_captured_array_is_another_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(captured, X)
    monkeypatch.setitem(globals(), "SCALE", SCALE + 1)
    other = again(monkeypatch, captured, X)
    assert not other.made.found
    np.testing.assert_allclose(other([X])[0], captured(X), rtol=1e-5)


def test_donated_memory_is_updated_in_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(state: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return state - 0.5 * x, x
    options = {"donate_argnames": ("state",)}
    compiled(step, X, SCALE, **options)
    read = again(monkeypatch, step, X, SCALE, **options)
    assert read.made.found
    state = X.copy()
    new, same = read([state, SCALE])
    np.testing.assert_allclose(new, X - 0.5 * SCALE, rtol=1e-6)
    np.testing.assert_array_equal(same, SCALE)
    assert np.shares_memory(new, state)
    assert not np.shares_memory(same, SCALE)
    assert not again(monkeypatch, step, X, SCALE).made.found  # nothing is donated here


def test_errors_name_the_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        return np.take(x, i)
    outside = np.array([5000])
    lines = []
    for made in (compiled(look_up, X, outside), again(monkeypatch, look_up, X, outside)):
        with pytest.raises(tw.OutOfBounds) as raised:
            made([X, outside])
        lines.append(str(raised.value))
    assert made.made.found
    assert lines[0] == lines[1]
    assert re.search(r"test_programs\.py:\d+", lines[0])


def test_lines_that_errors_name_belong_to_the_key() -> None:
    def upper(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        return np.take(x, i) + 1

    def lower(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        return np.take(x, i) + 1

    def plain(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        return x + 1

    def moved(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        return x + 1

    texts = [graph_text(tw.jit(f).lower(X, np.array([3])).graph)
             for f in (upper, lower, plain, moved)]
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]


@pytest.mark.parametrize("change", [
    lambda x: x * 2, lambda x: x * 3.0, lambda x: 2.0 + x, lambda x: x[1:] * 2.0,
    lambda x: (x * 2.0, x), lambda x: x * -2.0, lambda x: -(x * 2.0),
])
def test_other_functions_have_other_keys(change: Callable[..., Any]) -> None:
    x = np.ones(7)
    before = graph_text(tw.jit(lambda x: x * 2.0).lower(x).graph)
    assert graph_text(tw.jit(lambda y: y * 2.0).lower(x).graph) == before
    if change(x) is not None and not np.array_equal(np.ravel(change(x)), x * 2.0):
        assert graph_text(tw.jit(change).lower(x).graph) != before
    assert graph_text(tw.jit(lambda x: x * 2.0).lower(x[1:]).graph) != before
    assert graph_text(tw.jit(lambda x: x * 2.0).lower(x.astype(np.float32)).graph) != before


def test_a_kernel_that_is_gone_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(captured, X)
    ((_, program),) = programs(folder)
    for key in program.facts["kernels"]:
        (folder / (key + SUFFIX)).unlink()
    second = again(monkeypatch, captured, X)
    assert not second.made.found
    np.testing.assert_allclose(second([X])[0], captured(X), rtol=1e-5)
    assert again(monkeypatch, captured, X).made.found


@pytest.mark.parametrize("facts", [
    {}, {"plan": {}}, {"plan": {"constants": [["f32", [3], "no such array"]]}}, {"work": {}},
    {"work": {"seconds": 1, "mode": 0, "most_threads": 1, "more": 2}},
])
def test_facts_of_another_form_are_refused_and_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any]
) -> None:
    compiled(captured, X)
    ((key, entry),) = programs(folder)
    changed = {k: v for k, v in entry.facts.items() if k in ("kind", "name")} | facts
    (folder / (key + SUFFIX)).write_bytes(pack(key, Entry(changed, entry.blobs)))
    second = again(monkeypatch, captured, X)
    assert not second.made.found
    np.testing.assert_allclose(second([X])[0], captured(X), rtol=1e-5)
    assert again(monkeypatch, captured, X).made.found


def test_what_is_kept_is_plain_data(folder: Path) -> None:
    compiled(captured, X)
    for path in folder.glob("*" + SUFFIX):
        raw = path.read_bytes()
        entry = Cache(folder, 1).read(path.name[:-len(SUFFIX)])
        assert json.loads(json.dumps(entry.facts)) == entry.facts
        assert b"\x80\x04" not in raw[:2]  # how a pickle begins
        formats = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"d\x86")  # of Linux, macOS, Windows
        assert entry.blobs[0].startswith(formats)


def rows(x: np.ndarray, y: np.ndarray) -> Any:
    halves = np.concatenate([x, y]).reshape(2, -1, 4)
    return (halves - halves.mean(1, keepdims=True)) @ np.ones((4, 3), np.float32), x.sum(0)


NAMED = {"dynamic": {"x": ["n", None], "y": ["n", None]}}


def random_rows(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(count).standard_normal((2, count, 4), np.float32))


def test_a_program_with_named_sizes_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled(rows, *random_rows(6), **NAMED)
    second = again(monkeypatch, rows, *random_rows(6), **NAMED)
    assert (first.made.found, second.made.found) == (False, True)
    plans = [made.made.executable.plan for made in (first, second)]
    assert plans[0].sizes == plans[1].sizes == ("n",)
    assert plans[0].conditions == plans[1].conditions
    for count in (6, 1, 300, 4000):
        given = random_rows(count)
        a, b = (made.made.executable.at([x.shape for x in given]) for made in (first, second))
        assert a.work == b.work
        for result, expected in zip(b(given), rows(*given), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_hints_of_another_magnitude_are_another_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(rows, *random_rows(6), **NAMED)
    assert again(monkeypatch, rows, *random_rows(7), **NAMED).made.found
    assert not again(monkeypatch, rows, *random_rows(600), **NAMED).made.found


@pytest.mark.parametrize("switches", [{"debug": 2}, {"verify": 1}, {"cache": "off"}])
def test_who_wants_to_see_the_passes_compiles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, switches: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    compiled(captured, X)
    with config.override(**switches):
        assert not again(monkeypatch, captured, X).made.found
    assert again(monkeypatch, captured, X).made.found


def test_the_first_level_of_debug_tells(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with config.override(debug=1):
        compiled(captured, X)
        assert "launches of" in capsys.readouterr().err
        again(monkeypatch, captured, X)
    assert re.fullmatch(
        r"tilewright: captured: read from the disk cache, \d+\.\d ms\n", capsys.readouterr().err)
