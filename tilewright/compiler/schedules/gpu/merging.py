"""Keys and positions in the memory of a block, put in order by its threads: a stable merge sort.

Each thread has a few neighbours. It sorts them in registers; then pairs of runs are merged, and
each thread finds by a binary search which elements of the two runs its own places receive: O.
Green, R. McColl and D. Bader, "GPU Merge Path: A GPU Merging Algorithm" (2012). No step has a
branch that depends on the data, and what is equal keeps its order without a look at positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler.schedules.access import Writer
from tilewright.compiler.schedules.gpu.team import WARP, butterfly
from tilewright.compiler.schedules.reduction import converted
from tilewright.ir import loops as k
from tilewright.ir.types import DType, i32, i64, u32

BANKS = 32
"""Words of shared memory that are accessed at once."""

Pairs = tuple[list[k.Expr], list[k.Expr]]
"""Keys, and the positions that belong to them, if there are any."""


@dataclass(frozen=True)
class Run:
    """Sorted elements, ``length`` of them from ``first`` on."""

    first: k.Expr
    length: k.Expr


def choose(condition: k.Expr, a: k.Expr, b: k.Expr) -> k.Expr:
    """One of two values."""
    return k.Call("where", (condition, a, b), a.dtype)


class Tile:
    """``threads * each`` elements in shared memory; the thread ``thread`` has ``each`` neighbours.
    """

    def __init__(
        self, w: Writer, kind: DType, with_places: bool, threads: int, each: int
    ) -> None:
        self.w, self.kind, self.threads, self.each = w, kind, threads, each
        self.size = threads * each
        # After each 32 elements one is left out, so that threads that walk side by side, ``each``
        # elements apart, access different banks.
        room = self.size + self.size // BANKS
        self.keys = w.alloc("keys", kind, room, "shared")
        self.places = w.alloc("places", u32, room, "shared") if with_places else None
        self.ends = w.alloc("ends", i64, 2, "shared")
        self.thread: k.Expr = k.Const(0)

    # --- one element ----------------------------------------------------------------------
    def _slot(self, at: k.Expr) -> k.Expr:
        return k.add(at, k.floordiv(at, BANKS))

    def key(self, at: k.Expr, mask: k.Expr | None = None) -> k.Expr:
        """The key at a place."""
        return k.Load(self.keys, self._slot(at), mask)

    def place(self, at: k.Expr) -> k.Expr | None:
        """The position that belongs to the key at a place."""
        return None if self.places is None else k.Load(self.places, self._slot(at))

    def put(self, at: k.Expr, key: k.Expr, place: k.Expr | None) -> None:
        """Store a key and its position."""
        self.w.write(k.Store(self.keys, self._slot(at), key))
        if self.places is not None and place is not None:
            self.w.write(k.Store(self.places, self._slot(at), place))

    def spread(self, number: k.Expr) -> k.Expr:
        """The place of a thread's element, where neighbouring threads have neighbours."""
        return self.w.let("q", k.add(k.mul(number, self.threads), self.thread))

    # --- sorting ----------------------------------------------------------------------------
    def sort(self, length: int) -> None:
        """Put every ``length`` elements in order; other threads' elements are seen after that."""
        w, each = self.w, self.each
        w.write(k.Barrier())
        self._put_own(self._sorted_own())
        rounds = (length // each).bit_length() - 1
        if rounds:
            with w.loop("r", 0, rounds) as r:
                w.write(k.Barrier())
                width = w.let("width", k.Call("shl", (k.Const(each), r), i64))
                start = self._start(r)
                left = Run(start, width)
                right = Run(w.let("right", k.add(start, width)), width)
                taken = w.let("d", k.sub(k.mul(self.thread, each), start))
                merged = self.merged(left, right, taken, width, k.add(r, each.bit_length()))
                w.write(k.Barrier())
                self._put_own(merged)
        w.write(k.Barrier())

    def _start(self, r: k.Expr) -> k.Expr:
        """Where the two runs of ``each << r`` elements begin to which the thread's belong."""
        one = k.add(r, 1)
        number = k.Call("shl", (k.Call("shr", (self.thread, one), i64), one), i64)
        return self.w.let("start", k.mul(number, self.each))

    def merge(self, left: Run, right: Run, steps: int) -> None:
        """Merge two runs that have all elements together; seen by others after a barrier."""
        taken = self.w.let("d", k.mul(self.thread, self.each))
        merged = self.merged(left, right, taken, k.Const(1 << steps - 1), k.Const(steps))
        self.w.write(k.Barrier())
        self._put_own(merged)

    def _put_own(self, pairs: Pairs) -> None:
        """Store the thread's elements."""
        keys, places = pairs
        for number, key in enumerate(keys):
            at = k.add(k.mul(self.thread, self.each), number)
            self.put(at, key, places[number] if places else None)

    def _sorted_own(self) -> Pairs:
        """The thread's elements in order: neighbours change places, each time from every second on
        (odd-even transposition), which leaves equal ones as they are.
        """
        w, each = self.w, self.each
        places: list[k.Expr] = []
        keys: list[k.Expr] = []
        for number in range(each):
            at = k.add(k.mul(self.thread, each), number)
            keys.append(w.let("key", self.key(at)))
            place = self.place(at)
            if place is not None:
                places.append(w.let("place", place))
        for phase in range(each if each > 1 else 0):
            for i in range(phase % 2, each - 1, 2):
                swap = w.let("swap", k.compare("lt", keys[i + 1], keys[i]))
                for values in (keys, places) if places else (keys,):
                    one, other = values[i], values[i + 1]
                    values[i] = w.let("low", choose(swap, other, one))
                    values[i + 1] = w.let("high", choose(swap, one, other))
        return keys, places

    # --- merging ----------------------------------------------------------------------------
    def merged(
        self, left: Run, right: Run, taken: k.Expr, step: k.Expr, steps: k.Expr
    ) -> Pairs:
        """The ``each`` elements of two runs from number ``taken`` on. As many are there.

        step, steps  the first step of the binary search, and how many there are
        """
        w = self.w
        low, high = (w.let("m", e) for e in between(left, right, taken))
        mine = w.alloc("mine", i64, 1, "register")
        w.write(k.Store(mine, k.Const(0), low))
        with w.loop("s", 0, steps) as s:
            half = k.Call("shr", (step, s), i64)
            count = w.let("n", k.add(k.Load(mine, k.Const(0)), half))
            inside = w.let("inside", k.compare("le", count, high))
            a = self.key(k.sub(k.add(left.first, count), 1), inside)
            b = self.key(k.sub(k.add(right.first, taken), count), inside)
            further = k.both(inside, k.compare("le", w.let("a", a), w.let("b", b)))
            assert further is not None
            w.write(k.Store(
                mine, k.Const(0), choose(further, count, k.Load(mine, k.Const(0)))))
        first = w.let("n", k.Load(mine, k.Const(0)))
        return self._walked(left, right, k.add(left.first, first),
                            k.sub(k.add(right.first, taken), first))

    def _walked(self, left: Run, right: Run, i: k.Expr, j: k.Expr) -> Pairs:
        """The next ``each`` elements of the runs, from the places ``i`` and ``j`` on."""
        w, last = self.w, self.size - 1
        i, j = w.let("i", i), w.let("j", j)
        end_i = w.let("end", k.add(left.first, left.length))
        end_j = w.let("end", k.add(right.first, right.length))
        a, b = (w.let("key", self.key(w.let("at", k.minimum(x, last)))) for x in (i, j))
        keys: list[k.Expr] = []
        froms: list[k.Expr] = []
        for number in range(self.each):
            alone = k.compare("ge", j, end_j)
            earlier = k.Call("or", (alone, k.compare("le", a, b)), alone.dtype)
            of_left = k.both(k.compare("lt", i, end_i), earlier)
            assert of_left is not None
            of_left = w.let("left", of_left)
            keys.append(w.let("key", choose(of_left, a, b)))
            froms.append(w.let("from", choose(of_left, i, j)))
            if number < self.each - 1:
                after = w.let("after", k.add(froms[-1], 1))
                fresh = w.let("fresh", self.key(w.let("at", k.minimum(after, last))))
                i = w.let("i", choose(of_left, after, i))
                j = w.let("j", choose(of_left, j, after))
                a = w.let("a", choose(of_left, fresh, a))
                b = w.let("b", choose(of_left, b, fresh))
        places = [] if self.places is None else [
            w.let("place", k.Load(self.places, self._slot(at))) for at in froms]
        return keys, places


def between(left: Run, right: Run, taken: k.Expr) -> tuple[k.Expr, k.Expr]:
    """How many of the first ``taken`` elements of two runs the left one has, at least and at most.
    """
    least = k.Call("max", (k.sub(taken, right.length), k.Const(0)), i64)
    return least, k.minimum(taken, left.length)


def search(
    w: Writer, keys: k.Buffer, left: Run, right: Run, taken: k.Expr, lane: k.Expr, levels: int
) -> k.Expr:
    """How many of the first ``taken`` elements of two runs in memory the left one has.

    The 32 threads of a warp look at one place of 32 each, then at those between two of these, and
    so on, ``levels`` times.
    """
    low, high = (w.let("m", e) for e in between(left, right, taken))
    found = low
    for level in reversed(range(levels)):
        stride = WARP ** level
        count = w.let("n", k.add(found, k.mul(k.add(lane, 1), stride)))
        inside = w.let("inside", k.compare("le", count, high))
        a = k.Load(keys, k.sub(k.add(left.first, count), 1), inside)
        b = k.Load(keys, k.sub(k.add(right.first, taken), count), inside)
        further = k.both(inside, k.compare("le", w.let("a", a), w.let("b", b)))
        assert further is not None
        number = choose(further, k.Const(1, i32), k.Const(0, i32))
        total = converted(butterfly(w, "add", number, WARP), i64)
        found = w.let("n", k.add(found, k.mul(total, stride)))
    return found
