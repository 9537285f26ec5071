"""What the simulator says of a kernel that does what is forbidden or not simulated."""

from __future__ import annotations

from tilewright.errors import TilewrightError


class Fault(TilewrightError):
    """A kernel did something wrong while it ran, or its text is wrong.

    what    one line
    where   the instruction, its block and its threads, added by the simulator
    """

    def __init__(self, what: str, where: str = "") -> None:
        self.what, self.where = what, where
        super().__init__(f"{what}\n  {where}" if where else what)

    def at(self, where: str) -> Fault:
        """The same fault with its place, if it has none."""
        return self if self.where else type(self)(self.what, where)


class Deadlock(Fault):
    """Every thread waits for another."""


class UnknownInstruction(Fault):
    """An instruction, or a form of one, that is not simulated."""


class Race(Fault):
    """Two threads access the same memory, at least one writes, and nothing orders them."""
