"""The operands of a contraction as matrices of rows and contracted elements, and as tiles of them.

A thread moves *pieces*: neighbours in memory that one access takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tilewright.compiler.schedules.access import Index, Writer, flat
from tilewright.compiler.schedules.contraction_shape import Roles, Spot
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.schedules.reduction import converted, number
from tilewright.compiler.schedules.scope import Scope
from tilewright.ir import loops as k
from tilewright.ir.bounds import affine
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim
from tilewright.ir.types import DType, i64

Which: TypeAlias = Literal["lhs", "rhs"]

ACCESS = 16
"""Bytes of the widest access of a thread."""

PIECE, BESIDE = k.Var("piece"), k.Var("beside")
"""Where a piece begins, and the place in it, in expressions that are only looked at."""


class Side:
    """An operand: ``rows`` of the class ``free`` (m or n) and ``depth`` contracted elements each.

    unit   the class along which neighbours are neighbours in memory
    piece  elements of one access
    plain  pieces are 16 bytes in memory that a tile of ``dtype`` takes as they are
    matrix the matrix that it is in, if it is plain and there is one
    """

    def __init__(self, group: Group, roles: Roles, which: Which, dtype: DType) -> None:
        self.roles, self.which, self.dtype = roles, which, dtype
        lhs = which == "lhs"
        self.node: Node = roles.lhs if lhs else roles.rhs
        self.labels = roles.lhs_labels if lhs else roles.rhs_labels
        self.free = "m" if lhs else "n"
        self.unit = roles.lhs_unit if lhs else roles.rhs_unit
        self.rows, self.depth = roles.size(self.free), roles.depth
        trial = trial_of(group)
        position: dict[str, k.Expr] = {
            "k": k.Var("at"), self.free: k.Var("row"), self.unit: PIECE}
        batch = tuple(k.Var(f"batch{i}") for i in range(len(roles.batch_extents)))
        e = self.value(trial, batch, position[self.free], position["k"], BESIDE)
        seen = Seen(trial)
        loads = list(seen.loads(e))
        self.piece = 1
        limit = ACCESS // max([dtype.itemsize, *(x.dtype.itemsize for x in loads)])
        while self.piece < limit and self._even(2 * self.piece) and all(
            seen.wide(x, 2 * self.piece) for x in loads
        ):
            self.piece *= 2
        source = seen.named(e)
        self.plain = (
            isinstance(source, k.Load) and source.mask is None and source.dtype is dtype
            and self.piece * dtype.itemsize == ACCESS)
        self.matrix: Matrix | None = None
        if self.plain and isinstance(source, k.Load):
            across = position["k" if self.unit == self.free else self.free]
            self.matrix = matrix_of(source, seen, across, batch, self.piece)

    def _even(self, piece: int) -> bool:
        """Whether pieces never cross the end of a stretch of neighbours."""
        size = self.roles.size_of(self.roles.chains(self.unit, self.which)[-1]) if (
            self.roles.runs[self.unit]) else 1
        return isinstance(size, int) and size % piece == 0

    def value(
        self, w: Writer, batch: Index, row: k.Expr, at: k.Expr, beside: k.ExprLike = 0,
        mask: k.Expr | None = None,
    ) -> k.Expr:
        """The element of a row and a contracted place, so far beside it along ``unit``."""
        index = self._index(batch, row, at, beside)
        return converted(w.value(self.node, index, mask), self.dtype)

    def place(self, w: Writer, batch: Index, row: k.Expr, at: k.Expr) -> k.Load:
        """Where a piece of a plain operand begins."""
        return w.place(self.node, self._index(batch, row, at, 0))

    def _index(self, batch: Index, row: k.Expr, at: k.Expr, beside: k.ExprLike) -> Index:
        places = {**self.roles.place("batch", batch), **self._spot(self.free, row, beside),
                  **self._spot("k", at, beside)}
        return tuple(places[label] for label in self.labels)

    def _spot(self, which: str, position: k.Expr, beside: k.ExprLike) -> Spot:
        return spot_beside(
            self.roles, which, position, self.which, beside if which == self.unit else 0)

    def clamped(self, which: str, block: k.Expr, size: int, offset: k.Expr) -> tuple[
        k.Expr, k.Expr | None
    ]:
        """Where ``offset`` (a multiple of the piece along ``unit``) in a block of ``size`` lies.

        It is kept inside of the operand; the second is whether it was, None: always.
        """
        extent = self.depth if which == "k" else self.rows
        piece = self.piece if which == self.unit else 1
        return inside(block, size, offset, extent, piece)


def inside(
    block: k.Expr, size: int, offset: k.Expr, extent: Dim, piece: int
) -> tuple[k.Expr, k.Expr | None]:
    """``block * size + offset``, a multiple of ``piece``, no further than in ``extent`` elements.

    The second is whether it was there to begin with; None: it is.
    """
    if isinstance(extent, int) and extent % size == 0:
        return k.add(k.mul(block, size), offset), None
    # Counted in pieces, so that it is plain to see where they may begin.
    number_ = k.add(k.mul(block, size // piece), k.floordiv(offset, piece))
    pieces = k.floordiv(k.expr(extent), piece)
    held = k.minimum(number_, k.sub(pieces, 1))
    return k.mul(held, piece), k.compare("lt", number_, pieces)


def spot_beside(
    roles: Roles, which: str, position: k.Expr, side: str, beside: k.ExprLike
) -> Spot:
    """Label -> index of what is ``beside`` a position, on the innermost of its axes."""
    spot = roles.spread(which, position, side)
    if beside != 0 and roles.runs[which]:
        label = roles.runs[which][-1][-1]
        wide = [run for run in roles.runs[which] if roles.size_of(run) != 1]
        label = wide[-1][-1] if wide else label
        spot[label] = k.add(spot[label], beside)
    return spot


def trial_of(group: Group) -> Writer:
    """A writer inside of a loop, of which nothing is kept."""
    trial = group.writer()
    trial.scopes.append(Scope())
    return trial


def pieces_of_result(
    group: Group, roles: Roles, node: Node, most: int, parts: DType | None = None
) -> int:
    """Columns of the result that every stored value lets us write, and read, at once.

    parts  the sums are stored in this type, as they are; None: what follows from them
    """
    trial = trial_of(group)
    batch = tuple(k.Var(f"batch{i}") for i in range(len(roles.batch_extents)))
    places = {**roles.place("batch", batch), **roles.spread("m", k.Var("row"), "out"),
              **spot_beside(roles, "n", PIECE, "out", BESIDE)}
    index = tuple(places[label] for label in node.attrs.out)
    trial.bound[node] = lambda at: k.Const(0.0, node.dtype) if at == index else None
    if parts is None:
        values = [(trial.value(v, index), flat(index, v.shape)) for v, _ in group.stores]
        types = [v.dtype for v, _ in group.stores]
    else:
        values, types = [(zero(parts), flat(index, node.shape))], [parts]
    seen = Seen(trial)
    loads = [x for e, _ in values for x in seen.loads(e)]
    largest = max(t.itemsize for t in [*types, *(x.dtype for x in loads)])
    chains = roles.chains("n", "out")
    size = roles.size_of(chains[-1]) if chains else 1
    piece = 1
    while 2 * piece <= min(most, ACCESS // largest) and (
        isinstance(size, int) and size % (2 * piece) == 0
        and all(seen.wide(x, 2 * piece) for x in loads)
        and all(seen.together(offset, 2 * piece) for _, offset in values)
    ):
        piece *= 2
    return piece


@dataclass(frozen=True)
class Matrix:
    """An operand as a matrix in memory: ``rows`` of ``columns`` elements, without gaps.

    batch  rows from one position on each batch axis to the next
    """

    rows: Dim
    columns: int
    batch: tuple[int, ...]

    def row(self, batch: Index, row: k.Expr) -> k.Expr:
        """The row of the matrix."""
        for position, step in zip(batch, self.batch, strict=True):
            row = k.add(row, k.mul(position, step))
        return row


def matrix_of(
    load: k.Load, seen: Seen, across: k.Expr, batch: Sequence[k.Var], piece: int
) -> Matrix | None:
    """The matrix that a plain operand is in, if it is one whose pieces lie along its rows."""
    form = affine(load.index, seen.lets)
    if form is None or not isinstance(across, k.Var):
        return None
    factors = dict(form.factors)
    columns = factors.pop(across.name, 0)
    if factors.pop(PIECE.name, 0) != 1 or factors.pop(BESIDE.name, 0) != 1 or columns <= 0:
        return None
    steps = [factors.pop(var.name, 0) for var in batch]
    if factors or form.constant % columns or columns % piece or any(s % columns for s in steps):
        return None
    rows = (load.buffer.size - form.constant) // columns
    return Matrix(rows, columns, tuple(s // columns for s in steps))


class Seen:
    """What a trial wrote: names are looked through."""

    def __init__(self, trial: Writer) -> None:
        self.lets = {
            s.var.name: s.value for scope in trial.scopes for s in scope.statements
            if isinstance(s, k.Let)
        }

    def named(self, e: k.Expr) -> k.Expr:
        """What a name stands for."""
        while isinstance(e, k.Var) and e.name in self.lets:
            e = self.lets[e.name]
        return e

    def loads(self, e: k.Expr) -> Iterator[k.Load]:
        """The loads in an expression."""
        e = self.named(e)
        if isinstance(e, k.Load):
            yield e
            for part in (e.index, e.mask, e.other):
                if part is not None:
                    yield from self.loads(part)
        elif isinstance(e, k.Call):
            for a in e.args:
                yield from self.loads(a)

    def mentions(self, e: k.Expr, var: k.Var) -> bool:
        """Whether an expression depends on a variable."""
        e = self.named(e)
        if isinstance(e, k.Call):
            return any(self.mentions(a, var) for a in e.args)
        if isinstance(e, k.Load):
            parts = (e.index, e.mask, e.other)
            return any(self.mentions(p, var) for p in parts if p is not None)
        return e == var

    def wide(self, load: k.Load, piece: int) -> bool:
        """Whether a piece is one access, or one element for all of it; nothing masks it."""
        if load.mask is not None:
            return False
        return not self.mentions(load.index, BESIDE) or self.together(load.index, piece)

    def together(self, index: k.Expr, piece: int) -> bool:
        """Whether ``piece`` places beside each other are neighbours, the first a multiple of it."""
        found = self.step(index)
        return found == 1 and self.divisor(index, piece) % piece == 0

    def step(self, e: k.Expr) -> int | None:
        """How far :data:`BESIDE` moves an index, if it does so evenly."""
        e = self.named(e)
        if e == BESIDE:
            return 1
        if not self.mentions(e, BESIDE):
            return 0
        if not isinstance(e, k.Call) or e.op not in ("add", "sub", "mul"):
            return None
        a, b = self.step(e.args[0]), self.step(e.args[1])
        if a is None or b is None:
            return None
        if e.op != "mul":
            return a + b if e.op == "add" else a - b
        factor = k.const_int(self.named(e.args[1]))
        return None if factor is None else a * factor

    def divisor(self, e: k.Expr, piece: int) -> int:
        """A number that divides an index at the start of a piece; 0: the index is 0."""
        e = self.named(e)
        found = k.const_int(e)
        if found is not None:
            return abs(found)
        if isinstance(e, k.Var):
            return 0 if e == BESIDE else piece if e == PIECE else 1
        if isinstance(e, k.Load):
            return 1
        assert isinstance(e, k.Call)
        inner = [self.divisor(a, piece) for a in e.args]
        if e.op in ("add", "sub", "min", "max", "mod"):
            return math.gcd(*inner)
        if e.op == "mul":
            return inner[0] * inner[1]
        by = k.const_int(self.named(e.args[1])) if e.op == "floordiv" else None
        return inner[0] // by if by and inner[0] % by == 0 else 1


# --- tiles ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tile:
    """A tile of an operand in shared memory, one behind the other for several stages.

    along   the class whose neighbours are neighbours in the tile: k, or m or n
    minor   elements along it, ``major`` across
    pitch   elements from one line to the next
    swizzle the 16-byte pieces of a line, so many elements each, are permuted, so that eight lines
            hold any one of them in all the banks: ldmatrix and the copies meet no conflict; 0: not
    square  the tile is cut into squares of so many elements along it, one after another; 0: not
    """

    along: str
    minor: int
    major: int
    pitch: int
    swizzle: int = 0
    square: int = 0

    @property
    def size(self) -> int:
        """Elements of one stage."""
        return self.pitch * self.major * (self.minor // self.square if self.square else 1)

    def at(self, major: k.Expr, minor: k.Expr, turn: k.Expr | None = None) -> k.Expr:
        """Where an element is; in a swizzled tile the first of its piece.

        turn  by what pieces are permuted in this line, if that is known: see :meth:`turn`
        """
        if not self.swizzle:
            return k.add(k.mul(major, self.pitch), minor)
        line = k.mul(major, self.pitch)
        if self.square:
            line = k.add(line, k.mul(k.floordiv(minor, self.square), self.square * self.major))
            minor = k.mod(minor, self.square)
        piece = k.floordiv(minor, self.swizzle)
        turned = k.Call("xor", (piece, self.turn(major) if turn is None else turn), i64)
        return k.add(line, k.mul(turned, self.swizzle))

    def turn(self, major: k.Expr) -> k.Expr:
        """By what the number of a piece in this line is xored."""
        pieces = min(8, self.pitch // self.swizzle)
        return k.mod(k.floordiv(major, 8 // pieces), pieces)


@dataclass(frozen=True)
class Share:
    """The pieces of a tile that each thread moves: ``count``, as (major, minor) places.

    all  every thread has so many; else those at the end have fewer
    """

    tile: Tile
    piece: int
    threads: int
    source: str
    """The class along which pieces lie in memory."""

    @property
    def pieces(self) -> int:
        return self.tile.minor * self.tile.major // self.piece

    @property
    def count(self) -> int:
        return -(-self.pieces // self.threads)

    def place(self, thread: k.Expr, number_: k.ExprLike) -> tuple[k.Expr, k.Expr]:
        """(place along ``source``, place across it) of a thread's piece."""
        along_tile = self.source == self.tile.along
        length, lines = (
            (self.tile.minor, self.tile.major) if along_tile
            else (self.tile.major, self.tile.minor))
        line = length // self.piece
        if along_tile or self.piece == 1 or lines % 16 or self.threads % (16 * line):
            step, first = self.threads // line, k.floordiv(thread, line)
            return (k.mul(k.mod(thread, line), self.piece),
                    k.add(first, k.mul(number_, step)))
        # 16 lines side by side, so that stores across them touch different banks.
        sixteen = k.floordiv(thread, 16)
        block = k.add(k.floordiv(sixteen, line), k.mul(number_, self.threads // (16 * line)))
        return (k.mul(k.mod(sixteen, line), self.piece),
                k.add(k.mul(block, 16), k.mod(thread, 16)))


def zero(dtype: DType) -> k.Const:
    """Zero of a type."""
    return number(0, dtype)


def shared_bytes(parts: Sequence[tuple[Tile, DType]], stages: int) -> int:
    """Bytes of so many stages of tiles."""
    return stages * sum(tile.size * dtype.itemsize for tile, dtype in parts)
