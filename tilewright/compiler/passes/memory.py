"""Every buffer has a place: results in their own slots, the rest in one arena that is reused.

    kernels: softmax(x, y), pointwise(y, z);   results: z
->  plan:    softmax(input 0, arena 0), barrier, pointwise(arena 0, output 0);   arena: 4096 bytes
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeAlias

import numpy as np

from tilewright.compiler.kernels import canonical, free_variables, has_barrier, rename, without_idle
from tilewright.compiler.lowered import LoweredKernel, Workspace
from tilewright.compiler.order import Access, Interval, Step, barriers, epochs, place
from tilewright.compiler.plan import CheckInfo, Launch, Plan, Slot
from tilewright.compiler.target import Target
from tilewright.ir import loops
from tilewright.ir.graph import Graph, Node
from tilewright.ir.hints import hinted
from tilewright.ir.interp import run_node
from tilewright.ir.loops import Buffer, Const, For, Kernel, Store, Var
from tilewright.ir.sizes import Dim, ceil_div, largest
from tilewright.ir.types import DType, TensorType, as_number

COPY_BLOCK = 4096
"""Elements that one iteration of a copy's parallel loop moves."""


@dataclass(frozen=True, eq=False)
class Copy:
    """A result that copies a value, because that is a result, or not ours, already."""

    type: TensorType


Home: TypeAlias = "Node | Workspace | Copy"
Free: TypeAlias = dict[TensorType, dict[int, None]]
"""Numbers of donated inputs that nothing has taken over, in order, by their type."""


def memory(
    graph: Graph, kernels: Sequence[LoweredKernel], target: Target, donated: Iterable[int] = (),
    updates: Mapping[int, int] | None = None,
) -> Plan:
    """The plan that runs ``kernels``, in this order, for ``graph``.

    ``donated`` are the numbers of the inputs whose memory results of the same type may take over;
    ``updates`` (result -> input) are results that should take over this input's, and no other.
    Raises ``ValueError`` if a value is read or returned that no kernel wrote.
    """
    program = _Program(graph, target, [_launch(k, k.args) for k in kernels])
    program.resolve_arguments()
    program.give_results_homes()
    program.measure()
    program.donate(tuple(donated), updates or {})
    program.update_in_place()
    program.place_in_arena()
    return program.plan()


@dataclass(eq=False)
class _Launch:
    """A kernel on its buffers, and which of its (written, read) parameters share their memory."""

    lowered: LoweredKernel
    args: list[Home]
    shared: dict[int, int] = field(default_factory=dict)

    def writes(self, i: int) -> bool:
        return self.lowered.kernel.params[i].access != "in"

    def step(self) -> Step:
        """What the launch touches before anything shares memory."""
        accesses = tuple(
            Access(id(home), 0, 1, self.writes(i)) for i, home in enumerate(self.args)
        )
        return Step(accesses, has_barrier(self.lowered.kernel))


def _launch(lowered: LoweredKernel, args: Iterable[Home]) -> _Launch:
    return _Launch(lowered, list(args))


@dataclass(eq=False)
class _Program:
    """The plan in the making. ``homes`` of ``uses`` and ``slots`` are compared by identity."""

    graph: Graph
    target: Target
    launches: list[_Launch]
    slots: dict[Home, Slot] = field(default_factory=dict)
    uses: dict[Home, list[int]] = field(default_factory=dict)
    written: dict[Home, int] = field(default_factory=dict)
    when: list[tuple[int, int]] = field(default_factory=list)
    results: list[Home] = field(default_factory=list)
    donated: list[int | None] = field(default_factory=list)
    outputs: list[TensorType] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)
    merged: dict[Home, Home] = field(default_factory=dict)
    blocks: tuple[Interval, ...] = ()
    arena: int = 0

    def resolve_arguments(self) -> None:
        """A reshape that no kernel writes is what it reshapes; inputs and constants get slots."""
        for i, node in enumerate(self.graph.inputs):
            self.slots[node] = Slot("input", i)
        for number, launch in enumerate(self.launches):
            for i, home in enumerate(launch.args):
                if launch.writes(i):
                    self.written.setdefault(home, number)
        for number, launch in enumerate(self.launches):
            launch.args = [self.source(home) for home in launch.args]
            for i, home in enumerate(launch.args):
                # Parameters do not overlap: a kernel sees none of its own results through another.
                own = number if launch.writes(i) else number - 1
                known = home in self.slots or self.written.get(home, number + 1) <= own
                if not known and isinstance(home, Node) and home.type.size:
                    what = f"{launch.lowered.kernel.name} reads parameter {i}, {home}"
                    raise ValueError(f"{what}, which no kernel before it wrote")

    def source(self, home: Home) -> Home:
        """The value in whose buffer ``home`` lives, before results and memory are shared."""
        while isinstance(home, Node) and home.op.name == "reshape" and home not in self.written:
            home = home.inputs[0]
        if isinstance(home, Node) and home.op.name == "const" and home not in self.slots:
            self.slots[home] = Slot("constant", len(self.constants))
            self.constants.append(run_node(home, []))
        return home

    def give_results_homes(self) -> None:
        """Each result gets a buffer of its own; inputs and constants are copied by whoever runs."""
        taken: set[Home] = set()
        for node in self.graph.outputs:
            home = self.source(node)
            ours = home not in self.slots
            if ours and home not in self.written and node.type.size:
                raise ValueError(f"no kernel wrote the result {node}")
            if (home in taken and ours) or (not ours and home is not node):
                copy = Copy(node.type)
                self.launches.append(self.copy(home, copy))
                home = copy
            taken.add(home)
            self.results.append(home)

    def copy(self, home: Home, copy: Copy) -> _Launch:
        kernel = copy_kernel(copy.type, self.target)
        self.written[copy] = len(self.launches)
        bytes_moved = 2 * copy.type.nbytes
        return _launch(LoweredKernel(kernel, (), bytes=bytes_moved), (home, copy))

    def measure(self) -> None:
        """When each buffer is used: in which launches, and between which meetings of the team."""
        for number, launch in enumerate(self.launches):
            for home in launch.args:
                self.uses.setdefault(home, []).append(number)
        self.when = epochs([launch.step() for launch in self.launches])

    def donate(self, donated: tuple[int, ...], updates: Mapping[int, int]) -> None:
        """Results take over the memory of donated inputs that nothing reads any more."""
        self.donated = [None] * len(self.results)
        free: Free = {}
        own = set(updates.values())
        for k in donated:
            if k not in own:
                free.setdefault(self.graph.inputs[k].type, {})[k] = None
        for r, home in enumerate(self.results):
            if (taken := self.input_number(home)) is not None and self.is_free(taken, free):
                self.give_input(r, taken, free)
        wanting = [r for r, home in enumerate(self.results)
                   if home in self.written and home not in self.slots]
        for r in wanting:
            self.update_input(r, free, updates.get(r))
        for r in wanting:
            if self.results[r] not in self.slots:
                self.take_over(r, free, updates.get(r))
        for r, home in enumerate(self.results):
            if home not in self.slots:
                self.slots[home] = Slot("output", len(self.outputs))
                self.outputs.append(self.graph.outputs[r].type)

    def input_number(self, home: Home) -> int | None:
        """The number of the input in whose memory ``home`` lives."""
        slot = self.slots.get(home)
        return slot.index if slot is not None and slot.kind == "input" else None

    def is_free(self, k: int, free: Free) -> bool:
        """Whether input ``k`` is donated and nothing has taken it over."""
        return k in free.get(self.graph.inputs[k].type, ())

    def update_input(self, r: int, free: Free, own: int | None) -> None:
        """Let result ``r`` overwrite an input that its kernel is the last to read.

        It may be one that is ``free``, or only its ``own``.
        """
        home = self.results[r]
        first = self.written[home]
        launch = self.launches[first]
        sources = [launch.args[s] for out, s in launch.lowered.inplace if launch.args[out] is home]
        read = {k for source in sources if (k := self.input_number(source)) is not None}
        for k in sorted(read):
            node = self.graph.inputs[k]
            allowed = k == own if own is not None else self.is_free(k, free)
            last = self.uses[node][-1] == first and node.type == self.graph.outputs[r].type
            if allowed and last and self.share(first, home, node):
                self.give_input(r, k, free)
                return

    def take_over(self, r: int, free: Free, own: int | None) -> None:
        """Let result ``r`` live in an input of its type that was read before."""
        first, type = self.written[self.results[r]], self.graph.outputs[r].type
        for k in free.get(type, ()) if own is None else [own]:
            node = self.graph.inputs[k]
            if node.type == type and self.uses.get(node, [-1])[-1] < first:
                self.give_input(r, k, free)
                return

    def give_input(self, r: int, k: int, free: Free) -> None:
        """Put result ``r`` into the memory of input ``k``."""
        self.slots[self.results[r]] = Slot("input", k)
        self.donated[r] = k
        free.get(self.graph.inputs[k].type, {}).pop(k, None)

    def share(self, number: int, written: Home, read: Home) -> bool:
        """Let a launch update ``read`` in place to ``written``; False if it cannot."""
        launch = self.launches[number]
        params = launch.lowered.kernel.params
        for out, source in launch.lowered.inplace:
            same = (params[out].dtype, params[out].size) == (
                params[source].dtype, params[source].size)
            alone = sum(home is read or home is written for home in launch.args) == 2
            free = out not in launch.shared and source not in launch.shared.values()
            pair = launch.args[out] is written and launch.args[source] is read
            if pair and same and alone and free:
                launch.shared[out] = source
                return True
        return False

    def update_in_place(self) -> None:
        """Values of the arena take over the memory of one that their kernel reads last."""
        for number, launch in enumerate(self.launches):
            for out, source in launch.lowered.inplace:
                written, read = launch.args[out], launch.args[source]
                if written in self.slots or read in self.slots or read in self.merged:
                    continue
                begins, _ = self.when[number]
                if self.uses[read][-1] != number or self.uses[written][0] != number:
                    continue
                earlier = [u for u in self.uses[read] if u != number]
                # Sharing with a launch that may still be running would cost a meeting.
                if any(self.when[u][1] >= begins for u in earlier):
                    continue
                if self.share(number, written, read):
                    self.merged[read] = written

    def place_in_arena(self) -> None:
        """Places for all that has no slot yet; buffers in use at the same time stay apart."""
        members: dict[Home, list[Home]] = {}
        for home in self.uses:
            if home not in self.slots:
                root = home
                while root in self.merged:
                    root = self.merged[root]
                members.setdefault(root, []).append(home)
        if hinted():
            # Offsets are for those who know the sizes, and may not ask for more meetings.
            for number, group in enumerate(members.values()):
                self.slots.update((home, Slot("block", number)) for home in group)
            self.when = epochs([self.step(launch) for launch in self.launches])
        intervals = []
        for group in members.values():
            numbers = [u for home in group for u in self.uses[home]]
            first = min(self.when[u][0] for u in numbers)
            last = max(self.when[u][1] for u in numbers)
            nbytes = reduce(largest, [_nbytes(home) for home in group])
            intervals.append(Interval(nbytes, first, last))
        if hinted():
            self.blocks = tuple(intervals)
            return
        offsets, self.arena = place(intervals)
        for group, offset in zip(members.values(), offsets, strict=True):
            self.slots.update((home, Slot("arena", offset)) for home in group)

    def step(self, launch: _Launch) -> Step:
        """What a launch touches, all buffers having their places."""
        accesses = tuple(
            _access(home, self.slots[home], launch.writes(i)) for i, home in enumerate(launch.args)
        )
        return Step(accesses, has_barrier(launch.lowered.kernel))

    def plan(self) -> Plan:
        """The finished plan; equal kernels become one object."""
        finish = _Finish()
        launches, steps = [], []
        for launch in self.launches:
            kernel, args = finish(launch)
            slots = tuple(self.slots[home] for home in args)
            steps.append(self.step(launch))
            launches.append((kernel, slots, launch.lowered))
        waits = barriers(steps)
        return Plan(
            inputs=tuple(n.type for n in self.graph.inputs), outputs=tuple(self.outputs),
            results=tuple(self.slots[home] for home in self.results),
            constants=tuple(self.constants),
            launches=tuple(
                Launch(kernel, slots, wait, lowered.flops, lowered.bytes,
                       tuple(v.name for v in kernel.sizes))
                for (kernel, slots, lowered), wait in zip(launches, waits, strict=True)
            ),
            arena=self.arena, donated=tuple(self.donated),
            checks={code: info for info, code in finish.codes.items()},
            values={slot: home for home, slot in self.slots.items() if isinstance(home, Node)},
            blocks=self.blocks,
        )


def _nbytes(home: Home) -> Dim:
    return home.nbytes if isinstance(home, Workspace) else home.type.nbytes


def _access(home: Home, slot: Slot, writes: bool) -> Access:
    if slot.kind == "arena":
        return Access("arena", slot.index, slot.index + as_number(_nbytes(home)), writes)
    return Access(slot, 0, 1, writes)


class _Finish:
    """Gives launches their kernels: with the plan's check codes, equal ones as one object, and one
    parameter for each pair that shares memory.
    """

    def __init__(self) -> None:
        self.codes: dict[CheckInfo, int] = {}
        self.known: dict[Hashable, Kernel] = {}
        self.equal: dict[str, Kernel] = {}

    def __call__(self, launch: _Launch) -> tuple[Kernel, list[Home]]:
        """The kernel of a launch, and the homes of its parameters."""
        lowered = launch.lowered
        params = lowered.kernel.params
        buffers = {}
        for out, source in launch.shared.items():
            both = Buffer(params[out].name, params[out].dtype, params[out].size, access="inout")
            buffers[params[out]] = buffers[params[source]] = both
        kernel = self.kernel(lowered, buffers, tuple(launch.shared.items()))
        read = set(launch.shared.values())
        # The merged parameter stands where the first of its two stood, as dict.fromkeys keeps it.
        order: dict[Buffer, Home] = {}
        for i, (param, home) in enumerate(zip(params, launch.args, strict=True)):
            place_of = buffers.get(param, param)
            if i not in read:
                order[place_of] = home
            else:
                order.setdefault(place_of, home)
        return kernel, [order[param] for param in kernel.params]

    def kernel(
        self, lowered: LoweredKernel, buffers: Mapping[Buffer, Buffer], shared: Hashable
    ) -> Kernel:
        """The finished kernel; those with the same body are finished once."""
        codes = {
            code: self.codes.setdefault(info, len(self.codes) + 1)
            for code, info in lowered.checks.items()
        }
        key = (id(lowered.kernel.body), lowered.kernel.params, shared, tuple(codes.items()))
        if key not in self.known:
            kernel = rename(lowered.kernel, buffers, codes)
            kernel = canonical(without_idle(kernel) if buffers else kernel)
            self.known[key] = self.equal.setdefault(kernel.digest, kernel)
        return self.known[key]


def copy_kernel(type: TensorType, target: Target) -> Kernel:
    """A kernel that copies a value."""
    if target.gpu is not None:
        return _copy_kernel(type.dtype, type.size, 1, 1)
    return _copy_kernel(type.dtype, type.size, target.lanes(type.dtype.itemsize), COPY_BLOCK)


def _copy_kernel(dtype: DType, size: Dim, lanes: int, share: int) -> Kernel:
    source = Buffer("source", dtype, size, access="in")
    result = Buffer("result", dtype, size, access="out")
    block, i = Var("block"), Var("i")
    start = loops.mul(block, share)
    stop = loops.minimum(loops.add(start, share), size)
    move = For(i, start, stop, (Store(result, i, source[i]),), "vector", width=lanes)
    body = (For(block, Const(0), loops.expr(ceil_div(size, share)), (move,), "parallel"),)
    params = (source, result)
    return Kernel("copy", params, body, sizes=free_variables(params, body))
