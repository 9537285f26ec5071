"""What the pipeline notes of each step: its time, whether it changed anything, and its text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One step of a compilation. The text is made when it is asked for."""

    name: str
    milliseconds: float
    changed: bool
    text: Callable[[], str]

    def announce(self, debug: int, most: int = 3) -> None:
        """Print the time from level 2 of the switch ``debug`` on, the text at level ``most``."""
        if debug >= 2:
            print(self, file=sys.stderr)
        if debug >= most and self.changed:
            print(self.text().rstrip("\n"), file=sys.stderr)

    def __str__(self) -> str:
        mark = "" if self.changed else "  (unchanged)"
        return f"{self.name:<10} {self.milliseconds:8.2f} ms{mark}"
