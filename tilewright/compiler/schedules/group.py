"""A fusion group, and how its kernel is put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tilewright.compiler.kernels import free_variables
from tilewright.compiler.lowered import Argument, LoweredKernel, Workspace
from tilewright.compiler.schedules.access import Writer, room
from tilewright.errors import Location
from tilewright.ir import loops as k
from tilewright.ir.graph import Node, topological
from tilewright.ir.groups import products
from tilewright.ir.hints import hinted
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import Shape

Family: TypeAlias = Literal[
    "pointwise", "rows", "columns", "full", "taps", "filters", "contraction", "grouped",
    "attention", "remade", "scatter", "scan", "sort", "routine"]


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes.

    shape    the iteration domain: the shape that is reduced, contracted into (attention: by the
             last contraction), or written
    axes     rows, columns, full, taps, filters, scan, sort: the axes that the anchors reduce or run
             along
    anchors  the reductions, scans, sorts, contraction, scatter or routine at the heart of the group
    stores   (value, node whose buffer receives it): the value, or a reshape of it
    homes    every node that lives in a buffer -> the node that the buffer is known by
    uses     how often each node is read in the whole graph
    """

    family: Family
    shape: Shape
    axes: tuple[int, ...] = ()
    anchors: list[Node] = field(default_factory=list)
    stores: list[tuple[Node, Node]] = field(default_factory=list)
    homes: Mapping[Node, Node] = field(default_factory=dict)
    uses: Mapping[Node, int] = field(default_factory=dict)

    def writer(self) -> Writer:
        """A writer that loads what other kernels computed."""
        own = {node for store in self.stores for node in store} | set(self.anchors)

        def stored(node: Node) -> Node | None:
            return None if node in own else self.homes.get(node)
        return Writer(stored, self.uses)

    def members(self, w: Writer) -> list[Node]:
        """What the kernel computes: its stored values and anchors down to what it loads."""
        roots = [value for value, _ in self.stores] + self.anchors
        return topological(roots, leaf=w.is_leaf)


def finish(
    group: Group, w: Writer, outputs: Sequence[k.Buffer],
    workspaces: Sequence[tuple[k.Buffer, Dim]] = (),
    inplace: Sequence[k.Buffer] = (), offset: k.Expr | None = None,
) -> LoweredKernel:
    """The kernel whose body ``w`` wrote. ``inplace``: outputs stored once, at ``offset``."""
    params = (*w.inputs.values(), *outputs, *(b for b, _ in workspaces))
    args: list[Argument] = [*w.inputs, *(target for _, target in group.stores)]
    args += [Workspace(nbytes) for _, nbytes in workspaces]
    members = group.members(w)
    body = tuple(w.scopes[0].statements)
    sizes = free_variables(params, body) if hinted() else ()
    kernel = k.Kernel(name_of(group, members), params, body, location(group), sizes)
    pairs = [
        (params.index(out), params.index(buffer))
        for out in inplace for buffer in w.inputs.values()
        if w.offsets.get(buffer) == {offset} and buffer.dtype.itemsize == out.dtype.itemsize
        and buffer.size == out.size
    ]
    traffic: Dim = 0
    for p in params:
        if p.access != "workspace":
            traffic = traffic + p.size * p.dtype.itemsize
    return LoweredKernel(kernel, tuple(args), flops(members), traffic, dict(w.checks), tuple(pairs))


def output_buffers(group: Group) -> list[k.Buffer]:
    """One 'out' parameter per stored value."""
    return [
        k.Buffer(f"out{i}", target.dtype, room(target.type.size), "global", "out")
        for i, (_, target) in enumerate(group.stores)
    ]


def flops(members: Sequence[Node]) -> Dim:
    """Floating point operations of these nodes, each computed once."""
    total: Dim = 0
    for node in members:
        if node.op.kind in ("elementwise", "scan", "routine"):
            total = total + node.op.flops * node.type.size
        elif node.op.kind == "reduce":
            total = total + node.inputs[0].type.size
        elif node.op.kind == "contract":
            total = total + 2 * node.type.size * contracted_size(node)
        elif node.op.kind == "grouped":
            total = total + 2 * products(node)
    return total


def contracted_size(node: Node) -> Dim:
    """The number of products in each sum of a contraction."""
    a = node.attrs
    pairs = zip(a.lhs, node.inputs[0].shape, strict=True)
    return product(d for label, d in pairs if label not in a.out)


def name_of(group: Group, members: Sequence[Node]) -> str:
    """A readable name: the family and the weightiest operations."""
    kinds = (
        "elementwise", "reduce", "contract", "grouped", "index", "scan", "sort", "search",
        "routine")
    ops = [n.op.name for n in members if n.op.kind in kinds]
    weighty = [o for o in dict.fromkeys(reversed(ops)) if o not in ("cast", "where", "add", "mul")]
    chosen = (weighty or list(dict.fromkeys(reversed(ops))) or ["copy"])[:3]
    return "_".join([group.family, *reversed(chosen)])


def location(group: Group) -> Location | None:
    """The user's line of the anchor, or of the last value."""
    nodes = [*group.anchors, *(v for v, _ in group.stores)]
    return next((n.loc for n in nodes if n.loc is not None), None)
