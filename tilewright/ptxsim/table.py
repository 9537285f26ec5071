"""The op table: the meaning of an instruction by the first parts of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tilewright.ptxsim.faults import UnknownInstruction

if TYPE_CHECKING:
    from tilewright.ptxsim.step import Step

Meaning = Callable[["Step"], None]

OPS: dict[str, Meaning] = {}


def op(*names: str) -> Callable[[Meaning], Meaning]:
    """Enter a function into the table under dotted names; the longest that fits is taken."""
    def enter(meaning: Meaning) -> Meaning:
        for name in names:
            OPS[name] = meaning
        return meaning

    return enter


def meaning_of(parts: tuple[str, ...]) -> Meaning:
    """The entry of an instruction; UnknownInstruction names it if there is none."""
    for length in range(len(parts), 0, -1):
        found = OPS.get(".".join(parts[:length]))
        if found is not None:
            return found
    raise UnknownInstruction(f"the instruction {'.'.join(parts)} is not simulated")
