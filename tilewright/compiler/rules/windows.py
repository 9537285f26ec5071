"""Laws of sliding windows: a window of one element is a slice."""

from __future__ import annotations

from tilewright.compiler.rules.law import law, sample
from tilewright.ir.build import part, reshape, window
from tilewright.ir.graph import Node
from tilewright.ir.rewrite import Match, Rules, hole, op
from tilewright.ir.sizes import Dim

x = hole("x")


def single_taps(m: Match) -> Node | None:
    """Windows of one element along an axis, as a slice of it."""
    attrs, source = m.root.attrs, m["x"]
    ones = [n for n, size in enumerate(attrs.sizes) if size == 1]
    if not ones:
        return None
    starts: list[Dim] = [0] * source.type.rank
    stops, steps = list(source.shape), [1] * source.type.rank
    for n in ones:
        axis, step = attrs.axes[n], attrs.strides[n]
        stops[axis], steps[axis] = (m.root.shape[axis] - 1) * step + 1, step
    rest = [n for n in range(len(attrs.axes)) if n not in ones]
    seen = window(part(source, starts, stops, steps), *(
        [values[n] for n in rest]
        for values in (attrs.axes, attrs.sizes, attrs.strides, attrs.dilations)))
    return reshape(seen, m.root.shape)


def examples() -> list[Node]:
    """Windows of all sorts."""
    return [
        window(sample(7), (0,), (1,), (2,), (3,)),
        window(sample(5, 6), (0, 1), (1, 3), (1, 2), (1, 1)),
        window(sample(5, 6), (0, 1), (3, 1), (1, 1), (1, 1)),
        window(sample(7, 2, 9), (0, 2), (2, 3), (2, 3), (1, 1)),
    ]


WINDOWS = Rules(
    law("window-single", op("window", x), single_taps,
        when=lambda m: 0 not in m.root.shape, examples=examples),
)
