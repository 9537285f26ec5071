"""Register buffers and private accumulators as SSA values: what each slot holds at this point.

Frames follow the nesting of loops and branches. A slot that a loop both reads and writes gets its
phi at the loop's header at the moment of the first read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tilewright.codegen.builder import Value
from tilewright.codegen.emit_place import Placer
from tilewright.errors import CompilerBug
from tilewright.ir.instructions import written
from tilewright.ir.loops import Accumulate, For, If, Instruction, Stmt, Store

Key: TypeAlias = tuple[Any, ...]
"""(buffer, element, copy) of a register buffer: ``copy`` is None if one value serves all lanes, "v"
for a vector of elements, a number if each lane has an element of its own. Private accumulators
begin with the buffer as well."""


@dataclass
class Frame:
    """What was written since a loop, a branch or a vector loop began.

    written     buffers that the loop writes somewhere; None for a frame that is no loop
    depth       the region of the loop's body
    header      where the loop's phis go
    phis        per slot: the phi and its value on entry
    identities  what private accumulators start from
    vector      a whole vector loop, at whose end the private accumulators are joined
    sums        the statement behind each private accumulator
    """

    written: frozenset[str] | None = None
    depth: int = 0
    header: list[Any] = field(default_factory=list)
    slots: dict[Key, Value] = field(default_factory=dict)
    phis: dict[Key, tuple[Value, Value]] = field(default_factory=dict)
    identities: dict[Key, Value] = field(default_factory=dict)
    vector: bool = False
    sums: dict[Key, Accumulate] = field(default_factory=dict)


class Slots:
    """The stack of frames."""

    def __init__(self, builder: Placer) -> None:
        self.b = builder
        self.frames = [Frame()]
        self.layout: dict[str, dict[int, tuple[int, int]]] = {}

    def get(self, key: Key, level: int = -1) -> Value | None:
        """The value of a slot, or None if nothing was stored there."""
        if level < 0:
            level += len(self.frames)
        frame = self.frames[level]
        found = frame.slots.get(key)
        if found is not None:
            return found
        if key in frame.identities:
            return frame.identities[key]
        if level == 0:
            return None
        before = self.get(key, level - 1)
        if before is None or frame.written is None or key[0] not in frame.written:
            return before
        phi = Value(self.b.fresh("phi"), before.dtype, before.lanes)
        self.b.depths[phi.name] = frame.depth
        frame.phis[key] = (phi, before)
        frame.slots[key] = phi
        return phi

    def set(self, key: Key, value: Value) -> None:
        self.frames[-1].slots[key] = value

    def push(self, frame: Frame) -> Frame:
        self.frames.append(frame)
        return frame

    def close_loop(self, before: str, latch: str) -> None:
        """Complete the phis of the innermost frame, a loop entered from block ``before``."""
        frame = self.frames[-1]
        for key, (phi, start) in frame.phis.items():
            last = frame.slots[key]
            frame.header.append(
                f"  {phi.name} = phi {phi.type} [{start.name}, %{before}], [{last.name}, %{latch}]"
            )

    def pop_loop(self, before: str, latch: str, certain: bool) -> None:
        """Hand what a loop left to the frame around it, in the block after the loop.

        A loop that may not run leaves a choice; what only it wrote is lost.
        """
        frame = self.frames.pop()
        for key, value in frame.slots.items():
            if key in frame.phis and frame.phis[key][0] is value:
                continue
            if not certain:
                earlier = self.get(key)
                if earlier is None:
                    continue
                value = self.b.define(
                    value.dtype,
                    value.lanes,
                    f"phi {value.type} [{earlier.name}, %{before}], [{value.name}, %{latch}]",
                )
            self.b.export(value)
            self.set(key, value)

    def pop_plain(self) -> None:
        """Hand everything to the frame around it."""
        frame = self.frames.pop()
        for key, value in frame.slots.items():
            self.b.export(value)
            self.set(key, value)

    def pop_branches(self, first: Frame, second: Frame, labels: tuple[str, str]) -> None:
        """Join two popped frames whose blocks end in ``labels``, in the block after both."""
        for key in {**first.slots, **second.slots}:
            a = first.slots.get(key) or self.get(key)
            c = second.slots.get(key) or self.get(key)
            if a is None or c is None:
                continue
            if a != c:
                a = self.b.define(
                    a.dtype,
                    a.lanes,
                    f"phi {a.type} [{a.name}, %{labels[0]}], [{c.name}, %{labels[1]}]",
                )
            self.set(key, a)

    def forget_lanes(self) -> None:
        """Drop what each lane of a finished vector section had for itself."""
        slots = self.frames[-1].slots
        for key in [k for k in slots if len(k) == 3 and isinstance(k[2], int)]:
            del slots[key]

    def claim(self, buffer: str, element: int, lanes: int) -> None:
        """Note that a slot holds these elements. Raises ``CompilerBug`` if another overlaps it."""
        elements = self.layout.setdefault(buffer, {})
        mine = (element, lanes)
        if elements.get(element) == mine:
            return
        for e in range(element, element + lanes):
            if elements.setdefault(e, mine) != mine:
                raise CompilerBug(
                    f"register buffer {buffer}: elements {element}..{element + lanes - 1} are used "
                    f"as one vector and {elements[e]} as another"
                )

    def free(self, buffer: str) -> None:
        """Forget a buffer: it is allocated anew."""
        self.layout.pop(buffer, None)
        for frame in self.frames:
            for key in [k for k in frame.slots if k[0] == buffer]:
                del frame.slots[key]


def written_buffers(body: Iterable[Stmt]) -> frozenset[str]:
    """Names of the buffers that these statements store to."""
    names: set[str] = set()
    stack = list(body)
    while stack:
        statement = stack.pop()
        if isinstance(statement, Store | Accumulate):
            names.add(statement.buffer.name)
        elif isinstance(statement, Instruction):
            names.update(load.buffer.name for load in written(statement))
        elif isinstance(statement, For):
            stack.extend(statement.body)
        elif isinstance(statement, If):
            stack.extend(statement.body)
            stack.extend(statement.orelse)
    return frozenset(names)
