"""The compiler's table of contents: which passes run, in which order.

There is no logic here but run, time, verify, record.

A graph goes through ``GRAPH``, is cut into groups (``fuse``), written as kernels (``lower``) and
given memory (``memory``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from tilewright import config
from tilewright.compiler.bind import bind
from tilewright.compiler.collector import collector_at_rest
from tilewright.compiler.cost import Cost, cost
from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.passes.attention import attention
from tilewright.compiler.passes.disjoint import disjoint
from tilewright.compiler.passes.expand import expand
from tilewright.compiler.passes.fold import fold
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.memory import memory
from tilewright.compiler.passes.simplify import simplify
from tilewright.compiler.passes.sums import sums
from tilewright.compiler.plan import Plan
from tilewright.compiler.schedules import lower
from tilewright.compiler.stage import Stage
from tilewright.compiler.target import Target
from tilewright.compiler.text import show_groups, show_kernels, show_plan
from tilewright.ir.graph import Graph
from tilewright.ir.hints import UNKNOWN_HINT
from tilewright.ir.hints import hints as hinting
from tilewright.ir.loops import Kernel
from tilewright.ir.sizes import names_of
from tilewright.ir.symbolic import conditions, sizes_in
from tilewright.ir.text import show
from tilewright.ir.verify import verify

GRAPH = (
    simplify,  # before expand: laws of composite ops, such as integer powers
    disjoint,  # after simplify: it knows few forms of zeros around a tensor
    sums,  # after simplify: it knows few forms of a constant row
    expand,
    fold,
    attention,  # for GPUs; what it leaves, simplify finishes
    simplify,  # what expand and fold left
)
KERNELS = (fuse, lower, memory)

T = TypeVar("T")


@dataclass(frozen=True)
class Compiled:
    """A compiled function, short of machine code, and how it came about."""

    graph: Graph
    optimized: Graph
    kernels: tuple[LoweredKernel, ...]
    plan: Plan
    stages: tuple[Stage, ...]
    hints: Mapping[str, int] = field(default_factory=dict)

    def cost(self) -> Cost:
        """Operations, bytes and memory, per launch; of named sizes, with their hints."""
        return cost(bind(self.plan, self.hints), self.kernels)

    def summary(self) -> str:
        """In a few words: the function, and how much there is of what."""
        launches = self.plan.launches
        distinct = len({launch.kernel.name for launch in launches})
        return (
            f"{self.graph.name}: {len(self.graph.nodes())} nodes, {len(launches)} launches of "
            f"{distinct} kernels, arena {self.plan.arena} bytes"
        )


@dataclass
class _Recorder:
    """Runs steps and notes them, as the switches ``debug`` and ``verify`` ask."""

    stages: list[Stage] = field(default_factory=list)
    debug: int = field(default_factory=lambda: int(config.get("debug")))

    def run(
        self, name: str, step: Callable[[], T], text: Callable[[T], str], before: object = None
    ) -> T:
        """The result of a step; ``before`` is what it started from, if that can stay the same."""
        start = time.perf_counter()
        result = step()
        milliseconds = (time.perf_counter() - start) * 1e3
        stage = Stage(name, milliseconds, result != before, lambda: text(result))
        self.stages.append(stage)
        stage.announce(self.debug)
        return result

    def check(self, item: Graph | Kernel) -> None:
        """Verify what a pass left behind, if that is wanted."""
        if config.get("verify") or self.debug >= 4:
            verify(item)


@collector_at_rest()
def compile_graph(
    graph: Graph, target: Target, donated: tuple[int, ...] = (),
    updates: Mapping[int, int] | None = None, hints: Mapping[str, int] | None = None,
) -> Compiled:
    """Compile a graph for a target. ``donated`` inputs may be overwritten with results.

    ``updates`` (result -> input): results that should be written over this input, and no other.

    A graph with named sizes is compiled once for all their numbers; ``hints`` are
    numbers that they may well have, for which the kernels are made to be quick.

    Raises whatever a pass raises: ``UserError`` for a program that cannot be compiled, anything
    else for a mistake of the compiler.
    """
    names = names_of(d for n in graph.nodes() for d in sizes_in(n))
    expected = {name: (hints or {}).get(name, UNKNOWN_HINT) for name in names}
    with hinting(expected):
        return _compile(graph, target, donated, updates, expected)


def _compile(
    graph: Graph, target: Target, donated: tuple[int, ...], updates: Mapping[int, int] | None,
    hints: Mapping[str, int],
) -> Compiled:
    recorder = _Recorder()
    recorder.check(graph)
    optimized = graph
    for transform in GRAPH:
        before = optimized
        optimized = recorder.run(
            transform.__name__, partial(transform, before, target), show, before)
        recorder.check(optimized)
    groups = recorder.run("fuse", partial(fuse, optimized, target), show_groups)
    kernels = recorder.run(
        "lower", lambda: tuple(k for group in groups for k in lower(group, target)), show_kernels)
    for kernel in kernels:
        recorder.check(kernel.kernel)
    plan = recorder.run(
        "memory", partial(memory, optimized, kernels, target, donated, updates), show_plan)
    if hints:
        plan = replace(plan, sizes=tuple(sorted(hints)), conditions=conditions(graph.nodes()))
    return Compiled(graph, optimized, kernels, plan, tuple(recorder.stages), hints)
