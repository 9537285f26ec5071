"""Loads and stores: scalar, contiguous, reversed, gathered; masked or not; and register buffers."""

from __future__ import annotations

from tilewright.codegen.builder import Value, llvm_type, mangle
from tilewright.codegen.convert import carrier, from_memory, memory, to_memory
from tilewright.codegen.emit_core import Core, Val, ramp
from tilewright.codegen.emit_index import Affine
from tilewright.errors import CompilerBug
from tilewright.ir.loops import Buffer, Load
from tilewright.ir.sizes import less
from tilewright.ir.types import bool_, i32, i64


class Memory(Core):
    """Everything that has to do with buffers."""

    # --- addresses ----------------------------------------------------------------------
    def address(self, buffer: Buffer, index: Affine) -> str:
        """The place of a uniform index. What is constant in a loop is added outside of it."""
        element = llvm_type(memory(buffer.dtype))
        memo = self.b.regions[self.b.place].memo
        start = self.pointers[buffer.name]
        place: str | None = memo.get((start, index.terms))
        if place is None:
            place, depths = start, self.b.depths
            for name, coefficient in sorted(index.terms, key=lambda t: depths.get(t[0], 0)):
                place = self.offset(place, element, self.scaled(name, coefficient).name)
            memo[(start, index.terms)] = place
        return self.displaced(place, element, index.const)

    def displaced(self, place: str, element: str, by: int) -> str:
        """The place so many elements after another one."""
        if not by:
            return place
        # A displacement costs nothing in an address, but a register if it is computed far away.
        memo = self.b.regions[self.b.place].memo
        found: str | None = memo.get((place, by))
        if found is None:
            found = memo[(place, by)] = self.b.beyond(place, element, f"i64 {by}")
        return found

    def offset(self, place: str, element: str, by: str) -> str:
        return self.b.pure(
            ("at", place, element, by),
            (place, by),
            lambda: self.b.beyond(place, element, f"i64 {by}"),
            cheap=True,
        )

    def addresses(self, buffer: Buffer, index: Affine | Val, copy: int) -> str:
        """A vector of places, as the operand of a gather or scatter: ``<4 x ptr> %p``."""
        section = self.require_section()
        width = section.width
        element = llvm_type(memory(buffer.dtype))
        if isinstance(index, Affine):
            place = self.address(buffer, index.uniform().shift(index.lane * width * copy))
            offsets = Value(ramp(width, index.lane), i64, width)
        else:
            place = self.pointers[buffer.name]
            offsets = self.copies(index)[copy]
            if less(buffer.size * buffer.dtype.itemsize, 2**31):
                # Indices of 32 bits are gathered twice as many at once.
                offsets = self.b.convert("sext", self.b.convert("trunc", offsets, i32), i64)
        kind, name = self.b.typed(self.b.beyond(place, element, offsets.typed)).rsplit(" ", 1)
        return f"<{width} x {kind}> {name}"

    def known_alignment(self, buffer: Buffer, index: Affine, lanes: int) -> int:
        """Bytes of which the address of an access is known to be a multiple."""
        return memory(buffer.dtype).itemsize

    # --- loads --------------------------------------------------------------------------
    def load_register(self, e: Load) -> Val:
        """A load of a register buffer."""
        raise NotImplementedError

    def load(self, e: Load) -> Val:
        """``buffer[index]`` where the mask holds, else ``other``."""
        if e.buffer.space == "register":
            return self.load_register(e)
        mask = self.value(e.mask) if e.mask is not None else None
        if isinstance(mask, Value) and mask.name in ("true", "false"):
            if mask.name == "false":
                return self.other_value(e)
            mask = None
        index = self.linear(e.index)
        other = self.other_value(e) if mask is not None else None
        varying = isinstance(index, list) or (isinstance(index, Affine) and index.lane != 0)
        if isinstance(index, Value):
            raise CompilerBug("a uniform index that is not affine")
        if not varying and not isinstance(mask, list) and not isinstance(other, list):
            if not isinstance(index, Affine):
                raise CompilerBug("a varying index outside of a vector loop")
            return self.load_scalar(e.buffer, index, mask, other)
        section = self.require_section()
        masks = self.copies(mask) if mask is not None else [None] * section.copies
        others = self.copies(other) if other is not None else [None] * section.copies
        return [
            self.load_copy(e.buffer, index, copy, masks[copy], others[copy])
            for copy in range(section.copies)
        ]

    def other_value(self, e: Load) -> Val:
        if e.other is not None:
            return self.value(e.other)
        return self.b.const(carrier(e.dtype), 0)

    def load_scalar(
        self, buffer: Buffer, index: Affine, mask: Value | None = None, other: Value | None = None
    ) -> Value:
        """One element. Where a mask is off, zeros of our own are read instead."""
        if mask is None:
            return self.read_at(buffer, index, 1)
        return self.read_where(buffer, self.address(buffer, index), mask, other)

    def read_where(self, buffer: Buffer, place: str, mask: Value, other: Value | None) -> Value:
        """One element where a mask is on, else ``other``, or zero."""
        self.zeros = True
        safe = self.b.pointer(f"select {mask.typed}, ptr {place}, ptr @tw_zeros")
        value = self.read(buffer, safe, 1)
        return value if other is None else self.b.select(mask, value, other)

    def read_at(self, buffer: Buffer, index: Affine, lanes: int) -> Value:
        """A plain load at a uniform index; what only is read is loaded once, before the loops
        that do not change the index.
        """
        align = self.known_alignment(buffer, index, lanes)
        if buffer.space != "global" or buffer.access != "in":
            return self.read(buffer, self.address(buffer, index), lanes, align)
        base = self.pointers[buffer.name]
        return self.b.pure(
            ("load", base, index, lanes),
            (base, *(name for name, _ in index.terms)),
            lambda: self.read(buffer, self.address(buffer, index), lanes, align),
            reads=True,
        )

    def read(self, buffer: Buffer, place: str, lanes: int, align: int = 0) -> Value:
        """A plain load of a scalar or a contiguous vector, in the carrier type."""
        kind = memory(buffer.dtype)
        align = align or kind.itemsize
        raw = self.b.define(
            kind, lanes, f"load {llvm_type(kind, lanes)}, {self.b.typed(place)}, align {align}"
        )
        return from_memory(self.b, raw, buffer.dtype, self.machine)

    def load_copy(
        self,
        buffer: Buffer,
        index: Affine | Val,
        copy: int,
        mask: Value | None,
        other: Value | None,
    ) -> Value:
        """The vector of one copy of the section."""
        section = self.require_section()
        width, active = section.width, section.masks[copy]
        mask = self.conjunction(mask, active)
        if isinstance(index, Affine) and index.lane == 0:
            return self.load_spread(buffer, index, mask, other)
        if isinstance(index, Affine) and abs(index.lane) == 1:
            return self.load_contiguous(buffer, index, copy, mask, other)
        pairs = isinstance(index, Affine) and index.lane == 2 and self.target.gpu is None
        if isinstance(index, Affine) and pairs and mask is None and width > 1:
            return self.load_alternate(buffer, index.uniform().shift(2 * width * copy), width)
        where = self.addresses(buffer, index, copy)
        if mask is None:
            mask = Value("true" if width == 1 else "splat (i1 true)", bool_, width)
        return self.masked_read(
            buffer, "gather", f"v{width}p0", where, mask, other
        )

    def load_alternate(self, buffer: Buffer, first: Affine, width: int) -> Value:
        """Every other element, from two vectors that end with the last of them."""
        low = self.read_at(buffer, first, width)
        high = self.read_at(buffer, first.shift(width - 1), width)
        places = range(0, 2 * width, 2)
        return self.b.shuffle(low, high, [p if p < width else p + 1 for p in places])

    def load_spread(
        self, buffer: Buffer, index: Affine, mask: Value | None, other: Value | None
    ) -> Value:
        """One element for all lanes, read only if a lane wants it."""
        width = self.require_section().width
        if mask is None:
            return self.spread(self.load_scalar(buffer, index), width)
        one = self.spread(self.load_scalar(buffer, index, self.any_lane(mask)), width)
        return one if other is None else self.b.select(mask, one, other)

    def load_contiguous(
        self, buffer: Buffer, index: Affine, copy: int, mask: Value | None, other: Value | None
    ) -> Value:
        width = self.require_section().width
        first = index.uniform().shift(
            index.lane * width * copy - (width - 1 if index.lane < 0 else 0)
        )
        if mask is None:
            value = self.read_at(buffer, first, width)
            return self.reverse(value) if index.lane < 0 else value
        place = self.address(buffer, first)
        if width == 1:
            return self.read_where(buffer, place, mask, other)
        if index.lane < 0:
            mask, other = self.reverse(mask), None if other is None else self.reverse(other)
        value = self.masked_read(buffer, "load", "p0", self.b.typed(place), mask, other)
        return self.reverse(value) if index.lane < 0 else value

    def masked_read(
        self, buffer: Buffer, what: str, suffix: str, where: str, mask: Value, other: Value | None
    ) -> Value:
        """A masked load or gather; lanes that are off hold ``other``, or zero."""
        kind, width = memory(buffer.dtype), mask.lanes
        if width == 1:
            return self.gather_one(buffer, where, mask, other)
        vector = llvm_type(kind, width)
        symbol = f"llvm.masked.{what}.{mangle(kind, width)}.{suffix}"
        pointers = f"<{width} x ptr>" if what == "gather" else "ptr"
        self.b.declarations.add(
            f"declare {vector} @{symbol}({pointers}, i32, <{width} x i1>, {vector})"
        )
        direct = other is not None and kind is carrier(buffer.dtype)
        rest = other.name if direct and other is not None else "zeroinitializer"
        raw = self.b.define(
            kind,
            width,
            f"call {vector} @{symbol}({where}, i32 {kind.itemsize}, {mask.typed}, {vector} {rest})",
        )
        value = from_memory(self.b, raw, buffer.dtype, self.machine)
        return value if other is None or direct else self.b.select(mask, value, other)

    def gather_one(self, buffer: Buffer, where: str, mask: Value, other: Value | None) -> Value:
        """A gather of a single lane; ``where`` is written as a vector of one."""
        place = where.rsplit(" ", 1)[1]
        if mask.name != "true":
            return self.read_where(buffer, place, mask, other)
        return self.read(buffer, place, 1)

    # --- stores -------------------------------------------------------------------------
    def store_scalar(self, buffer: Buffer, index: Affine, value: Value) -> None:
        place = self.address(buffer, index)
        raw = to_memory(self.b, value, buffer.dtype, self.machine)
        align = self.known_alignment(buffer, index, 1)
        self.b.write(f"  store {raw.typed}, {self.b.typed(place)}, align {align}")

    def store_copy(
        self,
        buffer: Buffer,
        index: Affine | Val,
        copy: int,
        value: Value,
        mask: Value | None,
        streaming: bool = False,
    ) -> None:
        """The vector of one copy into contiguous, reversed or scattered places."""
        section = self.require_section()
        width = section.width
        mask = self.conjunction(mask, section.masks[copy])
        contiguous = isinstance(index, Affine) and abs(index.lane) == 1
        if isinstance(index, Affine) and index.lane == 0:
            raise CompilerBug(f"all lanes of a vector loop store to one place of {buffer.name}")
        if contiguous and isinstance(index, Affine):
            back = index.lane < 0
            first = index.uniform().shift(index.lane * width * copy - (width - 1 if back else 0))
            where = self.b.typed(self.address(buffer, first))
            align = self.known_alignment(buffer, first, width)
            if back:
                value, mask = self.reverse(value), None if mask is None else self.reverse(mask)
        else:
            where = self.addresses(buffer, index, copy)
            align = 1
        raw = to_memory(self.b, value, buffer.dtype, self.machine)
        if width == 1:
            self.store_one(raw, where.rsplit(" ", 1)[1], mask)
        elif contiguous and mask is None:
            whole = min(64, raw.dtype.itemsize * width)
            tail = f"{whole}, !nontemporal !0" if streaming else f"{align}"
            self.b.write(f"  store {raw.typed}, {where}, align {tail}")
        else:
            self.masked_write(raw, where, mask, "store" if contiguous else "scatter")

    def store_one(self, raw: Value, place: str, mask: Value | None) -> None:
        """A single lane; where its mask is off, a place of our own takes the value."""
        if mask is not None:
            place = self.b.pointer(f"select {mask.typed}, ptr {place}, ptr {self.dump()}")
        self.b.write(f"  store {raw.typed}, ptr {place}, align {raw.dtype.itemsize}")

    def dump(self) -> str:
        """A place on the stack for values that nobody wants."""
        if "%dump" not in self.b.allocas:
            self.b.allocas["%dump"] = "  %dump = alloca i64, align 8"
        return "%dump"

    def masked_write(self, raw: Value, where: str, mask: Value | None, what: str) -> None:
        width = raw.lanes
        if mask is None:
            mask = Value("splat (i1 true)", bool_, width)
        elif raw.dtype.bits < 32 and what == "store":
            # LLVM makes a scalar store of a masked store with one constant lane, and then forgets
            # that the value was truncated: it writes too many bytes.
            if mask.name.startswith("<") and mask.name.count("true") == 1:
                first = self.b.define(raw.dtype, 1, f"extractelement {raw.typed}, i64 0")
                self.b.write(f"  store {first.typed}, {where}, align {raw.dtype.itemsize}")
                return
            mask = self.hidden(mask)
        suffix, pointers = ("p0", "ptr") if what == "store" else (f"v{width}p0", f"<{width} x ptr>")
        symbol = f"llvm.masked.{what}.{mangle(raw.dtype, width)}.{suffix}"
        self.b.declarations.add(
            f"declare void @{symbol}({raw.type}, {pointers}, i32, <{width} x i1>)"
        )
        self.b.write(
            f"  call void @{symbol}({raw.typed}, {where}, i32 {raw.dtype.itemsize}, {mask.typed})"
        )

    def hidden(self, mask: Value) -> Value:
        """The same mask, but not a constant to LLVM."""

        def make() -> Value:
            return self.b.compare("icmp ne", Value("%nthreads", i64), Value("0", i64))

        true = self.b.pure(("hidden",), (), make, cheap=True)
        return self.b.binary("and", mask, self.spread(true, mask.lanes))

    # --- lanes --------------------------------------------------------------------------
    def conjunction(self, a: Value | None, c: Value | None) -> Value | None:
        if a is None or c is None:
            return a if c is None else c
        names = (a.name, c.name)
        return self.b.pure(("and", *names), names, lambda: self.b.binary("and", a, c))

    def reverse(self, v: Value) -> Value:
        if v.lanes == 1:
            return v
        order = ", ".join(f"i32 {lane}" for lane in reversed(range(v.lanes)))
        return self.b.define(
            v.dtype,
            v.lanes,
            f"shufflevector {v.typed}, {v.type} poison, <{v.lanes} x i32> <{order}>",
        )

    def any_lane(self, mask: Value) -> Value:
        """Whether some lane of a bool vector is on."""
        if mask.lanes == 1:
            return mask
        bits = self.b.pointer(f"bitcast {mask.typed} to i{mask.lanes}")
        return self.b.define(bool_, 1, f"icmp ne i{mask.lanes} {bits}, 0")
