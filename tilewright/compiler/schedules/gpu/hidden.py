"""Which scores a mask hides, as far as that can be told from their places.

    where(row >= key, s, -inf)     ->  row - key >= 0 where a score is seen
    where(constant[row, key], ...) ->  the diagonals between which the constant holds
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tilewright.compiler.schedules.access import Index
from tilewright.compiler.schedules.gpu.contraction_sides import Seen, trial_of
from tilewright.compiler.schedules.group import Group
from tilewright.ir import loops as k
from tilewright.ir.bounds import affine
from tilewright.ir.graph import CONSTANTS, Node, full_value
from tilewright.ir.types import f32, i64

ROW, KEY = k.Var("row_of_score"), k.Var("key_of_score")

VANISHING = 110.0
"""So far below the largest score, an f32 score's exponential is 0: exp(-104) is."""

LARGEST = 1 << 31
"""Numbers that a comparison of places stays below, whatever its type."""

FLIPPED = {"ge": "lt", "gt": "le", "lt": "ge", "le": "gt"}
MIRRORED = {"ge": "le", "gt": "lt", "lt": "gt", "le": "ge", "eq": "eq"}


@dataclass(frozen=True)
class Bound:
    """``row * rows + key * keys + constant >= 0`` where a score is seen."""

    rows: int
    keys: int
    constant: int


@dataclass
class Hidden:
    """What a mask says of the places of the scores.

    bounds  all of them hold where a score is seen
    fill    the largest score elsewhere
    bands   constants that say no more than such bounds
    """

    bounds: list[Bound] = field(default_factory=list)
    fill: float = float("-inf")
    bands: dict[Node, Callable[[Index], k.Expr | None]] = field(default_factory=dict)


def hidden(group: Group, score: Node, index: Index, extents: tuple[int, int]) -> Hidden:
    """What hides the scores at ``index``, which is in terms of :data:`ROW` and :data:`KEY`.

    score    the scores, as ``where``s of masks and numbers
    extents  rows and keys
    """
    found = _Conditions(group, index, extents)
    node, fill = score, float("-inf")
    while node.op.name == "where" and node.shape == score.shape:
        condition, yes, no = node.inputs
        node, other, holds = (yes, no, True) if no.op.name == "full" else (no, yes, False)
        value = float(full_value(other)) if other.op.name == "full" else 0.0
        # Whether a number vanishes beside the largest score is only asked of f32.
        if value >= 0 or value > float("-inf") and score.dtype is not f32:
            break
        fill = max(fill, value)
        before = len(found.result.bounds)
        found.add(condition, holds)
        if len(found.result.bounds) > before:
            found.result.fill = fill
    return found.result


class _Conditions:
    """Reads conditions on places."""

    def __init__(self, group: Group, index: Index, extents: tuple[int, int]) -> None:
        self.index, self.extents = index, extents
        self.trial = trial_of(group)
        self.seen = Seen(self.trial)
        self.result = Hidden()

    def add(self, condition: Node, holds: bool) -> None:
        """Note what follows from a condition's holding, or from its not holding."""
        e = self.trial.value(condition, self.index)
        self.seen = Seen(self.trial)
        self._add(self.seen.named(e), holds)

    def _add(self, e: k.Expr, holds: bool) -> None:
        if isinstance(e, k.Load):
            self._band(e, holds)
        elif isinstance(e, k.Call):
            args = [self.seen.named(a) for a in e.args]
            if e.op == "not":
                self._add(args[0], not holds)
            elif e.op == ("and" if holds else "or"):
                for a in args:
                    self._add(a, holds)
            elif e.op in FLIPPED or e.op == "eq" and holds:
                self._compare(e.op if holds else FLIPPED[e.op], *args)

    def _compare(self, op: str, a: k.Expr, b: k.Expr) -> None:
        left, right = self._integer(a), self._integer(b)
        form = None if left is None or right is None else affine(k.sub(left, right), {})
        if form is None or not set(form.factors) <= {ROW.name, KEY.name}:
            return
        rows, keys = form.factors.get(ROW.name, 0), form.factors.get(KEY.name, 0)
        reach = abs(rows) * self.extents[0] + abs(keys) * self.extents[1] + abs(form.constant)
        if not keys or reach >= LARGEST:
            return
        if op in ("ge", "gt", "eq"):
            self.result.bounds.append(Bound(rows, keys, form.constant - (op == "gt")))
        if op in ("le", "lt", "eq"):
            self.result.bounds.append(Bound(-rows, -keys, -form.constant - (op == "lt")))

    def _integer(self, e: k.Expr) -> k.Expr | None:
        """An integer expression in i64, without names and conversions; None if it is not one."""
        e = self.seen.named(e)
        if e.dtype.kind not in "iu":
            return None
        if isinstance(e, k.Const):
            return k.Const(int(e.value))
        if isinstance(e, k.Var):
            return e if e.dtype is i64 else None
        if not isinstance(e, k.Call) or e.op not in ("add", "sub", "mul", "shl", "neg", "cast"):
            return None
        args = [x for x in map(self._integer, e.args) if x is not None]
        if len(args) < len(e.args):
            return None
        if e.op == "cast":
            return args[0]
        if e.op == "neg":
            return k.sub(0, args[0])
        if e.op == "shl":
            by = k.const_int(args[1])
            return k.mul(args[0], 1 << by) if by is not None and 0 <= by < 31 else None
        return k.Call(e.op, tuple(args), i64)

    def _band(self, load: k.Load, holds: bool) -> None:
        """The diagonals of a constant between which all is that is seen."""
        node = next(n for n, buffer in self.trial.inputs.items() if buffer is load.buffer)
        form = affine(load.index, self.seen.lets)
        if node.op.name != "const" or load.mask is not None or form is None:
            return
        if not set(form.factors) <= {ROW.name, KEY.name}:
            return
        data = CONSTANTS[node.attrs.digest].reshape(-1)
        rows, keys = np.arange(self.extents[0])[:, None], np.arange(self.extents[1])
        places = form.constant + rows * form.factors.get(ROW.name, 0) + (
            keys * form.factors.get(KEY.name, 0))
        visible = data[places] == holds
        if not visible.any():
            return
        apart = (keys - rows)[visible]
        low, high = int(apart.min()), int(apart.max())
        self.result.bounds += [Bound(1, -1, high), Bound(-1, 1, -low)]
        if node.type.rank == 2 and np.array_equal(
            visible, (keys - rows <= high) & (keys - rows >= low)
        ) and node.shape == self.extents and form.factors == {ROW.name: keys.size, KEY.name: 1}:
            self.result.bands[node] = _between(low, high, self.extents, holds)


def _between(
    low: int, high: int, extents: tuple[int, int], holds: bool
) -> Callable[[Index], k.Expr | None]:
    """An element of a constant that holds between two diagonals, or does not."""

    def element(index: Index) -> k.Expr:
        row, key = index
        inside: k.Expr | None = None
        if high < extents[1] - 1:
            inside = k.compare("le", key, k.add(row, high))
        if low > 1 - extents[0]:
            inside = k.both(inside, k.compare("ge", key, k.add(row, low)))
        inside = k.compare("eq", key, key) if inside is None else inside
        return inside if holds else k.Call("not", (inside,), inside.dtype)

    return element


def steps_seen(
    bounds: list[Bound], first: k.Expr, last: k.Expr, extent: int, step: int
) -> tuple[k.Expr, k.Expr]:
    """The steps of ``step`` keys in which rows from ``first`` to ``last`` may see one.

    Rows are not negative; the first step and the one after the last, which may be before it.
    """
    start: k.Expr = k.Const(0)
    stop: k.Expr = k.Const(extent)
    for b in bounds:
        # The row that sees most.
        row = last if b.rows > 0 else first
        reach = k.add(k.mul(row, b.rows), b.constant)
        if b.keys < 0:
            stop = k.minimum(stop, k.floordiv(_maximum(k.add(reach, -b.keys), 0), -b.keys))
        else:
            need = k.add(k.sub(0, reach), b.keys - 1)
            start = _maximum(start, k.floordiv(_maximum(need, 0), b.keys))
    return k.floordiv(start, step), k.floordiv(k.add(stop, step - 1), step)


def _maximum(a: k.Expr, b: k.ExprLike) -> k.Expr:
    return k.Call("max", (a, k.expr(b)), i64)
