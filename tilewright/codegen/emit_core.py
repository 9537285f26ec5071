"""What all parts of the emitter share: values of a kernel's expressions, the vector section that is
being written, and index arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from tilewright.codegen.builder import Value
from tilewright.codegen.convert import machine_of
from tilewright.codegen.emit_index import Affine, Range, affine_range, plus, split, times
from tilewright.codegen.emit_place import Placer
from tilewright.codegen.emit_slots import Slots
from tilewright.codegen.integers import number_of
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.ir.loops import Call, Const, Expr, Var
from tilewright.ir.types import i32, i64

Val: TypeAlias = "Value | list[Value]"
"""An expression's value: one scalar that all lanes share, or one vector per copy of the section."""


@dataclass
class Section:
    """A stretch of a vector loop: ``copies`` vectors of ``width`` lanes written side by side.

    masks  per copy: the active lanes, or None for all
    local  names of the register buffers that each lane has for itself
    """

    var: str
    width: int
    copies: int
    masks: list[Value | None]
    outside: int
    local: set[str] = field(default_factory=set)


class Core:
    """State of one kernel's emission, and index arithmetic."""

    def __init__(self, target: Target, functions: dict[str, Callable[..., Value]]) -> None:
        self.target = target
        self.machine = machine_of(target)
        self.functions = functions
        self.b = Placer(self.machine)
        self.b.fused, self.b.contract = target.fma, target.contract
        self.slots = Slots(self.b)
        self.env: dict[str, Affine | Val] = {}
        self.ranges: dict[str, Range] = {}
        self.pointers: dict[str, str] = {}
        self.forms: dict[int, Form] = {}
        self.section: Section | None = None
        self.streaming = False
        self.fenced = False
        self.zeros = False

    # --- what the other parts supply -----------------------------------------------------
    def value(self, e: Expr) -> Val:
        raise NotImplementedError

    def call(self, e: Call) -> Val:
        raise NotImplementedError

    # --- indices ------------------------------------------------------------------------
    def linear(self, e: Expr) -> Affine | Val:
        """An i64 expression as an affine index if it is one, else its vectors.

        Sums and multiples are taken apart once per expression, not once per use.
        """
        form = self.forms.get(id(e))
        if form is None:
            form = self.forms[id(e)] = linear_form(e)
        if form.number is not None:
            return form.number
        const, lane = form.const, 0
        terms: dict[str, int] = {}
        env = self.env
        for atom, factor, name in form.atoms:
            a = env[name] if name is not None else self.atom(atom)
            if not isinstance(a, Affine):
                a = self.as_affine(a)
                if not isinstance(a, Affine):
                    return a if form.single else self.general(e)
            offset, parts, step = a
            const += offset * factor
            lane += step * factor
            for value, coefficient in parts:
                terms[value] = terms.get(value, 0) + coefficient * factor
        if len(terms) > 1 or 0 in terms.values():
            terms = {value: terms[value] for value in sorted(terms) if terms[value]}
        return Affine(const, tuple(terms.items()), lane)

    def general(self, e: Expr) -> Affine | Val:
        """Index arithmetic on vectors."""
        return self.as_affine(self.call(e) if isinstance(e, Call) else self.value(e))

    def atom(self, e: Expr) -> Affine | Val:
        """What is neither a sum nor a multiple."""
        if not isinstance(e, Call):
            return self.value(e)
        if e.op in ("floordiv", "mod"):
            found = self.divided(e.op, e)
            if found is not None:
                return found
        if e.op == "mul":
            # One factor may be a constant by now, such as the variable of an unrolled loop.
            a, c = self.linear(e.args[0]), self.linear(e.args[1])
            for one, other in ((a, c), (c, a)):
                if (
                    isinstance(one, Affine)
                    and isinstance(other, Affine)
                    and other.number is not None
                ):
                    return times(one, other.number)
        return self.call(e)

    def divided(self, op: str, e: Call) -> Affine | Val | None:
        """Quotient or remainder by a positive constant, using what is known of the dividend."""
        a, c = self.linear(e.args[0]), self.linear(e.args[1])
        if not (isinstance(a, Affine) and isinstance(c, Affine) and c.number and c.number > 0):
            return None
        divisor = c.number
        if a.number is not None:
            return Affine(a.number // divisor if op == "floordiv" else a.number % divisor)
        quotient, rest = split(a, divisor)
        found = self.range_of(rest)
        if found is None or found[0] < 0:
            return None
        if found[1] < divisor:
            return quotient if op == "floordiv" else rest
        small = self.small_division(op, rest, divisor, found)
        if op == "mod":
            return small
        return (
            plus(quotient, small)
            if isinstance(small, Affine)
            else self.add_general(quotient, small)
        )

    def add_general(self, a: Affine, v: Val) -> Val:
        one = self.materialize(a)
        return self.each(lambda x, y: self.b.binary("add", x, y), (one, v), "add")

    def small_division(self, op: str, rest: Affine, divisor: int, found: Range) -> Affine | Val:
        """Division of what is known not to be negative; in 32 bits if it fits there."""
        narrow = found[1] < 2**31
        opcode = "udiv" if op == "floordiv" else "urem"

        def make(x: Value) -> Value:
            if not narrow:
                return self.b.binary(opcode, x, self.b.like(x, divisor))
            short = self.b.convert("trunc", x, i32)
            return self.b.convert(
                "zext", self.b.binary(opcode, short, self.b.like(short, divisor)), i64
            )

        value = self.each(make, (self.materialize(rest),), (op, divisor))
        if isinstance(value, Value):
            high = found[1] // divisor if op == "floordiv" else divisor - 1
            self.ranges[value.name] = (0, high)
        return self.as_affine(value)

    def as_affine(self, v: Val) -> Affine | Val:
        if isinstance(v, list):
            return v
        number = number_of(v)
        return Affine(number) if number is not None else Affine(0, ((v.name, 1),))

    def range_of(self, a: Affine) -> Range | None:
        lanes = self.section.width * self.section.copies if self.section else 1
        return affine_range(a, self.ranges, lanes)

    def materialize(self, a: Affine) -> Val:
        """The number or numbers that an affine index stands for."""
        if not a.lane:
            return self.sum_terms(a)
        section = self.require_section()
        base = self.sum_terms(a.uniform())
        return [
            self.lane_values(base, a.lane, copy * section.width * a.lane, section.width)
            for copy in range(section.copies)
        ]

    def lane_values(self, base: Value, step: int, offset: int, width: int) -> Value:
        steps = Value(ramp(width, step, offset), i64, width)
        wide = self.spread(base, width)
        return self.b.pure(
            ("ramp", wide.name, steps.name), (wide.name,), lambda: self.b.binary("add", wide, steps)
        )

    def sum_terms(self, a: Affine) -> Value:
        """The scalar value of a uniform index; parts that are known further out are added there."""
        if not a.terms:
            return Value(str(a.const), i64)
        total: Value | None = None
        for name, coefficient in sorted(a.terms, key=lambda t: self.b.depths.get(t[0], 0)):
            term = self.scaled(name, coefficient)
            total = term if total is None else self.scalar("add", total, term)
        if total is None:
            raise CompilerBug("an index without terms")
        return self.scalar("add", total, Value(str(a.const), i64)) if a.const else total

    def scaled(self, name: str, coefficient: int) -> Value:
        value = Value(name, i64)
        return (
            value if coefficient == 1 else self.scalar("mul", value, Value(str(coefficient), i64))
        )

    def scalar(self, opcode: str, a: Value, c: Value) -> Value:
        """An integer instruction on scalars, as far out as possible."""
        return self.b.pure(
            (opcode, a.name, c.name, a.type),
            (a.name, c.name),
            lambda: self.b.binary(opcode, a, c),
            cheap=True,
        )

    # --- lanes --------------------------------------------------------------------------
    def require_section(self) -> Section:
        if self.section is None:
            raise CompilerBug("a varying value outside of a vector loop")
        return self.section

    def spread(self, v: Value, width: int) -> Value:
        """A scalar in all lanes (``width`` 1: itself)."""
        if width == 1 or v.lanes == width:
            return v
        return self.b.pure(
            ("splat", v.name, v.type, width), (v.name,), lambda: self.b.splat(v, width)
        )

    def copies(self, v: Val) -> list[Value]:
        """The vectors of a value, one per copy."""
        if isinstance(v, list):
            return v
        section = self.require_section()
        return [self.spread(v, section.width)] * section.copies

    def each(self, make: Callable[..., Value], args: tuple[Val, ...], key: Any) -> Val:
        """``make`` on scalars, or per copy on vectors; written as far out as possible, once."""
        pure = self.b.pure
        if not any(isinstance(a, list) for a in args):
            names = tuple(a.name for a in args)  # type: ignore[union-attr]
            typed = (key, names, args[0].type) if args else (key, names)  # type: ignore[union-attr]
            return pure(typed, names, lambda: make(*args))
        results = []
        for parts in zip(*(self.copies(a) for a in args), strict=True):
            names = tuple(p.name for p in parts)
            typed = (key, names, parts[0].type)
            results.append(pure(typed, names, functools.partial(make, *parts)))
        return results

    def mask(self, copy: int) -> Value | None:
        """The active lanes of a copy; None for all."""
        return self.section.masks[copy] if self.section else None


class Form(NamedTuple):
    """An index taken apart: ``const`` plus a number times each of ``atoms``, which have their
    variable's name beside them; ``number`` if there are none.

    ``of`` keeps the expression alive, whose identity stands for it.
    """

    of: Expr
    const: int
    atoms: tuple[tuple[Expr, int, str | None], ...]
    single: bool
    number: Affine | None


def linear_form(e: Expr) -> Form:
    """The sums and multiples at the top of an i64 expression."""
    atoms: list[tuple[Expr, int]] = []
    const = collect(e, 1, atoms)
    named = tuple((a, factor, a.name if isinstance(a, Var) else None) for a, factor in atoms)
    number = None if atoms else Affine(const)
    return Form(e, const, named, len(atoms) == 1 and atoms[0][0] is e, number)


def collect(e: Expr, factor: int, atoms: list[tuple[Expr, int]]) -> int:
    """Append the atoms of ``factor * e``; its constant part."""
    if isinstance(e, Const):
        return int(e.value) * factor
    if isinstance(e, Call) and e.dtype is i64:
        first = e.args[0]
        if e.op in ("add", "sub"):
            second = collect(e.args[1], factor if e.op == "add" else -factor, atoms)
            return collect(first, factor, atoms) + second
        if e.op == "mul":
            second_arg = e.args[1]
            if isinstance(second_arg, Const):
                return collect(first, factor * int(second_arg.value), atoms)
            if isinstance(first, Const):
                return collect(second_arg, factor * int(first.value), atoms)
    atoms.append((e, factor))
    return 0


def ramp(width: int, step: int, offset: int = 0) -> str:
    """The constant vector offset, offset + step, ... as i64."""
    if width == 1:
        return str(offset)
    return "<" + ", ".join(f"i64 {offset + step * lane}" for lane in range(width)) + ">"


def bool_ramp(width: int, active: int) -> str:
    """The constant mask whose first ``active`` lanes are on."""
    if width == 1:
        return "true" if active else "false"
    return (
        "<" + ", ".join(f"i1 {'true' if lane < active else 'false'}" for lane in range(width)) + ">"
    )
