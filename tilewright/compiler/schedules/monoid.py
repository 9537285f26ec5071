"""What scans combine: the state that runs along the axis, and one step of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tilewright.compiler.schedules.access import Index, Writer
from tilewright.compiler.schedules.reduction import converted, number
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.meaning import highest, lowest
from tilewright.ir.sizes import less
from tilewright.ir.types import DType, accumulator, bool_, i32, i64

State: TypeAlias = tuple[k.Expr, ...]


@dataclass(frozen=True)
class Monoid:
    """An associative combination of states; the last part of a state is the result.

    identity  the state before the first element
    carried   how many parts, the last ones, of the state on the left a step needs; the others are
              only combined where segments of one row are scanned side by side
    lift      the state of a single element: (writer, index) -> state
    combine   (carried parts on the left, state on the right) -> carried parts
    rest      (other parts on the left, state on the right) -> other parts
    """

    identity: tuple[k.Const, ...]
    carried: int
    lift: Callable[[Writer, Index], State]
    combine: Callable[[State, State], State]
    rest: Callable[[State, State], State] = lambda left, right: ()

    @property
    def types(self) -> list[DType]:
        """The element types of a state's parts."""
        return [part.dtype for part in self.identity]

    def combine_all(self, left: State, right: State) -> State:
        """Two whole states."""
        others = len(self.identity) - self.carried
        return (*self.rest(left[:others], right), *self.combine(left[others:], right))


_OPERATIONS = {"cumsum": "add", "cumprod": "mul", "cummax": "max", "cummin": "min"}


def monoid_of(node: Node) -> Monoid:
    """What a scan's node combines."""
    if node.op.name == "recurrence":
        return _recurrence(node)
    if node.op.name in ("argcummax", "argcummin"):
        return _place(node)
    return _plain(node)


def _plain(node: Node) -> Monoid:
    """A sum, product or extreme of what came so far."""
    dtype, name = accumulator(node.dtype), _OPERATIONS[node.op.name]
    starts = {"add": 0, "mul": 1, "max": lowest(dtype.numpy), "min": highest(dtype.numpy)}

    def lift(w: Writer, index: Index) -> State:
        return (converted(w.value(node.inputs[0], index), dtype),)

    def combine(left: State, right: State) -> State:
        return (k.Call(name, (left[0], right[0]), dtype),)
    return Monoid((number(starts[name], dtype),), 1, lift, combine)


def _recurrence(node: Node) -> Monoid:
    """Linear maps y -> a y + b, one after another: the parts are a and b."""
    dtype = accumulator(node.dtype)

    def times(x: k.Expr, y: k.Expr) -> k.Expr:
        return k.Call("mul", (x, y), dtype)

    def lift(w: Writer, index: Index) -> State:
        a, b = (converted(w.value(n, index), dtype) for n in node.inputs)
        return a, b

    def combine(left: State, right: State) -> State:
        return (k.Call("add", (times(right[0], left[0]), right[1]), dtype),)

    def rest(left: State, right: State) -> State:
        return (times(left[0], right[0]),)
    return Monoid((number(1, dtype), number(0, dtype)), 1, lift, combine, rest)


def _place(node: Node) -> Monoid:
    """The extreme so far and where it stands: the last of equals, and the last NaN."""
    x, axis = node.inputs[0], node.attrs.axis
    dtype = accumulator(x.dtype)
    places = i32 if less(x.shape[axis], 1 << 31) else i64
    largest = node.op.name == "argcummax"
    start = (lowest if largest else highest)(dtype.numpy)

    def lift(w: Writer, index: Index) -> State:
        value = converted(w.value(x, index), dtype)
        return value, converted(index[axis], places)

    def combine(left: State, right: State) -> State:
        taken: k.Expr = k.Call("ge" if largest else "le", (right[0], left[0]), bool_)
        if dtype.is_float:
            nan = k.Call("ne", (right[0], right[0]), bool_)
            taken = k.Call("or", (taken, nan), bool_)
        return tuple(
            k.Call("where", (taken, b, a), b.dtype) for a, b in zip(left, right, strict=True))
    return Monoid((number(start, dtype), number(0, places)), 2, lift, combine)


def named(w: Writer, prefix: str, state: Sequence[k.Expr]) -> State:
    """The parts of a state as names."""
    return tuple(w.let(prefix, part) for part in state)
