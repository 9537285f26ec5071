"""A graph as a program: read from the disk cache if it was compiled before, else compiled."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from tilewright import config
from tilewright.cache import Cache, Entry, cache, key_of
from tilewright.compiler.pipeline import Compiled, compile_graph
from tilewright.compiler.plan import Plan
from tilewright.compiler.stage import Stage
from tilewright.compiler.target import Target, checked_name, is_gpu
from tilewright.errors import UserError
from tilewright.ir.digest import graph_text
from tilewright.ir.graph import Graph
from tilewright.runtime.executable import executable_of
from tilewright.runtime.record import Unreadable, read_plan, write_plan
from tilewright.runtime.work import Work, estimate


class Program:
    """A graph in machine code for this process.

    executable    runs it on arrays; its plan may lack the launches
    native        the machine code
    key           under which the disk cache keeps the program; empty if it does not
    found         whether it was read from there
    milliseconds  that it took to read it, or to generate its code
    """

    def __init__(
        self, graph: Graph, target: Target, donated: tuple[int, ...] = (),
        updates: Mapping[int, int] | None = None, hints: Mapping[str, int] | None = None,
        compile: Callable[[], Compiled] | None = None,
    ) -> None:
        self.graph, self.target = graph, target
        self._settings: dict[str, Any] = {"donated": donated, "updates": updates, "hints": hints}
        self._compile = compile or functools.partial(
            compile_graph, graph, target, **self._settings)
        self.key = ""
        start = time.perf_counter()
        store = _store()
        if store is not None:
            self.key = program_key(graph, target, donated, updates or {}, hints or {})
        self.found = store is not None and self._read(store)
        if not self.found:
            plan = self.compiled.plan
            start = time.perf_counter()
            self.native: Any = code_of(plan, target)
            work = None if plan.sizes or target.gpu is not None else estimate(plan)
            self._finish(plan, work)
            if store is not None:
                self._write(store, plan, work)
        self.milliseconds = (time.perf_counter() - start) * 1e3

    def twin(self, graph: Graph) -> Program:
        """The program of a graph whose text is the same: its stages and lines are the graph's."""
        made = copy.copy(self)
        made.__dict__.pop("compiled", None)
        made.graph = graph
        made._compile = functools.partial(compile_graph, graph, self.target, **self._settings)
        return made

    @functools.cached_property
    def compiled(self) -> Compiled:
        """What the compiler made of the graph; it does so now if the program was read."""
        return self._compile()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The steps from the graph to machine code, the last of which may be to read that."""
        text = functools.partial(getattr, self.native, "llvm_text")
        return (*self.compiled.stages, Stage("codegen", self.milliseconds, True, text))

    @property
    def plan(self) -> Plan:
        """The plan with its launches."""
        return self.compiled.plan

    def _finish(self, plan: Plan, work: Work | None) -> None:
        self.executable: Any = runs(plan, self.native, self.target, work)

    def _read(self, store: Cache) -> bool:
        """Take the program from the disk cache, if it has all of it."""
        entry = store.load(self.key)
        if entry is None:
            return False
        try:
            plan = read_plan(entry.facts["plan"], entry.blobs[1:], self.graph)
            work = entry.facts["work"]
            if work is not None or not plan.sizes and self.target.gpu is None:
                work = Work(**work)
            native = loaded(entry, self.target, lambda: self.plan)
        except (Unreadable, UserError, KeyError, TypeError, ValueError, IndexError):
            store.remove(self.key)
            return False
        if native is None:
            return False
        self.native = native
        self._finish(plan, work)
        return True

    def _write(self, store: Cache, plan: Plan, work: Work | None) -> None:
        """Keep the program; its kernels are entries of their own. Without ``work``, each run's
        sizes say how to run it.
        """
        facts, blobs = write_plan(plan, self.graph)
        native = self.native
        if self.target.gpu is not None:
            code, main = native.facts(), b""
        else:
            code, main = {"kernels": native.keys, "scratch": native.scratch}, native.main
        store.store(self.key, Entry({
            "kind": "program", "name": self.graph.name, "target": self.target.name,
            **code, "plan": facts, "work": work and asdict(work),
        }, (main, *blobs)))


def target_named(name: str | None = None, fast_math: bool | None = None) -> Target:
    """The machine to compile for: of this name, else of the switch ``target``, else the host.

    ``fast_math`` as the switch of that name, which holds if it is None; ``tf32`` as the switch.
    Raises ``UserError`` for one that does not exist here, ``DeviceError`` for a device that cannot
    be used.
    """
    name = config.get("target") if name is None else checked_name(name, "a target")
    if is_gpu(name):
        from tilewright.runtime.gpu.drivers import target_of

        fast = bool(config.get("fast_math")) if fast_math is None else fast_math
        tf32 = bool(config.get("tf32"))
        return replace(target_of(name), fast_math=fast, tf32=tf32)
    from tilewright.codegen import cpu

    return cpu.host_target(name)


def code_of(plan: Plan, target: Target) -> Any:
    """Machine code of a plan, or its PTX. Raises ``Unsupported`` for an op without code."""
    if target.gpu is not None:
        from tilewright.codegen import gpu

        return gpu.build(plan, target)
    from tilewright.codegen import cpu

    return cpu.build(plan, target)


def loaded(entry: Entry, target: Target, plan: Callable[[], Plan]) -> Any:
    """The code of a program as the disk cache has it; None if a part of it is there no longer."""
    if target.gpu is not None:
        from tilewright.codegen import gpu

        return gpu.load(entry.facts, target, plan)
    from tilewright.codegen import cpu

    return cpu.load(
        entry.facts["kernels"], entry.blobs[0], entry.facts["scratch"], target, plan)


def runs(plan: Plan, native: Any, target: Target, work: Work | None = None) -> Any:
    """What runs the code of a plan on arrays; ``work`` as :class:`Executable` takes it."""
    if target.gpu is None:
        return executable_of(plan, native, work)
    from tilewright.runtime.gpu.drivers import driver_named
    from tilewright.runtime.gpu.executable import gpu_executable

    return gpu_executable(plan, native, driver_named(target.gpu.device))


def _store() -> Cache | None:
    """The disk cache, if programs are to be read from it.

    Who wants to see the passes, or to have them verified, wants them to run.
    """
    return None if config.get("debug") >= 2 or config.get("verify") else cache()


def program_key(
    graph: Graph, target: Target, donated: tuple[int, ...], updates: Mapping[int, int],
    hints: Mapping[str, int],
) -> str:
    """Of all that the program of a graph follows from. Hints of one magnitude are one to it."""
    from tilewright.codegen import llvm

    magnitudes = sorted((name, n.bit_length()) for name, n in hints.items())
    asked = repr((target, donated, sorted(updates.items()), magnitudes))
    return key_of("program", graph_text(graph), asked, llvm.version())
