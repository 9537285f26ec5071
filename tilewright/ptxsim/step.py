"""One instruction as its meaning sees it: the lanes that execute it, and their operands."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.gang import COLLECT, DONE, RUN, WARP, Addresses, Gang, Lanes
from tilewright.ptxsim.memory import LOCAL_WINDOW, SHARED_WINDOW
from tilewright.ptxsim.scalars import CODES, KINDS, kind_of, literal
from tilewright.ptxsim.syntax import (
    Address,
    Instruction,
    Number,
    Operand,
    Pair,
    Register,
    Special,
    Symbol,
    Vector,
)

SPACE_NAMES = {
    "shared": "shared", "shared::cta": "shared", "shared::cluster": "shared", "global": "global",
    "const": "global", "param": "global", "local": "local",
}


@lru_cache(maxsize=4096)
def space_of(parts: tuple[str, ...]) -> str:
    """The state space that the parts of a name tell; "" is generic."""
    return next((SPACE_NAMES[part] for part in parts if part in SPACE_NAMES), "")


def span_of(lanes: Lanes) -> slice | Lanes:
    """What picks ascending lanes out of an array over all: a slice if they follow each other."""
    if not len(lanes):
        return lanes
    first, end = int(lanes[0]), int(lanes[-1]) + 1
    return slice(first, end) if end - first == len(lanes) else lanes


def complete(lanes: Lanes, group: int) -> bool:
    """Whether ascending lanes are all those of some groups of so many."""
    if len(lanes) % group:
        return False
    first = lanes[::group]
    return not (first % group).any() and bool((lanes[group - 1 :: group] - first < group).all())


class Step:
    """An instruction, the lanes that are at it, and access to what its operands name."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        self.instruction: Instruction = None  # type: ignore[assignment]
        self.take(np.arange(0))

    def take(self, lanes: Lanes) -> None:
        """Lanes, in ascending order, are those that execute."""
        self.lanes = lanes
        self.at = span_of(lanes)

    @property
    def parts(self) -> tuple[str, ...]:
        """The dotted parts of the instruction's name."""
        return self.instruction.parts

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The operands, results first."""
        return self.instruction.operands

    @property
    def count(self) -> int:
        """How many lanes execute."""
        return len(self.lanes)

    # Values.

    def read(self, operand: Operand, kind: str) -> Any:
        """The value of an operand per lane, or one for all lanes, as the NumPy type of `kind`."""
        dtype = KINDS[kind]
        if isinstance(operand, Register):
            array = self._register(operand.name)
            value = array[self.at]
            if kind == "pred":
                return ~value if operand.negated else value
            if value.itemsize != dtype.itemsize:
                value = value.astype(CODES[dtype.itemsize])
            return value.view(dtype)
        if isinstance(operand, Number):
            return literal(operand.value, operand.float_bits, kind)
        if isinstance(operand, Special):
            return self.gang.special(operand.name)[self.at].astype(dtype)
        if isinstance(operand, Symbol):
            return np.uint64(self.symbol(operand)).astype(dtype)
        if isinstance(operand, Vector):
            return self._packed(operand, dtype)
        raise Fault(f"{self.instruction.name}: an operand has no value here")

    def _register(self, name: str) -> NDArray[Any]:
        pending = self.gang.pending
        if pending and name in pending and pending[name][self.lanes].any():
            raise Fault(f"{self.instruction.name} touches {name}, an accumulator of a wgmma that "
                        "no wait_group has covered")
        return self.gang.register(name)

    def values(self, operand: Operand, kind: str) -> NDArray[Any]:
        """The value of an operand as an array with one element per lane."""
        value = self.read(operand, kind)
        if value.ndim:
            return np.asarray(value)
        alike = np.empty(len(self.lanes), value.dtype)
        alike[:] = value
        return alike

    def _packed(self, vector: Vector, dtype: np.dtype[Any]) -> NDArray[Any]:
        size = dtype.itemsize // len(vector.items)
        columns = [self.values(item, f"b{8 * size}") for item in vector.items]
        return np.ascontiguousarray(np.stack(columns, 1)).view(dtype)[:, 0]

    def write(self, operand: Operand, value: Any, kind: str) -> None:
        """Store a result; narrower ones are extended by the sign that their type has."""
        if isinstance(operand, Vector):
            size = KINDS[kind].itemsize // len(operand.items)
            whole = np.ascontiguousarray(np.broadcast_to(value, (self.count,)))
            columns = whole.view(CODES[size]).reshape(self.count, -1)
            for i, item in enumerate(operand.items):
                self.write(item, columns[:, i], f"b{8 * size}")
            return
        if not isinstance(operand, Register):
            raise Fault(f"{self.instruction.name}: a result that is no register")
        if operand.name == "_":
            return
        array = self._register(operand.name)
        if kind != "pred":
            value = np.asarray(value, KINDS[kind])
            if value.itemsize != array.itemsize:
                if value.dtype.kind == "i":
                    value = value.astype(f"i{array.itemsize}")
                else:
                    value = value.view(CODES[value.itemsize]).astype(array.dtype)
            value = value.view(array.dtype)
        array[self.at] = value

    def items(self, operand: Operand) -> tuple[Operand, ...]:
        """The operands of a vector, or the operand alone."""
        return operand.items if isinstance(operand, Vector) else (operand,)

    def columns(self, operand: Operand, kind: str) -> NDArray[Any]:
        """A vector's values as [lanes, items]."""
        return np.stack([self.values(item, kind) for item in self.items(operand)], 1)

    def write_columns(self, operand: Operand, values: NDArray[Any], kind: str) -> None:
        """[lanes, items] into a vector's registers."""
        for i, item in enumerate(self.items(operand)):
            self.write(item, values[:, i], kind)

    def uniform(self, operand: Operand, kind: str) -> int:
        """An operand that must be the same in every lane."""
        values = np.unique(self.read(operand, kind))
        if len(values) != 1:
            raise Fault(f"{self.instruction.name}: an operand differs between threads")
        return int(values[0])

    # Addresses.

    def symbol(self, symbol: Symbol) -> int:
        """The address of a variable or a parameter."""
        try:
            return self.gang.launch.symbols[symbol.name] + symbol.offset
        except KeyError:
            raise Fault(f"{symbol.name} is not declared") from None

    @property
    def space(self) -> str:
        """The state space that the instruction names; "" is generic."""
        return space_of(self.instruction.parts)

    @property
    def kind(self) -> str:
        """The last type that the instruction names."""
        return kind_of(self.instruction.parts)

    def addresses(self, operand: Operand) -> Addresses:
        """The addresses in brackets, per lane."""
        if not isinstance(operand, Address):
            raise Fault(f"{self.instruction.name}: an operand is no address")
        base = operand.base
        if isinstance(base, Register):
            wide = self.gang.register(base.name).itemsize == 8
            value = self.read(base, "b64" if wide else "b32").astype(np.uint64)
        else:
            value = np.array(self.values(base, "b64"))
        if operand.offset:
            value += np.uint64(operand.offset & (1 << 64) - 1)
        return value

    def shared_addresses(self, operand: Operand) -> Addresses:
        """Addresses in shared memory, also where they are written as generic ones."""
        at = self.addresses(operand)
        if self.space == "shared" or int(at.max(initial=0)) < SHARED_WINDOW:
            return at.astype(np.int64)
        if not (self.gang.space_of(at) == 1).all():
            raise Fault(f"{self.instruction.name}: an address outside of shared memory")
        return (at - np.uint64(SHARED_WINDOW)).astype(np.int64)

    def window(self, space: str) -> int:
        """Where a space starts among generic addresses."""
        return {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(space, 0)

    # Threads that must come together.

    def collect(self, group: int = WARP, whole: bool = True, mask: Operand | None = None) -> bool:
        """Wait until all threads of each group of lanes are here; whether any group is.

        Groups that are complete execute, `self.lanes` becomes theirs; threads of the others wait
        at this instruction. A `mask` names the lanes of a warp that it takes. `whole`: a group
        with threads that ended, or that never were, cannot execute at all.
        """
        gang, lanes = self.gang, self.lanes
        if complete(lanes, group):
            return True
        here = int(gang.pc[lanes[0]]) - 1
        groups = np.unique(lanes // group)
        members = (groups[:, None] * group + np.arange(group)).reshape(-1)
        members = members[members < gang.size]
        waiting = (gang.state[members] == COLLECT) & (gang.pc[members] == here)
        present = waiting | np.isin(members, lanes)
        needed = gang.state[members] != DONE
        if whole and not needed.all():
            raise Fault(f"{self.instruction.name} needs all {group} threads, some have ended or "
                        "never were")
        if mask is not None:
            needed = needed & self._named(mask, members)
        lacking = np.unique(members[needed & ~present] // group)
        ready = members[present & ~np.isin(members // group, lacking)]
        late = lanes[np.isin(lanes // group, lacking)]
        if len(late):
            gang.pc[late] = here
            gang.set_state(late, COLLECT)
        woken = ready[gang.state[ready] == COLLECT]
        if len(woken):
            gang.pc[woken] = here + 1
            gang.set_state(woken, RUN)
        if len(late) or len(woken):
            self.take(ready)
        return len(ready) > 0

    def _named(self, mask: Operand, members: Lanes) -> NDArray[np.bool_]:
        """Which members of the warps that execute their masks name."""
        names = self.values(mask, "b32")
        by_warp = np.zeros(self.gang.size // WARP + 1, np.uint32)
        np.bitwise_or.at(by_warp, self.lanes // WARP, names)
        bits = by_warp[members // WARP] >> (members % WARP).astype(np.uint32)
        return np.asarray(bits & 1 == 1)

    def warps(self) -> NDArray[np.int64]:
        """The lanes as [warps, 32]; only after `collect`."""
        return self.lanes.reshape(-1, WARP)


def as_pair(operand: Operand) -> tuple[Operand, Operand]:
    """The two results of a|b; one result alone has a sink beside it."""
    if isinstance(operand, Pair):
        return operand.first, operand.second
    return operand, Register("_")
