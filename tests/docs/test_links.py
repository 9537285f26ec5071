"""What the pages point to exists, and the README's code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "benchmarks" / "README.md", *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"


def test_the_layout_page_names_files_that_exist() -> None:
    room = ""
    for line in (ROOT / "docs" / "layout.md").read_text().splitlines():
        if found := re.match(r"## `(\w+)`$", line):
            room = found[1]
        elif line.startswith("#"):
            room = ""
        if not room:
            continue
        for name in re.findall(r"`(\w[\w/]*\.py|\w+)`", line if line.startswith("- ") else ""):
            assert (ROOT / "tilewright" / room / name).exists(), f"{room}/{name}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(p.name[:4]) for p in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    scope: dict[str, object] = {}
    exec(compile(blocks[0], "README.md", "exec"), scope)
    first, last = float(capsys.readouterr().out), float(scope["loss"])  # type: ignore[arg-type]
    assert first == pytest.approx(last, rel=1e-5) and last < 1.0
    exec(compile(blocks[1], "README.md", "exec"), scope)
    assert len(scope["any_step"].history) == 1  # type: ignore[attr-defined]
    exec(compile(blocks[2], "README.md", "exec"), scope)
    assert "contract" in capsys.readouterr().out
