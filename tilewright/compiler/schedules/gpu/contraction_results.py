"""What becomes of the sums of a contraction: the group's results, or parts that are joined."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, flat, unflatten
from tilewright.compiler.schedules.contraction_shape import Roles, oriented
from tilewright.compiler.schedules.gpu.contraction_sides import Side, spot_beside, zero
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import DType, accumulator, i32


def sums_of(node: Node) -> DType:
    """The type in which the sums of a contraction are kept."""
    return i32 if node.dtype.kind == "b" else accumulator(node.dtype)


def roles_for_gpu(group: Group) -> Roles:
    """Columns are what the result has neighbours in memory along, if an operand alone has that."""
    (node,) = group.anchors
    values = [value for value, _ in group.stores]
    is_leaf = group.writer().is_leaf
    straight = oriented(node, values, is_leaf, False)
    last = next((x for x in reversed(node.attrs.out) if straight.sizes[x] != 1), None)
    flipped = any(last in run for run in straight.runs["m"])
    return oriented(node, values, is_leaf, True) if flipped else straight


class Results:
    """A contraction kernel under construction, but for how the sums come about."""

    def __init__(self, group: Group, target: Target, roles: Roles) -> None:
        self.group, self.target, self.roles = group, target, roles
        self.w, self.node = group.writer(), group.anchors[0]
        self.outputs = output_buffers(group)
        self.sums = sums_of(self.node)
        self.offset: k.Expr | None = None
        self.splits = 1
        self.parts: k.Buffer | None = None

    def side(self, which: str, dtype: DType) -> Side:
        """An operand whose elements are wanted in a type."""
        return Side(self.group, self.roles, "lhs" if which == "lhs" else "rhs", dtype)

    def split(self, count: int) -> None:
        """Have ``count`` blocks share each sum; the parts are joined in their order."""
        self.splits = count
        if count > 1:
            size = self.node.type.size * count
            self.parts = k.Buffer("parts", self.sums, size, "global", "workspace")

    def index(self, batch: Index, row: k.Expr, column: k.Expr, beside: k.ExprLike = 0) -> Index:
        """The index of an element of the result."""
        places = {**self.roles.place("batch", batch), **self.roles.spread("m", row, "out"),
                  **spot_beside(self.roles, "n", column, "out", beside)}
        return tuple(places[label] for label in self.node.attrs.out)

    def write(self, index: Index, total: k.Expr, part: k.Expr) -> None:
        """Store what follows from a sum, or the sum as part number ``part`` of it."""
        if self.parts is not None:
            place = k.add(k.mul(part, self.node.type.size), flat(index, self.node.shape))
            self.w.write(k.Store(self.parts, place, total))
            return
        self.offset = self._store(index, total)

    def _store(self, index: Index, total: k.Expr) -> k.Expr:
        w = self.w
        hold(w, self.node, w.let("r", converted(total, self.node.dtype)), index)
        offset = store_all(self.group, w, self.outputs, index)
        w.bound.pop(self.node)
        return offset

    def finish(self) -> LoweredKernel:
        """The kernel, which joins the parts of the sums if there are some."""
        w, workspaces = self.w, []
        if self.parts is not None:
            w.write(k.Barrier())
            with w.loop("p", 0, product(self.group.shape), "parallel") as p:
                index = tuple(w.let("o", e) for e in unflatten(p, self.group.shape))
                total = w.alloc("total", self.sums, 1, "register")
                w.write(k.Store(total, k.Const(0), zero(self.sums)))
                with w.loop("s", 0, self.splits) as s:
                    part = self.parts[k.add(k.mul(s, self.node.type.size), p)]
                    w.write(k.Accumulate(total, k.Const(0), "add", part))
                self.offset = self._store(index, total[0])
            size: Dim = self.parts.size * self.sums.itemsize
            workspaces.append((self.parts, size))
        return finish(
            self.group, w, self.outputs, workspaces, inplace=self.outputs, offset=self.offset)

    def when(self, conditions: list[k.Expr | None], body: Callable[[], None]) -> None:
        """Run ``body`` if all conditions hold; None: it does."""
        condition: k.Expr | None = None
        for c in conditions:
            condition = k.both(condition, c)
        if condition is None:
            body()
            return
        with self.w.when(condition):
            body()


def below(position: k.Expr, extent: Dim, size: int) -> k.Expr | None:
    """Whether a position on blocks of ``size`` is inside; None: all of them are."""
    if isinstance(extent, int) and extent % size == 0:
        return None
    return k.compare("lt", position, extent)
