"""docs/switches.md is what the table of switches says."""

from __future__ import annotations

from pathlib import Path

from tilewright.config import SWITCHES

PAGE = Path(__file__).parents[2] / "docs" / "switches.md"


def page() -> str:
    """The page that the table makes."""
    lines = [
        "# Switches", "",
        "Made from `tilewright/config.py`; `pytest tests/docs/test_switches.py --bless` writes it "
        "anew.", "",
        "Each is an environment variable, read when it is needed, and a name for "
        "`tilewright.config.override(name=value)`.", "",
        "| variable | name | default | meaning |", "|---|---|---|---|",
    ]
    for switch in SWITCHES.values():
        default = repr(switch.default) if switch.default != "" else "empty"
        lines.append(
            f"| `{switch.variable}` | `{switch.name}` | {default} | {switch.meaning} |")
    return "\n".join(lines) + "\n"


def test_the_page_is_up_to_date(request) -> None:
    if request.config.getoption("--bless"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "run: pytest tests/docs/test_switches.py --bless"


def test_there_are_at_most_twelve() -> None:
    assert len(SWITCHES) <= 12
