"""The table of a compilation's stages: which pass, how long, whether it changed anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tilewright.compiler.stage import Stage


@dataclass(frozen=True)
class Stages:
    """The stages of one compilation, in order; prints as a table, indexed by number or name."""

    stages: tuple[Stage, ...]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, key: int | str) -> Stage:
        """The stage of this number, or the last one of this name. Raises ``KeyError``."""
        if isinstance(key, int):
            return self.stages[key]
        found = [stage for stage in self.stages if stage.name == key]
        if not found:
            names = ", ".join(dict.fromkeys(stage.name for stage in self.stages))
            raise KeyError(f"there is no stage {key!r}; there are {names}")
        return found[-1]

    @property
    def milliseconds(self) -> float:
        """Time of all stages."""
        return sum(stage.milliseconds for stage in self.stages)

    def __str__(self) -> str:
        return table(self.stages)

    def __repr__(self) -> str:
        return table(self.stages)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(table(self.stages))}</pre>"


def table(stages: Sequence[Stage]) -> str:
    """One line per stage and one for the sum."""
    lines = ["stage            time"]
    lines += [str(stage) for stage in stages]
    total = sum(stage.milliseconds for stage in stages)
    lines.append(f"{'total':<10} {total:8.2f} ms")
    return "\n".join(lines)


def texts(stages: Sequence[Stage]) -> str:
    """The text of every stage that changed something, one after another."""
    parts = [f"# --- {stage.name} ---\n{stage.text()}" for stage in stages if stage.changed]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
