"""How many neighbouring elements a thread may access at once: 16 bytes where all operands allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Writer
from tilewright.ir import loops as k
from tilewright.ir.sizes import Dim

ACCESS = 16
"""Bytes of the widest access of a thread."""


def width_for(itemsize: int, *sizes: Dim) -> int:
    """The most elements of an access, a power of two that divides all ``sizes``."""
    width = max(1, ACCESS // itemsize)
    while width > 1 and not all(divides(width, size) for size in sizes):
        width //= 2
    return width


def divides(number: int, size: Dim) -> bool:
    """Whether a size is a multiple of a number, whatever its names stand for."""
    if isinstance(size, int):
        return size % number == 0
    return all(count % number == 0 for _, count in size.terms)


@contextmanager
def lanes(w: Writer, width: int) -> Iterator[k.Expr]:
    """The lanes of an access of ``width`` elements."""
    if width == 1:
        yield k.Const(0)
        return
    with w.loop("v", 0, width, "vector", width=width) as v:
        yield v


def widest(make: Callable[[int], LoweredKernel], width: int) -> LoweredKernel:
    """What ``make`` gives for ``width``, or for half of it and so on: the first whose vector loops
    access whole vectors; at 1, whatever it is.
    """
    while True:
        made = make(width)
        if width == 1 or whole(made.kernel):
            return made
        width //= 2


def whole(kernel: k.Kernel) -> bool:
    """Whether the lanes of each vector loop access neighbours, aligned as one access, or one place.
    """
    return _Lanes().body(kernel.body)


class _Lanes:
    """What is known of names: values of ``Let``, and what divides loop variables."""

    def __init__(self) -> None:
        self.values: dict[str, k.Expr] = {}
        # What names are, each of which may stand in many that follow it.
        self.steps: dict[str, int | None] = {}
        self.divisors: dict[str, int] = {}
        self.lane: k.For | None = None

    def body(self, body: Iterable[k.Stmt]) -> bool:
        return all([self.statement(s) for s in body])

    def statement(self, s: k.Stmt) -> bool:
        if isinstance(s, k.Let):
            self.values[s.var.name] = s.value
        if isinstance(s, k.If):
            return self.body((*s.body, *s.orelse))
        if isinstance(s, k.For):
            if s.kind == "vector":
                self.lane = s
                self.steps.clear()
            self.divisors[s.var.name] = math.gcd(self.divisor(s.start), s.step)
            good = self.body(s.body)
            self.lane = None if s.kind == "vector" else self.lane
            return good
        if self.lane is None:
            return True
        return all(self.access(*a) for a in accesses(s))

    def access(self, buffer: k.Buffer, index: k.Expr, mask: k.Expr | None) -> bool:
        """Whether a vector of these elements is one access."""
        if buffer.space == "register":
            return True
        step = self.step(index)
        if step == 0:
            return mask is None or self.step(mask) == 0
        if step != 1 or mask is not None:
            return False
        assert self.lane is not None
        need = min(ACCESS, self.lane.width * buffer.dtype.itemsize)
        return self.divisor(index, lane=0) * buffer.dtype.itemsize % need == 0

    def step(self, e: k.Expr) -> int | None:
        """By how much an expression grows from lane to lane; None if not evenly."""
        assert self.lane is not None
        if isinstance(e, k.Var):
            if e.name == self.lane.var.name:
                return 1
            if e.name not in self.steps:
                value = self.values.get(e.name)
                self.steps[e.name] = 0 if value is None else self.step(value)
            return self.steps[e.name]
        if isinstance(e, k.Load):
            parts = [p for p in (e.index, e.mask, e.other) if p is not None]
            return 0 if all(self.step(p) == 0 for p in parts) else None
        if isinstance(e, k.Const):
            return 0
        steps = [self.step(a) for a in e.args]
        if all(step == 0 for step in steps):
            return 0
        if None in steps or e.op not in ("add", "sub", "mul"):
            return None
        a, b = steps
        assert a is not None and b is not None
        if e.op == "mul":
            factors = [k.const_int(x) for x in e.args]
            return None if factors[1] is None else a * factors[1]
        return a + b if e.op == "add" else a - b

    def divisor(self, e: k.Expr, lane: int = 1) -> int:
        """A number that divides an index, 0 if it is 0; ``lane`` stands for that of the lane."""
        number = k.const_int(e)
        if number is not None:
            return abs(number)
        if isinstance(e, k.Var):
            if self.lane is not None and e.name == self.lane.var.name:
                return lane
            if e.name in self.values:
                return self.divisor(self.values[e.name], lane)
            return self.divisors.get(e.name, 1)
        if isinstance(e, k.Call) and e.op in ("add", "sub", "mul", "min"):
            a, b = (self.divisor(x, lane) for x in e.args)
            return a * b if e.op == "mul" else math.gcd(a, b)
        return 1


def accesses(s: k.Stmt) -> Iterator[tuple[k.Buffer, k.Expr, k.Expr | None]]:
    """The elements that a statement without a body reads and writes: buffer, index, mask."""
    exprs: list[k.Expr | None] = []
    if isinstance(s, k.Let | k.Shuffle):
        exprs = [s.value]
    elif isinstance(s, k.Check):
        exprs = [s.condition]
    elif isinstance(s, k.Store | k.Accumulate):
        yield s.buffer, s.index, s.mask
        exprs = [s.index, s.value, s.mask]
    while exprs:
        e = exprs.pop()
        if isinstance(e, k.Load):
            yield e.buffer, e.index, e.mask
            exprs += [e.index, e.mask, e.other]
        elif isinstance(e, k.Call):
            exprs += e.args
