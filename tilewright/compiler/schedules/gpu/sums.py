"""What a thread has of reductions so far: a register for each lane of its accesses."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.schedules.access import Index, Writer
from tilewright.compiler.schedules.gpu.team import Team
from tilewright.compiler.schedules.gpu.vectors import lanes
from tilewright.compiler.schedules.reduction import COMBINE, converted, identity, number
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.types import accumulator


class Sums:
    """Registers of ``anchors``, ``width`` each; they start from what changes nothing."""

    def __init__(self, w: Writer, anchors: Sequence[Node], width: int) -> None:
        self.w, self.width = w, width
        self.registers = {
            a: w.alloc("acc", accumulator(a.dtype), width, "register") for a in anchors}
        if anchors:
            with lanes(w, width) as lane:
                for node, register in self.registers.items():
                    w.write(k.Store(register, lane, start(node)))

    def add(self, lane: k.Expr, values: Sequence[k.Expr]) -> None:
        """Combine a value for each reduction into a lane."""
        for (node, register), value in zip(self.registers.items(), values, strict=True):
            both = (k.Load(register, lane), converted(value, register.dtype))
            self.w.write(k.Store(
                register, lane, k.Call(COMBINE[node.op.name], both, register.dtype)))

    def accumulate(self, lane: k.Expr, index: Index) -> None:
        """Combine the operands' elements at ``index`` into a lane."""
        self.add(lane, [self.w.value(node.inputs[0], index) for node in self.registers])

    def combined(self, team: Team) -> dict[Node, k.Expr]:
        """Each reduction of what all threads of a team have, to be :func:`settled`."""
        ops = [COMBINE[node.op.name] for node in self.registers]
        return dict(zip(self.registers, team.combined(ops, self._own()), strict=True))

    def _own(self) -> list[k.Expr]:
        """The lanes of each reduction combined, in pairs."""
        found = []
        for node, register in self.registers.items():
            parts: list[k.Expr] = [k.Load(register, k.Const(i)) for i in range(self.width)]
            while len(parts) > 1:
                parts = [
                    k.Call(COMBINE[node.op.name], pair, register.dtype)
                    for pair in zip(parts[::2], parts[1::2], strict=True)]
            found.append(parts[0])
        return found


def start(node: Node) -> k.Const:
    """What changes nothing: -0.0 for sums, since 0.0 would have to be added to -0.0."""
    dtype = accumulator(node.dtype)
    return number(-0.0, dtype) if node.op.name == "sum" and dtype.is_float else identity(node)


def settled(node: Node, total: k.Expr) -> k.Expr:
    """A reduction of everything in its type; a sum of nothing is 0.0."""
    if node.op.name == "sum" and total.dtype.is_float:
        total = k.Call("add", (total, number(0, total.dtype)), total.dtype)
    return converted(total, node.dtype)
