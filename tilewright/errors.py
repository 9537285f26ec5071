"""The kinds of error, and how a message is laid out."""

from __future__ import annotations

import linecache
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class TilewrightError(Exception):
    """Base of all errors raised by tilewright."""


class UserError(TilewrightError):
    """The user's program asked for something impossible.

    what      one line: what was wrong, and with which argument
    expected  what would have been right
    got       what there was
    loc       the user's own line
    hint      what to do about it
    """

    def __init__(
        self, what: str, *, expected: object = None, got: object = None,
        loc: Location | None = None, hint: str | None = None,
    ) -> None:
        self.what, self.expected, self.got, self.loc, self.hint = what, expected, got, loc, hint
        super().__init__(layout(what, expected, got, loc, hint))

    def at(self, loc: Location | None) -> UserError:
        """The same error, with the user's line."""
        return type(self)(
            self.what, expected=self.expected, got=self.got, loc=loc, hint=self.hint)


class ShapeError(UserError, ValueError):
    """Shapes that do not fit."""


class DTypeError(UserError, TypeError):
    """Element types that do not fit or do not exist here."""


class TraceError(UserError, TypeError):
    """Something that cannot be done with a value whose contents are not known yet."""


class OutOfBounds(UserError, IndexError):
    """An index outside its axis, found while the program ran."""


class Unsupported(UserError, NotImplementedError):
    """A valid program that this version or this target cannot compile."""


class UnsupportedSize(Unsupported, TypeError):
    """A size that is known when the program runs, where this version needs a number."""


class DeviceError(UserError, RuntimeError):
    """A device that cannot be used: it is not there, its driver is too old, or it was lost."""


class OutOfMemory(DeviceError, MemoryError):
    """The memory of a device is used up."""


class CompilerBug(TilewrightError):
    """tilewright is at fault. The message names the reproducer that was written."""


class VerifyError(CompilerBug):
    """A graph or kernel breaks its language's rules. The message is its text, the errors marked."""


def layout(
    what: str, expected: object, got: object, loc: Location | None, hint: str | None
) -> str:
    """The text of an error: what, expected / got, the user's line, a hint."""
    lines = [what]
    if expected is not None:
        lines.append(f"  expected: {expected}")
    if got is not None:
        lines.append(f"  got:      {got}")
    if loc is not None:
        lines.append(f"  at:       {loc.file}:{loc.line} in {loc.function}")
        source = source_line(loc)
        if source:
            lines.append(f"            {source}")
    if hint is not None:
        lines.append(f"  hint:     {hint}")
    return "\n".join(lines)


def source_line(loc: Location) -> str:
    """The text of the user's line, or nothing where the file cannot be read."""
    return linecache.getline(loc.file, loc.line).strip()
