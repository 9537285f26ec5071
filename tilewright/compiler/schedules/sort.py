"""Sorts: elements become unsigned keys, keys and positions are put in order, keys become elements.

Short rows: the rank of each element is the number of elements before it, counted in vectors; no
branch depends on the data. Longer rows: a radix sort from the lowest digit up (LSD, Knuth 5.2.5),
stable and in time proportional to the length; digits that all elements share cost nothing. Where
few places are wanted, only the elements whose highest bits may stand there are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, Writer, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import hold
from tilewright.compiler.schedules.sort_keys import (
    from_key,
    key_type,
    marked,
    to_key,
    unmarked,
)
from tilewright.compiler.target import Target
from tilewright.errors import Unsupported
from tilewright.ir import loops as k
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, less, product
from tilewright.ir.types import DType, i32, i64, u32

LONGEST = (1 << 31) - 1
"""Elements of a row: the highest bit of a position has another use."""

RANKED = 64
"""The longest row that is sorted by counting."""

BITS = 8
"""Of a digit: the places that elements go to next, and their counts, stay in L1."""

NARROW = 8
"""Rows this many times longer than what is wanted of them are narrowed first."""

NARROWING = {8: 8, 16: 10, 32: 11, 64: 13}
"""By the bits of a key: its highest bits by which rows are narrowed, some of a mantissa's too."""


def lower_sort(group: Group, target: Target) -> LoweredKernel:
    """``sort`` and ``argsort`` of the same rows, and what is computed from them at each place."""
    plan = _OfThreads(group, target)
    with plan.w.loop("p", 0, product(plan.rest), "parallel") as p:
        row = [plan.w.let("o", e) for e in unflatten(p, plan.rest)]
        if not isinstance(plan.count, int):
            with plan.w.when(k.compare("gt", plan.count, 0)):
                plan.by_radix(row, p)
        elif plan.count <= RANKED:
            plan.by_rank(row, plan.count)
        else:
            plan.by_radix(row, p)
    return finish(group, plan.w, plan.outputs, plan.shared)


class Sort:
    """The state of a sort kernel under construction."""

    def __init__(self, group: Group) -> None:
        self.group, self.w = group, group.writer()
        self.outputs = output_buffers(group)
        anchor = group.anchors[0]
        (self.x,), attrs = anchor.inputs, anchor.attrs
        self.axis, self.descending = attrs.axis, attrs.descending
        self.start, self.stop = attrs.start, attrs.stop
        shape = self.x.shape
        self.count = shape[self.axis]
        if less(LONGEST, self.count):
            raise Unsupported(f"a sort of {self.count} elements")
        self.shared: list[tuple[k.Buffer, Dim]] = []
        self.rest = shape[:self.axis] + shape[self.axis + 1:]
        self.kind = key_type(self.x.dtype)
        names = {a.op.name for a in group.anchors}
        self.with_places = "argsort" in names or self.x.dtype.is_float

    def index(self, row: Sequence[k.Expr], position: k.Expr) -> Index:
        """Where the element of a row at a position stands."""
        return (*row[:self.axis], position, *row[self.axis:])

    def element(
        self, row: Sequence[k.Expr], key: k.Expr, place: k.Expr | None, r: k.Expr
    ) -> None:
        """Store place ``r`` of the results: the element of a key, and its marked position."""
        w = self.w
        index = self.index(row, k.Const(0) if self.stop - self.start == 1 else r)
        for node in self.group.anchors:
            if node.op.name == "argsort":
                assert place is not None
                result = unmarked(place, i64)
            else:
                result = from_key(key, place, self.x.dtype, self.descending)
            hold(w, node, w.let("v", result), index)
        store_all(self.group, w, self.outputs, index)
        for node in self.group.anchors:
            w.bound.pop(node)


class _OfThreads(Sort):
    """A row for each thread of a CPU's team."""

    def __init__(self, group: Group, target: Target) -> None:
        super().__init__(group)
        self.lanes = target.lanes(max(4, self.kind.itemsize))

    # --- in and out ---------------------------------------------------------------------
    def _read(
        self, row: Sequence[k.Expr], keys: k.Buffer, places: k.Buffer | None, base: k.Expr
    ) -> None:
        """The keys and positions of a row, from ``base`` on."""
        w = self.w
        with w.loop("i", 0, self.count, "vector", width=self.lanes, interleave=2) as i:
            x = w.let("x", w.value(self.x, self.index(row, i)))
            w.write(k.Store(keys, k.add(base, i), to_key(x, self.descending)))
            if places is not None:
                w.write(k.Store(places, k.add(base, i), marked(x, i)))

    def _write(
        self, row: Sequence[k.Expr], keys: k.Buffer, places: k.Buffer | None, base: k.ExprLike
    ) -> None:
        """Store what is wanted; the first wanted key stands at ``base``."""
        wanted = self.stop - self.start
        if wanted == 1:
            self._element(row, keys, places, k.Const(0), k.expr(base))
            return
        with self.w.loop("r", 0, wanted, "vector", width=self.lanes, interleave=2) as r:
            self._element(row, keys, places, r, k.add(base, r))

    def _element(
        self, row: Sequence[k.Expr], keys: k.Buffer, places: k.Buffer | None, r: k.Expr, at: k.Expr
    ) -> None:
        """Store place ``r`` of the results, whose key stands at ``at``."""
        place = None if places is None else self.w.let("place", k.Load(places, at))
        self.element(row, k.Load(keys, at), place, r)

    def _alloc(self, prefix: str, dtype: DType, size: int) -> k.Buffer:
        return self.w.alloc(prefix, dtype, size, "stack")

    # --- short rows ---------------------------------------------------------------------
    def by_rank(self, row: Sequence[k.Expr], n: int) -> None:
        """Where each element goes: past all smaller ones, and past equal ones before it."""
        w = self.w
        keys, ranks = self._alloc("keys", self.kind, n), self._alloc("ranks", i32, n)
        places = self._alloc("places", u32, n) if self.with_places else None
        self._read(row, keys, places, k.Const(0))
        with w.loop("i", 0, n, "vector", width=self.lanes, interleave=2) as i:
            rank = w.alloc("rank", i32, 1, "register")
            w.write(k.Store(rank, k.Const(0), k.Const(0, i32)))
            own = w.let("own", k.Load(keys, i))
            with w.loop("j", 0, n) as j:
                other = w.let("other", k.Load(keys, j))
                less = k.compare("lt", other, own)
                tie = k.both(k.compare("eq", other, own), k.compare("lt", j, i))
                before = k.Call("cast", (k.Call("or", (less, tie or less), less.dtype),), i32)
                w.write(k.Accumulate(rank, k.Const(0), "add", before))
            w.write(k.Store(ranks, i, k.Load(rank, k.Const(0))))
        keys_out = self._alloc("sorted", self.kind, n)
        places_out = self._alloc("order", u32, n) if places is not None else None
        with w.loop("i", 0, n) as i:
            to = w.let("to", k.Call("cast", (k.Load(ranks, i),), i64))
            w.write(k.Store(keys_out, to, k.Load(keys, i)))
            if places is not None and places_out is not None:
                w.write(k.Store(places_out, to, k.Load(places, i)))
        self._write(row, keys_out, places_out, self.start)

    # --- long rows ----------------------------------------------------------------------
    def _halves(self, prefix: str, dtype: DType, p: k.Expr) -> tuple[k.Buffer, k.Expr]:
        """Two rows to go between, and where they begin: memory of the thread, or, if the length of
        a row is not known, a part of memory for all rows.
        """
        if isinstance(self.count, int):
            return self._alloc(prefix, dtype, 2 * self.count), k.Const(0)
        size = 2 * self.count * product(self.rest)
        buffer = k.Buffer(self.w.name(prefix), dtype, size, "global", "workspace")
        self.shared.append((buffer, size * dtype.itemsize))
        return buffer, k.mul(p, 2 * self.count)

    def by_radix(self, row: Sequence[k.Expr], p: k.Expr) -> None:
        """Distribute by each digit, from the lowest one, between two halves of the buffers."""
        w, n = self.w, self.count
        keys, base = self._halves("keys", self.kind, p)
        places = self._halves("places", u32, p)[0] if self.with_places else None
        base = w.let("base", base)
        self._read(row, keys, places, base)
        high, length = NARROWING[self.kind.bits], estimate(n)
        wanted = estimate(self.stop - self.start)
        narrowed = NARROW * wanted <= length and 1 << high <= 4 * length
        radix = _Radix(w, keys, places, base, n, high if narrowed else 0)
        below: k.Expr = k.Const(0)
        if narrowed:
            below = radix.narrow(self.start, self.stop)
        radix.sort()
        first = w.let("first", k.sub(k.add(radix.source(), self.start), below))
        self._write(row, keys, places, first)


class _Radix:
    """A radix sort of what stands in one half of ``keys`` and ``places``.

    base   where the first half begins
    half   a register: where the current half begins, ``base`` or ``base + n``
    count  how many elements there are
    high   how many bits :meth:`narrow` looks at; 0: it is not called
    """

    def __init__(
        self, w: Writer, keys: k.Buffer, places: k.Buffer | None, base: k.Expr, n: Dim, high: int
    ) -> None:
        self.w, self.keys, self.places, self.high = w, keys, places, high
        self.base, self.n = base, n
        self.passes = keys.dtype.bits // BITS
        size = max(self.passes << BITS, 1 << high)
        self.counts = w.alloc("counts", i32, size, "stack")
        self.half = w.alloc("half", i64, 1, "register")
        w.write(k.Store(self.half, k.Const(0), base))
        self.count = k.expr(n)

    def source(self) -> k.Expr:
        """Where the current half begins."""
        return k.Load(self.half, k.Const(0))

    def _digit(self, key: k.Expr, number: int) -> k.Expr:
        """A digit, counted from the lowest."""
        dtype = key.dtype
        if number:
            key = k.Call("shr", (key, k.Const(number * BITS, dtype)), dtype)
        if number < self.passes - 1:
            key = k.Call("and", (key, k.Const((1 << BITS) - 1, dtype)), dtype)
        return k.Call("cast", (key,), i64)

    def _highest(self, key: k.Expr) -> k.Expr:
        """The highest bits, by which a row is narrowed."""
        dtype = key.dtype
        key = k.Call("shr", (key, k.Const(dtype.bits - self.high, dtype)), dtype)
        return k.Call("cast", (key,), i64)

    def _count(self, size: int, tables: Callable[[k.Expr], Sequence[k.Expr]]) -> None:
        """How often each place of the ``tables`` that a key belongs to occurs."""
        w = self.w
        with w.loop("z", 0, size, "vector", width=16) as z:
            w.write(k.Store(self.counts, z, k.Const(0, i32)))
        source = w.let("source", self.source())
        with w.loop("i", 0, self.count) as i:
            key = w.let("key", k.Load(self.keys, k.add(source, i)))
            for at in tables(key):
                w.write(k.Accumulate(self.counts, w.let("d", at), "add", k.Const(1, i32)))

    def sort(self) -> None:
        """All passes."""
        w = self.w
        every = range(self.passes)
        self._count(
            self.passes << BITS, lambda key: [k.add(self._digit(key, d), d << BITS) for d in every])
        for number in every:
            source = w.let("source", self.source())
            first = self._digit(k.Load(self.keys, source), number)
            table = number << BITS
            most = k.Call("cast", (k.Load(self.counts, k.add(first, table)),), i64)
            with w.when(k.compare("ne", w.let("most", most), self.count)):
                self._begin(table)
                self._distribute(number, table, source)

    def _begin(self, table: int) -> None:
        """Counts become the places where each value of the digit begins."""
        w = self.w
        total = w.alloc("total", i32, 1, "register")
        w.write(k.Store(total, k.Const(0), k.Const(0, i32)))
        with w.loop("b", table, table + (1 << BITS)) as b:
            here = w.let("here", k.Load(self.counts, b))
            before = w.let("before", k.Load(total, k.Const(0)))
            w.write(k.Store(self.counts, b, before))
            w.write(k.Store(total, k.Const(0), k.Call("add", (before, here), i32)))

    def _distribute(self, number: int, table: int, source: k.Expr) -> None:
        """Each element goes to the next place of its digit, in the other half."""
        w = self.w
        both = k.add(k.mul(self.base, 2), self.n)
        target = w.let("target", k.sub(both, source))
        with w.loop("i", 0, self.count) as i:
            key = w.let("key", k.Load(self.keys, k.add(source, i)))
            at = w.let("d", k.add(self._digit(key, number), table))
            free = w.let("free", k.Load(self.counts, at))
            w.write(k.Store(self.counts, at, k.Call("add", (free, k.Const(1, i32)), i32)))
            to = w.let("to", k.add(target, k.Call("cast", (free,), i64)))
            w.write(k.Store(self.keys, to, key))
            if self.places is not None:
                w.write(k.Store(self.places, to, k.Load(self.places, k.add(source, i))))
        w.write(k.Store(self.half, k.Const(0), target))

    def narrow(self, start: Dim, stop: Dim) -> k.Expr:
        """Keep what may stand in the places ``start`` to ``stop``; how many come before."""
        w = self.w
        self._count(1 << self.high, lambda key: [self._highest(key)])
        registers = [w.alloc(name, i64, 1, "register") for name in ("total", "low", "high", "less")]
        for register in registers:
            w.write(k.Store(register, k.Const(0), k.Const(0)))
        total, low, high, less = registers
        with w.loop("b", 0, 1 << self.high) as b:
            before = w.let("before", k.Load(total, k.Const(0)))
            here = k.Call("cast", (k.Load(self.counts, b),), i64)
            w.write(k.Store(total, k.Const(0), k.add(before, here)))
            begins = k.compare("le", before, start)
            for register, value, condition in (
                (low, b, begins), (less, before, begins),
                (high, b, k.compare("le", before, stop - 1)),
            ):
                old = k.Load(register, k.Const(0))
                chosen = k.Call("where", (condition, value, old), i64)
                w.write(k.Store(register, k.Const(0), chosen))
        low_digit, high_digit, below = (
            w.let("t", k.Load(r, k.Const(0))) for r in (low, high, less))
        self._keep(low_digit, high_digit)
        return below

    def _keep(self, low_digit: k.Expr, high_digit: k.Expr) -> None:
        """What has these highest bits, in order, becomes the current half."""
        w = self.w
        other = w.let("other", k.add(self.base, self.n))
        kept = w.alloc("kept", i64, 1, "register")
        w.write(k.Store(kept, k.Const(0), other))
        with w.loop("i", 0, self.n) as i:
            at = k.add(self.base, i)
            key = w.let("key", k.Load(self.keys, at))
            digit = w.let("d", self._highest(key))
            to = w.let("to", k.Load(kept, k.Const(0)))
            w.write(k.Store(self.keys, to, key))
            if self.places is not None:
                w.write(k.Store(self.places, to, k.Load(self.places, at)))
            wanted = k.both(k.compare("ge", digit, low_digit), k.compare("le", digit, high_digit))
            assert wanted is not None
            w.write(k.Store(kept, k.Const(0), k.add(to, k.Call("cast", (wanted,), i64))))
        self.count = w.let("count", k.sub(k.Load(kept, k.Const(0)), other))
        w.write(k.Store(self.half, k.Const(0), other))
