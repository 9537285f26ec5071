"""Where instructions go: nested regions, hoisting of what a loop does not change, and reuse of
values that were computed before. Nothing here knows the Kernel language.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from tilewright.codegen import rounding
from tilewright.codegen.builder import Builder, Value
from tilewright.codegen.convert import Machine
from tilewright.ir.types import DType

Made = TypeVar("Made")


class Region:
    """The body of a loop or of a branch while it is being written.

    prelude  text just before the region, where its invariants go
    certain  the region runs at least once whenever the code around it runs
    loop     a loop, not a branch
    memo     values computed at this depth, by what computes them
    """

    __slots__ = ("prelude", "certain", "loop", "memo")

    def __init__(self, prelude: list[Any], certain: bool, loop: bool) -> None:
        self.prelude, self.certain, self.loop = prelude, certain, loop
        self.memo: dict[Hashable, Any] = {}


class Placer(Builder):
    """A builder that writes each pure instruction as far out as its operands allow, once.

    A value's depth is the number of regions that enclose its definition; parameters and constants
    have depth 0.

    kinds  the types of pointers to one kind of memory, by name; others are generic
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.regions = [Region([], True, False)]
        self.depths: dict[str, int] = {}
        self.allocas: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.place = 0
        self.block = "entry"

    def define(self, dtype: DType, lanes: int, instruction: str) -> Value:
        self._next += 1
        name = f"%v{self._next}"
        self.lines.append(f"  {name} = {instruction}")
        self.depths[name] = self.place
        return Value(name, dtype, lanes)

    def intrinsic(
        self, name: str, *args: Value, result: DType | None = None, flags: str = ""
    ) -> Value:
        if name in rounding.NAMES and not self.machine.rounding:
            return rounding.to_whole(self, name, args[0])
        return super().intrinsic(name, *args, result=result, flags=flags)

    def pointer(self, instruction: str) -> str:
        """A new pointer; the text of its name."""
        self._next += 1
        name = f"%p{self._next}"
        self.lines.append(f"  {name} = {instruction}")
        self.depths[name] = self.place
        return name

    def typed(self, place: str) -> str:
        """``ptr %p``, as a pointer is written in an instruction."""
        return f"{self.kinds.get(place, 'ptr')} {place}"

    def beyond(self, place: str, element: str, by: str) -> str:
        """A pointer so many elements after another one: ``by`` is a typed number or vector."""
        found = self.pointer(f"getelementptr {element}, {self.typed(place)}, {by}")
        if place in self.kinds:
            self.kinds[found] = self.kinds[place]
        return found

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def fresh_label(self, prefix: str) -> str:
        self._next += 1
        return f"{prefix}{self._next}"

    def depth(self, names: Iterable[str]) -> int:
        """The depth at which all of these values are known."""
        deepest, depths = 0, self.depths
        for name in names:
            found = depths.get(name, 0)
            if found > deepest:
                deepest = found
        return deepest

    def settle(self, names: Iterable[str], cheap: bool, reads: bool) -> int:
        """The outermost depth for an instruction on these values.

        Code in a branch stays there unless it is ``cheap``; code that ``reads`` memory stays in a
        region that may not run at all.
        """
        here = self.place
        depth = self.depth(names)
        while here > depth:
            region = self.regions[here]
            if not region.certain and (reads or not (cheap or region.loop)):
                break
            here -= 1
        return here

    def pure(
        self,
        key: Hashable,
        names: Iterable[str],
        make: Callable[[], Made],
        cheap: bool = False,
        reads: bool = False,
    ) -> Made:
        """What ``make`` writes, as far out as ``names`` allow, or an earlier result."""
        depth = self.settle(names, cheap, reads)
        memo = self.regions[depth].memo
        found: Made | None = memo.get(key)
        if found is not None:
            return found
        if depth == self.place:
            value = make()
        else:
            lines, place = self.lines, self.place
            self.lines, self.place = self.regions[depth + 1].prelude, depth
            value = make()
            self.lines, self.place = lines, place
        memo[key] = value
        return value

    def enter(self, certain: bool, loop: bool, prelude: list[Any] | None = None) -> list[Any]:
        """Open a region; the list before it takes its invariants. The branch to it comes after."""
        if prelude is None:
            prelude = []
            self.lines.append(prelude)
        self.regions.append(Region(prelude, certain, loop))
        self.place += 1
        return prelude

    def leave(self) -> None:
        """Close the innermost region."""
        self.regions.pop()
        self.place -= 1

    def export(self, value: Value) -> None:
        """A value of the region just closed is known from here on."""
        if value.name in self.depths:
            self.depths[value.name] = min(self.depths[value.name], self.place)

    def text(self) -> str:
        """All lines, preludes in their places."""
        flat: list[str] = []
        flatten(self.lines, flat)
        return "\n".join(flat)


def flatten(lines: list[Any], into: list[str]) -> None:
    """Append nested lists of lines in order."""
    for line in lines:
        if isinstance(line, str):
            into.append(line)
        else:
            flatten(line, into)
