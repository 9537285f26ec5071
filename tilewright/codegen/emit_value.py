"""Expressions to values, and accumulation."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from tilewright.codegen.builder import Value
from tilewright.codegen.convert import carrier
from tilewright.codegen.emit_core import Val
from tilewright.codegen.emit_index import Affine
from tilewright.codegen.emit_registers import Registers, identity
from tilewright.codegen.integers import number_of
from tilewright.codegen.spelling import spell
from tilewright.errors import CompilerBug, Unsupported
from tilewright.ir.loops import Accumulate, Buffer, Call, Const, Expr, Load, Var
from tilewright.ir.types import bool_, i64

FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "min": min,
    "max": max,
}


class Values(Registers):
    """Evaluates expressions in the current section."""

    def value(self, e: Expr) -> Val:
        """The value of an expression in its carrier type."""
        if isinstance(e, Load):
            return self.load(e)
        if isinstance(e, Const):
            return self.b.const(carrier(e.dtype), rounded(e))
        if isinstance(e, Var):
            found = self.env[e.name]
            return self.materialize(found) if isinstance(found, Affine) else found
        if e.dtype is i64:
            linear = self.linear(e)
            return self.materialize(linear) if isinstance(linear, Affine) else linear
        return self.call(e)

    def call(self, e: Call) -> Val:
        """A primitive on its arguments' values."""
        args = tuple(self.value(a) for a in e.args)
        types = tuple(a.dtype for a in e.args)
        if e.dtype is bool_ or e.dtype is i64:
            folded = fold(e, args)
            if folded is not None:
                return folded
        key = (e.op, e.dtype.name, *(t.name for t in types))
        try:
            value = self.each(
                lambda *parts: spell(
                    self.b, e.op, parts, types, e.dtype, self.machine, self.functions
                ),
                args,
                key,
            )
        except KeyError as error:
            raise Unsupported(f"no code for the op {error} on {types[0]}") from None
        if e.dtype is i64 and e.op in ("min", "max") and isinstance(value, Value):
            self.note_range(e, value, args)
        return value

    def note_range(self, e: Call, value: Value, args: tuple[Val, ...]) -> None:
        """The range of the smaller or larger of two indices whose ranges are known."""
        found = [self.range_of(a) for a in map(self.as_affine, args) if isinstance(a, Affine)]
        known = [f for f in found if f is not None]
        if len(known) == 2:
            pick = min if e.op == "min" else max
            self.ranges[value.name] = (
                pick(known[0][0], known[1][0]),
                pick(known[0][1], known[1][1]),
            )

    # --- accumulation -------------------------------------------------------------------
    def combine(self, op: str, buffer: Buffer, a: Value, c: Value) -> Value:
        """One step of an accumulation: the old value and what comes in."""
        dtype = buffer.dtype
        pair = (c, a) if op in ("max", "min") else (a, c)
        self.b.contract = True  # the order of an accumulation is ours: its rounding is too
        made = spell(self.b, op, pair, (dtype, dtype), dtype, self.machine, self.functions)
        self.b.contract = self.target.contract
        return made

    def accumulate(self, s: Accumulate) -> None:
        """``buffer[index] = op(buffer[index], value)`` in every lane."""
        index = self.linear(s.index)
        mask = self.value(s.mask) if s.mask is not None else None
        value = self.value(s.value)
        section = self.section
        if section is None:
            self.accumulate_scalar(s, index, value, mask)
        elif isinstance(index, Affine) and index.lane == 0 and s.buffer.name not in section.local:
            self.accumulate_across(s, index, value, mask)
        elif s.buffer.space == "register":
            self.accumulate_slots(s, value, mask)
        else:
            masks = self.copies(mask) if mask is not None else [None] * section.copies
            for copy, part in enumerate(self.copies(value)):
                old = self.load_copy(s.buffer, index, copy, masks[copy], None)
                new = self.combine(s.op, s.buffer, old, part)
                self.store_copy(s.buffer, index, copy, new, masks[copy])

    def accumulate_slots(self, s: Accumulate, value: Val, mask: Val | None) -> None:
        """Into a register buffer whose elements belong to the lanes."""
        old = self.copies(self.load_register(Load(s.buffer, s.index)))
        masks = self.copies(mask) if mask is not None else [None] * len(old)
        new = []
        for a, part, m in zip(old, self.copies(value), masks, strict=True):
            result = self.combine(s.op, s.buffer, a, part)
            new.append(result if m is None else self.b.select(m, result, a))
        self.store_register(s.buffer, self.linear(s.index), new)

    def accumulate_scalar(
        self, s: Accumulate, index: Affine | Val, value: Val, mask: Val | None
    ) -> None:
        """Outside of vector loops."""
        if isinstance(value, list) or isinstance(mask, list) or not isinstance(index, Affine):
            raise CompilerBug("a varying value outside of a vector loop")
        if mask is not None:
            value = self.b.select(mask, value, self.start(s))
        self.add_scalar(s, index, value)

    def start(self, s: Accumulate, lanes: int = 1) -> Value:
        return self.b.const(carrier(s.buffer.dtype), identity(s.op, s.buffer.dtype), lanes)

    def add_scalar(self, s: Accumulate, index: Affine, value: Value) -> None:
        """One scalar into one place."""
        if s.buffer.space == "register":
            old = self.load_register(Load(s.buffer, Const(index.const)))
            if index.terms or isinstance(old, list):
                raise CompilerBug(f"the index of register buffer {s.buffer.name} is not constant")
            new = self.combine(s.op, s.buffer, old, value)
            saved, self.section = self.section, None
            self.store_register(s.buffer, index, new)
            self.section = saved
            return
        old = self.load_scalar(s.buffer, index)
        self.store_scalar(s.buffer, index, self.combine(s.op, s.buffer, old, value))

    def accumulate_across(self, s: Accumulate, index: Affine, value: Val, mask: Val | None) -> None:
        """All lanes into one place: vectors of partial results, joined after the vector loop.

        A place that is only known inside the vector loop gets its sum at once.
        """
        section = self.require_section()
        private = self.b.depth(n for n, _ in index.terms) <= section.outside
        masks = self.copies(mask) if mask is not None else [None] * section.copies
        parts = []
        for copy, part in enumerate(self.copies(value)):
            active = self.conjunction(masks[copy], section.masks[copy])
            key = (s.buffer.name, "sum", s.op, index, section.width, copy)
            old = self.partial(key, s) if private else self.start(s, section.width)
            new = self.combine(s.op, s.buffer, old, part)
            if active is not None:
                new = self.b.select(active, new, old)
            if private:
                self.slots.set(key, new)
            parts.append(new)
        if not private:
            self.add_scalar(s, index, self.join(s, parts))

    def partial(self, key: tuple[Any, ...], s: Accumulate) -> Value:
        found = self.slots.get(key)
        if found is not None:
            return found
        start = self.start(s, self.require_section().width)
        frame = next(f for f in reversed(self.slots.frames) if f.vector)
        frame.identities[key] = start
        frame.sums[key] = s
        return self.slots.get(key) or start

    def join(self, s: Accumulate, parts: list[Value]) -> Value:
        """All lanes of all vectors as one scalar: pairs of vectors, then halves; a fixed order."""
        while len(parts) > 1:
            pairs = [
                self.combine(s.op, s.buffer, a, c)
                for a, c in zip(parts[::2], parts[1::2], strict=False)
            ]
            parts = pairs + parts[len(pairs) * 2 :]
        value = parts[0]
        while value.lanes > 1:
            half = value.lanes // 2
            if value.lanes % 2:
                raise CompilerBug(f"a sum over {value.lanes} lanes")
            low, high = (self.lanes_from(value, first, half) for first in (0, half))
            value = self.combine(s.op, s.buffer, low, high)
        return value

    def lanes_from(self, v: Value, first: int, count: int) -> Value:
        """Consecutive lanes; one lane as a scalar."""
        if count == 1:
            return self.b.define(v.dtype, 1, f"extractelement {v.typed}, i64 {first}")
        order = ", ".join(f"i32 {first + lane}" for lane in range(count))
        return self.b.define(
            v.dtype, count, f"shufflevector {v.typed}, {v.type} poison, <{count} x i32> <{order}>"
        )


def rounded(e: Const) -> Any:
    """The constant as its element type holds it."""
    if not e.dtype.is_float:
        return e.value
    return float(e.dtype.numpy.type(e.value))


def fold(e: Call, args: tuple[Val, ...]) -> Val | None:
    """Truths and indices whose arguments are constants, or that one argument decides."""
    first = args[0]
    if e.op in ("and", "or") and e.dtype is bool_:
        for one, other in ((args[0], args[1]), (args[1], args[0])):
            if isinstance(one, Value) and one.name in ("true", "false"):
                decided = (one.name == "true") == (e.op == "or")
                return one if decided else other
        return None
    if e.op == "not" and isinstance(first, Value) and first.name in ("true", "false"):
        return Value("false" if first.name == "true" else "true", bool_)
    if e.op not in FOLD or not e.args[0].dtype.is_int or e.args[0].dtype is not i64:
        return None
    numbers = [number_of(a) if isinstance(a, Value) else None for a in args]
    if None in numbers:
        return None
    result = FOLD[e.op](*numbers)
    if e.dtype is bool_:
        return Value("true" if result else "false", bool_)
    return Value(str(result), i64)
