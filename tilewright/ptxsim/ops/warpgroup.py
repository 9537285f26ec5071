"""wgmma: products that a warpgroup starts, and waits for in groups.

A product reads shared memory through the asynchronous proxy. Until a wait_group covers it, no
other instruction may touch its accumulators: doing so is a fault. With lazy copies the product
reads its operands in shared memory as late as that wait, and the accumulators hold NaN until then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim import descriptor
from tilewright.ptxsim.descriptor import Descriptor
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.formats import Codes, Numbers
from tilewright.ptxsim.gang import WARP, WARPGROUP, Gang, Lanes
from tilewright.ptxsim.ops.bulk_copies import BlockShared
from tilewright.ptxsim.scalars import POISON
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Operand, Register, Vector
from tilewright.ptxsim.table import op
from tilewright.ptxsim.warpgroup_matrix import WarpgroupForm, wgmma

FEWEST_REGISTERS, MOST_REGISTERS = 24, 256


@dataclass(frozen=True)
class Product:
    """One wgmma of one warpgroup. A is a descriptor, or the numbers [64, k] of registers."""

    form: WarpgroupForm
    accumulators: tuple[str, ...]
    a: Descriptor | Numbers
    b: Descriptor
    transposed: tuple[bool, bool]
    scales: tuple[int, int]
    scale_d: bool
    shared: BlockShared

    def run(self, d: Codes) -> Codes:
        """The accumulators [128, r] after the product, from those before."""
        form, read = self.form, self.shared.read
        b = form.b_in_shared(self.b, self.transposed[1], read) * self.scales[1]
        rows = []
        for warp in range(WARPGROUP // WARP):
            if isinstance(self.a, Descriptor):
                a = form.a_in_shared(self.a, warp, self.transposed[0], read)
            else:
                a = self.a[16 * warp : 16 * warp + 16]
            own = d[WARP * warp : WARP * warp + WARP]
            rows.append(form.multiply(a * self.scales[0], b, own, self.scale_d))
        return np.concatenate(rows)


@dataclass
class Queue:
    """The products of one warpgroup that no wait has covered, and their accumulators' values."""

    gang: Gang
    lanes: Lanes
    open: list[Product] = field(default_factory=list)
    groups: list[list[Product]] = field(default_factory=list)
    held: dict[str, NDArray[Any]] = field(default_factory=dict)

    def start(self, product: Product) -> None:
        """Issue a product: its accumulators belong to it until a wait."""
        self._check_accumulators(product)
        for name in product.accumulators:
            if name not in self.held:
                array = self.gang.register(name)
                self.held[name] = array[self.lanes]
                mark = self.gang.pending.setdefault(name, np.zeros(self.gang.size, np.bool_))
                mark[self.lanes] = True
                array[self.lanes] = POISON[array.itemsize]
        self.open.append(product)
        if not self.gang.launch.lazy:
            self._execute(product)

    def _check_accumulators(self, product: Product) -> None:
        names = product.accumulators
        for other in (*self.open, *(p for group in self.groups for p in group)):
            if set(names) & set(other.accumulators) and names != other.accumulators:
                raise Fault("wgmma: accumulators of a product that was not waited for, in another "
                            "order")

    def _execute(self, product: Product) -> None:
        before = np.stack([self.held[name] for name in product.accumulators], 1)
        after = product.run(np.ascontiguousarray(before, np.uint32))
        for i, name in enumerate(product.accumulators):
            self.held[name] = after[:, i].astype(before.dtype)

    def commit(self) -> None:
        """End a group, empty or not."""
        self.groups.append(self.open)
        self.open = []

    def wait(self, most: int) -> None:
        """Finish all but the youngest groups; accumulators that no product holds are free."""
        done = self.groups[: max(0, len(self.groups) - most)]
        self.groups = self.groups[len(done) :]
        if self.gang.launch.lazy:
            for group in done:
                for product in group:
                    self._execute(product)
        left = (*self.open, *(p for group in self.groups for p in group))
        still = {name for product in left for name in product.accumulators}
        for name in [n for n in self.held if n not in still]:
            self.gang.register(name)[self.lanes] = self.held.pop(name)
            mark = self.gang.pending[name]
            mark[self.lanes] = False
            if not mark.any():
                del self.gang.pending[name]


class Queues:
    """The queue of every warpgroup of a gang, by its first lane."""

    def __init__(self, gang: Gang) -> None:
        self.by_lane: dict[int, Queue] = {}


def queues(step: Step) -> list[Queue]:
    """The queues of the warpgroups that execute."""
    table = step.gang.own(Queues).by_lane
    found = []
    for lanes in step.lanes.reshape(-1, WARPGROUP):
        first = int(lanes[0])
        if first not in table:
            table[first] = Queue(step.gang, lanes)
        found.append(table[first])
    return found


def names_of(operand: Operand) -> tuple[str, ...]:
    """The registers of a vector."""
    items = operand.items if isinstance(operand, Vector) else (operand,)
    if not all(isinstance(item, Register) for item in items):
        raise Fault("wgmma: accumulators that are no registers")
    return tuple(item.name for item in items if isinstance(item, Register))


def agreed(values: NDArray[Any], what: str) -> list[Any]:
    """One value per warpgroup, the same in all of its threads."""
    rows = values.reshape(-1, WARPGROUP)
    if (rows != rows[:, :1]).any():
        raise Fault(f"wgmma: {what} differs between the threads of a warpgroup")
    return list(rows[:, 0])


@op("wgmma.mma_async")
def mma_async(step: Step) -> None:
    """Start D = A x B + D."""
    if not step.collect(WARPGROUP):
        return
    form = wgmma(step.parts)
    d, a, b, scale, *immediate = step.operands
    names = names_of(d)
    if len(names) * 2 * 32 != form.n * form.d_format.bits:
        raise Fault(f"{step.instruction.name}: {len(names)} accumulators")
    flags = [step.uniform(o, "s32") for o in immediate] or [1, 1]
    transposed = bool(sum(flags[2:3])), bool(sum(flags[3:4]))
    if isinstance(a, Vector):  # of A in registers only B can be transposed
        transposed = False, bool(sum(flags[2:3]))
    if any(transposed) and not form.can_transpose:
        raise Fault(f"{step.instruction.name}: only 16-bit operands can be transposed")
    lefts = _a_operands(step, form, a)
    rights = agreed(step.values(b, "b64"), "a descriptor")
    keeps = agreed(step.values(scale, "pred"), "scale-d")
    for i, queue in enumerate(queues(step)):
        shared = BlockShared(step.gang, int(queue.lanes[0]), step.instruction.name)
        queue.start(Product(
            form, names, lefts[i], descriptor.decode(int(rights[i])), transposed,
            (flags[0], flags[1]), bool(keeps[i]), shared,
        ))


def _a_operands(step: Step, form: WarpgroupForm, a: Operand) -> list[Any]:
    if not isinstance(a, Vector):
        return [descriptor.decode(int(v)) for v in agreed(step.values(a, "b64"), "a descriptor")]
    warps = np.ascontiguousarray(step.columns(a, "b32")).reshape(-1, 4, WARP, len(a.items))
    return [np.concatenate([form.a_in_registers(w) for w in group]) for group in warps]


@op("wgmma.fence")
def fence(step: Step) -> None:
    """Order accesses to registers before those of later products."""
    step.collect(WARPGROUP)


@op("wgmma.commit_group")
def commit_group(step: Step) -> None:
    """End a group."""
    if step.collect(WARPGROUP):
        for queue in queues(step):
            queue.commit()


@op("wgmma.wait_group")
def wait_group(step: Step) -> None:
    """Wait until only so many of the youngest groups are under way."""
    if step.collect(WARPGROUP):
        most = step.uniform(step.operands[0], "b32")
        for queue in queues(step):
            queue.wait(most)


@op("setmaxnreg")
def setmaxnreg(step: Step) -> None:
    """A warpgroup releases or asks for registers: no effect here."""
    if step.collect(WARPGROUP):
        count = step.uniform(step.operands[0], "b32")
        if count % 8 or not FEWEST_REGISTERS <= count <= MOST_REGISTERS:
            raise Fault(f"{step.instruction.name} of {count}: 24 to 256, multiples of 8")
