"""Vector loops: whole steps, remainders, streaming versions and the sums at their ends."""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.codegen.builder import Value
from tilewright.codegen.emit_core import Section, bool_ramp
from tilewright.codegen.emit_index import Affine, plus, times
from tilewright.codegen.emit_loops import Loops
from tilewright.codegen.emit_slots import Frame, written_buffers
from tilewright.errors import CompilerBug
from tilewright.ir.loops import (
    Accumulate,
    Call,
    Check,
    Expr,
    For,
    If,
    Instruction,
    Let,
    Load,
    Prefetch,
    Shuffle,
    Stmt,
    Store,
    Var,
)
from tilewright.ir.types import bool_, i32, i64


class Vectors(Loops):
    """Vector loops, on top of the other kinds."""

    def vector(self, s: For) -> None:
        """A vector loop, in two versions if it has streaming stores, which need aligned places."""
        aligned = self.alignment(s)
        if aligned is None:
            self.vector_version(s)
            return
        self.fenced = True
        outer = self.streaming

        def run(streaming: bool) -> None:
            self.streaming = streaming
            self.vector_version(s)
            self.streaming = outer

        self.branch(aligned, lambda: run(True), lambda: run(False))

    def alignment(self, s: For) -> Value | None:
        """Whether all streaming stores begin at whole vectors; None if there are none."""
        bits: list[Value] = []
        local = {t.var.name for t in s.body if isinstance(t, Let)} | {s.var.name}
        for store in s.body:
            if not (isinstance(store, Store) and store.streaming and store.mask is None):
                continue
            size = store.buffer.dtype.itemsize * s.width
            if size < 16 or size & (size - 1) or mentions(store.index, local - {s.var.name}):
                continue
            self.env[s.var.name] = self.bound(s.start)
            index = self.linear(store.index)
            if isinstance(index, Affine):
                place = self.address(store.buffer, index)
                number = self.b.define(i64, 1, f"ptrtoint ptr {place} to i64")
                bits.append(self.b.binary("and", number, Value(str(min(64, size) - 1), i64)))
        if not bits:
            return None
        joined = bits[0]
        for value in bits[1:]:
            joined = self.b.binary("or", joined, value)
        return self.b.compare("icmp eq", joined, Value("0", i64))

    def vector_version(self, s: For) -> None:
        if self.section is not None:
            raise CompilerBug(f"vector loop {s.var.name} inside another")
        frame = self.slots.push(Frame(vector=True))
        start, stop = self.bound(s.start), self.bound(s.stop)
        outside = self.b.place
        trip = plus(stop, times(start, -1)).number
        if trip is not None:
            self.vector_constant(s, start, trip, outside)
        else:
            self.vector_dynamic(s, start, stop, outside)
        self.slots.pop_plain()
        self.finish_sums(frame)
        # Another loop that adds to the same place begins anew.
        for key in frame.sums:
            self.slots.frames[-1].slots.pop(key, None)

    def finish_sums(self, frame: Frame) -> None:
        """Join the private accumulators of a finished vector loop and add them to their places."""
        groups: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
        for key in frame.sums:
            groups.setdefault(key[:4], []).append(key)
        for keys in groups.values():
            statement = frame.sums[keys[0]]
            total: Value | None = None
            for width in sorted({k[4] for k in keys}, reverse=True):  # type: ignore[type-var]
                parts = [frame.slots[k] for k in keys if k[4] == width and k in frame.slots]
                if parts:
                    one = self.join(statement, parts)
                    total = (
                        one
                        if total is None
                        else self.combine(statement.op, statement.buffer, total, one)
                    )
            index = keys[0][3]
            if total is not None and isinstance(index, Affine):
                self.add_scalar(statement, index, total)

    def vector_constant(self, s: For, start: Affine, trip: int, outside: int) -> None:
        """A known number of iterations: whole steps, then what is left without a loop."""
        width, step = s.width, s.width * s.interleave
        if trip <= 0:
            return
        if trip != step and start.number is not None and lane_registers(s):
            step = trip
        full = trip // step if step <= trip else 0
        if step == trip:
            full = 0
        if full == 1:
            self.run_section(
                s, start, Section(s.var.name, width, s.interleave, [None] * s.interleave, outside)
            )
        elif full:
            self.vector_steps(s, start, start.shift(full * step), s.interleave, outside)
        self.remainder(s, start.shift(full * step), trip - full * step, outside)

    def remainder(self, s: For, start: Affine, rest: int, outside: int) -> None:
        """Fewer iterations than a whole step: vectors side by side, the last one masked."""
        width, tail = s.width, rest % s.width
        whole = rest // width
        masked = tail > 0 and self.can_mask(s)
        masks: list[Value | None] = [None] * whole
        if masked:
            masks.append(Value(bool_ramp(width, tail), bool_, width))
        if masks:
            self.run_section(s, start, Section(s.var.name, width, len(masks), masks, outside))
        if tail and not masked:
            first = start.shift(whole * width)
            self.vector_steps(s, first, first.shift(tail), 1, outside, 1)

    def vector_steps(
        self, s: For, start: Affine, stop: Affine, copies: int, outside: int, width: int = 0
    ) -> None:
        """A loop over whole steps of ``copies`` vectors."""
        width = width or s.width

        def run(i: Value) -> None:
            section = Section(s.var.name, width, copies, [None] * copies, outside)
            self.run_section(s, Affine(0, ((i.name, 1),)), section)

        self.counted(start, stop, width * copies, written_buffers(s.body), run)

    def vector_dynamic(self, s: For, start: Affine, stop: Affine, outside: int) -> None:
        """A number of iterations that is known when the program runs."""
        count = self.b.intrinsic(
            "smax", self.sum_terms(plus(stop, times(start, -1))), Value("0", i64)
        )

        def whole(step: int) -> Affine:
            if step & (step - 1) == 0:
                n = self.b.binary("and", count, Value(str(-step), i64))
            else:
                steps = self.b.binary("udiv", count, Value(str(step), i64))
                n = self.b.binary("mul", steps, Value(str(step), i64))
            return plus(start, Affine(0, ((n.name, 1),)))

        first = whole(s.width * s.interleave)
        self.vector_steps(s, start, first, s.interleave, outside)
        second = first
        if s.interleave > 1:
            second = whole(s.width)
            self.vector_steps(s, first, second, 1, outside)
        if not self.can_mask(s):
            self.vector_steps(s, second, stop, 1, outside, 1)
        elif s.width > 1:
            self.dynamic_tail(s, second, stop, outside)

    def dynamic_tail(self, s: For, start: Affine, stop: Affine, outside: int) -> None:
        """The last, partial vector, if there is one."""
        rest = self.sum_terms(plus(stop, times(start, -1)))

        def run() -> None:
            short = self.b.convert("trunc", rest, i32)
            lanes = ", ".join(f"i32 {lane}" for lane in range(s.width))
            active = self.b.compare(
                "icmp slt", Value(f"<{lanes}>", i32, s.width), self.b.splat(short, s.width)
            )
            self.run_section(s, start, Section(s.var.name, s.width, 1, [active], outside))

        self.branch(self.b.compare("icmp sgt", rest, Value("0", i64)), run)

    def run_section(self, s: For, base: Affine, section: Section) -> None:
        self.env[s.var.name] = Affine(base.const, base.terms, 1)
        self.section = section
        self.statements(s.body)
        self.section = None
        self.slots.forget_lanes()

    def can_mask(self, s: For) -> bool:
        """Whether the target loads and stores partial vectors of all types in the loop well."""
        if s.width == 1:
            return True
        if not self.target.masked:
            return False
        return self.target.vector_bytes >= 64 or all(
            size in (4, 8) for size in memory_sizes(s.body)
        )


def mentions(e: Expr, names: set[str]) -> bool:
    """Whether an expression uses one of these variables."""
    if isinstance(e, Var):
        return e.name in names
    if isinstance(e, Call):
        return any(mentions(a, names) for a in e.args)
    return isinstance(e, Load) and mentions(e.index, names)


def expressions(body: Iterable[Stmt]) -> Iterable[tuple[Stmt, Expr]]:
    """All expressions below these statements, the outermost ones, with their statements."""
    for s in body:
        if isinstance(s, Let):
            yield s, s.value
        elif isinstance(s, Shuffle):
            yield s, s.value
            yield s, s.lane
        elif isinstance(s, Instruction):
            yield from ((s, operand) for operand in s.operands)
        elif isinstance(s, Store | Accumulate):
            yield s, s.index
            yield s, s.value
            if s.mask is not None:
                yield s, s.mask
        elif isinstance(s, Prefetch):
            yield s, s.index
        elif isinstance(s, If | Check):
            yield s, s.condition
            if isinstance(s, If):
                yield from expressions((*s.body, *s.orelse))
        elif isinstance(s, For):
            yield s, s.start
            yield s, s.stop
            yield from expressions(s.body)


def loads(e: Expr) -> Iterable[Load]:
    """All loads in an expression."""
    if isinstance(e, Load):
        yield e
        yield from loads(e.index)
        for part in (e.mask, e.other):
            if part is not None:
                yield from loads(part)
    elif isinstance(e, Call):
        for a in e.args:
            yield from loads(a)


def lane_registers(s: For) -> bool:
    """Whether the loop uses elements of a register buffer that depend on its variable."""
    names = {s.var.name}
    for statement, e in expressions(s.body):
        if isinstance(statement, Store | Accumulate) and e is statement.index:
            if statement.buffer.space == "register" and mentions(e, names):
                return True
        if any(x.buffer.space == "register" and mentions(x.index, names) for x in loads(e)):
            return True
    return False


def memory_sizes(body: Iterable[Stmt]) -> set[int]:
    """Bytes of the elements that these statements load and store."""
    sizes: set[int] = set()
    for statement, e in expressions(body):
        if isinstance(statement, Store | Accumulate) and statement.buffer.space != "register":
            sizes.add(statement.buffer.dtype.itemsize)
        sizes |= {x.buffer.dtype.itemsize for x in loads(e) if x.buffer.space != "register"}
    return sizes
