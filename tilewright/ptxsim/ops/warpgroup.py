"""wgmma: products that a warpgroup starts, and each of its warps waits for in groups.

A product reads shared memory through the asynchronous proxy. Until a wait_group covers it, no
other instruction may touch its accumulators: doing so is a fault. With lazy copies the product
reads its operands in shared memory as late as that wait, and the accumulators hold NaN until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim import descriptor
from tilewright.ptxsim.descriptor import Descriptor
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.formats import Codes, Numbers
from tilewright.ptxsim.gang import WARP, WARPGROUP, Gang, Lanes
from tilewright.ptxsim.ops.bulk_copies import BlockShared
from tilewright.ptxsim.scalars import CODES, POISON
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Operand, Register, Vector
from tilewright.ptxsim.table import op
from tilewright.ptxsim.warpgroup_matrix import SharedCodes, WarpgroupForm, wgmma

WARPS = WARPGROUP // WARP
FEWEST_REGISTERS, MOST_REGISTERS = 24, 256


@dataclass
class Product:
    """One wgmma of one warpgroup. A is a descriptor, or the numbers [64, k] of registers.

    told  what a wait for it tells, if races are watched
    """

    form: WarpgroupForm
    accumulators: tuple[str, ...]
    a: Descriptor | Numbers
    b: Descriptor
    transposed: tuple[bool, bool]
    scales: tuple[int, int]
    scale_d: bool
    shared: BlockShared
    told: Any = None
    done: bool = False

    def operands(self, read: SharedCodes) -> tuple[list[Numbers], Numbers]:
        """The rows [16, k] of A of each warp, and B."""
        form, rows = self.form, range(WARPS)
        b = form.b_in_shared(self.b, self.transposed[1], read)
        if not isinstance(self.a, Descriptor):
            return [self.a[16 * warp : 16 * warp + 16] for warp in rows], b
        return [form.a_in_shared(self.a, warp, self.transposed[0], read) for warp in rows], b

    def run(self, d: Codes) -> Codes:
        """The accumulators [128, r] after the product, from those before."""
        a, b = self.operands(self.shared.read)
        return np.concatenate([
            self.form.multiply(
                rows * self.scales[0], b * self.scales[1], d[WARP * w : WARP * w + WARP],
                self.scale_d)
            for w, rows in enumerate(a)
        ])

    def watch(self, lanes: Lanes) -> None:
        """Watch for races with what it reads, on behalf of each of the warps that began it."""
        read: list[NDArray[Any]] = []

        def note(at: NDArray[Any], size: int) -> Codes:
            read.append(at.reshape(-1))
            return np.zeros(at.shape, CODES[size])

        self.operands(note)
        self.told = self.shared.products_read(
            np.unique(np.concatenate(read)), self.form.b_format.bits // 8, lanes)


class Queue:
    """The products of one warpgroup that a wait has to cover yet, warp by warp.

    A warp commits and waits for itself. A product is complete, for all warps, when the first of
    them has waited for it; the others get their accumulators at their own waits.
    """

    def __init__(self, gang: Gang, lanes: Lanes) -> None:
        self.gang, self.lanes = gang, lanes
        self.begun: list[Product] = []  # not executed yet, in order
        self.open: list[list[Product]] = [[] for _ in range(WARPS)]
        self.groups: list[list[list[Product]]] = [[] for _ in range(WARPS)]
        self.held: dict[str, NDArray[Any]] = {}

    def start(self, product: Product) -> None:
        """Issue a product: its accumulators belong to it until a wait."""
        self._check_accumulators(product)
        for name in product.accumulators:
            array = self.gang.register(name)
            mark = self.gang.pending.setdefault(name, np.zeros(self.gang.size, np.bool_))
            free = ~mark[self.lanes]
            held = self.held.setdefault(name, np.zeros(WARPGROUP, array.dtype))
            held[free] = array[self.lanes[free]]
            mark[self.lanes] = True
            array[self.lanes] = POISON[array.itemsize]
        for warp in self.open:
            warp.append(product)
        self.begun.append(product)
        if self.gang.races is not None:
            product.watch(self.lanes[::WARP])
        if not self.gang.launch.lazy:
            self._execute_to(product)

    def _check_accumulators(self, product: Product) -> None:
        names = product.accumulators
        for warp in range(WARPS):
            for other in self._left(warp):
                if set(names) & set(other.accumulators) and names != other.accumulators:
                    raise Fault("wgmma: accumulators of a product that was not waited for, in "
                                "another order")

    def _left(self, warp: int) -> list[Product]:
        return [*(p for group in self.groups[warp] for p in group), *self.open[warp]]

    def _execute_to(self, last: Product) -> None:
        while not last.done:
            product = self.begun.pop(0)
            before = np.stack([self.held[name] for name in product.accumulators], 1)
            after = product.run(np.ascontiguousarray(before, np.uint32))
            for i, name in enumerate(product.accumulators):
                self.held[name][:] = after[:, i].astype(before.dtype)
            product.done = True

    def commit(self, warp: int) -> None:
        """End a group of a warp, empty or not."""
        self.groups[warp].append(self.open[warp])
        self.open[warp] = []

    def wait(self, warp: int, most: int) -> None:
        """Finish all but the youngest groups; accumulators that no product holds are free."""
        groups = self.groups[warp]
        done = [p for group in groups[: max(0, len(groups) - most)] for p in group]
        self.groups[warp] = groups[max(0, len(groups) - most) :]
        own = slice(warp * WARP, warp * WARP + WARP)
        for product in done:
            self._execute_to(product)
            if self.gang.races is not None and product.told is not None:
                self.gang.races.order.acquire(self.lanes[own], product.told)
        still = {name for product in self._left(warp) for name in product.accumulators}
        for name in {name for product in done for name in product.accumulators} - still:
            self.gang.register(name)[self.lanes[own]] = self.held[name][own]
            mark = self.gang.pending[name]
            mark[self.lanes[own]] = False
            if not mark.any():
                del self.gang.pending[name]


class Queues:
    """The queue of every warpgroup of a gang, by its first lane."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        self.by_lane: dict[int, Queue] = {}

    def of(self, lane: int) -> Queue:
        """The queue of a lane's warpgroup."""
        first = lane // WARPGROUP * WARPGROUP
        if first not in self.by_lane:
            self.by_lane[first] = Queue(self.gang, np.arange(first, first + WARPGROUP))
        return self.by_lane[first]


def queues(step: Step) -> list[Queue]:
    """The queues of the warpgroups that execute."""
    return [step.gang.own(Queues).of(lane) for lane in step.lanes[::WARPGROUP].tolist()]


def queues_of_warps(step: Step) -> Iterator[tuple[Queue, int]]:
    """The queues of the warps that execute, and which warp of its group each is."""
    for lane in step.lanes[::WARP].tolist():
        yield step.gang.own(Queues).of(lane), lane % WARPGROUP // WARP


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
    step.collect()


@op("wgmma.commit_group")
def commit_group(step: Step) -> None:
    """End a group of each warp."""
    if step.collect():
        for queue, warp in queues_of_warps(step):
            queue.commit(warp)


@op("wgmma.wait_group")
def wait_group(step: Step) -> None:
    """Wait until only so many of the youngest groups of the warp are under way."""
    if step.collect():
        most = step.uniform(step.operands[0], "b32")
        for queue, warp in queues_of_warps(step):
            queue.wait(warp, most)


@op("setmaxnreg")
def setmaxnreg(step: Step) -> None:
    """A warpgroup releases or asks for registers: no effect here."""
    if step.collect(WARPGROUP):
        count = step.uniform(step.operands[0], "b32")
        if count % 8 or not FEWEST_REGISTERS <= count <= MOST_REGISTERS:
            raise Fault(f"{step.instruction.name} of {count}: 24 to 256, multiples of 8")
