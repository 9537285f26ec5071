"""Merging the axes of an iteration domain that every value walks through alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tilewright.compiler.schedules.access import Index
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import reshape_blocks

Boundaries = frozenset[int]
"""Boundary i lies between axes i and i + 1."""


class Domain:
    """The axes of ``shape``, merged where ``fixed`` and ``cuts`` allow; axes of size 1 vanish."""

    def __init__(self, shape: Sequence[Dim], fixed: Iterable[int]) -> None:
        self.shape = tuple(shape)
        fixed = set(fixed)
        self.runs: list[list[int]] = []
        between: set[int] = set()
        for axis, d in enumerate(self.shape):
            if d != 1:
                if self.runs and not between & fixed:
                    self.runs[-1].append(axis)
                else:
                    self.runs.append([axis])
                between = set()
            between.add(axis)

    @property
    def extents(self) -> list[Dim]:
        """The sizes of the merged axes."""
        return [product(self.shape[axis] for axis in run) for run in self.runs]

    def index(self, positions: Sequence[k.Expr]) -> Index:
        """The index for these positions on the merged axes.

        A merged position stands on the innermost of its axes, beyond that axis' size, and the outer
        ones are 0: where merging is legal, that addresses the same element.
        """
        result: list[k.Expr] = [k.Const(0)] * len(self.shape)
        for run, position in zip(self.runs, positions, strict=True):
            result[run[-1]] = position
        return tuple(result)


def fixed_boundaries(
    values: Iterable[Node], is_leaf: Callable[[Node], bool], held: Callable[[Node], bool]
) -> Boundaries:
    """The boundaries of the common shape of ``values`` across which axes cannot be merged."""
    memo: dict[Node, Boundaries] = {}
    result: Boundaries = frozenset()
    for value in values:
        result |= _fixed(value, is_leaf, held, memo)
    return result


def _fixed(
    node: Node, is_leaf: Callable[[Node], bool], held: Callable[[Node], bool],
    memo: dict[Node, Boundaries],
) -> Boundaries:
    if node in memo:
        return memo[node]
    shape = node.shape
    everything = frozenset(range(len(shape) - 1))

    def inner(n: Node) -> Boundaries:
        return _fixed(n, is_leaf, held, memo)

    op = node.op.name
    if is_leaf(node) or op in ("full", "size"):
        result: Boundaries = frozenset()
    elif held(node):
        result = everything
    elif node.op.kind == "elementwise":
        result = frozenset().union(*(inner(n) for n in node.inputs))
    elif op == "iota":
        result = frozenset(i for i in everything if node.attrs.axis in (i, i + 1))
    elif op == "reshape" and is_leaf(node.inputs[0]):
        result = frozenset()
    elif op == "broadcast":
        result = _broadcast(node, inner(node.inputs[0]), everything)
    elif op == "transpose":
        source, perm = inner(node.inputs[0]), node.attrs.perm
        result = frozenset(
            i for i in everything if perm[i + 1] != perm[i] + 1 or perm[i] in source
        )
    elif op == "slice":
        a, d = node.attrs, node.inputs[0].shape
        source = inner(node.inputs[0])
        whole = [(a.starts[i], a.stops[i], a.steps[i]) == (0, d[i], 1) for i in range(len(d))]
        result = frozenset(
            i for i in everything if not whole[i + 1] or a.steps[i] != 1 or i in source
        )
    elif op == "window":
        result = _window(node, inner(node.inputs[0]), everything)
    elif op == "pad":
        a, source = node.attrs, inner(node.inputs[0])
        around = {i for i, widths in enumerate(zip(a.low, a.high, a.interior, strict=True))
                  if any(d != 0 for d in widths)}
        result = frozenset(
            i for i in everything if i in source or i in around or i + 1 in around)
    elif op == "concat":
        source = frozenset().union(*(inner(n) for n in node.inputs))
        result = frozenset(
            i for i in everything if i in source or node.attrs.axis in (i, i + 1))
    elif op == "reshape":
        result = everything - _reshape(node, inner(node.inputs[0]))
    elif op == "flip":
        source, axes = inner(node.inputs[0]), node.attrs.axes
        result = frozenset(i for i in everything if i in source or i in axes or i + 1 in axes)
    else:
        result = everything
    memo[node] = result
    return result


def _reshape(node: Node, source: Boundaries) -> set[int]:
    """The boundaries between axes that stay as they are, next to each other, and may be merged."""
    result: set[int] = set()
    shape, inner = node.shape, node.inputs[0].shape
    last: tuple[int, int] | None = None
    for left, right in reshape_blocks(shape, inner):
        wide, real = [a for a in left if shape[a] != 1], [a for a in right if inner[a] != 1]
        if not wide and not real:
            continue
        if len(wide) != 1 or len(real) != 1:
            last = None
            continue
        if last is not None and not source & set(range(last[1], real[0])):
            result.update(range(last[0], wide[0]))
        last = wide[0], real[0]
    return result


def _window(node: Node, source: Boundaries, everything: Boundaries) -> Boundaries:
    """An axis of windows one element apart may be walked together with a whole one inside it."""
    attrs, rank = node.attrs, node.inputs[0].type.rank
    close = {axis for axis, step in zip(attrs.axes, attrs.strides, strict=True) if step == 1}
    return frozenset(
        i for i in everything
        if i + 1 >= rank or i in source or i + 1 in attrs.axes
        or (i in attrs.axes and i not in close))


def _broadcast(node: Node, source: Boundaries, everything: Boundaries) -> Boundaries:
    operand, axes = node.inputs[0], node.attrs.axes
    moving = {a for d, a in zip(operand.shape, axes, strict=True) if d != 1}
    result = set()
    for i in everything:
        ahead = next((j for j in range(i + 1, len(node.shape)) if node.shape[j] != 1), None)
        behind = next((j for j in range(i, -1, -1) if node.shape[j] != 1), None)
        if ahead is None or behind is None:
            continue
        if (ahead in moving) != (behind in moving):
            result.add(i)
        elif ahead in moving:
            low, high = axes.index(behind), axes.index(ahead)
            if any(j in source for j in range(low, high)):
                result.add(i)
    return frozenset(result)
