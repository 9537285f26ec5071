"""The cost model: operations and bytes of nodes, and the table of a compiled function.

Units: flops are counted as the op table counts them (a multiplication and an addition are two,
an exponential is what its row says); bytes are of global memory, each operand read once and each
result written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.plan import Plan
from tilewright.errors import Location
from tilewright.ir.graph import Graph, Node
from tilewright.ir.groups import products
from tilewright.ir.sizes import Dim, evaluate, product, total
from tilewright.ir.types import as_number as exact


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What one launch does. ``arena`` counts the scratch bytes that the launch touches."""

    name: str
    flops: int
    bytes: int
    arena: int
    barrier: bool
    loc: Location | None


@dataclass(frozen=True, slots=True)
class Resources:
    """What a part of a kernel takes on a GPU; a kernel is one part or several, each a launch.

    kernel     the name of the kernel
    registers  of a thread
    shared     bytes of a block
    spilled    bytes that a thread stores because registers ran out
    """

    kernel: str
    threads: int
    registers: int
    shared: int
    spilled: int


@dataclass(frozen=True)
class Cost:
    """What a compiled function does, per launch and in sum; ``arena`` is all scratch memory.

    resources  of a function for a GPU: of each part of its kernels
    unknown    why they are not known
    """

    kernels: tuple[KernelCost, ...]
    flops: int
    bytes: int
    arena: int
    inputs: int
    outputs: int
    constants: int
    resources: tuple[Resources, ...] = ()
    unknown: str = ""

    @property
    def peak(self) -> int:
        """Bytes of all memory that is in use during a run."""
        return self.arena + self.inputs + self.outputs + self.constants

    def __str__(self) -> str:
        return table(self)


def node_flops(node: Node) -> Dim:
    """Operations that computing this node from its inputs takes."""
    kind, row = node.op.kind, node.op
    if kind in ("source", "view"):
        return 0
    if kind in ("elementwise", "scan", "routine"):
        return row.flops * node.type.size
    if kind == "reduce":
        return node.inputs[0].type.size
    if kind == "contract":
        return 2 * contraction_size(node)
    if kind == "grouped":
        return 2 * products(node)
    return node.inputs[2].type.size if len(node.inputs) == 3 else 0


def contraction_size(node: Node) -> Dim:
    """Products that a contraction forms: the sizes of all its labels, multiplied."""
    x, y = node.inputs
    sizes = dict(zip(node.attrs.lhs + node.attrs.rhs, x.shape + y.shape, strict=True))
    return product(sizes.values())


def node_bytes(node: Node) -> Dim:
    """Bytes read and written if this node alone were a kernel."""
    return node.type.nbytes + total(
        n.type.nbytes for n in node.inputs
        if n.op.kind != "source" or n.op.name in ("input", "const"))


def graph_flops(graph: Graph) -> Dim:
    """Operations of a graph in which every node is computed once."""
    return total(node_flops(node) for node in graph.nodes())


def cost(plan: Plan, kernels: Sequence[LoweredKernel]) -> Cost:
    """The costs of a plan that was made from ``kernels``.

    Raises ``TypeError`` for a plan with sizes that are not bound to numbers.
    """
    rows = []
    values = dict(zip(plan.sizes, plan.words, strict=False))
    for number, launch in enumerate(plan.launches):
        own = {v.name: values[n] for v, n in zip(launch.kernel.sizes, launch.sizes, strict=True)}
        arena = sum(
            evaluate(param.size, own) * param.dtype.itemsize
            for param, slot in zip(launch.kernel.params, launch.args, strict=True)
            if slot.kind in ("arena", "block")
        )
        lowered = kernels[number] if number < len(kernels) else None
        rows.append(KernelCost(
            launch.kernel.name, exact(launch.flops), exact(launch.bytes), arena, launch.barrier,
            line_of(lowered, launch.kernel.loc),
        ))
    used = {slot.index for slot in plan.results if slot.kind == "output"}
    return Cost(
        kernels=tuple(rows), flops=exact(plan.flops), bytes=exact(plan.bytes), arena=plan.arena,
        inputs=sum(exact(t.nbytes) for t in plan.inputs),
        outputs=sum(exact(plan.outputs[i].nbytes) for i in used),
        constants=sum(a.nbytes for a in plan.constants),
    )


def line_of(lowered: LoweredKernel | None, default: Location | None) -> Location | None:
    """The user's line of the last value that a kernel writes and that has one."""
    if lowered is None:
        return default
    found = lowered.kernel.loc or default
    for param, home in zip(lowered.kernel.params, lowered.args, strict=True):
        if param.access in ("out", "inout") and isinstance(home, Node) and home.loc is not None:
            found = home.loc
    return found


def scaled(number: float, unit: str) -> str:
    """A number with a prefix: 1.50 MB, 12 flop."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {prefix}{unit}"
    return f"{number:.0f} {unit}"


def table(costs: Cost) -> str:
    """One line per launch, then the sums."""
    width = max([6, *(len(k.name) for k in costs.kernels)])
    lines = [f"{'kernel':<{width}}  {'flops':>12}  {'bytes':>10}  {'arena':>10}  line"]
    for k in costs.kernels:
        lines.append(
            f"{k.name:<{width}}  {scaled(k.flops, 'flop'):>12}  {scaled(k.bytes, 'B'):>10}  "
            f"{scaled(k.arena, 'B'):>10}  {k.loc or ''}".rstrip()
        )
    lines.append(
        f"{'total':<{width}}  {scaled(costs.flops, 'flop'):>12}  {scaled(costs.bytes, 'B'):>10}  "
        f"{scaled(costs.arena, 'B'):>10}"
    )
    lines.append(
        f"memory: {scaled(costs.peak, 'B')} at most (inputs {scaled(costs.inputs, 'B')}, results "
        f"{scaled(costs.outputs, 'B')}, constants {scaled(costs.constants, 'B')}, "
        f"arena {scaled(costs.arena, 'B')})"
    )
    return "\n".join([*lines, *resource_lines(costs)])


def resource_lines(costs: Cost) -> list[str]:
    """A line for each part of a GPU's kernels, or the one that says why there are none."""
    if costs.unknown:
        return [f"registers and shared memory: not known, {costs.unknown}"]
    if not costs.resources:
        return []
    width = max(6, *(len(r.kernel) for r in costs.resources))
    titles = f"{'threads':>12}  {'registers':>9}  {'shared':>10}  {'spilled':>8}"
    return [f"{'kernel':<{width}}  {titles}"] + [
        f"{r.kernel:<{width}}  {r.threads:>12}  {r.registers:>9}  {scaled(r.shared, 'B'):>10}  "
        f"{scaled(r.spilled, 'B'):>8}" for r in costs.resources]

