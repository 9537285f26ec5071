"""Register buffers: loads and stores of SSA slots, and what accumulations start from."""

from __future__ import annotations

from tilewright.codegen.builder import Builder, Value
from tilewright.codegen.convert import carrier
from tilewright.codegen.emit_core import Val
from tilewright.codegen.emit_index import Affine
from tilewright.codegen.emit_memory import Memory
from tilewright.codegen.emit_slots import Key
from tilewright.errors import CompilerBug
from tilewright.ir.loops import Buffer, Const, Load
from tilewright.ir.types import DType, bool_


class Registers(Memory):
    """Buffers without addresses.

    transposed  the columns of the vectors that were last read across, by block and names
    """

    transposed: dict[tuple[str, ...], list[Value]] = {}

    def slot(self, buffer: Buffer, index: Affine | Val) -> tuple[int, bool]:
        """The constant part of a register index, and whether the lane is added to it."""
        if not isinstance(index, Affine) or index.terms or index.lane not in (0, 1):
            raise CompilerBug(
                f"the index of register buffer {buffer.name} is not constant: {index}"
            )
        if not 0 <= index.const < buffer.size:
            raise CompilerBug(
                f"register buffer {buffer.name} of {buffer.size} has no {index.const}"
            )
        return index.const, bool(index.lane)

    def load_register(self, e: Load) -> Val:
        index = self.linear(e.index)
        name, section = e.buffer.name, self.section
        if section is not None and isinstance(index, Affine) and index.lane == section.width > 1:
            return [self.column(e.buffer, index.const, section.width)]
        element, across = self.slot(e.buffer, index)
        if e.mask is not None:
            raise CompilerBug(f"a masked load of register buffer {name}")
        if across:
            width = self.require_section().width
            return [
                self.vector_slot(e.buffer, element + copy * width, width)
                for copy in range(self.require_section().copies)
            ]
        if section is not None and self.slots.get((name, element, 0)) is not None:
            return [self.known((name, element, copy)) for copy in range(section.copies)]
        whole = self.slots.layout.get(name, {}).get(element, (element, 1))
        if whole[1] > 1:
            vector = self.known((name, whole[0], "v"))
            return self.b.define(
                vector.dtype, 1, f"extractelement {vector.typed}, i64 {element - whole[0]}"
            )
        return self.known((name, element, None))

    def column(self, buffer: Buffer, first: int, width: int) -> Value:
        """Elements first, first + width, first + 2 width ...: one column of ``width`` vectors."""
        base = first // (width * width) * width * width
        rows = [self.known((buffer.name, base + i * width, "v")) for i in range(width)]
        key = (self.b.block, *(row.name for row in rows))
        if key not in self.transposed:
            self.transposed = {key: transposed(self.b, rows)}
        return self.transposed[key][first - base]

    def vector_slot(self, buffer: Buffer, element: int, width: int) -> Value:
        """``width`` elements: a slot of its own, or gathered from single ones."""
        layout = self.slots.layout.get(buffer.name, {})
        if width == 1 or layout.get(element, (element, width)) == (element, width):
            return self.known((buffer.name, element, "v" if width > 1 else None))
        dtype = carrier(buffer.dtype)
        vector = Value("poison", dtype, width)
        for lane in range(width):
            one = self.load_register(Load(buffer, Const(element + lane)))
            if not isinstance(one, Value):
                raise CompilerBug(f"register buffer {buffer.name} differs between lanes")
            vector = self.b.define(
                dtype, width, f"insertelement {vector.typed}, {one.typed}, i64 {lane}"
            )
        return vector

    def known(self, key: Key) -> Value:
        found = self.slots.get(key)
        if found is None:
            raise CompilerBug(f"register buffer {key[0]}[{key[1]}] is read before it is written")
        return found

    def store_register(self, buffer: Buffer, index: Affine | Val, value: Val) -> None:
        element, across = self.slot(buffer, index)
        section = self.section
        if section is None:
            if isinstance(value, list):
                raise CompilerBug("a varying value outside of a vector loop")
            self.slots.claim(buffer.name, element, 1)
            self.slots.set((buffer.name, element, None), value)
            return
        if not across and buffer.name not in section.local:
            if isinstance(value, list):
                raise CompilerBug(f"the lanes of a vector loop differ on {buffer.name}[{element}]")
            self.slots.claim(buffer.name, element, 1)
            self.slots.set((buffer.name, element, None), value)
            return
        for copy, part in enumerate(self.copies(value)):
            if across and section.width > 1:
                self.slots.claim(buffer.name, element + copy * section.width, section.width)
                self.slots.set((buffer.name, element + copy * section.width, "v"), part)
            elif across:
                self.slots.set((buffer.name, element + copy, None), part)
            else:
                self.slots.set((buffer.name, element, copy), part)


def transposed(b: Builder, rows: list[Value]) -> list[Value]:
    """The columns of a square of vectors, in log2(width) rounds of exchanges.

    J. O. Eklundh, "A Fast Computer Method for Matrix Transposing" (1972): round d swaps the blocks
    off the diagonal of every square of 2d vectors.
    """
    width, distance = len(rows), 1
    while distance < width:
        low = [j if not j & distance else width + j - distance for j in range(width)]
        high = [j + distance if not j & distance else width + j for j in range(width)]
        fresh = list(rows)
        for i in range(width):
            if not i & distance:
                pair = rows[i], rows[i + distance]
                fresh[i] = b.shuffle(*pair, low)
                fresh[i + distance] = b.shuffle(*pair, high)
        rows, distance = fresh, 2 * distance
    return rows


def identity(op: str, dtype: DType) -> float | int | bool:
    """What an accumulation with ``op`` starts from."""
    if op in ("add", "or"):
        return 0
    if op == "mul":
        return 1
    if op == "and":
        return True if dtype is bool_ else -1
    low = op == "max"
    if dtype is bool_:
        return not low
    if dtype.is_float:
        return float("-inf") if low else float("inf")
    signed = dtype.kind == "i"
    least, greatest = (
        (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1) if signed else (0, 2**dtype.bits - 1)
    )
    return least if low else greatest
