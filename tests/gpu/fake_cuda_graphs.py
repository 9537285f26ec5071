"""Graphs of the pretended CUDA: nodes after one another, of which launches may be changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from fake_cuda_types import (
    Chip,
    CUgraph,
    CUgraphExec,
    CUgraphNode,
    CUresult,
    Refusal,
    guarded,
)

DEVICE = 2


@dataclass
class Node:
    """What a node does, and the one that it comes after."""

    do: Callable[[], None]
    after: Node | None
    is_launch: bool = False


@dataclass
class Plan:
    """A graph that is being built."""

    nodes: list[Node]


@dataclass
class Executable:
    """A graph that can be launched: that which it was made of, what its nodes do now."""

    plan: Plan
    handle: int
    work: dict[int, Callable[[], None]]


class Graphs:
    """What a pretended CUDA can do with graphs; the rest of it is in fake_cuda.py."""

    objects: dict[int, Any]
    new: Any
    known: Any
    stream: Any
    chip: Any
    launch_of: Any

    @guarded
    def cuGraphCreate(self, flags: int) -> Any:
        self.chip()
        return self.new(CUgraph, Plan([]))

    def add(self, graph: Any, after: Any, count: int, do: Any, is_launch: bool = False) -> Any:
        """A further node: it comes after the latest one alone."""
        plan = self.known(graph, Plan)
        before = [self.known(node, Node) for node in after]
        if len(before) != count or any(node not in plan.nodes for node in before):
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        assert before == plan.nodes[-1:], "another order than that of the calls"
        plan.nodes.append(Node(do, before[0] if before else None, is_launch))
        return self.new(CUgraphNode, plan.nodes[-1])

    @guarded
    def cuGraphAddKernelNode(self, graph: Any, after: Any, count: int, wanted: Any) -> Any:
        return self.add(graph, after, count, self.launch_in(wanted), is_launch=True)

    @guarded
    def cuGraphAddMemcpyNode(
        self, graph: Any, after: Any, count: int, wanted: Any, context: Any
    ) -> Any:
        chip = self.known(context, Chip)
        assert (int(wanted.srcMemoryType), int(wanted.dstMemoryType)) == (DEVICE, DEVICE)
        if (wanted.Height, wanted.Depth) != (1, 1):
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        memory, (to, source) = chip.sim.simulator.memory, (wanted.dstDevice, wanted.srcDevice)
        size = wanted.WidthInBytes
        return self.add(graph, after, count, lambda: memory.put(to, memory.get(source, size)))

    @guarded
    def cuGraphAddMemsetNode(
        self, graph: Any, after: Any, count: int, wanted: Any, context: Any
    ) -> Any:
        chip = self.known(context, Chip)
        if (wanted.elementSize, wanted.height) != (1, 1) or wanted.value > 255:
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        memory, to = chip.sim.simulator.memory, wanted.dst
        bytes_ = np.full(wanted.width, wanted.value, np.uint8)
        return self.add(graph, after, count, lambda: memory.put(to, bytes_))

    def launch_in(self, wanted: Any) -> Callable[[], None]:
        """What a launch does, with the arguments that are in memory now."""
        grid = (wanted.gridDimX, wanted.gridDimY, wanted.gridDimZ)
        block = (wanted.blockDimX, wanted.blockDimY, wanted.blockDimZ)
        return self.launch_of(
            self.chip(), wanted.func, grid, block, wanted.sharedMemBytes, wanted.kernelParams, 0)

    @guarded
    def cuGraphInstantiate(self, graph: Any, flags: int) -> Any:
        plan = self.known(graph, Plan)
        work = {id(node): node.do for node in plan.nodes}
        return self.new(CUgraphExec, Executable(plan, int(graph), work))

    @guarded
    def cuGraphDestroy(self, graph: Any) -> None:
        """Its nodes are gone with it."""
        plan = self.known(graph, Plan)
        for handle in [h for h, found in self.objects.items()
                       if isinstance(found, Node) and any(found is n for n in plan.nodes)]:
            del self.objects[handle]
        del self.objects[int(graph)]

    @guarded
    def cuGraphExecDestroy(self, graph: Any) -> None:
        self.known(graph, Executable)
        del self.objects[int(graph)]

    @guarded
    def cuGraphLaunch(self, graph: Any, stream: Any) -> None:
        chip, handle = self.stream(stream)
        found = self.known(graph, Executable)
        for node in found.plan.nodes:
            chip.ask(handle, found.work[id(node)])

    @guarded
    def cuGraphExecKernelNodeSetParams(self, graph: Any, node: Any, wanted: Any) -> None:
        """The node is a launch of the graph that this one was made of, which is still there."""
        found, which = self.known(graph, Executable), self.known(node, Node)
        if self.objects.get(found.handle) is not found.plan or not which.is_launch \
                or all(which is not own for own in found.plan.nodes):
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        found.work[id(which)] = self.launch_in(wanted)
