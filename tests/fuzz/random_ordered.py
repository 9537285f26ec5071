"""Random scans, sorts and searches: steps of the maker of random graphs."""

from __future__ import annotations

from hypothesis import strategies as st

from tilewright.ir.attrs import ScanAttrs, SearchAttrs, SortAttrs
from tilewright.ir.graph import make
from tilewright.ir.types import bool_


class Ordered:
    """Every method either adds a node to the graph that is being made or does nothing."""

    def scan(self) -> None:
        x = self.node()
        if x is None or not x.type.rank:
            return
        attrs = ScanAttrs(self.draw(st.integers(0, x.type.rank - 1)), self.draw(st.booleans()))
        name = self.pick("cumsum", "cumsum", "cumprod", "cummax", "cummin", "argcummax",
                         "argcummin", "recurrence", "logcumsumexp")
        bound, count = self.bounds[x], x.shape[attrs.axis]
        if name in ("cumsum", "cumprod", "recurrence") and x.dtype is bool_:
            return
        if name in ("cumprod", "recurrence") and x.dtype.is_float:
            return
        if name.startswith("arg") and not bound.exact:
            return
        if name == "logcumsumexp":
            if x.dtype.is_float and x.dtype.bits > 16 and bound.limit <= 100:
                self.floats(make(name, (x,), attrs), bound.limit + 6, False)
            return
        inputs = (x, self.partner(x)) if name == "recurrence" else (x,)
        limit = bound.limit * count if name == "cumsum" else bound.limit
        self.floats(make(name, inputs, attrs), limit, bound.exact)

    def order(self) -> None:
        x = self.node()
        if x is None or not x.type.rank:
            return
        axis, bound = self.draw(st.integers(0, x.type.rank - 1)), self.bounds[x]
        size = x.shape[axis]
        start = self.draw(st.integers(0, size))
        start, stop = self.pick((0, size), (start, self.draw(st.integers(start, size))))
        attrs = SortAttrs(axis, self.draw(st.booleans()), start, stop)
        self.add(make("sort", (x,), attrs), bound)
        if bound.exact:
            self.add(make("argsort", (x,), attrs))

    def search(self) -> None:
        x = self.node()
        if x is None or x.type.rank != 1 or not self.bounds[x].exact:
            return
        rows = make("sort", (x,), SortAttrs(0, False, 0, x.shape[0]))
        values = [n for n in self.nodes if n.dtype is x.dtype and self.bounds[n].exact]
        value = self.draw(st.sampled_from(values))
        self.add(make("searchsorted", (rows, value), SearchAttrs(self.draw(st.booleans()))))
