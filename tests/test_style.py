"""What one reader can hold: short lines, short functions, short files, documented passes."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "tilewright").rglob("*.py"))
OTHERS = sorted(
    p for folder in ("tests", "docs", "examples", "benchmarks")
    for p in (ROOT / folder).rglob("*.py")
)
PASSES = [p for p in SOURCES if p.parent.name == "passes" and p.stem[0] != "_"]

MOST_COLUMNS, MOST_FUNCTION_LINES, MOST_FILE_LINES = 100, 60, 450

TABLES = {
    "tilewright/ir/ops.py": "the op table",
}
LONG_FUNCTIONS: dict[str, str] = {}
"""'path::function' of functions that may be longer, with the reason."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=relative)
def test_lines_are_short(path: Path) -> None:
    lines = path.read_text().splitlines()
    long = [i for i, line in enumerate(lines, 1) if len(line) > MOST_COLUMNS]
    assert long == [], f"{relative(path)}: more than {MOST_COLUMNS} columns on lines {long}"


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=relative)
def test_functions_are_short(path: Path) -> None:
    long = {
        f.name: f.end_lineno - f.lineno + 1 for f in functions(ast.parse(path.read_text()))
        if f.end_lineno - f.lineno + 1 > MOST_FUNCTION_LINES
        and f"{relative(path)}::{f.name}" not in LONG_FUNCTIONS
    }
    assert long == {}, f"{relative(path)}: functions over {MOST_FUNCTION_LINES} lines: {long}"


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=relative)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_FILE_LINES or relative(path) in TABLES, (
        f"{relative(path)} has {lines} lines, more than {MOST_FILE_LINES}"
    )


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=relative)
def test_open_ends_name_their_issue(path: Path) -> None:
    with path.open("rb") as file:
        comments = [t for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT]
    loose = [
        t.start[0] for t in comments
        if re.search(r"\b(TODO|FIXME|XXX)\b", t.string) and not re.search(r"#\d+", t.string[1:])
    ]
    assert loose == [], f"{relative(path)}: TODO without an issue number on lines {loose}"


def public_without_docstring(tree: ast.Module) -> list[str]:
    """Public functions and classes at the top level of a file that say nothing."""
    return [
        node.name for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
        and not ast.get_docstring(node)
        and not any(ast.unparse(d) == "overload" for d in node.decorator_list)
    ]


CELLS = {
    "tilewright/ir/infer.py": "one function per row of the op table, named after it",
    "tilewright/ir/meaning.py": "one function per row of the op table, named after it",
    "tilewright/ir/expansions.py": "one function per row of the op table, named after it",
    "tilewright/ir/derivatives.py": "one function per row of the op table, named after it",
    "tilewright/ir/transposes.py": "one function per row of the op table, named after it",
}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{relative(path)} does not say what it is"
    rows_of_a_table = path.parent == ROOT / "tilewright" / "torch" / "ops"
    if relative(path) not in CELLS and not rows_of_a_table:
        assert public_without_docstring(tree) == []


@pytest.mark.parametrize("path", PASSES, ids=relative)
def test_passes_show_before_and_after(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "->" in text or "→" in text or ("before" in text and "after" in text), (
        f"{relative(path)}: the docstring shows no 'before -> after'"
    )


def test_exceptions_name_what_exists() -> None:
    for listed in (*TABLES, *CELLS):
        assert (ROOT / listed).exists(), listed
    for listed in LONG_FUNCTIONS:
        path, name = listed.split("::")
        assert name in {f.name for f in functions(ast.parse((ROOT / path).read_text()))}, listed
