"""What the pipeline notes of each step: its time, whether it changed anything, and its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One step of a compilation. The text is made when it is asked for."""

    name: str
    milliseconds: float
    changed: bool
    text: Callable[[], str]

    def __str__(self) -> str:
        mark = "" if self.changed else "  (unchanged)"
        return f"{self.name:<10} {self.milliseconds:8.2f} ms{mark}"
