"""PTX as data: modules, kernels, instructions and their operands."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.ptxsim.faults import Fault


@dataclass(frozen=True, slots=True)
class Register:
    """A register; "_" is a sink."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Special:
    """A register that the machine sets, such as %tid.x."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A literal: an integer, or the value of a float literal of `bits` bits as its code."""

    value: int
    float_bits: int = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, a label or a parameter, plus a byte offset."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """{a, b, ...}."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """a|b: two results."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Address:
    """[base + offset], or [tensor map, {coordinates}]."""

    base: Operand
    offset: int = 0
    coordinates: tuple[Operand, ...] | None = None


Operand = Register | Special | Number | Symbol | Vector | Pair | Address


@dataclass(frozen=True, slots=True, eq=False)
class Instruction:
    """One instruction: its dotted name, its operands, the predicate it is under, its line."""

    name: str
    parts: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    line: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Variable:
    """A variable in shared, global, const or local memory; `size` None is dynamic."""

    name: str
    space: str
    size: int | None
    alignment: int
    data: bytes = b""


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter."""

    name: str
    size: int
    alignment: int


@dataclass
class Kernel:
    """An entry or a function: parameters, registers by name or numbered prefix, code, labels.

    tables   the labels of brx.idx by the name of their list
    results  of a function: the variables that its results are stored to
    start    the index of the first instruction; functions that are called lie before it
    """

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    results: list[Parameter] = field(default_factory=list)
    start: int = 0
    threads: tuple[int, ...] | None = None
    cluster: tuple[int, ...] = ()

    def type_of(self, register: str) -> str:
        """The declared type of a register, such as b32; Fault if it is not declared."""
        found = self.registers.get(register) or self.registers.get(register.rstrip("0123456789"))
        if found is None:
            raise Fault(f"register {register} is not declared")
        return found


@dataclass
class Module:
    """A PTX file."""

    version: str
    target: str
    kernels: dict[str, Kernel] = field(default_factory=dict)
    functions: dict[str, Kernel] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
