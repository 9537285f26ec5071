"""The stages of a compilation as text: the table of times, and what every stage left behind."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.stage import Stage


def table(stages: Sequence[Stage]) -> str:
    """One line per stage, with its time and whether it changed anything, and one for the sum."""
    total = sum(stage.milliseconds for stage in stages)
    return "\n".join([*map(str, stages), f"{'total':<10} {total:8.2f} ms"])


def texts(stages: Sequence[Stage]) -> str:
    """The text of every stage that changed something, one after another."""
    parts = [f"# --- {stage.name} ---\n{stage.text()}" for stage in stages if stage.changed]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
