"""Loads and stores on a GPU: branches in place of masked instructions, aligned accesses of several
elements, the memory of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tilewright.codegen.builder import Value, llvm_type
from tilewright.codegen.convert import carrier, from_memory, memory
from tilewright.codegen.emit_core import Val
from tilewright.codegen.emit_index import Affine
from tilewright.codegen.gpu.indices import GridIndices
from tilewright.compiler.plan import ALIGNED
from tilewright.errors import CompilerBug
from tilewright.ir import loops as k
from tilewright.ir.types import DType, as_number, bool_

WIDEST = ALIGNED
"""Bytes of a thread's widest access."""

LINE, WHOLE = 128, 1024
"""What the address of a shared buffer is a multiple of: a line, or the pattern of a swizzle if the
buffer has room for one."""

SHARED = "@tw_shared = external addrspace(3) global [0 x i8], align 1024"
"""The memory of a block, as much as the launch says."""


INDEX, VALUE = k.Var("%index"), "%value"
"""Names of what an access was given before its branch."""


KINDS: dict[k.Space, str] = {"global": "ptr addrspace(1)", "shared": "ptr addrspace(3)"}
"""Types of pointers: an access names the memory that it is to."""


class GridMemory(GridIndices):
    """Memory as the threads of a grid see it.

    Where an access depends on a mask there is a branch, of which ptxas makes a predicate.
    """

    block_bytes = 0
    """Bytes of the block's memory so far."""

    def kind(self, buffer: k.Buffer) -> str:
        return KINDS.get(buffer.space, "ptr")

    # --- alignment ----------------------------------------------------------------------
    def known_alignment(self, buffer: k.Buffer, index: Affine, lanes: int) -> int:
        size = memory(buffer.dtype).itemsize
        parts = (index.const, *(coefficient for _, coefficient in index.terms))
        return math.gcd(WIDEST, *(part * size for part in parts))

    def alignment(self, s: k.For) -> Value | None:
        """Streaming stores are stores like others."""
        return None

    def read(self, buffer: k.Buffer, place: str, lanes: int, align: int = 0) -> Value:
        """As on a CPU; LLVM would make loads of single elements of a vector that is taken apart."""
        if lanes == 1:
            return super().read(buffer, place, lanes, align)
        kind = memory(buffer.dtype)
        raw = self.b.define(
            kind, lanes, f"load {llvm_type(kind, lanes)}, {self.b.typed(place)}, "
            f"align {align or kind.itemsize}")
        whole = self.b.define(kind, lanes, f"freeze {raw.typed}")
        return from_memory(self.b, whole, buffer.dtype, self.machine)

    # --- masks --------------------------------------------------------------------------
    def guarded(self, mask: Value, read: Callable[[], Val], other: Val) -> Val:
        """What ``read`` gives if a mask holds, which is one for all lanes; else ``other``."""
        found: list[Val] = []
        ends = [self.b.block]

        def run() -> None:
            found.append(read())
            ends.append(self.b.block)

        self.branch(mask, run)
        before, after = ends

        def joined(a: Value, c: Value) -> Value:
            return self.b.define(
                a.dtype, a.lanes, f"phi {a.type} [{a.name}, %{after}], [{c.name}, %{before}]")

        if isinstance(found[0], Value):
            if isinstance(other, list):
                raise CompilerBug("one value for all lanes, or one for each")
            return joined(found[0], other)
        return [joined(a, c) for a, c in zip(found[0], self.copies(other), strict=True)]

    def load(self, e: k.Load) -> Val:
        if e.mask is None or e.buffer.space == "register":
            return super().load(e)
        mask = self.value(e.mask)
        if isinstance(mask, list) or mask.name in ("true", "false"):
            return super().load(e)
        index, other = self.linear(e.index), self.other_value(e)
        if isinstance(index, list) or (isinstance(index, Affine) and index.lane):
            other = self.copies(other)
        elif isinstance(other, list):
            return super().load(e)
        self.env[INDEX.name] = index
        return self.guarded(
            mask, lambda: super(GridMemory, self).load(k.Load(e.buffer, INDEX)), other)

    def store(self, s: k.Store) -> None:
        mask = self.value(s.mask) if s.mask is not None and s.buffer.space != "register" else None
        if not isinstance(mask, Value) or mask.name in ("true", "false"):
            super().store(s)
            return
        self.env[INDEX.name], self.env[VALUE] = self.linear(s.index), self.value(s.value)
        plain = k.Store(s.buffer, INDEX, k.Var(VALUE, carrier(s.buffer.dtype)))
        self.branch(mask, lambda: super(GridMemory, self).store(plain))

    def read_where(self, buffer: k.Buffer, place: str, mask: Value, other: Value | None) -> Value:
        rest = other or self.b.const(carrier(buffer.dtype), 0)
        if mask.name == "false":
            return rest
        found = self.guarded(mask, lambda: self.read(buffer, place, 1), rest)
        assert isinstance(found, Value)
        return found

    def masked_read(
        self, buffer: k.Buffer, what: str, suffix: str, where: str, mask: Value,
        other: Value | None,
    ) -> Value:
        """Lane by lane."""
        dtype = carrier(buffer.dtype)
        if mask.lanes == 1:
            return self.gather_one(buffer, where, mask, other)
        result = Value("poison", dtype, mask.lanes)
        for lane, place in enumerate(self.places(where, memory(buffer.dtype), mask.lanes)):
            active = self.lane_of(mask, lane)
            if active.name == "true":
                one = self.read(buffer, place, 1)
            else:
                rest = None if other is None else self.lane_of(other, lane)
                one = self.read_where(buffer, place, active, rest)
            result = self.b.define(
                dtype, mask.lanes, f"insertelement {result.typed}, {one.typed}, i64 {lane}")
        return result

    def masked_write(self, raw: Value, where: str, mask: Value | None, what: str) -> None:
        """Lane by lane."""
        for lane, place in enumerate(self.places(where, raw.dtype, raw.lanes)):
            active = None if mask is None else self.lane_of(mask, lane)
            self.store_one(self.lane_of(raw, lane), place, active)

    def store_one(self, raw: Value, place: str, mask: Value | None) -> None:
        line = f"  store {raw.typed}, {self.b.typed(place)}, align {raw.dtype.itemsize}"
        if mask is None or mask.name == "true":
            self.b.write(line)
        elif mask.name != "false":
            self.branch(mask, lambda: self.b.write(line))

    def places(self, where: str, kind: DType, lanes: int) -> list[str]:
        """The addresses of the lanes, given one vector of them or the first."""
        name = where.rsplit(" ", 1)[1]
        if not where.startswith("<"):
            return [self.b.beyond(name, llvm_type(kind), f"i64 {n}") for n in range(lanes)]
        found = [self.b.pointer(f"extractelement {where}, i64 {n}") for n in range(lanes)]
        if name in self.b.kinds:
            self.b.kinds.update(dict.fromkeys(found, self.b.kinds[name]))
        return found

    def lane_of(self, v: Value, lane: int) -> Value:
        """One lane; of a constant mask itself a constant."""
        if v.lanes == 1:
            return v
        if v.dtype is bool_ and not v.name.startswith("%"):
            words = [w for w in v.name.split() if w.startswith(("true", "false"))]
            return Value(words[min(lane, len(words) - 1)].rstrip(",>)"), bool_)
        return self.b.define(v.dtype, 1, f"extractelement {v.typed}, i64 {lane}")

    # --- the memory of a block -------------------------------------------------------------
    def allocate(self, buffer: k.Buffer) -> None:
        if buffer.space != "shared":
            super().allocate(buffer)
            return
        size = as_number(buffer.size) * buffer.dtype.itemsize
        align = WHOLE if size >= WHOLE else LINE
        offset = -(-self.block_bytes // align) * align
        self.block_bytes = offset + size
        name = self.b.fresh("shared")
        kind = self.b.kinds[name] = self.kind(buffer)
        self.b.allocas[name] = f"  {name} = getelementptr i8, {kind} @tw_shared, i64 {offset}"
        self.b.declarations.add(SHARED)
        self.pointers[buffer.name] = name
