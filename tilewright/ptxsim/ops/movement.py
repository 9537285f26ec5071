"""Moves, loads, stores, address conversions and atomic operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.memory import WINDOW_SIZE, check
from tilewright.ptxsim.scalars import KINDS
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.table import op


@op("mov")
def mov(step: Step) -> None:
    """A value, an address, or the parts of a wider register."""
    kind = step.parts[-1]
    step.write(step.operands[0], step.read(step.operands[1], kind), kind)


@op("ld", "ldu")
def load(step: Step) -> None:
    """Load a value or a vector of them."""
    kind = step.kind
    items, dtype = step.items(step.operands[0]), KINDS[kind]
    codes = step.gang.load(
        step.space, step.addresses(step.operands[1]), step.lanes, dtype.itemsize, len(items))
    if len(items) == 1:
        step.write(items[0], codes.view(dtype), kind)
        return
    for i, item in enumerate(items):
        step.write(item, np.ascontiguousarray(codes[:, i]).view(dtype), kind)


@op("st")
def store(step: Step) -> None:
    """Store a value or a vector of them."""
    items, size = step.items(step.operands[1]), KINDS[step.kind].itemsize
    columns = [step.values(item, f"b{8 * size}") for item in items]
    codes = columns[0] if len(items) == 1 else np.stack(columns, 1)
    step.gang.store(step.space, step.addresses(step.operands[0]), step.lanes, codes)
    step.gang.advance()


@op("cvta")
def cvta(step: Step) -> None:
    """An address of a space to a generic one, or back with .to."""
    kind = step.parts[-1]
    window = np.array(step.window(step.space) & (1 << 8 * KINDS[kind].itemsize) - 1, KINDS[kind])
    value = step.read(step.operands[1], kind)
    step.write(step.operands[0], value - window if "to" in step.parts else value + window, kind)


@op("isspacep")
def isspacep(step: Step) -> None:
    """Whether a generic address lies in a space."""
    spaces = step.gang.space_of(step.values(step.operands[1], "b64"))
    number = {"global": 0, "shared": 1, "local": 2}[step.space]
    step.write(step.operands[0], spaces == number, "pred")


@op("prefetch", "prefetchu", "discard", "applypriority", "createpolicy", "cp.async.bulk.prefetch")
def hint(step: Step) -> None:
    """Hints to the caches, of no effect on values."""
    if step.parts[0] == "createpolicy":
        step.write(step.operands[0], np.uint64(0), "b64")


def _increment(old: Any, limit: Any) -> Any:
    return np.where(old >= limit, 0, old + 1)


def _decrement(old: Any, limit: Any) -> Any:
    return np.where((old == 0) | (old > limit), limit, old - 1)


ATOMIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "exch": lambda old, new: new,
    "inc": _increment, "dec": _decrement,
}


def _parse_atomic(step: Step) -> tuple[str, str]:
    name = next((p for p in step.parts if p in ATOMIC or p == "cas"), None)
    if name is None:
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    return name, step.kind


def _space(step: Step, at: Any) -> tuple[str, Any]:
    """The space of an atomic operation; generic addresses must all lie in one."""
    space = step.space
    if space:
        return space, at
    spaces = np.unique(step.gang.space_of(at))
    if len(spaces) != 1:
        raise Fault(f"{step.instruction.name}: addresses of several spaces")
    name = ("global", "shared", "local")[int(spaces[0])]
    return name, at & np.uint64(WINDOW_SIZE - 1) if name != "global" else at


def _apply(step: Step, at: Any, name: str, kind: str, values: list[Any]) -> Any:
    """One atomic operation per lane, in the order of lanes; the old codes."""
    space, at = _space(step, at)
    dtype = np.dtype(np.float16 if kind == "f16x2" else KINDS["bf16"]) if "x2" in kind else (
        KINDS[kind])
    gang, size = step.gang, KINDS[kind].itemsize
    array, places, span = gang.located(space, at, step.lanes, size)
    if gang.races is not None:
        # Loops of cas begin with a plain load of what others may be changing.
        changes = None if name == "cas" else np.ones(step.count, np.bool_)
        gang.races.noted(space, places, span, size, size, step.lanes, changes)
    old = np.zeros(step.count, array.dtype)

    def changed(before: Any, chosen: Any) -> Any:
        if name == "cas":
            return np.where(before == values[0][chosen], values[1][chosen], before)
        a, b = before.view(dtype), np.ascontiguousarray(values[0][chosen]).view(dtype)
        result = np.asarray(ATOMIC[name](a, b)).astype(dtype)
        return np.ascontiguousarray(result).view(array.dtype)

    unique = len(np.unique(places)) == len(places)
    for chosen in [slice(None)] if unique else [slice(i, i + 1) for i in range(step.count)]:
        before = array[places[chosen]]
        old[chosen] = before
        array[places[chosen]] = changed(before, chosen)
    if space == "shared":
        gang.stored_to_shared(places * size, size, step.lanes)
    gang.advance()
    return old


@op("atom")
def atom(step: Step) -> None:
    """An atomic operation that returns what was there before."""
    name, kind = _parse_atomic(step)
    code = f"b{8 * KINDS[kind].itemsize}"
    values = [np.array(step.values(o, code)) for o in step.operands[2:]]
    old = _apply(step, step.addresses(step.operands[1]), name, kind, values)
    step.write(step.operands[0], old, code)


@op("red")
def red(step: Step) -> None:
    """An atomic operation without a result, also on vectors."""
    if step.parts[:2] == ("red", "async"):
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    name, kind = _parse_atomic(step)
    size = KINDS[kind].itemsize
    at, items = step.addresses(step.operands[0]), step.items(step.operands[1])
    whole = np.uint64(size * len(items))
    check(at % whole == 0, at, "is not aligned", int(whole))
    for i, item in enumerate(items):
        values = [np.array(step.values(item, f"b{8 * size}"))]
        _apply(step, at + np.uint64(i * size), name, kind, values)


