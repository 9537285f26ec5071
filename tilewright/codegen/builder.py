"""A small writer of LLVM IR text in SSA form: typed values, fresh names, constants."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tilewright.ir.types import DType, bool_

_SCALARS = {"bool": "i1", "f16": "half", "bf16": "bfloat", "f32": "float", "f64": "double"}


_types: dict[tuple[str, int], str] = {}


def llvm_type(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of a value in registers; bool is i1 there."""
    found = _types.get((dtype.name, lanes))
    if found is None:
        scalar = _SCALARS.get(dtype.name, f"i{dtype.bits}")
        found = scalar if lanes == 1 else f"<{lanes} x {scalar}>"
        _types[(dtype.name, lanes)] = found
    return found


def memory_type(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of a value in memory; bool is i8 there."""
    return (
        llvm_type(dtype, lanes)
        if dtype is not bool_
        else ("i8" if lanes == 1 else f"<{lanes} x i8>")
    )


def mangle(dtype: DType, lanes: int = 1) -> str:
    """The suffix of an overloaded intrinsic: f32, v16f32, i64, v8i64."""
    scalar = {"bool": "i1"}.get(dtype.name, dtype.name.replace("u", "i"))
    return scalar if lanes == 1 else f"v{lanes}{scalar}"


class Value(NamedTuple):
    """An SSA value or a constant: its text, element type and number of lanes (1: a scalar)."""

    name: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        return llvm_type(self.dtype, self.lanes)

    @property
    def typed(self) -> str:
        """``<16 x float> %v3``, as an operand is written in a call."""
        return f"{self.type} {self.name}"


def literal(dtype: DType, value: Any) -> str:
    """The text of a scalar constant, exact for every float."""
    if dtype is bool_:
        return "true" if value else "false"
    if not dtype.is_float:
        return str(int(value))
    if dtype.name in ("f32", "f64"):
        # LLVM writes an f32 constant as the bits of the f64 that equals it.
        with np.errstate(all="ignore"):
            exact = float(np.asarray(value).astype(dtype.numpy))
        return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    with np.errstate(all="ignore"):
        bits = np.asarray(value).astype(dtype.numpy).view(np.uint16)
    return f"0x{'H' if dtype.name == 'f16' else 'R'}{int(bits):04X}"


class Builder:
    """Collects instructions of one function and the declarations they need."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.declarations: set[str] = set()
        self.fused = False
        """The target has fused multiply-add: ``llvm.fma`` is an instruction there, not a call."""
        self.contract = True
        """Sums may be fused with products: the flag ``contract`` of a sum is kept."""
        self.narrow: dict[tuple[str, DType], Value] = {}
        """The bits of carried 16-bit floats, where they are at hand: by name and type."""
        self.wide: dict[tuple[str, DType], Value] = {}
        """What scalars were before they were rounded to 16 bits."""
        self._next = 0

    def fresh(self, prefix: str = "v") -> str:
        self._next += 1
        return f"%{prefix}{self._next}"

    def write(self, line: str) -> None:
        self.lines.append(line)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def define(self, dtype: DType, lanes: int, instruction: str) -> Value:
        """A new value of this type, computed by this instruction text."""
        value = Value(self.fresh(), dtype, lanes)
        self.lines.append(f"  {value.name} = {instruction}")
        return value

    def const(self, dtype: DType, value: Any, lanes: int = 1) -> Value:
        """A constant, the same in all lanes."""
        text = literal(dtype, value)
        if lanes == 1:
            return Value(text, dtype, 1)
        return Value(f"splat ({llvm_type(dtype)} {text})", dtype, lanes)

    def like(self, value: Value, number: Any, dtype: DType | None = None) -> Value:
        """A constant with the lanes (and, unless given, the type) of ``value``."""
        return self.const(dtype or value.dtype, number, value.lanes)

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar in all lanes."""
        if lanes == 1 or value.lanes == lanes:
            return value
        if not value.name.startswith("%"):
            return Value(f"splat ({value.type} {value.name})", value.dtype, lanes)
        vector = llvm_type(value.dtype, lanes)
        one = self.define(
            value.dtype, lanes, f"insertelement {vector} poison, {value.typed}, i64 0"
        )
        return self.define(
            value.dtype,
            lanes,
            f"shufflevector {one.typed}, {vector} poison, <{lanes} x i32> zeroinitializer",
        )

    def shuffle(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        """Lanes of ``a``, and after those of ``b``, by number."""
        mask = ", ".join(f"i32 {i}" for i in order)
        return self.define(
            a.dtype, len(order),
            f"shufflevector {a.typed}, {b.typed}, <{len(order)} x i32> <{mask}>",
        )

    def binary(self, opcode: str, a: Value, b: Value) -> Value:
        """``fadd``, ``and``, ``shl`` ... with flags in the opcode, e.g. ``fmul contract``."""
        if not self.contract and opcode in ("fadd contract", "fsub contract"):
            opcode = opcode.removesuffix(" contract")
        return self.define(a.dtype, a.lanes, f"{opcode} {a.typed}, {b.name}")

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """``fcmp olt``, ``icmp eq`` ...; a bool with the lanes of ``a``."""
        return self.define(bool_, a.lanes, f"{predicate} {a.typed}, {b.name}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.define(a.dtype, a.lanes, f"select {condition.typed}, {a.typed}, {b.typed}")

    def convert(self, opcode: str, a: Value, dtype: DType) -> Value:
        """``fptrunc``, ``sitofp``, ``zext``, ``bitcast`` ... to an element type, same lanes."""
        return self.define(dtype, a.lanes, f"{opcode} {a.typed} to {llvm_type(dtype, a.lanes)}")

    def intrinsic(
        self, name: str, *args: Value, result: DType | None = None, flags: str = ""
    ) -> Value:
        """``llvm.<name>.<suffix>`` overloaded on the type of the first argument.

        ``flags`` are written with a space after each, as in "nsz ".
        """
        first = args[0]
        dtype = result or first.dtype
        symbol = f"llvm.{name}.{mangle(first.dtype, first.lanes)}"
        types = ", ".join(a.type for a in args)
        returned = llvm_type(dtype, first.lanes)
        self.declarations.add(f"declare {returned} @{symbol}({types})")
        return self.define(
            dtype,
            first.lanes,
            f"call {flags}{returned} @{symbol}({', '.join(a.typed for a in args)})",
        )

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once where the target can do that in one instruction."""
        return self.intrinsic("fmuladd", a, b, c)
