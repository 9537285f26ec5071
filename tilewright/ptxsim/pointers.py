"""Through which of its parameters a kernel may store, by what flows into its addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.ptxsim.syntax import (
    Address,
    Instruction,
    Kernel,
    Operand,
    Pair,
    Register,
    Symbol,
    Vector,
)

LOADED = ""
"""What comes out of memory: a pointer to anything."""

STORES = ("st", "atom", "red", "cp", "wmma")
NEAR = {"shared", "shared::cta", "local"}


@dataclass(frozen=True)
class Pointers:
    """What a kernel may do with the memory of its parameters and of variables.

    stores  names of those to whose memory it may store; None: to any memory
    others  instructions, by index, that load from memory of other parameters alone; that may be
            the same memory all the same
    """

    stores: frozenset[str] | None
    others: frozenset[int]


def pointers(kernel: Kernel) -> Pointers:
    """Follow parameters through a kernel: a register holds what any instruction may put there."""
    flows = _flows(kernel)
    targets = [_of(a, flows) for i in kernel.code for a in _targets(i)]
    if any(not names - {LOADED} for names in targets):
        return Pointers(None, frozenset())
    stores = frozenset(name for names in targets for name in names) - {LOADED}
    sources = {pc: _of(i.operands[1], flows) - {LOADED} for pc, i in enumerate(kernel.code)
               if i.parts[0] == "ld"}
    return Pointers(stores, frozenset(
        pc for pc, names in sources.items() if names and not names & stores))


def _flows(kernel: Kernel) -> dict[str, set[str]]:
    flows: dict[str, set[str]] = {}
    changed = True
    while changed:
        changed = False
        for instruction in kernel.code:
            if instruction.operands:
                sources = _sources(instruction, flows)
                for name in _registers(instruction.operands[0]):
                    known = flows.setdefault(name, set())
                    changed |= not sources <= known
                    known |= sources
    return flows


def _sources(instruction: Instruction, flows: dict[str, set[str]]) -> set[str]:
    if instruction.parts[0] in ("ld", "ldu", "atom") and "param" not in instruction.parts:
        return {LOADED}
    return {name for operand in instruction.operands[1:] for name in _of(operand, flows)}


def _of(operand: Operand, flows: dict[str, set[str]]) -> set[str]:
    if isinstance(operand, Address):
        return _of(operand.base, flows)
    if isinstance(operand, Symbol):
        return {operand.name}
    return {name for r in _registers(operand) for name in flows.get(r, ())}


def _registers(operand: Operand) -> Iterator[str]:
    if isinstance(operand, Register):
        yield operand.name
    elif isinstance(operand, Vector):
        for item in operand.items:
            yield from _registers(item)
    elif isinstance(operand, Pair):
        yield from _registers(operand.first)
        yield from _registers(operand.second)


def _targets(instruction: Instruction) -> Iterator[Address]:
    """The address that an instruction stores to, unless it is surely not one of global memory."""
    parts = instruction.parts
    if parts[0] not in STORES or parts[:2] == ("wmma", "mma") or parts[:2] == ("wmma", "load"):
        return
    addresses = [o for o in instruction.operands if isinstance(o, Address)]
    if addresses and parts[0] == "cp":
        copies = next((p for p in parts if p.startswith(("shared", "global"))), "shared")
        if copies == "global":
            yield addresses[0]
    elif addresses and not NEAR & set(parts):
        yield addresses[0]
