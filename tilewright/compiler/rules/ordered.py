"""Laws of scans and sorts: along an axis of one element there is nothing to do."""

from __future__ import annotations

from functools import partial

from tilewright.compiler.rules.law import law, sample
from tilewright.ir.attrs import ScanAttrs, SortAttrs
from tilewright.ir.graph import Node, full, make
from tilewright.ir.rewrite import Match, Rules, op

SCANS = ("cumsum", "cumprod", "cummax", "cummin", "argcummax", "argcummin", "recurrence",
         "logcumsumexp")


def single(m: Match) -> bool:
    """Whether the axis has one element, which is a result."""
    axis = m.root.attrs.axis
    sizes = {n.shape[axis] for n in (m.root, *m.root.inputs)}
    return sizes == {1}


def itself(m: Match) -> Node:
    """The element, or its position."""
    root = m.root
    return full(root.type, 0) if root.op.name.startswith("arg") else root.inputs[-1]


def scans(name: str) -> list[Node]:
    """Scans of few elements."""
    inputs = [sample(3, 1), sample(3, 1, name="y")] if name == "recurrence" else [sample(3, 1)]
    return [make(name, inputs, ScanAttrs(axis, axis == 1)) for axis in (0, 1)]


def sorts(name: str) -> list[Node]:
    """Sorts of few elements."""
    return [make(name, (sample(3, 1),), SortAttrs(1, descending, 0, 1))
            for descending in (False, True)]


ORDERED = Rules(
    *(law(f"{name}-one", op(name, ...), itself, when=single, examples=partial(scans, name))
      for name in SCANS),
    *(law(f"{name}-one", op(name, ...), itself, when=single, examples=partial(sorts, name))
      for name in ("sort", "argsort")),
)
