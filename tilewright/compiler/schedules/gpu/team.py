"""Threads of a block that work on one thing together, and how they combine what each of them has.

A team is a power of two of threads: some of a warp, whose neighbours in the block are other teams,
or all of a block. Butterflies of shuffles combine the values of a warp, shared memory those of
warps. The order is fixed by the size of the team, and every thread gets the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.compiler.schedules.access import Writer
from tilewright.ir import loops as k
from tilewright.ir.sizes import Dim, ceil_div
from tilewright.ir.types import DType

WARP = 32

THREADS = 128
"""Threads of a block of small teams."""

MOST_THREADS = 1024


def power_of_two(number: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()


@dataclass
class Team:
    """The team that the thread belongs to.

    size     threads
    number   which of the things to work on: of teams beyond the end, the last
    thread   of the team
    inside   whether the team is not beyond the end; None: no team is
    parts    shared memory for what each warp has
    """

    w: Writer
    size: int
    number: k.Expr
    thread: k.Expr
    inside: k.Expr | None
    parts: list[k.Buffer]

    @contextmanager
    def guard(self, first_only: bool = False) -> Iterator[None]:
        """Only in teams that are not beyond the end, and there in the first thread if asked."""
        condition = self.inside
        if first_only and self.size > 1:
            condition = k.both(k.compare("eq", self.thread, 0), condition)
        if condition is None:
            yield
            return
        with self.w.when(condition):
            yield

    def combined(self, ops: Sequence[str], values: Sequence[k.Expr]) -> list[k.Expr]:
        """Each value of all threads of the team, by its op."""
        w = self.w
        within = min(self.size, WARP)
        found = [butterfly(w, op, v, within) for op, v in zip(ops, values, strict=True)]
        if self.size <= WARP or not found:
            return found
        parts = [self.parts.pop() for _ in found]
        with w.when(k.compare("eq", k.mod(self.thread, WARP), 0)):
            for part, value in zip(parts, found, strict=True):
                w.write(k.Store(part, k.floordiv(self.thread, WARP), value))
        w.write(k.Barrier())
        warps = self.size // WARP
        lane = k.mod(self.thread, warps)
        return [
            butterfly(w, op, w.let("p", k.Load(part, lane)), warps)
            for op, part in zip(ops, parts, strict=True)]


@contextmanager
def teams(
    w: Writer, count: Dim, size: int, combines: Sequence[DType], shared: Sequence[k.Buffer] = ()
) -> Iterator[Team]:
    """The blocks of a grid of ``count`` teams.

    combines   the types that will be combined, once each
    shared     memory of a block for all of its threads
    """
    threads = size if size > WARP else THREADS
    each = threads // size
    with w.loop("b", 0, ceil_div(count, each), "block") as b:
        for buffer in shared:
            w.write(k.Alloc(buffer))
        parts = [
            w.alloc("parts", dtype, size // WARP, "shared") for dtype in reversed(combines)
        ] if size > WARP else []
        with w.loop("t", 0, threads, "thread") as t:
            if each == 1:
                yield Team(w, size, b, t, None, parts)
                return
            thread = w.let("thread", k.mod(t, size))
            number = w.let("n", k.add(k.mul(b, each), k.floordiv(t, size)))
            if isinstance(count, int) and count % each == 0:
                yield Team(w, size, number, thread, None, parts)
                return
            inside = w.let("inside", k.compare("lt", number, k.expr(count)))
            number = w.let("n", k.minimum(number, k.sub(count, 1)))
            yield Team(w, size, number, thread, inside, parts)


def butterfly(w: Writer, op: str, value: k.Expr, size: int) -> k.Expr:
    """The values of so many neighbouring threads combined, in all of them."""
    distance = size // 2
    value = w.let("s", value)
    while distance:
        other = w.shuffle("xor", value, distance)
        value = w.let("s", k.Call(op, (value, other), value.dtype))
        distance //= 2
    return value
