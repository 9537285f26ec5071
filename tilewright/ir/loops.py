"""The Kernel language: loops over flat buffers. The same language serves CPU and GPU.

A kernel is run by a team of threads. Its top level holds only ``Alloc``, ``Let``, ``Check``,
``Barrier`` and ``parallel`` loops: each thread of the team runs a contiguous share of a parallel
loop (and the rest for itself); a ``Barrier`` separates loops of which one reads what another wrote.

A ``vector`` loop's iterations may run in any grouping, several at once; they are independent but
for ``Accumulate`` into places that do not depend on the loop variable.

For a GPU the top level may hold ``block`` loops: each iteration is a block of the grid, and blocks
run in any order. In it stand the ``shared`` buffers of the block and one ``thread`` loop, whose
iterations are the threads of the block, all at once: there a ``Barrier`` is one of the block, a
``Shuffle`` and many an ``Instruction`` are what the 32 threads of a warp (iterations 0 to 31, 32 to
63 ...) do together.

A kernel may have sizes: i64 parameters that the caller gives beside the buffers. They are variables
that every expression may read; buffers' sizes may depend on them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tilewright.errors import Location
from tilewright.ir.sizes import Apply, Dim, Size
from tilewright.ir.types import DType, bool_, i64

LoopKind: TypeAlias = Literal["serial", "parallel", "vector", "unroll", "block", "thread"]
Space: TypeAlias = Literal["global", "stack", "register", "shared"]
Access: TypeAlias = Literal["in", "out", "inout", "workspace", ""]
ShuffleMode: TypeAlias = Literal["xor", "up", "down", "lane"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A flat array. ``space`` says where it lives; ``access`` what a kernel does with a parameter.

    register  one value (or one vector, inside or under a vector loop) per constant index, never in
              memory: every index must be constant once ``unroll`` loops are unrolled, plus at most
              one vector loop variable whose loop covers whole vectors; what was stored as w vectors
              of w lanes may be read across them, at stride w, which transposes the square
    stack     private memory of one thread
    global    memory given by the caller; 'workspace' is planned and shared by the team, contents
              undefined on entry
    shared    memory of a block of a grid, for all of its threads
    """

    name: str
    dtype: DType
    size: Dim
    space: Space = "global"
    access: Access = ""

    def __getitem__(self, index: ExprLike) -> Load:
        return Load(self, expr(index))


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A number of a type. Equal means the same number: 0.0 and -0.0 differ, NaN is itself."""

    value: Any
    dtype: DType = i64

    def _identity(self) -> tuple[Any, DType]:
        return (repr(float(self.value)) if self.dtype.is_float else self.value), self.dtype

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Const):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable (i64) or the name that a ``Let`` gave to a value."""

    name: str
    dtype: DType = i64


@dataclass(frozen=True, slots=True)
class Load:
    """``buffer[index]``; where ``mask`` is false nothing is read: ``other``, or zero."""

    buffer: Buffer
    index: Expr
    mask: Expr | None = None
    other: Expr | None = None

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype


@dataclass(frozen=True, slots=True)
class Call:
    """A primitive elementwise op of the op table on scalars."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType


Expr: TypeAlias = "Const | Var | Load | Call"
ExprLike: TypeAlias = "Const | Var | Load | Call | int | Size"


@dataclass(frozen=True, slots=True)
class Let:
    """Name a value; visible until the end of the enclosing body."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    """``buffer[index] = value`` where ``mask`` holds; ``streaming`` bypasses the caches."""

    buffer: Buffer
    index: Expr
    value: Expr
    mask: Expr | None = None
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Accumulate:
    """``buffer[index] = op(buffer[index], value)``: add, mul, max, min, and, or; in any order."""

    buffer: Buffer
    index: Expr
    op: str
    value: Expr
    mask: Expr | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A hint that the cache line of ``buffer[index]``, a global buffer, is used soon.

    It changes nothing and cannot fail: the index may be outside of the buffer.
    """

    buffer: Buffer
    index: Expr


@dataclass(frozen=True, slots=True)
class Check:
    """If ``condition`` is false anywhere, the program goes on and then reports error ``code``."""

    condition: Expr
    code: int


@dataclass(frozen=True, slots=True)
class Alloc:
    """A buffer that lives until the end of the enclosing body; contents undefined."""

    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Barrier:
    """Every thread of the team, in a ``thread`` loop of the block, arrives here before any goes on.

    What was stored before is seen by all after it.
    """


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Name the ``value`` that another thread of the warp has.

    mode  whose: ``xor`` (this thread's number in the warp xor ``lane``), ``up`` and ``down``
          (``lane`` below or above, its own value where there is none), ``lane`` (that number)
    """

    var: Var
    mode: ShuffleMode
    value: Expr
    lane: Expr


@dataclass(frozen=True, slots=True)
class Instruction:
    """A machine instruction, a row of :data:`tilewright.ir.instructions.INSTRUCTIONS`.

    operands  as the row says: a ``Load`` stands for a place, the elements from there on, where the
              row has a place
    """

    name: str
    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class If:
    """Run ``body`` if ``condition`` holds, else ``orelse``; it is the same in all lanes."""

    condition: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True)
class For:
    """``for var in range(start, stop, step)``.

    serial    in order
    parallel  shared among the team's threads; top level only
    unroll    constant bounds; unrolled completely
    vector    ``width`` lanes at once, ``interleave`` vectors in flight, step 1; the last, partial
              vector is masked. Only vector code inside: no barrier, no other vector loop.
    block     each iteration is a block of the grid; top level only
    thread    from 0 to a constant, the threads of the block; last in a block loop
    """

    var: Var
    start: Expr
    stop: Expr
    body: tuple[Stmt, ...]
    kind: LoopKind = "serial"
    step: int = 1
    width: int = 1
    interleave: int = 1


Stmt: TypeAlias = (
    "Let | Store | Accumulate | Prefetch | Check | Alloc | Barrier | If | For | Shuffle | "
    "Instruction"
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A program for a team of threads over its parameters.

    digest  of all but the name and the line, if that is known
    """

    name: str
    params: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    loc: Location | None = None
    sizes: tuple[Var, ...] = ()
    digest: str = field(default="", compare=False, repr=False)


def walk(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """All statements, each before those in it."""
    for s in body:
        yield s
        if isinstance(s, For):
            yield from walk(s.body)
        elif isinstance(s, If):
            yield from walk((*s.body, *s.orelse))


def expr(value: ExprLike) -> Expr:
    """A Python int as an i64 constant, a size as index arithmetic; expressions pass through."""
    if isinstance(value, int):
        return Const(value, i64)
    return size_expr(value) if isinstance(value, Size) else value


@functools.lru_cache(maxsize=4096)
def size_expr(size: Size) -> Expr:
    """The index arithmetic that computes a size from the variables of its names."""
    total: Expr = Const(0)
    for monomial, count in size.terms:
        part: Expr = Const(abs(count))
        for atom in monomial:
            part = mul(Var(atom) if isinstance(atom, str) else _applied(atom), part)
        total = add(total, part) if count > 0 else sub(total, part)
    return total


def _applied(atom: Apply) -> Expr:
    if atom.op == "floordiv":
        return floordiv(expr(atom.a), atom.b)
    return Call(atom.op, (expr(atom.a), expr(atom.b)), i64)


def const_int(e: ExprLike) -> int | None:
    """The number, if ``e`` is an i64 constant."""
    if isinstance(e, int):
        return e
    return e.value if isinstance(e, Const) and e.dtype is i64 else None


def add(a: ExprLike, b: ExprLike) -> Expr:
    """Index sum, folded."""
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        return Const(x + y)
    if x == 0:
        return expr(b)
    if y == 0:
        return expr(a)
    if x is not None:
        a, b, x, y = b, a, y, x
    left = expr(a)
    if y is not None and isinstance(left, Call) and left.op == "add":
        inner = const_int(left.args[1])
        if inner is not None:
            return add(left.args[0], inner + y)
    return Call("add", (left, expr(b)), i64)


def sub(a: ExprLike, b: ExprLike) -> Expr:
    """Index difference, folded."""
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        return Const(x - y)
    if y is not None:
        return add(a, -y)
    if isinstance(b, Size) and isinstance(a, Size | int):
        return expr(a - b)
    return Call("sub", (expr(a), expr(b)), i64)


def mul(a: ExprLike, b: ExprLike) -> Expr:
    """Index product, folded and distributed over sums with a constant."""
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        return Const(x * y)
    if x is not None:
        a, b, x, y = b, a, y, x
    if y == 0:
        return Const(0)
    if y == 1:
        return expr(a)
    if isinstance(a, Size) and not isinstance(b, Size) and y is None:
        a, b = b, a
    left = expr(a)
    if y is not None and isinstance(left, Call):
        inner = const_int(left.args[1]) if len(left.args) == 2 else None
        if left.op == "mul" and inner is not None:
            return mul(left.args[0], inner * y)
        if left.op == "add" and inner is not None:
            return add(mul(left.args[0], y), inner * y)
    return Call("mul", (left, expr(b)), i64)


def floordiv(a: ExprLike, b: Dim) -> Expr:
    """Index quotient, rounded down, by a positive size."""
    x = const_int(a)
    if x == 0:
        return Const(0)
    if x is not None and isinstance(b, int):
        return Const(x // b)
    if b == 1:
        return expr(a)
    return Call("floordiv", (expr(a), expr(b)), i64)


def mod(a: ExprLike, b: Dim) -> Expr:
    """Index remainder by a positive size."""
    x = const_int(a)
    if x == 0:
        return Const(0)
    if x is not None and isinstance(b, int):
        return Const(x % b)
    if b == 1:
        return Const(0)
    return Call("mod", (expr(a), expr(b)), i64)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """The smaller index."""
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        return Const(min(x, y))
    return Call("min", (expr(a), expr(b)), i64)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The larger index."""
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None:
        return Const(max(x, y))
    return Call("max", (expr(a), expr(b)), i64)


def compare(op: str, a: ExprLike, b: ExprLike) -> Expr:
    """An index comparison: eq, ne, lt, le, gt, ge."""
    return Call(op, (expr(a), expr(b)), bool_)


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """The conjunction of two masks; None is true."""
    if a is None or b is None:
        return a if b is None else b
    return Call("and", (a, b), bool_)
