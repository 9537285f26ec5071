"""How LLVM spells each primitive op: one row per op, a cell per kind of element, functions where
one instruction does not do. 16-bit floats never reach a row: they are carried as the f32 numbers
that equal them, and :func:`spell` rounds every result to its type.

Nothing here traps, calls a library or leaves a result undefined, on any target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.codegen import convert, integers, rounding
from tilewright.codegen.builder import Builder, Value
from tilewright.codegen.convert import Machine, carrier
from tilewright.ir.types import DType, bf16, bool_, f16

Cell = str | Callable[..., Value] | None
"""An opcode with its flags, ``@name`` for an intrinsic, or a function (builder, *arguments)."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """One op: cells for floats, signed and unsigned integers, bools; None: no meaning.

    gpu   cells that a GPU has instead
    """

    f: Cell = None
    i: Cell = None
    u: Cell = None
    b: Cell = None
    gpu: Spelling | None = None

    def cell(self, kind: str, machine: Machine | None = None) -> Cell:
        if self.gpu is not None and machine is not None and machine.gpu:
            return self.gpu.cell(kind) or self.cell(kind)
        return getattr(self, kind)  # type: ignore[no-any-return]


def compare(floats: str, signed: str, unsigned: str) -> Spelling:
    """A row of truths; bools are ordered as unsigned numbers."""
    return Spelling(f"fcmp {floats}", f"icmp {signed}", f"icmp {unsigned}", f"icmp {unsigned}")


def both_ints(cell: Cell, f: Cell = None, b: Cell = None) -> Spelling:
    """A row whose signed and unsigned integers are spelled alike."""
    return Spelling(f, cell, cell, b)


def negate(b: Builder, x: Value) -> Value:
    """0 - x; floats change their sign."""
    if x.dtype.is_float:
        return b.define(x.dtype, x.lanes, f"fneg {x.typed}")
    return b.binary("sub", b.like(x, 0), x)


def absolute(b: Builder, x: Value) -> Value:
    """The least number stays, as it has no counterpart."""
    return b.intrinsic("smax", x, negate(b, x))


def invert(b: Builder, x: Value) -> Value:
    """All bits, or the truth."""
    return b.binary("xor", x, b.like(x, True if x.dtype is bool_ else -1))


def same(b: Builder, x: Value) -> Value:
    """x itself."""
    return x


def extreme(name: str) -> Callable[[Builder, Value, Value], Value]:
    """NaN from either side comes through; which zero wins is left open, as NumPy leaves it."""

    def make(b: Builder, x: Value, y: Value) -> Value:
        return b.intrinsic(name, x, y, flags="nsz ")

    return make


# ``contract`` lets LLVM make one fused instruction of a product and a sum where there is one.
SPELLINGS: dict[str, Spelling] = {
    "add": both_ints("add", "fadd contract", "or"),
    "sub": both_ints("sub", "fsub contract"),
    "mul": both_ints("mul", "fmul contract", "and"),
    "div": Spelling("fdiv"),
    "floordiv": Spelling(rounding.floor_divide, integers.floor_divide, integers.divide),
    "mod": Spelling(rounding.modulo, integers.modulo, integers.remainder),
    "pow": Spelling(None, integers.power, integers.power),
    "neg": Spelling(negate, negate, negate),
    "abs": Spelling("@fabs", absolute, same),
    "max": Spelling(extreme("maximum"), "@smax", "@umax", "or"),
    "min": Spelling(extreme("minimum"), "@smin", "@umin", "and"),
    "and": both_ints("and", None, "and"),
    "or": both_ints("or", None, "or"),
    "xor": both_ints("xor", None, "xor"),
    "not": both_ints(invert, None, invert),
    "shl": Spelling(None, integers.shift_left, integers.shift_left,
                    gpu=both_ints(integers.shift_left_clamped)),
    "shr": Spelling(None, integers.shift_right_signed, integers.shift_right_unsigned,
                    gpu=Spelling(u=integers.shift_right_clamped)),
    "popcount": Spelling(None, integers.popcount_signed, "@ctpop"),
    "eq": compare("oeq", "eq", "eq"),
    "ne": compare("une", "ne", "ne"),
    "lt": compare("olt", "slt", "ult"),
    "le": compare("ole", "sle", "ule"),
    "gt": compare("ogt", "sgt", "ugt"),
    "ge": compare("oge", "sge", "uge"),
    "floor": Spelling("@floor"),
    "ceil": Spelling("@ceil"),
    "trunc": Spelling("@trunc"),
    "rint": Spelling("@rint"),
    "sqrt": Spelling("@sqrt"),
    "copysign": Spelling("@copysign"),
}

CONVERSIONS = ("where", "cast", "bitcast")
"""Primitives that depend on two types: see :func:`spell`."""


def spell(
    b: Builder,
    op: str,
    args: Sequence[Value],
    types: Sequence[DType],
    dtype: DType,
    machine: Machine,
    functions: dict[str, Callable[..., Value]],
) -> Value:
    """The instructions of one primitive.

    ``args`` are in their carrier types and have equal lanes; ``types`` are their element types in
    the kernel, ``dtype`` the result's. ``functions`` are the vector functions by op name.
    Raises ``KeyError`` for an op that has no row.
    """
    if op == "cast":
        return convert.cast(b, args[0], types[0], dtype, machine)
    if op == "bitcast":
        return convert.bitcast(b, args[0], types[0], dtype, machine)
    if op == "where":
        return b.select(*args)
    value = row(b, op, args, functions, machine)
    if dtype is f16 or dtype is bf16:
        return value if op in EXACT else convert.round_half(b, value, dtype, machine)
    return value


EXACT = frozenset(("neg", "abs", "max", "min", "floor", "ceil", "trunc", "rint", "copysign"))
"""Ops whose result on two numbers of a type is a number of that type: no rounding after them."""


def row(
    b: Builder, op: str, args: Sequence[Value], functions: dict[str, Callable[..., Value]],
    machine: Machine | None = None,
) -> Value:
    """The function of floats of that name, else the spelling of an op of the table."""
    first = args[0]
    if first.dtype.is_float and op in functions:
        return functions[op](b, *args)
    spelling = SPELLINGS.get(op)
    cell = spelling.cell(first.dtype.kind, machine) if spelling else None
    if cell is None:
        raise KeyError(op)
    if not isinstance(cell, str):
        return cell(b, *args)
    if cell[0] == "@":
        return b.intrinsic(cell[1:], *args)
    if len(args) == 2 and cell[1:4] == "cmp":
        return b.compare(cell, *args)
    return b.binary(cell, *args)


def is_spelled(op: str, dtype: DType, functions: Any) -> bool:
    """Whether op has code for operands of this type."""
    if op in CONVERSIONS:
        return True
    spelling = SPELLINGS.get(op)
    kind = carrier(dtype).kind
    return bool(spelling and spelling.cell(kind)) or (kind == "f" and op in functions)
