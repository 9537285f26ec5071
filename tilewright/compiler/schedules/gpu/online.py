"""Sums of exponentials that are read together with their maximum.

    m = max(x); s = sum(exp(x - m))
->  for some elements at a time: m' = max(m, x); s = s exp(m - m') + sum(exp(x - m')); m = m'

M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax" (2018). A row that is too
long to be kept is so read once less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.schedules.access import Writer
from tilewright.compiler.schedules.gpu.team import Team
from tilewright.compiler.schedules.gpu.vectors import lanes
from tilewright.compiler.schedules.reduction import number
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.types import bool_, f32, f64

VIEWS = ("broadcast", "reshape")


@dataclass(frozen=True)
class Pair:
    """A maximum and the sum of the exponentials of its operand less the maximum."""

    top: Node
    total: Node

    @property
    def operand(self) -> Node:
        """What both go over."""
        return self.top.inputs[0]


def pair_at(anchors: Sequence[Node], level: Mapping[Node, int], number_: int) -> Pair | None:
    """The pair that the reductions that rest on ``number_ - 1`` and on ``number_`` others are."""
    first = [a for a in anchors if level[a] == number_]
    second = [a for a in anchors if level[a] == number_ + 1]
    if [a.op.name for a in (*first, *second)] != ["reduce_max", "sum"] or not first:
        return None
    top, total = first[0], second[0]
    powers = total.inputs[0]
    if powers.op.name != "exp" or powers.dtype not in (f32, f64):
        return None
    apart = powers.inputs[0]
    if apart.op.name != "sub" or apart.inputs[0] is not top.inputs[0]:
        return None
    source = apart.inputs[1]
    while source.op.name in VIEWS:
        source = source.inputs[0]
    return Pair(top, total) if source is top else None


class Online:
    """What a thread has of a pair: for each lane of its accesses a maximum, and a sum that belongs
    to it.
    """

    def __init__(self, w: Writer, pair: Pair, width: int) -> None:
        self.w, self.pair, self.width, self.dtype = w, pair, width, pair.operand.dtype
        self.top = w.alloc("top", self.dtype, width, "register")
        self.total = w.alloc("acc", self.dtype, width, "register")
        with lanes(w, width) as lane:
            w.write(k.Store(self.top, lane, number(float("-inf"), self.dtype)))
            w.write(k.Store(self.total, lane, number(0, self.dtype)))

    def take(self, held: k.Buffer) -> None:
        """Go on with some elements of each lane, one after another in ``held``."""
        w, width = self.w, self.width
        assert isinstance(held.size, int)
        with lanes(w, width) as lane:
            values = [
                w.let("e", k.Load(held, k.add(lane, u * width)))
                for u in range(held.size // width)]
            before = w.let("m", k.Load(self.top, lane))
            top = before
            for value in values:
                top = k.Call("max", (top, value), self.dtype)
            top = w.let("m", top)
            base = w.let("m", finite(top))
            total = scaled(k.Load(self.total, lane), before, base)
            for value in values:
                total = k.Call("add", (total, power(value, base)), self.dtype)
            w.write(k.Store(self.total, lane, total))
            w.write(k.Store(self.top, lane, top))

    def combined(self, team: Team) -> tuple[k.Expr, k.Expr]:
        """The maximum of all threads, and the sum that belongs to it: see :func:`settled_total`."""
        w, indices = self.w, [k.Const(i) for i in range(self.width)]
        own: k.Expr = k.Load(self.top, indices[0])
        for i in indices[1:]:
            own = k.Call("max", (own, k.Load(self.top, i)), self.dtype)
        (top,) = team.combined(["max"], [own])
        base = w.let("m", finite(top))
        parts = [scaled(k.Load(self.total, i), k.Load(self.top, i), base) for i in indices]
        total = parts[0]
        for part in parts[1:]:
            total = k.Call("add", (total, part), self.dtype)
        (total,) = team.combined(["add"], [total])
        return top, total


def settled_total(top: k.Expr, total: k.Expr) -> k.Expr:
    """The sum: NaN where the maximum is infinite, which has been taken for 0 if it is negative."""
    nothing = k.Call("sub", (top, top), top.dtype)
    return k.Call("add", (total, nothing), total.dtype)


def finite(top: k.Expr) -> k.Expr:
    """What is taken from elements with this maximum: 0 if all of them are -infinity."""
    none = k.Call("eq", (top, number(float("-inf"), top.dtype)), bool_)
    return k.Call("where", (none, number(0, top.dtype), top), top.dtype)


def power(value: k.Expr, base: k.Expr) -> k.Expr:
    """exp(value - base)."""
    return k.Call("exp", (k.Call("sub", (value, base), base.dtype),), base.dtype)


def scaled(total: k.Expr, top: k.Expr, base: k.Expr) -> k.Expr:
    """A sum that belongs to the maximum ``top``, as one that belongs to ``base``."""
    return k.Call("mul", (total, power(top, base)), total.dtype)

