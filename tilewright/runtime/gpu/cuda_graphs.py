"""Graphs of the CUDA driver, built node by node, so that the node of each launch is known."""

from __future__ import annotations

from typing import Any

from tilewright.runtime.gpu.cuda_objects import Function, Owned, Owner
from tilewright.runtime.gpu.driver import Argument
from tilewright.runtime.gpu.launching import Arguments, Launched

Three = tuple[int, int, int]


class Launch:
    """A launch of a graph: the kernel, blocks, threads, dynamic shared memory, for what it is.

    node  CUDA's handle of it
    """

    def __init__(
        self, function: Function, blocks: Three, threads: Three, shared: int, noted: Launched
    ) -> None:
        self.function, self.blocks, self.threads, self.shared = function, blocks, threads, shared
        self.noted = noted
        self.node: Any = None

    def parameters(self, cu: Any, arguments: tuple[Argument, ...]) -> Any:
        """What CUDA wants to know of it. The arguments are where the structure says until the next
        launch of the kernel.
        """
        if self.function.arguments is None:
            self.function.arguments = Arguments(arguments)
        self.function.arguments.fill(arguments)
        wanted = cu.CUDA_KERNEL_NODE_PARAMS()
        wanted.func, wanted.kernelParams = self.function.handle, self.function.arguments.addresses
        wanted.gridDimX, wanted.gridDimY, wanted.gridDimZ = self.blocks
        wanted.blockDimX, wanted.blockDimY, wanted.blockDimZ = self.threads
        wanted.sharedMemBytes = self.shared
        return wanted


class Draft:
    """A graph that is being built: each node comes after the one before."""

    def __init__(self, owner: Owner) -> None:
        self.owner, self.call, self.cu = owner, owner.call, owner.call.cu
        self.plan = Owned(owner, self.call("cuGraphCreate", 0), "cuGraphDestroy")
        self.latest: list[Any] = []
        self.launches: list[Launch] = []

    def _add(self, name: str, *parameters: Any) -> Any:
        node = self.call(name, self.plan.handle, self.latest, len(self.latest), *parameters)
        self.latest = [node]
        return node

    def launch(self, launch: Launch, arguments: tuple[Argument, ...]) -> None:
        """Run a kernel."""
        launch.node = self._add("cuGraphAddKernelNode", launch.parameters(self.cu, arguments))
        self.launches.append(launch)

    def copy(self, address: int, source: int, nbytes: int) -> None:
        """Copy within the device: a box of one row."""
        wanted = self.cu.CUDA_MEMCPY3D()
        wanted.srcMemoryType = wanted.dstMemoryType = self.cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
        wanted.srcDevice, wanted.dstDevice = source, address
        wanted.WidthInBytes, wanted.Height, wanted.Depth = nbytes, 1, 1
        self._add("cuGraphAddMemcpyNode", wanted, self.owner.context)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Set bytes: elements of one byte in one row."""
        wanted = self.cu.CUDA_MEMSET_NODE_PARAMS()
        wanted.dst, wanted.value, wanted.elementSize = address, byte, 1
        wanted.width, wanted.height = nbytes, 1
        self._add("cuGraphAddMemsetNode", wanted, self.owner.context)

    def finished(self) -> Graph:
        """The graph, which can be launched."""
        handle = self.call("cuGraphInstantiate", self.plan.handle, 0)
        return Graph(self.owner, handle, self.plan, self.launches)


class Graph(Owned):
    """A graph that can be launched.

    plan      the graph that it was made of, whose nodes name those of this one
    launches  in it, in their order
    """

    def __init__(self, owner: Owner, handle: Any, plan: Owned, launches: list[Launch]) -> None:
        super().__init__(owner, handle, "cuGraphExecDestroy")
        self.plan, self.launches = plan, launches

    def update(self, number: int, arguments: tuple[Argument, ...]) -> None:
        """Give a launch other arguments, from the next replay on."""
        launch, call = self.launches[number], self.owner.call
        call("cuGraphExecKernelNodeSetParams", self.handle, launch.node,
             launch.parameters(call.cu, arguments))
