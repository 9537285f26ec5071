"""Values of graph nodes as kernel expressions: the one place where views become index maps.

A :class:`Writer` builds a kernel's body. ``value(node, index)`` gives the expression of one element
of a node: a load if the node lives in a buffer, arithmetic on its inputs' elements otherwise. What
does not depend on an inner loop is named outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from tilewright.compiler.plan import CheckInfo
from tilewright.compiler.schedules.scope import Scope
from tilewright.ir import loops as k
from tilewright.ir.graph import Node, full_value
from tilewright.ir.hints import hinted
from tilewright.ir.number_range import range_of
from tilewright.ir.sizes import Dim, less
from tilewright.ir.types import DType, Shape, bool_, i64, reshape_blocks

Index: TypeAlias = tuple[k.Expr, ...]


def strides(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Row-major strides in elements."""
    result: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        result.append(step)
        step = step * d
    return tuple(reversed(result))


def flat(index: Index, shape: Sequence[Dim]) -> k.Expr:
    """The offset of an element in a row-major array."""
    offset: k.Expr = k.Const(0)
    for i, step in zip(index, strides(shape), strict=True):
        offset = k.add(offset, k.mul(i, step))
    return offset


def unflatten(offset: k.Expr, shape: Sequence[Dim]) -> Index:
    """The index of the element at an offset of a row-major array."""
    result: list[k.Expr] = []
    outermost = next((axis for axis, d in enumerate(shape) if d != 1), 0)
    for axis, (d, step) in enumerate(zip(shape, strides(shape), strict=True)):
        if d == 1:
            result.append(k.Const(0))
            continue
        quotient = k.floordiv(offset, step)
        result.append(quotient if axis == outermost else k.mod(quotient, d))
    return tuple(result)


def nothing_known(condition: k.Expr) -> bool | None:
    """A condition may hold or not."""
    return None


class Writer:
    """Builds the body of one kernel.

    stored   nodes that live in buffers that this kernel does not compute: they are loaded
    bound    nodes whose elements this kernel holds: index -> expression, None if not that one
    settle   whether a condition on an index always or never holds, None if it depends
    _checked the outermost body that may hold a check
    """

    def __init__(self, stored: Callable[[Node], Node | None], uses: Mapping[Node, int]) -> None:
        self._stored = stored
        self._uses = uses
        self.bound: dict[Node, Callable[[Index], k.Expr | None]] = {}
        self.inputs: dict[Node, k.Buffer] = {}
        self.checks: dict[int, CheckInfo] = {}
        self.offsets: dict[k.Buffer, set[k.Expr]] = {}
        self.scopes: list[Scope] = [Scope()]
        self._depths: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._sizes = hinted()
        self._as_place = False
        self._checked = 1
        self.settle: Callable[[k.Expr], bool | None] = nothing_known

    # --- statements and scopes ----------------------------------------------------------

    def name(self, prefix: str) -> str:
        """A name not used before in this kernel."""
        n = self._names.get(prefix, 0)
        self._names[prefix] = n + 1
        made = f"{prefix}{n or ''}"
        return made if made not in self._sizes else self.name(prefix)

    def write(self, statement: k.Stmt) -> None:
        """Append a statement to the innermost body."""
        self.scopes[-1].statements.append(statement)

    def run(self, instruction: str, *operands: k.ExprLike) -> None:
        """Append a machine instruction to the innermost body."""
        self.write(k.Instruction(instruction, tuple(k.expr(e) for e in operands)))

    @contextmanager
    def loop(
        self, prefix: str, start: k.ExprLike, stop: k.ExprLike, kind: k.LoopKind = "serial", *,
        step: int = 1, width: int = 1, interleave: int = 1,
    ) -> Iterator[k.Var]:
        """A loop around the statements written inside the ``with`` block."""
        var = k.Var(self.name(prefix))
        self.scopes.append(Scope())
        self._depths[var.name] = len(self.scopes) - 1
        if kind == "thread":
            self._checked = len(self.scopes) - 1
        yield var
        body = tuple(self.scopes.pop().statements)
        if kind == "thread":
            self._checked = 1
        self.write(k.For(var, k.expr(start), k.expr(stop), body, kind, step, width, interleave))

    @contextmanager
    def when(self, condition: k.Expr) -> Iterator[None]:
        """A conditional around the statements written inside the ``with`` block."""
        self.scopes.append(Scope())
        yield
        self.write(k.If(condition, tuple(self.scopes.pop().statements)))

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        """The other branch of the conditional that was written last."""
        last = self.scopes[-1].statements.pop()
        assert isinstance(last, k.If) and not last.orelse
        self.scopes.append(Scope())
        yield
        self.write(k.If(last.condition, last.body, tuple(self.scopes.pop().statements)))

    def alloc(self, prefix: str, dtype: DType, size: int, space: k.Space) -> k.Buffer:
        """A buffer of the innermost body."""
        buffer = k.Buffer(self.name(prefix), dtype, size, space)
        self.write(k.Alloc(buffer))
        return buffer

    def let(self, prefix: str, value: k.Expr, own: bool = False) -> k.Expr:
        """Name a value in the innermost body; ``own``: whatever it is, so that what is read by it
        is not read before, where it may be outside of its buffer.
        """
        return self.let_at(len(self.scopes) - 1, prefix, value, own)

    def let_at(self, depth: int, prefix: str, value: k.Expr, own: bool = False) -> k.Expr:
        """Name a value in the body at this depth."""
        if isinstance(value, k.Const | k.Var) and not own:
            return value
        var = k.Var(self.name(prefix), value.dtype)
        self._depths[var.name] = depth
        self.scopes[depth].statements.append(k.Let(var, value))
        return var

    def shuffle(self, mode: k.ShuffleMode, value: k.Expr, lane: k.ExprLike) -> k.Expr:
        """Name what another thread of the warp has for ``value``."""
        var = k.Var(self.name("s"), value.dtype)
        self._depths[var.name] = len(self.scopes) - 1
        self.write(k.Shuffle(var, mode, value, k.expr(lane)))
        return var

    def depth(self, e: k.Expr) -> int:
        """The outermost body in which ``e`` can be computed."""
        if isinstance(e, k.Var):
            return self._depths.get(e.name, 0)
        if isinstance(e, k.Call):
            return max(map(self.depth, e.args), default=0)
        if isinstance(e, k.Load):
            parts = [x for x in (e.index, e.mask, e.other) if x is not None]
            if e.buffer.space != "global" or e.buffer.access != "in":
                return len(self.scopes) - 1
            return max(map(self.depth, parts), default=0)
        return 0

    def is_leaf(self, node: Node) -> bool:
        """Whether the kernel loads the node from a buffer."""
        return node not in self.bound and self._stored(node) is not None

    # --- values -------------------------------------------------------------------------

    def value(self, node: Node, index: Index, mask: k.Expr | None = None) -> k.Expr:
        """The element of ``node`` at ``index``; nothing is read where ``mask`` is false."""
        holder = self.bound.get(node)
        if holder is not None:
            # There is one element along an axis of size 1, however its place was computed.
            ones = (k.Const(0) if d == 1 else i for i, d in zip(index, node.shape, strict=True))
            held = holder(tuple(ones))
            if held is not None:
                return held
        buffer_node = self._stored(node)
        if buffer_node is not None:
            return self._load(buffer_node, flat(index, node.shape), mask, node)
        if node.op.kind == "elementwise":
            return self._elementwise(node, index, mask)
        return RULES[node.op.name](self, node, index, mask)

    def place(self, node: Node, index: Index) -> k.Load:
        """Where an element is in memory. The node is a view of what is in a buffer, unmasked."""
        self._as_place = True
        found = self.value(node, index)
        self._as_place = False
        assert isinstance(found, k.Load) and found.mask is None
        return found

    def _elementwise(self, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
        key = (node, index, mask)
        for scope in self.scopes:
            if key in scope.memo:
                return scope.memo[key]
        args = [self.value(n, index, mask) for n in node.inputs]
        call: k.Expr = k.Call(node.op.name, tuple(args), node.dtype)
        depth = self.depth(call)
        hoisted = [
            a if self.depth(a) == depth else self.let_at(self.depth(a), "t", a) for a in args
        ]
        call = k.Call(node.op.name, tuple(hoisted), node.dtype)
        if self._uses.get(node, 2) > 1:
            call = self.let_at(depth, "t", call)
            self.scopes[depth].memo[key] = call
        return call

    def _load(self, buffer_node: Node, offset: k.Expr, mask: k.Expr | None, node: Node) -> k.Expr:
        buffer = self.input(buffer_node)
        self.offsets.setdefault(buffer, set()).add(offset)
        key = (buffer, offset, mask)
        for scope in () if self._as_place else self.scopes:
            if key in scope.memo:
                return scope.memo[key]
        load: k.Expr = k.Load(buffer, offset, mask)
        if self._uses.get(node, 2) > 1 and not self._as_place:
            depth = self.depth(load)
            load = self.let_at(depth, "x", load)
            self.scopes[depth].memo[key] = load
        return load

    def input(self, node: Node) -> k.Buffer:
        """The parameter that a stored node is read from."""
        if node not in self.inputs:
            size, name = room(node.type.size), f"in{len(self.inputs)}"
            self.inputs[node] = k.Buffer(name, node.dtype, size, "global", "in")
        return self.inputs[node]

    def check(
        self, depth: int, condition: k.Expr, mask: k.Expr | None, info: CheckInfo
    ) -> None:
        """Report ``info`` after the run if ``condition`` fails where ``mask`` holds."""
        code = next((c for c, known in self.checks.items() if known == info), len(self.checks) + 1)
        self.checks[code] = info
        if mask is not None:
            condition = k.Call("or", (condition, k.Call("not", (mask,), bool_)), bool_)
        self.scopes[depth].statements.append(k.Check(condition, code))

    def indexed(
        self, indices: Node, at: Index, size: Dim, mask: k.Expr | None, node: Node
    ) -> tuple[k.Expr, k.Expr | None]:
        """An element of an index array, counted from the start, and whether it is inside.

        None stands for an index that is known to be inside.
        """
        key = ("indexed", indices, at, mask, size)
        for scope in self.scopes:
            if key in scope.memo:
                return scope.memo[key], scope.memo.get((*key, "inside"))
        raw = self.value(indices, at, mask)
        wide = raw if indices.dtype is i64 else k.Call("cast", (raw,), i64)
        depth = self.depth(wide if mask is None else k.Call("and", (wide, mask), bool_))
        # A check stands inside of a loop, in a block's of its threads. One index of everything:
        # inside of all, of which some may not run.
        depth = max(self._checked, depth or (len(self.scopes) - 1 if hinted() else 0))
        wide = self.let_at(depth, "i", wide)
        known = range_of(indices, self.is_leaf)
        if known.low < 0:
            negative = k.compare("lt", wide, 0)
            shifted = k.Call("add", (wide, k.expr(size)), i64)
            wide = self.let_at(depth, "i", k.Call("where", (negative, shifted, wide), i64))
        self.scopes[depth].memo[key] = wide
        if known.low >= 0 and less(known.high, size):
            return wide, None
        within = (k.compare("ge", wide, 0), k.compare("lt", wide, size))
        inside = self.let_at(depth, "inside", k.Call("and", within, bool_))
        self.check(depth, inside, mask, outside(indices, size, node))
        self.scopes[depth].memo[(*key, "inside")] = inside
        return wide, inside


def outside(indices: Node, size: Dim, node: Node) -> CheckInfo:
    """What to report of an index outside an axis."""
    first = -size if indices.dtype.kind == "i" else 0
    expected = f"{first} to {size - 1}" if size else "no index at all"
    return CheckInfo(f"index outside an axis of size {size}", node.loc, expected)


def _full(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    value = full_value(node)
    return k.Const(float(value) if node.dtype.name == "bf16" else value.item(), node.dtype)


def room(size: Dim) -> Dim:
    """The elements of a buffer for so many values: it has one at least."""
    return max(1, size) if isinstance(size, int) else size


def _size(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    value = k.expr(node.attrs.size)
    return value if node.dtype is i64 else k.Call("cast", (value,), node.dtype)


def _iota(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    position = index[node.attrs.axis]
    return position if node.dtype is i64 else k.Call("cast", (position,), node.dtype)


def _reshape(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    source = node.inputs[0]
    buffer_node = w._stored(source)
    if buffer_node is not None and source not in w.bound:
        return w._load(buffer_node, flat(index, node.shape), mask, source)
    return w.value(source, reshape_index(index, node.shape, source.shape), mask)


def reshape_index(index: Index, shape: Shape, source: Shape) -> Index:
    """Where an element of a reshaped array stands in its source, block of axes by block of axes."""
    result: list[k.Expr] = []
    for axes, inner in reshape_blocks(shape, source):
        wide = [a for a in axes if shape[a] != 1]
        real = [a for a in inner if source[a] != 1]
        if len(wide) == len(real) == 1:
            result += [index[wide[0]] if a in real else k.Const(0) for a in inner]
        else:
            result += unflatten(
                flat(tuple(index[a] for a in axes), [shape[a] for a in axes]),
                [source[a] for a in inner])
    return tuple(result)


def _transpose(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    source: list[k.Expr] = [k.Const(0)] * len(index)
    for position, axis in zip(index, node.attrs.perm, strict=True):
        source[axis] = position
    return w.value(node.inputs[0], tuple(source), mask)


def _broadcast(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    source = node.inputs[0]
    at = tuple(
        k.Const(0) if d == 1 else index[axis]
        for d, axis in zip(source.shape, node.attrs.axes, strict=True)
    )
    return w.value(source, at, mask)


def _slice(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    at = tuple(
        k.add(k.mul(i, step), start)
        for i, start, step in zip(index, node.attrs.starts, node.attrs.steps, strict=True)
    )
    return w.value(node.inputs[0], at, mask)


def _flip(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    at = tuple(
        k.sub(d - 1, i) if axis in node.attrs.axes else i
        for axis, (i, d) in enumerate(zip(index, node.shape, strict=True))
    )
    return w.value(node.inputs[0], at, mask)


def _window(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    attrs, rank = node.attrs, node.inputs[0].type.rank
    at = list(index[:rank])
    for axis, tap, step, apart in zip(
        attrs.axes, index[rank:], attrs.strides, attrs.dilations, strict=True
    ):
        at[axis] = k.add(k.mul(at[axis], step), k.mul(tap, apart))
    return w.value(node.inputs[0], tuple(at), mask)


def _take(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    source, indices = node.inputs
    axis = node.attrs.axis
    at = index[axis:axis + indices.type.rank]
    size = source.shape[axis]
    place, inside = w.indexed(indices, at, size, mask, node)
    if source.op.name == "iota" and inside is not None:
        # Nothing is loaded: the number itself stays inside.
        place = k.Call("where", (inside, place, k.Const(0)), i64)
    where = (*index[:axis], place, *index[axis + indices.type.rank:])
    return w.value(source, where, k.both(mask, inside))


def _take_along(w: Writer, node: Node, index: Index, mask: k.Expr | None) -> k.Expr:
    source, indices = node.inputs
    axis = node.attrs.axis
    place, inside = w.indexed(indices, index, source.shape[axis], mask, node)
    return w.value(source, (*index[:axis], place, *index[axis + 1:]), k.both(mask, inside))


RULES: dict[str, Callable[[Writer, Node, Index, k.Expr | None], k.Expr]] = {
    "full": _full, "size": _size, "iota": _iota, "reshape": _reshape, "transpose": _transpose,
    "broadcast": _broadcast, "slice": _slice, "flip": _flip,
    "window": _window,
    "take": _take, "take_along": _take_along,
}
"""By op, unless elementwise: the element of a node at an index. ``search.py`` and ``parts.py`` add
theirs.
"""
