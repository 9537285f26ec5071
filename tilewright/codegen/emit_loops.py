"""Loops and branches: counted loops, the team's shares, vector loops with their remainders."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tilewright.codegen.builder import Value
from tilewright.codegen.emit_index import Affine, Range, plus, times
from tilewright.codegen.emit_slots import Frame, written_buffers
from tilewright.codegen.emit_value import Values
from tilewright.codegen.integers import number_of
from tilewright.errors import CompilerBug
from tilewright.ir.loops import Expr, For, Stmt
from tilewright.ir.types import DType, i32, i64

Run = Callable[[], None]


class Loops(Values):
    """Control flow."""

    note = ""
    """What LLVM is told of the next loop, at its end."""

    def statements(self, body: Iterable[Stmt]) -> None:
        raise NotImplementedError

    def vector(self, s: For) -> None:
        """A vector loop."""
        raise NotImplementedError

    # --- building blocks ----------------------------------------------------------------
    def counter_type(self, start: Range | None, stop: Range | None, step: int) -> DType:
        """The type of a loop's counter, given the ranges of its bounds."""
        return i64

    def as_type(self, kind: DType, v: Value) -> Value:
        """An i64 that is known to fit into a type, in it."""
        if kind is i64 or number_of(v) is not None:
            return Value(v.name, kind)
        return self.b.pure(
            ("short", v.name), (v.name,), lambda: self.b.convert("trunc", v, kind), cheap=True)

    def branch(self, condition: Value, first: Run, second: Run | None = None) -> None:
        """Run one of two pieces of code; what they leave in register buffers is joined."""
        b = self.b
        prelude: list[object] = []
        b.lines.append(prelude)
        then, other, join = (b.fresh_label(n) for n in ("then", "else", "join"))
        b.write(f"  br {condition.typed}, label %{then}, label %{other if second else join}")
        frames, ends = [], []
        before = b.block
        for label, run in ((then, first), (other, second)):
            frame = Frame()
            if run is None:
                ends.append(before)
            else:
                b.enter(False, False, prelude)
                self.slots.push(frame)
                b.label(label)
                run()
                ends.append(b.block)
                b.write(f"  br label %{join}")
                self.slots.frames.pop()
                b.leave()
            frames.append(frame)
        b.label(join)
        self.slots.pop_branches(frames[0], frames[1], (ends[0], ends[1]))

    def counted(
        self,
        start: Affine,
        stop: Affine,
        step: int,
        written: frozenset[str],
        run: Callable[[Value], None],
    ) -> None:
        """``for i in range(start, stop, step): run(i)``, tested at the end."""
        b = self.b
        note, self.note = self.note, ""
        kind = self.counter_type(self.range_of(start), self.range_of(stop), step)
        first, end = (self.as_type(kind, self.sum_terms(bound)) for bound in (start, stop))
        trip = plus(stop, times(start, -1))
        found = self.range_of(trip)
        certain = found is not None and found[0] > 0
        ranges = self.range_of(start), self.range_of(stop)
        guard = None if certain else b.compare("icmp slt", first, end)
        b.enter(certain, True)
        before, head, done = b.block, b.fresh_label("loop"), b.fresh_label("done")
        if guard is None:
            b.write(f"  br label %{head}")
        else:
            b.write(f"  br {guard.typed}, label %{head}, label %{done}")
        frame = self.slots.push(Frame(written, b.place))
        b.label(head)
        b.lines.append(frame.header)
        count = Value(b.fresh("i"), kind)
        b.depths[count.name] = b.place
        i = count if kind is i64 else b.convert("sext", count, i64)
        if ranges[0] and ranges[1]:
            self.ranges[i.name] = (ranges[0][0], max(ranges[0][0], ranges[1][1] - 1))
        run(i)
        following = b.binary("add nsw", count, Value(str(step), kind))
        again = b.compare("icmp slt", following, end)
        latch = b.block
        b.write(f"  br {again.typed}, label %{head}, label %{done}{note}")
        frame.header.append(
            f"  {count.name} = phi {count.type} [{first.name}, %{before}], "
            f"[{following.name}, %{latch}]"
        )
        self.slots.close_loop(before, latch)
        b.leave()
        b.label(done)
        self.slots.pop_loop(before, latch, certain)

    # --- loops --------------------------------------------------------------------------
    def loop(self, s: For) -> None:
        """A loop of any kind."""
        if s.kind == "vector":
            self.vector(s)
        elif s.kind == "parallel":
            self.parallel(s)
        elif s.kind in ("serial", "unroll"):
            start, stop = self.bound(s.start), self.bound(s.stop)
            trip = plus(stop, times(start, -1)).number
            if s.kind == "unroll" and trip is None:
                raise CompilerBug(f"the bounds of unrolled loop {s.var.name} are not constant")
            if trip is not None and (s.kind == "unroll" or trip <= s.step):
                for offset in range(0, trip, s.step):
                    self.env[s.var.name] = start.shift(offset)
                    self.statements(s.body)
                return
            self.counted(
                start, stop, s.step, written_buffers(s.body), lambda i: self.iteration(s, i)
            )
        else:
            self.grid(s)

    def grid(self, s: For) -> None:
        """A loop over blocks or threads, which only some machines have."""
        raise CompilerBug(f"a {s.kind} loop in a kernel for {self.target.name}")

    def bound(self, e: Expr) -> Affine:
        found = self.linear(e)
        if not isinstance(found, Affine) or found.lane:
            raise CompilerBug("the bound of a loop differs between lanes")
        return found

    def iteration(self, s: For, i: Value) -> None:
        self.env[s.var.name] = Affine(0, ((i.name, 1),))
        self.statements(s.body)

    def parallel(self, s: For) -> None:
        """This thread's share: iterations n * tid / nthreads to n * (tid + 1) / nthreads."""
        start, stop = self.bound(s.start), self.bound(s.stop)
        trip = plus(stop, times(start, -1))
        if trip.number is not None and trip.number <= 0:
            return
        if trip.number is not None and trip.number <= s.step:
            self.last_thread(s, start)
            return
        count = self.sum_terms(trip.shift(s.step - 1))
        if s.step > 1:
            count = self.b.binary("sdiv", count, Value(str(s.step), i64))
        if trip.number is None:
            count = self.b.intrinsic("smax", count, Value("0", i64))
        greatest = -(-trip.number // s.step) if trip.number is not None else None
        bounds = self.share(count, greatest)
        first, last = (times(Affine(0, ((v.name, 1),)), s.step) for v in bounds)
        self.counted(
            plus(start, first),
            plus(start, last),
            s.step,
            written_buffers(s.body),
            lambda i: self.iteration(s, i),
        )

    def last_thread(self, s: For, start: Affine) -> None:
        """A single iteration; by the rule of the shares it is the last thread's."""
        following = self.b.binary("add", Value("%tid", i64), Value("1", i64))
        mine = self.b.compare("icmp eq", following, Value("%nthreads", i64))
        self.env[s.var.name] = start
        self.branch(mine, lambda: self.statements(s.body))

    def share(self, count: Value, greatest: int | None) -> list[Value]:
        """This thread's first iteration and the next one's; ``greatest`` is the count if known."""
        # Division of 64 bits is slow on many CPUs; 2^20 iterations times 2^12 threads fit in 32.
        short = greatest is not None and greatest < 2**20
        kind = i32 if short else i64
        tid, threads = (
            self.b.convert("trunc", v, i32) if short else v
            for v in (Value("%tid", i64), Value("%nthreads", i64))
        )
        if short:
            number = number_of(count)
            count = (
                self.b.convert("trunc", count, i32) if number is None else Value(count.name, i32)
            )
        following = self.b.binary("add", tid, Value("1", kind))
        found = []
        for part in (tid, following):
            v = self.b.binary("udiv", self.b.binary("mul", count, part), threads)
            v = self.b.convert("zext", v, i64) if short else v
            if greatest is not None:
                self.ranges[v.name] = (0, greatest)
            found.append(v)
        return found
