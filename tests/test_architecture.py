"""The rooms: imports go downhill at the top of the file, and every list of files is complete."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tilewright"
ROOMS = (
    "errors", "config", "cache", "ir", "compiler", "codegen", "ptxsim", "runtime", "frontend",
    "torch", "report",
)
FILES = sorted(PACKAGE.rglob("*.py"))

LAZY = {
    "tilewright.codegen": "loads llvmlite, which a program that compiles nothing never needs",
    "tilewright.runtime.gpu": "loads the simulator, which a program for a CPU never needs",
    "llvmlite": "its shared library takes longer to load than all of tilewright",
    "networkx": "slow to import, needed by one pass",
    "torch": "optional",
    "jax": "optional",
    "onnx": "optional",
    "cuda": "optional",
    "pycuda": "optional",
    "IPython": "optional",
}


def name_of(path: Path) -> str:
    """The module that a file holds."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room of a module of ours; None for the package itself and its command line."""
    parts = module.split(".")
    if parts[0] != "tilewright" or len(parts) < 2 or parts[1] not in ROOMS:
        return None
    return parts[1]


def imported(node: ast.stmt) -> list[str]:
    """The modules that an import statement may load, ``from a import b`` naming a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    assert node.level == 0, f"line {node.lineno}: relative import"
    module = node.module or ""
    return [module, *(f"{module}.{alias.name}" for alias in node.names)]


def imports(tree: ast.AST) -> list[tuple[ast.stmt, bool]]:
    """Every import statement and whether it stands at the top level of the file."""
    top: set[int] = set()
    for node in tree.body:  # type: ignore[attr-defined]
        is_type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        top.update(id(n) for n in ([node] if not is_type_checking else node.body))
    return [
        (node, id(node) in top) for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def lazily_allowed(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in LAZY)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downhill(path: Path) -> None:
    here = room_of(name_of(path))
    if here is None:
        return
    for node, _ in imports(tree_of(path)):
        for module in imported(node):
            there = room_of(module)
            if there is not None:
                assert ROOMS.index(there) <= ROOMS.index(here), (
                    f"{path}:{node.lineno}: {here} may not import {module}, which is uphill"
                )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_stand_at_the_top(path: Path) -> None:
    for node, top in imports(tree_of(path)):
        first = imported(node)[0]
        assert top or any(lazily_allowed(m) for m in imported(node)), (
            f"{path}:{node.lineno}: {first} is imported inside a function; only these may be: "
            f"{', '.join(LAZY)}"
        )


def test_no_two_modules_import_each_other() -> None:
    modules = {name_of(p): p for p in FILES}
    reads = {
        name: {m for node, top in imports(tree_of(p)) if top for m in imported(node)} & set(modules)
        for name, p in modules.items()
    }
    packages = {name_of(p) for p in FILES if p.name == "__init__.py"}
    pairs = sorted(
        (a, b) for a in reads for b in reads[a]
        if a < b and a in reads[b] and not {a, b} & packages
    )
    assert pairs == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_config_reads_the_environment(path: Path) -> None:
    if path == PACKAGE / "config.py":
        return
    found = [
        node.lineno for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    ]
    assert found == [], f"{path}: reads the environment on lines {found}; use config.get"


def names_in(value: ast.expr) -> set[str]:
    """The last parts of all names in an expression."""
    found = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute)}


def pass_names() -> dict[str, list[str]]:
    """For each pass file, the lists of pipeline.py that name it or a function imported from it."""
    tree = tree_of(PACKAGE / "compiler" / "pipeline.py")
    source = {}
    for node, _ in imports(tree):
        if isinstance(node, ast.ImportFrom) and "passes" in (node.module or "").split("."):
            stem = (node.module or "").split(".")[-1]
            for alias in node.names:
                source[alias.asname or alias.name] = alias.name if stem == "passes" else stem
    lists: dict[str, set[str]] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                lists[target.id] = names_in(node.value)  # type: ignore[union-attr, arg-type]
    files = [p.stem for p in (PACKAGE / "compiler" / "passes").glob("*.py") if p.stem[0] != "_"]
    return {
        stem: [n for n, used in lists.items() if {source.get(u) for u in used} & {stem}]
        for stem in files
    }


def test_every_pass_is_in_exactly_one_list() -> None:
    found = pass_names()
    assert found, "no passes found"
    wrong = {stem: lists for stem, lists in found.items() if len(lists) != 1}
    assert wrong == {}, f"in none or several lists of compiler/pipeline.py: {wrong}"


def test_the_layout_page_lists_every_room_in_order() -> None:
    text = (ROOT / "docs" / "layout.md").read_text()
    listed = re.findall(r"^## `(\w+)", text, re.MULTILINE)
    assert listed == list(ROOMS)
    existing = {
        p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert existing - {"__init__", "__main__"} == set(ROOMS)


def test_every_room_says_what_it_is() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"


def test_import_loads_neither_the_assembler_nor_optional_packages() -> None:
    code = (
        "import sys, tilewright; "
        "print(*sorted({'llvmlite', 'networkx', 'torch', 'jax', 'scipy', 'sklearn'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == []
